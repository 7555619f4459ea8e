"""`sekisho workload …` and `sekisho reserve run`: what runs in reserved windows, through the control plane's API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.cli import workload_texts as texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.cli.texts import Text
from sekisho.console.workload_api import OffersView, WorkloadVersionView, WorkloadView

_BASE = "/api/v1/workloads"


@click.group(help=str(texts.WORKLOAD))
def workload() -> None:
    """The help is `texts.WORKLOAD`."""


@click.command(help=str(texts.RUN))
@click.argument("reservation", metavar="RESERVATION")
@click.option("--model", required=True, help=str(texts.OPTION_MODEL))
@click.option("--engine", default="llama.cpp", show_default=True, help=str(texts.OPTION_ENGINE))
@click.option("--name", required=True, help=str(texts.OPTION_NAME))
@click.option("--replicas", type=int, default=1, show_default=True, help=str(texts.OPTION_REPLICAS))
@click.option("--gpus", "gpus_per_replica", type=int, default=1, show_default=True, help=str(texts.OPTION_GPUS))
@click.option("--slots", type=int, default=8, show_default=True, help=str(texts.OPTION_SLOTS))
@click.option("--context-tokens", type=int, default=4096, show_default=True, help=str(texts.OPTION_CONTEXT))
@click.option("--grace", "grace_s", type=int, default=60, show_default=True, help=str(texts.OPTION_GRACE))
@json_option
@home_option
def run(
    *,
    reservation: str,
    model: str,
    engine: str,
    name: str,
    replicas: int,
    gpus_per_replica: int,
    slots: int,
    context_tokens: int,
    grace_s: int,
    as_json: bool,
    root: Path,
) -> None:
    """The help is `texts.RUN`."""
    body = {
        "engine": engine,
        "model": model,
        "name": name,
        "replicas": replicas,
        "gpus_per_replica": gpus_per_replica,
        "parameters": {"slots": slots, "context_tokens": context_tokens},
        "grace_s": grace_s,
    }
    path = f"/api/v1/reserve/reservations/{quote(reservation, safe='')}/workloads"
    made = call(root, "POST", path, body=body, answer=WorkloadView)
    if not _as_json(as_json, made):
        spec = made.spec
        click.echo(texts.DEFINED(id=made.id, model=spec.model, name=spec.name, reservation=made.reservation))


@workload.command(help=str(texts.OFFERS))
@json_option
@home_option
def offers(*, as_json: bool, root: Path) -> None:
    """The help is `texts.OFFERS`."""
    found = call(root, "GET", f"{_BASE}/offers", answer=list[OffersView])
    if _as_json(as_json, found):
        return
    rows = [(site.site, each.model, each.engine) for site in found for each in site.offers]
    if not rows:
        click.echo(texts.NO_OFFERS)
        return
    _table((texts.COLUMN_SITE, texts.COLUMN_MODEL, texts.COLUMN_ENGINE), rows)


@workload.command("list", help=str(texts.LIST))
@click.option("--tenant", help=str(texts.OPTION_TENANT))
@click.option("--reservation", help=str(texts.OPTION_RESERVATION))
@json_option
@home_option
def list_(*, tenant: str | None, reservation: str | None, as_json: bool, root: Path) -> None:
    """The help is `texts.LIST`."""
    query = {name: value for name, value in (("tenant", tenant), ("reservation", reservation)) if value}
    found = call(root, "GET", _BASE, query=query, answer=list[WorkloadView])
    if _as_json(as_json, found):
        return
    columns = (
        texts.COLUMN_ID,
        texts.COLUMN_RESERVATION,
        texts.COLUMN_TENANT,
        texts.COLUMN_NAME,
        texts.COLUMN_STATE,
        texts.COLUMN_READY,
    )
    _table(
        columns,
        [
            (
                each.id,
                each.reservation,
                each.tenant,
                each.spec.name,
                texts.STATES[each.state],
                f"{each.ready} / {each.spec.replicas}",
            )
            for each in found
        ],
    )


@workload.command(help=str(texts.SHOW))
@click.argument("name", metavar="ID")
@json_option
@home_option
def show(*, name: str, as_json: bool, root: Path) -> None:
    """The help is `texts.SHOW`."""
    path = f"{_BASE}/{quote(name, safe='')}"
    found = call(root, "GET", path, answer=WorkloadView)
    if _as_json(as_json, found):
        return
    history = call(root, "GET", f"{path}/versions", answer=list[WorkloadVersionView])
    spec = found.spec
    click.echo(
        texts.NOW(id=found.id, state=texts.STATES[found.state])
        + f"  {spec.model} ({spec.engine}) → {spec.name}, {found.ready} / {spec.replicas}"
    )
    columns = (texts.COLUMN_ID, texts.COLUMN_SITE, texts.COLUMN_STATE, texts.COLUMN_RESTARTS, texts.COLUMN_LAST)
    rows = [
        (each.id, each.site, texts.STATES[each.state], each.restarts, each.last_exit or "–")
        for each in found.replicas
    ]
    _table(columns, rows)
    _table(
        (texts.COLUMN_WHEN, texts.COLUMN_WHO, texts.COLUMN_STATE, texts.COLUMN_WHY),
        [(_second(each.at), each.who, texts.STATES[each.workload.state], each.why) for each in history],
    )


@workload.command(help=str(texts.START))
@click.argument("name", metavar="ID")
@home_option
def start(*, name: str, root: Path) -> None:
    """The help is `texts.START`."""
    _set(root, name, "start")


@workload.command(help=str(texts.STOP))
@click.argument("name", metavar="ID")
@home_option
def stop(*, name: str, root: Path) -> None:
    """The help is `texts.STOP`."""
    _set(root, name, "stop")


def _set(root: Path, name: str, what: str) -> None:
    made = call(root, "POST", f"{_BASE}/{quote(name, safe='')}/{what}", answer=WorkloadView)
    click.echo(texts.NOW(id=made.id, state=texts.STATES[made.state]))


def _as_json(wanted: bool, value: object) -> bool:
    if wanted:
        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
    return wanted


def _table(columns: tuple[Text, ...], rows: Sequence[tuple[object, ...]]) -> None:
    table = Table()
    for column in columns:
        table.add_column(str(column), overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(highlight=False, markup=False).print(table)


def _second(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
