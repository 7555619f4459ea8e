"""`sekisho reserve block | blocks | unblock | resize | quota | quotas | fail-site`: the operator's hand on pools."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from sekisho.cli import reserve_change as _reserve_change  # noqa: F401 - its commands come with it
from sekisho.cli import reserve_texts as texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.cli.reserve import BASE, reserve
from sekisho.cli.reserve_output import Time, as_json_output, print_table, when
from sekisho.console.capacity_api import Touched
from sekisho.console.capacity_pools_api import BlockView, QuotaView


def _pool(site: str, gpu: str) -> str:
    return f"{BASE}/pools/{quote(site, safe='')}/{quote(gpu, safe='')}"


def _say(touched: Touched) -> None:
    names = touched.reservations
    click.echo(texts.TOUCHED(count=len(names), names=", ".join(names)) if names else texts.NONE_TOUCHED)


@reserve.command(help=str(texts.BLOCK))
@click.argument("site")
@click.argument("gpu")
@click.option("--gpus", type=int, required=True, help=str(texts.OPTION_BLOCK_GPUS))
@click.option("--start", type=Time(), required=True, help=str(texts.OPTION_BLOCK_START))
@click.option("--end", type=Time(), required=True, help=str(texts.OPTION_UNTIL))
@home_option
def block(*, site: str, gpu: str, gpus: int, start: float, end: float, root: Path) -> None:
    """The help is `texts.BLOCK`."""
    body = {"gpus": gpus, "start": start, "end": end}
    _say(call(root, "POST", f"{_pool(site, gpu)}/blocks", body=body, answer=Touched))


@reserve.command(help=str(texts.BLOCKS))
@json_option
@home_option
def blocks(*, as_json: bool, root: Path) -> None:
    """The help is `texts.BLOCKS`."""
    found = call(root, "GET", f"{BASE}/blocks", answer=list[BlockView])
    if not as_json_output(as_json, found):
        rows = [(each.id, each.pool, each.gpus, when(each.start, each.end)) for each in found]
        print_table((texts.COLUMN_ID, texts.COLUMN_POOL, texts.COLUMN_GPUS, texts.COLUMN_WHEN), rows)


@reserve.command(help=str(texts.UNBLOCK))
@click.argument("name", metavar="ID")
@home_option
def unblock(*, name: str, root: Path) -> None:
    """The help is `texts.UNBLOCK`."""
    call(root, "DELETE", f"{BASE}/blocks/{quote(name, safe='')}", answer=type(None))
    click.echo(texts.DONE)


@reserve.command(help=str(texts.RESIZE))
@click.argument("site")
@click.argument("gpu")
@click.argument("gpus", type=int)
@home_option
def resize(*, site: str, gpu: str, gpus: int, root: Path) -> None:
    """The help is `texts.RESIZE`."""
    _say(call(root, "POST", f"{_pool(site, gpu)}/size", body={"gpus": gpus}, answer=Touched))


@reserve.command(help=str(texts.QUOTA))
@click.argument("site")
@click.argument("gpu")
@click.argument("tenant")
@click.option("--cohort", default="default", show_default=True, help=str(texts.OPTION_COHORT))
@click.option("--own", "nominal", type=int, default=0, show_default=True, help=str(texts.OPTION_NOMINAL))
@click.option("--lends", type=int, default=0, show_default=True, help=str(texts.OPTION_LENDS))
@click.option("--borrows", type=int, default=0, show_default=True, help=str(texts.OPTION_BORROWS))
@click.option("--remove", is_flag=True, help=str(texts.OPTION_REMOVE))
@home_option
def quota(
    *, site: str, gpu: str, tenant: str, cohort: str, nominal: int, lends: int, borrows: int, remove: bool, root: Path
) -> None:
    """The help is `texts.QUOTA`."""
    path = f"{_pool(site, gpu)}/quotas"
    if remove:
        call(root, "DELETE", f"{path}/{quote(tenant, safe='')}", answer=type(None))
    else:
        body = {"tenant": tenant, "cohort": cohort, "nominal": nominal, "lends": lends, "borrows": borrows}
        call(root, "PUT", path, body=body, answer=type(None))
    click.echo(texts.DONE)


@reserve.command(help=str(texts.QUOTAS))
@click.argument("site")
@click.argument("gpu")
@json_option
@home_option
def quotas(*, site: str, gpu: str, as_json: bool, root: Path) -> None:
    """The help is `texts.QUOTAS`."""
    found = call(root, "GET", f"{_pool(site, gpu)}/quotas", answer=list[QuotaView])
    if not as_json_output(as_json, found):
        rows = [(each.tenant, each.cohort, each.nominal, each.lends, each.borrows) for each in found]
        print_table(
            (
                texts.COLUMN_TENANT, texts.COLUMN_COHORT, texts.COLUMN_NOMINAL, texts.COLUMN_LENDS,
                texts.COLUMN_BORROWS,
            ),
            rows,
        )  # fmt: skip


@reserve.command("fail-site", help=str(texts.FAIL_SITE))
@click.argument("site")
@click.option("--until", type=Time(), required=True, help=str(texts.OPTION_UNTIL))
@home_option
def fail_site(*, site: str, until: float, root: Path) -> None:
    """The help is `texts.FAIL_SITE`."""
    path = f"{BASE}/sites/{quote(site, safe='')}/failed"
    _say(call(root, "POST", path, body={"end": until}, answer=Touched))
