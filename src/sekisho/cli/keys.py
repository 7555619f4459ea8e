"""`sekisho key list|create|revoke|demo`: the commands of the group `key` that talk to what runs.

`key hash` and `key new`, which need nothing that runs, are in `sekisho.cli.key`.
"""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.cli import texts
from sekisho.cli.control_client import call
from sekisho.cli.key import key
from sekisho.cli.local import home_option, json_option, ready
from sekisho.federation.views import KeyView, NewKey
from sekisho.kernel.errors import SekishoError
from sekisho.kernel.units import parse_duration_s

__all__ = ["key"]


class NoDemoKey(SekishoError):
    """This tenant has no demonstration key."""

    code = "key.no_demo_key"


class Duration(click.ParamType[float]):
    """`90d` → seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = parse_duration_s(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration: write 12h or 90d", param, ctx)
        return seconds


@key.command("list", help=str(texts.KEY_LIST))
@json_option
@home_option
def list_keys(*, as_json: bool, root: Path) -> None:
    """The help is `texts.KEY_LIST`."""
    views = call(root, "GET", "/api/v1/keys", answer=list[KeyView])
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(views), indent=1).decode())
        return
    table = Table()
    for column in (
        texts.COLUMN_KEY,
        texts.COLUMN_TENANT,
        texts.COLUMN_STATE,
        texts.COLUMN_EXPIRES,
        texts.COLUMN_SOURCE,
        texts.COLUMN_LABEL,
    ):
        table.add_column(str(column), overflow="fold")
    now = time.time()
    for view in views:
        state = texts.KEY_LIVE if view.live(now) else texts.KEY_GONE if view.revoked_at else texts.KEY_EXPIRED
        style = "" if view.live(now) else "dim"
        table.add_row(view.id, view.tenant, str(state), _day(view.expires_at), view.source, view.label, style=style)
    Console(highlight=False, markup=False).print(table)


@key.command(help=str(texts.KEY_CREATE))
@click.option("--tenant", required=True, help=str(texts.OPTION_TENANT))
@click.option("--label", default="", help=str(texts.OPTION_LABEL))
@click.option("--expires", "expires_s", type=Duration(), help=str(texts.OPTION_EXPIRES))
@json_option
@home_option
def create(*, tenant: str, label: str, expires_s: float | None, as_json: bool, root: Path) -> None:
    """The help is `texts.KEY_CREATE`."""
    body: dict[str, Any] = {"tenant": tenant, "label": label}
    if expires_s is not None:
        body["expires_at"] = time.time() + expires_s
    made = call(root, "POST", "/api/v1/keys", body=body, answer=NewKey)
    if as_json:
        click.echo(msgspec.json.encode(made).decode())
        return
    # The key alone on standard output: it can be piped into a secret store and into nothing else.
    click.echo(texts.KEY_CREATED(id=made.id, tenant=made.tenant), err=True)
    click.echo(made.key)


@key.command(help=str(texts.KEY_REVOKE))
@click.argument("key_id", metavar="ID")
@home_option
def revoke(*, key_id: str, root: Path) -> None:
    """The help is `texts.KEY_REVOKE`."""
    call(root, "DELETE", f"/api/v1/keys/{quote(key_id, safe='')}", answer=Any)
    click.echo(texts.KEY_REVOKED(id=key_id))


@key.command(help=str(texts.KEY_DEMO))
@click.argument("tenant")
@home_option
def demo(*, tenant: str, root: Path) -> None:
    """The help is `texts.KEY_DEMO`."""
    keys = ready(root).api_keys
    if tenant not in keys:
        known = ", ".join(keys) or "none"
        raise NoDemoKey(
            f"there is no demonstration key for {tenant!r} (there are: {known})",
            hint="a real tenant's key is known to the tenant alone; make another with `sekisho key create`",
        )
    click.echo(keys[tenant])


def _day(at: float | None) -> str:
    return datetime.datetime.fromtimestamp(at, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC") if at else "–"
