"""`sekisho reserve …`: reservations of GPUs, through the control plane's API."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sekisho.capacity.audit import Audit
from sekisho.capacity.model import Pool
from sekisho.cli import reserve_texts as texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.cli.reserve_output import Time, as_json_output, minute, print_table, when
from sekisho.cli.texts import language
from sekisho.cli.throughput import throughput
from sekisho.cli.workload import run
from sekisho.console.capacity_api import OfferView, PartView, ReservationView, WaitingView, WhereView
from sekisho.kernel.classes import LABELS

BASE = "/api/v1/reserve"
_Command = TypeVar("_Command", bound=Callable[..., Any])
_STATES = ("booked", "cancelled", "displaced", "no-show", "ended")
_NEEDED = ("tenant", "gpus", "start", "hours")


def _wish_options(command: _Command) -> _Command:
    for option in reversed(
        (
            click.option("--tenant", help=str(texts.OPTION_TENANT)),
            click.option(
                "--class", "data_class", type=click.Choice(LABELS), default="internal", show_default=True,
                help=str(texts.OPTION_CLASS),
            ),
            click.option("--gpus", type=int, help=str(texts.OPTION_GPUS)),
            click.option("--gpus-min", type=int, help=str(texts.OPTION_GPUS_MIN)),
            click.option("--gpu", multiple=True, help=str(texts.OPTION_GPU)),
            click.option("--start", type=Time(), help=str(texts.OPTION_START)),
            click.option("--latest-start", type=Time(), help=str(texts.OPTION_LATEST)),
            click.option("--hours", type=float, help=str(texts.OPTION_HOURS)),
            click.option("--site", "sites", multiple=True, help=str(texts.OPTION_SITE)),
            click.option("--spread", is_flag=True, help=str(texts.OPTION_SPREAD)),
            click.option(
                "--priority", type=click.Choice(("critical", "standard", "backfill")), default="standard",
                show_default=True, help=str(texts.OPTION_PRIORITY),
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


_dry_run_option = click.option("--dry-run", is_flag=True, help=str(texts.OPTION_DRY_RUN))


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dry_run": "true"} if dry_run else {}


@click.group(help=str(texts.RESERVE))
def reserve() -> None:
    """The help is `texts.RESERVE`."""


reserve.add_command(run)
reserve.add_command(throughput)


@reserve.command(help=str(texts.POOLS))
@json_option
@home_option
def pools(*, as_json: bool, root: Path) -> None:
    """The help is `texts.POOLS`."""
    found = call(root, "GET", f"{BASE}/pools", answer=list[Pool])
    if not as_json_output(as_json, found):
        rows = [(pool.id, pool.gpus, pool.tenant_limit, pool.yen_per_gpu_hour) for pool in found]
        print_table((texts.COLUMN_POOL, texts.COLUMN_GPUS, texts.OPTION_LIMIT, texts.COLUMN_YEN), rows)


@reserve.command(help=str(texts.POOL))
@click.argument("site")
@click.argument("gpu")
@click.argument("gpus", type=int)
@click.option("--yen", type=int, default=0, show_default=True, help=str(texts.OPTION_YEN))
@click.option("--tenant-limit", type=int, help=str(texts.OPTION_LIMIT))
@home_option
def pool(*, site: str, gpu: str, gpus: int, yen: int, tenant_limit: int | None, root: Path) -> None:
    """The help is `texts.POOL`."""
    body = {"gpus": gpus, "yen_per_gpu_hour": yen, "tenant_limit": tenant_limit}
    made = call(root, "PUT", f"{BASE}/pools/{quote(site, safe='')}/{quote(gpu, safe='')}", body=body, answer=Pool)
    click.echo(f"{made.id}  {made.gpus}")


@reserve.command(help=str(texts.FIND))
@_wish_options
@json_option
@home_option
def find(*, as_json: bool, root: Path, **given: Any) -> None:
    """The help is `texts.FIND`."""
    found = call(root, "POST", f"{BASE}/find", body=_wish(given), answer=list[OfferView])
    if as_json_output(as_json, found):
        return
    if not found:
        click.echo(texts.NOTHING)
        sys.exit(1)
    rows = [
        (
            each.id, when(each.start, each.end), places(each.parts), each.price_yen,
            ", ".join(str(texts.DIFFERS.get(kind, kind)) for kind in each.differs) or "–",
        )
        for each in found
    ]  # fmt: skip
    print_table(
        (texts.COLUMN_ID, texts.COLUMN_WHEN, texts.COLUMN_WHERE, texts.COLUMN_YEN, texts.COLUMN_DIFFERS), rows
    )


@reserve.command(help=str(texts.WHERE))
@_wish_options
@json_option
@home_option
def where(*, as_json: bool, root: Path, **given: Any) -> None:
    """The help is `texts.WHERE`."""
    found = call(root, "POST", f"{BASE}/where", body=_wish(given), answer=list[WhereView])
    if as_json_output(as_json, found):
        return
    rows = []
    for each in found:
        at = "–" if each.fits_at is None else minute(each.fits_at)
        if not each.wished:
            why = str(texts.NOT_ASKED)
        elif each.reasons:
            why = " ".join(reason.ja if language() == "ja" else reason.en for reason in each.reasons)
        else:
            why = "–"
        rows.append((each.pool, str(texts.YES if each.allowed else texts.NO), each.free, at, why))
    print_table(
        (texts.COLUMN_POOL, texts.COLUMN_ALLOWED, texts.COLUMN_FREE, texts.COLUMN_FITS, texts.COLUMN_WHY), rows
    )


@reserve.command(help=str(texts.BOOK))
@click.option("--offer", help=str(texts.OPTION_OFFER))
@_wish_options
@json_option
@home_option
def book(*, offer: str | None, as_json: bool, root: Path, **given: Any) -> None:
    """The help is `texts.BOOK`."""
    if offer is not None:
        if not given["tenant"]:
            raise click.UsageError(texts.NEEDS(options="--tenant"))
        body: dict[str, Any] = {"tenant": given["tenant"], "offer": offer}
        made = call(root, "POST", f"{BASE}/offers", body=body, answer=ReservationView)
    else:
        made = call(root, "POST", f"{BASE}/reservations", body=_wish(given), answer=ReservationView)
    if not as_json_output(as_json, made):
        what = f"{places(made.parts)}, {when(made.start, made.end)}, ¥{made.price_yen:,}"
        click.echo(texts.BOOKED(id=made.id, what=what))


@reserve.command("list", help=str(texts.LIST))
@click.option("--tenant", help=str(texts.OPTION_TENANT))
@click.option(
    "--state",
    type=click.Choice(_STATES),
    help=str(texts.OPTION_STATE),
)
@json_option
@home_option
def list_(*, tenant: str | None, state: str | None, as_json: bool, root: Path) -> None:
    """The help is `texts.LIST`."""
    query = {name: value for name, value in (("tenant", tenant), ("state", state), ("limit", "1000")) if value}
    found = call(root, "GET", f"{BASE}/reservations", query=query, answer=list[ReservationView])
    if not as_json_output(as_json, found):
        if not found:
            click.echo(texts.NO_RESERVATION)
            return
        rows = [
            (each.id, each.tenant, each.state, when(each.start, each.end), places(each.parts), each.price_yen)
            for each in found
        ]
        print_table(
            (
                texts.COLUMN_ID, texts.COLUMN_TENANT, texts.COLUMN_STATE, texts.COLUMN_WHEN, texts.COLUMN_WHERE,
                texts.COLUMN_YEN,
            ),
            rows,
        )  # fmt: skip


@reserve.command(help=str(texts.EXTEND))
@click.argument("reservation", metavar="ID")
@click.option("--end", type=Time(), required=True, help=str(texts.OPTION_END))
@_dry_run_option
@home_option
def extend(*, reservation: str, end: float, dry_run: bool, root: Path) -> None:
    """The help is `texts.EXTEND`."""
    path = f"{BASE}/reservations/{quote(reservation, safe='')}/extend"
    made = call(root, "POST", path, query=_dry(dry_run), body={"end": end}, answer=ReservationView)
    said = texts.WOULD_EXTEND if dry_run else texts.EXTENDED
    click.echo(said(id=made.id, end=minute(made.end), yen=f"{made.price_yen:,}"))


@reserve.command(help=str(texts.CANCEL))
@click.argument("reservation", metavar="ID")
@_dry_run_option
@home_option
def cancel(*, reservation: str, dry_run: bool, root: Path) -> None:
    """The help is `texts.CANCEL`."""
    path = f"{BASE}/reservations/{quote(reservation, safe='')}/cancel"
    made = call(root, "POST", path, query=_dry(dry_run), answer=ReservationView)
    said = texts.WOULD_CANCEL if dry_run else texts.CANCELLED
    click.echo(said(id=made.id, yen=f"{made.refund_yen:,}"))


@reserve.command(help=str(texts.WAITLIST))
@_wish_options
@json_option
@home_option
def waitlist(*, as_json: bool, root: Path, **given: Any) -> None:
    """The help is `texts.WAITLIST`."""
    if given["tenant"]:
        joined = call(root, "POST", f"{BASE}/waitlist", body=_wish(given), answer=WaitingView)
        if not as_json_output(as_json, joined):
            click.echo(texts.WAITING(id=joined.id, place=joined.place))
        return
    found = call(root, "GET", f"{BASE}/waitlist", answer=list[WaitingView])
    if not as_json_output(as_json, found):
        if not found:
            click.echo(texts.NOBODY_WAITS)
            return
        rows = [
            (each.place, each.id, each.tenant, each.gpus, when(each.start, each.start + int(each.hours * 3600)))
            for each in found
        ]
        print_table(
            (texts.COLUMN_PLACE, texts.COLUMN_ID, texts.COLUMN_TENANT, texts.COLUMN_GPUS, texts.COLUMN_WHEN), rows
        )


@reserve.command(help=str(texts.AUDIT))
@json_option
@home_option
def audit(*, as_json: bool, root: Path) -> None:
    """The help is `texts.AUDIT`."""
    found = call(root, "GET", f"{BASE}/audit", answer=Audit)
    if not as_json_output(as_json, found):
        for proof in found.pools:
            click.echo(
                texts.AUDIT_POOL(pool=proof.pool, peak=proof.peak, gpus=proof.gpus, allocations=proof.allocations)
            )
        for fault in found.faults:
            click.echo(fault, err=True)
        if not found.faults:
            click.echo(texts.AUDIT_GOOD)
    if found.faults:
        sys.exit(1)


def _wish(given: dict[str, Any]) -> dict[str, Any]:
    missing = [f"--{name}" for name in _NEEDED if given[name] is None]
    if missing:
        raise click.UsageError(texts.NEEDS(options=" ".join(missing)))
    if given["gpus"] < 1 or (given["gpus_min"] or 1) < 1:
        raise click.UsageError(str(texts.BAD_COUNT))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def places(parts: tuple[PartView, ...]) -> str:
    return ", ".join(f"{part.gpus} × {part.pool}" for part in parts)
