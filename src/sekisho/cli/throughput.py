"""`sekisho reserve throughput …`: what a tenant may count on at the gateways, through the control plane's API."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from sekisho.capacity.grid import SLOT_S
from sekisho.capacity.throughput.audit import Audit
from sekisho.capacity.throughput.model import Measured
from sekisho.cli import throughput_texts as texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.cli.reserve_output import Time, as_json_output, minute, print_table, when
from sekisho.console.throughput_api import AnswerView, ThroughputView
from sekisho.kernel.classes import LABELS

_BASE = "/api/v1/reserve/throughput"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _wish_options(command: _Command) -> _Command:
    for option in reversed(
        (
            click.option("--tenant", required=True, help=str(texts.OPTION_TENANT)),
            click.option("--model", required=True, help=str(texts.OPTION_MODEL)),
            click.option(
                "--class", "data_class", type=click.Choice(LABELS), default="internal", show_default=True,
                help=str(texts.OPTION_CLASS),
            ),
            click.option("--concurrency", type=int, help=str(texts.OPTION_CONCURRENCY)),
            click.option("--tokens-per-s", type=float, help=str(texts.OPTION_TOKENS)),
            click.option("--start", type=Time(), help=str(texts.OPTION_START)),
            click.option("--hours", type=float, required=True, help=str(texts.OPTION_HOURS)),
            click.option("--keep-warm-s", type=float, default=2.0, show_default=True, help=str(texts.OPTION_KEEP)),
            click.option("--note", default="", help=str(texts.OPTION_NOTE)),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(help=str(texts.THROUGHPUT))
def throughput() -> None:
    """The help is `texts.THROUGHPUT`."""


@throughput.command(help=str(texts.FIND))
@_wish_options
@json_option
@home_option
def find(*, as_json: bool, root: Path, **given: Any) -> None:
    """The help is `texts.FIND`."""
    found = call(root, "POST", f"{_BASE}/find", body=_wish(given), answer=AnswerView)
    if not as_json_output(as_json, found):
        if found.fits:
            click.echo(texts.FITS(needed=found.needed, endpoints=", ".join(found.endpoints)))
        else:
            click.echo(texts.FITS_NOT(needed=found.needed, most=found.most))
            for each in found.alternatives:
                what = each.ja if texts.INSTEAD.ja == str(texts.INSTEAD) else each.en
                click.echo(texts.INSTEAD(what=what, start=minute(each.start), end=minute(each.end)))
    if not found.fits:
        sys.exit(1)


@throughput.command(help=str(texts.BOOK))
@_wish_options
@json_option
@home_option
def book(*, as_json: bool, root: Path, **given: Any) -> None:
    """The help is `texts.BOOK`."""
    made = call(root, "POST", _BASE, body=_wish(given), answer=ThroughputView)
    if not as_json_output(as_json, made):
        click.echo(
            texts.BOOKED(
                id=made.id, held=made.held, model=made.model, tenant=made.tenant, start=minute(made.start),
                end=minute(made.end),
            )
        )  # fmt: skip


@throughput.command("list", help=str(texts.LIST))
@click.option("--tenant", help=str(texts.OPTION_TENANT))
@click.option("--state", type=click.Choice(("booked", "cancelled", "ended")), help=str(texts.OPTION_STATE))
@json_option
@home_option
def list_(*, tenant: str | None, state: str | None, as_json: bool, root: Path) -> None:
    """The help is `texts.LIST`."""
    query = {name: value for name, value in (("tenant", tenant), ("state", state), ("limit", "1000")) if value}
    found = call(root, "GET", _BASE, query=query, answer=list[ThroughputView])
    if not as_json_output(as_json, found):
        print_table(
            (
                texts.COLUMN_ID, texts.COLUMN_TENANT, texts.COLUMN_MODEL, texts.COLUMN_CLASS, texts.COLUMN_STATE,
                texts.COLUMN_WHEN, texts.COLUMN_HELD,
            ),
            [
                (each.id, each.tenant, each.model, each.data_class, each.state, when(each.start, each.end), each.held)
                for each in found
            ],
        )  # fmt: skip


@throughput.command(help=str(texts.USE))
@json_option
@home_option
def use(*, as_json: bool, root: Path) -> None:
    """The help is `texts.USE`."""
    found = call(root, "GET", f"{_BASE}/in-force", answer=list[ThroughputView])
    if as_json_output(as_json, found):
        return
    if not found:
        click.echo(texts.NOTHING)
        return
    rows = []
    for each in found:
        used = each.use
        if used is None:
            continue
        where = ", ".join(f"{place.concurrency} × {place.endpoint}" for place in each.places)
        until = used.forecast.at
        rows.append(
            (
                each.id, each.tenant, each.model, each.held, f"{used.at_a_time:.2f} ({used.busiest:.2f})",
                f"{used.tokens_per_s:.1f}", used.refused, f"{used.p99_queue_ms:.1f}", where,
                "–" if until is None else f"{minute(int(until))} ± {used.forecast.error:.1f}",
            )
        )  # fmt: skip
    print_table(
        (
            texts.COLUMN_ID, texts.COLUMN_TENANT, texts.COLUMN_MODEL, texts.COLUMN_HELD, texts.COLUMN_USED,
            texts.COLUMN_TOKENS, texts.COLUMN_REFUSED, texts.COLUMN_QUEUE, texts.COLUMN_WHERE, texts.COLUMN_UNTIL,
        ),
        rows,
    )  # fmt: skip
    for each in found:
        if each.missing:
            click.echo(texts.SHORT(id=each.id, missing=each.missing, held=each.held), err=True)


@throughput.command(help=str(texts.CHANGE))
@click.argument("reservation", metavar="ID")
@click.option("--concurrency", type=int, help=str(texts.OPTION_CONCURRENCY))
@click.option("--tokens-per-s", type=float, help=str(texts.OPTION_TOKENS))
@click.option("--end", type=Time(), help=str(texts.OPTION_END))
@home_option
def change(
    *, reservation: str, concurrency: int | None, tokens_per_s: float | None, end: float | None, root: Path
) -> None:
    """The help is `texts.CHANGE`."""
    path = f"{_BASE}/{quote(reservation, safe='')}/change"
    body = {"concurrency": concurrency, "tokens_per_s": tokens_per_s, "end": end}
    made = call(root, "POST", path, body=body, answer=ThroughputView)
    click.echo(texts.CHANGED(id=made.id, held=made.held, end=minute(made.end)))


@throughput.command(help=str(texts.CANCEL))
@click.argument("reservation", metavar="ID")
@home_option
def cancel(*, reservation: str, root: Path) -> None:
    """The help is `texts.CANCEL`."""
    made = call(root, "POST", f"{_BASE}/{quote(reservation, safe='')}/cancel", answer=ThroughputView)
    click.echo(texts.CANCELLED(id=made.id))


@throughput.command(help=str(texts.ENDPOINTS))
@json_option
@home_option
def endpoints(*, as_json: bool, root: Path) -> None:
    """The help is `texts.ENDPOINTS`."""
    found = call(root, "GET", f"{_BASE}/endpoints", answer=list[Measured])
    if not as_json_output(as_json, found):
        rows = [(each.endpoint, each.site, each.slots, f"{each.tokens_per_s:.1f}") for each in found]
        print_table((texts.COLUMN_ENDPOINT, texts.COLUMN_SITE, texts.COLUMN_SLOTS, texts.COLUMN_RATE), rows)


@throughput.command(help=str(texts.AUDIT))
@json_option
@home_option
def audit(*, as_json: bool, root: Path) -> None:
    """The help is `texts.AUDIT`."""
    found = call(root, "GET", f"{_BASE}/audit", answer=Audit)
    if not as_json_output(as_json, found):
        for fault in found.faults:
            click.echo(fault, err=True)
        if not found.faults:
            click.echo(texts.AUDIT_GOOD(commitments=found.commitments, peak=found.peak))
    if found.faults:
        sys.exit(1)


def _wish(given: dict[str, Any]) -> dict[str, Any]:
    if (given["concurrency"] is None) == (given["tokens_per_s"] is None):
        raise click.UsageError(str(texts.ONE_OF))
    if given["start"] is None:
        given["start"] = float(int(time.time()) // SLOT_S * SLOT_S)
    return given
