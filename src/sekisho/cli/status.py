"""`sekisho status`: processes, endpoints, route table and journal on one screen."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.assembly import ready
from sekisho.assembly.fleet import SupervisorTable
from sekisho.assembly.home import Home
from sekisho.assembly.processes import Kind, State
from sekisho.cli import texts
from sekisho.cli.health import Health, age_text, judge
from sekisho.cli.local import home_option, json_option, supervisor_table
from sekisho.gateway.settings import WorkerSnapshot

_STATE_STYLES = {State.READY: "green", State.STARTING: "yellow", State.STOPPING: "yellow"}


@click.command(help=str(texts.STATUS))
@json_option
@home_option
def status(as_json: bool, root: Path) -> None:
    """The help is `texts.STATUS`."""
    table = supervisor_table(root)
    count = sum(row.kind is Kind.WORKER for row in table.processes)
    snapshots = asyncio.run(_snapshots(Home.at(root), count))
    now = time.time()
    health = judge(table, snapshots, now=now)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(health), indent=1).decode())
    else:
        console = Console(highlight=False)
        show(console, health, now=now)
        _say_what_waits(console, root, table)
    sys.exit(0 if health.ok else 1)


def _say_what_waits(console: Console, root: Path, table: SupervisorTable) -> None:
    """Of the configuration, when the control plane answers: it is no fault, but nobody shall overlook it."""
    if any(row.kind is Kind.CONTROL and row.state is not State.READY for row in table.processes):
        return
    from sekisho.cli.control_client import ControlRefused, call  # noqa: PLC0415 - an HTTP client
    from sekisho.console.policy_api import ConfigurationWaiting  # noqa: PLC0415

    try:
        found = call(root, "GET", "/api/v1/configuration/waiting", answer=ConfigurationWaiting).waiting
    except ControlRefused as error:
        console.print(str(error), style="yellow", markup=False)
        return
    if found is not None:
        what = ", ".join(f"{each.kind} {each.id}" for each in found.held)
        console.print(texts.CONFIG_WAITS(what=what), style="bold yellow", markup=False)


async def _snapshots(home: Home, count: int) -> list[WorkerSnapshot | None]:
    return await asyncio.gather(*(ready.worker_snapshot(home.worker_socket(index)) for index in range(count)))


def show(console: Console, health: Health, *, now: float) -> None:
    """Print it for a person."""
    console.print(_process_table(health, now=now))
    if health.endpoints:
        console.print(_endpoint_table(health))
    console.print(_route_table_line(health), markup=False)
    for worker, error in health.journal_errors.items():
        console.print(texts.JOURNAL_BAD(worker=worker, error=error), style="red", markup=False)
    if health.workers and not health.journal_errors:
        console.print(str(texts.JOURNAL_OK))
    if health.ok:
        console.print(str(texts.ALL_WELL), style="bold green")
    else:
        console.print(texts.NOT_WELL(faults=", ".join(health.faults)), style="bold red", markup=False)


def _process_table(health: Health, *, now: float) -> Table:
    table = Table(title=str(texts.TITLE_PROCESSES), title_justify="left")
    for column in (texts.COLUMN_PROCESS, "pid", texts.COLUMN_AGE, texts.COLUMN_RESTARTS, texts.COLUMN_STATE):
        right = column in ("pid", texts.COLUMN_AGE, texts.COLUMN_RESTARTS)
        table.add_column(str(column), justify="right" if right else "left")
    table.add_column(str(texts.COLUMN_LAST_EXIT), overflow="fold")
    supervisor = health.supervisor
    table.add_row(
        "supervisor", str(supervisor.pid), age_text(now - supervisor.started_at), "", supervisor.phase.value, ""
    )
    for row in supervisor.processes:
        last_exit = " · ".join(part for part in (row.last_exit or "", row.last_words) if part)
        table.add_row(
            row.name,
            str(row.pid or "–"),
            age_text(now - row.started_at) if row.pid and row.started_at else "–",
            str(row.restarts),
            f"[{_STATE_STYLES.get(row.state, 'red')}]{row.state.value}[/]",
            last_exit.replace("[", r"\["),
        )
    return table


def _endpoint_table(health: Health) -> Table:
    table = Table(title=str(texts.TITLE_ENDPOINTS), title_justify="left")
    table.add_column(str(texts.COLUMN_ENDPOINT), overflow="fold")
    table.add_column(str(texts.COLUMN_SITE), overflow="fold")
    for column in (
        texts.COLUMN_IN_FLIGHT,
        texts.COLUMN_FIRST_BYTE,
        texts.COLUMN_FAILURES,
        texts.COLUMN_EJECTED,
    ):
        table.add_column(str(column), justify="right")
    for endpoint in health.endpoints:
        ejected = endpoint.ejected_for_s > 0
        table.add_row(
            endpoint.id,
            f"{endpoint.site} ({endpoint.country})",
            f"{endpoint.in_flight}/{endpoint.slots}",
            "–" if endpoint.first_byte_ms is None else f"{endpoint.first_byte_ms:.0f} ms",
            f"{endpoint.failures}/{endpoint.requests}",
            texts.EJECTED_FOR(duration=age_text(endpoint.ejected_for_s)) if ejected else "–",
            style="red" if ejected else "",
        )
    return table


def _route_table_line(health: Health) -> str:
    match health.table_versions:
        case () | (0,):
            return str(texts.TABLE_NONE)
        case (version,):
            return texts.TABLE_LINE(version=version, age=age_text(health.table_age_s or 0.0))
        case versions:
            return texts.TABLE_MIXED(versions=", ".join(map(str, versions)))
