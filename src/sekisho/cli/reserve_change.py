"""`sekisho reserve shrink | move | transfer | claim | history | notices | export`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from sekisho.capacity.model import Notice
from sekisho.cli import reserve_texts as texts
from sekisho.cli.control_client import call, fetch
from sekisho.cli.local import home_option, json_option
from sekisho.cli.reserve import BASE, places, reserve
from sekisho.cli.reserve_output import Time, as_json_output, print_table, when
from sekisho.cli.texts import language
from sekisho.console.capacity_api import ReservationView, VersionView

_STATES = ("booked", "cancelled", "displaced", "no-show", "ended")


def _change(root: Path, name: str, verb: str, body: dict[str, Any] | None = None) -> ReservationView:
    return call(root, "POST", f"{BASE}/reservations/{quote(name, safe='')}/{verb}", body=body, answer=ReservationView)


def _say(made: ReservationView) -> None:
    what = f"{places(made.parts)}, {when(made.start, made.end)}"
    click.echo(texts.CHANGED(id=made.id, what=what, version=made.version, yen=f"{made.price_yen:,}"))


@reserve.command(help=str(texts.SHRINK))
@click.argument("reservation", metavar="ID")
@click.option("--end", type=Time(), help=str(texts.OPTION_END))
@click.option("--gpus", type=int, help=str(texts.OPTION_GPUS))
@home_option
def shrink(*, reservation: str, end: float | None, gpus: int | None, root: Path) -> None:
    """The help is `texts.SHRINK`."""
    _say(_change(root, reservation, "shrink", {"end": end, "gpus": gpus}))


@reserve.command(help=str(texts.MOVE))
@click.argument("reservation", metavar="ID")
@click.option("--start", type=Time(), required=True, help=str(texts.OPTION_NEW_START))
@home_option
def move(*, reservation: str, start: float, root: Path) -> None:
    """The help is `texts.MOVE`."""
    _say(_change(root, reservation, "move", {"start": start}))


@reserve.command(help=str(texts.TRANSFER))
@click.argument("reservation", metavar="ID")
@click.option("--to", "tenant", required=True, help=str(texts.OPTION_TO))
@home_option
def transfer(*, reservation: str, tenant: str, root: Path) -> None:
    """The help is `texts.TRANSFER`."""
    made = _change(root, reservation, "transfer", {"tenant": tenant})
    click.echo(texts.TRANSFERRED(id=made.id, tenant=made.tenant))


@reserve.command(help=str(texts.CLAIM))
@click.argument("reservation", metavar="ID")
@home_option
def claim(*, reservation: str, root: Path) -> None:
    """The help is `texts.CLAIM`."""
    click.echo(texts.CLAIMED(id=_change(root, reservation, "claim").id))


@reserve.command(help=str(texts.HISTORY))
@click.argument("reservation", metavar="ID")
@json_option
@home_option
def history(*, reservation: str, as_json: bool, root: Path) -> None:
    """The help is `texts.HISTORY`."""
    path = f"{BASE}/reservations/{quote(reservation, safe='')}/versions"
    found = call(root, "GET", path, answer=list[VersionView])
    if not as_json_output(as_json, found):
        rows = [
            (
                each.reservation.version, _at(each.at), each.who, each.why,
                when(each.reservation.start, each.reservation.end), places(each.reservation.parts),
            )
            for each in found
        ]  # fmt: skip
        print_table(
            (
                texts.COLUMN_VERSION, texts.COLUMN_AT, texts.COLUMN_WHO, texts.COLUMN_WHY, texts.COLUMN_WHEN,
                texts.COLUMN_WHERE,
            ),
            rows,
        )  # fmt: skip


@reserve.command(help=str(texts.NOTICES))
@click.option("--tenant", help=str(texts.OPTION_TENANT))
@json_option
@home_option
def notices(*, tenant: str | None, as_json: bool, root: Path) -> None:
    """The help is `texts.NOTICES`."""
    query = {"tenant": tenant} if tenant else {}
    found = call(root, "GET", f"{BASE}/notices", query=query, answer=list[Notice])
    if not as_json_output(as_json, found):
        japanese = language() == "ja"
        rows = [
            (_at(each.at_ms / 1000), each.tenant, each.reservation, each.ja if japanese else each.en)
            for each in found
        ]
        print_table((texts.COLUMN_AT, texts.COLUMN_TENANT, texts.COLUMN_ID, texts.COLUMN_TOLD), rows)


@reserve.command(help=str(texts.EXPORT))
@click.argument("form", type=click.Choice(("ics", "csv")))
@click.option("--tenant", help=str(texts.OPTION_TENANT))
@click.option("--state", type=click.Choice(_STATES), help=str(texts.OPTION_STATE))
@home_option
def export(*, form: str, tenant: str | None, state: str | None, root: Path) -> None:
    """The help is `texts.EXPORT`."""
    query = {name: value for name, value in (("tenant", tenant), ("state", state)) if value}
    _, content = fetch(root, f"{BASE}/reservations.{form}", query=query)
    sys.stdout.buffer.write(content)


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
