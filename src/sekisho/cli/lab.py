"""`sekisho lab`: scenarios on a network of the laboratory, and how true that network is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.cli import lab_texts, texts
from sekisho.cli.local import json_option
from sekisho.lab import fidelity, namespaces
from sekisho.lab.network import Lab
from sekisho.lab.scenarios import border, impostor, latency, partition
from sekisho.lab.scenarios.report import Report

Scenario = Callable[[Path], Report]
# name → (at full length, short)
SCENARIOS: dict[str, tuple[Scenario, Scenario]] = {
    "border": (border.run, partial(border.run, seconds=25.0)),
    "impostor": (impostor.run, partial(impostor.run, questions=4)),
    "partition": (partition.run, partial(partition.run, validity_s=6.0, before_s=3.0, after_s=8.0)),
    "latency": (latency.run, partial(latency.run, pairs=12)),
}
_ALL = "all"
_LINES = ("osaka", "ishikari", "fukuoka", "us-west", "virginia")


@click.group(help=str(lab_texts.LAB))
def lab() -> None:
    """The help is `lab_texts.LAB`."""


@lab.command(help=str(lab_texts.RUN))
@click.argument("name", type=click.Choice([*SCENARIOS, _ALL]))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".sekisho/lab"),
    show_default=True,
    help=str(lab_texts.OPTION_OUT),
)
@click.option("--short", is_flag=True, help=str(lab_texts.OPTION_SHORT))
@json_option
def run(*, name: str, out: Path, short: bool, as_json: bool) -> None:
    """The help is `lab_texts.RUN`."""
    namespaces.require()
    reports = []
    for each in SCENARIOS if name == _ALL else (name,):
        if not as_json:
            click.secho(lab_texts.STARTS(title=each), dim=True, err=True)
        folder = (out / each).resolve()
        report = SCENARIOS[each][short](folder)
        report.write(folder)
        reports.append(report)
        if not as_json:
            _show(report, folder)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(reports), indent=1).decode())
    broken = sum(not check.held for report in reports for check in report.checks)
    if not as_json:
        click.echo(lab_texts.NOT_HELD(count=broken) if broken else str(lab_texts.ALL_HELD))
    sys.exit(1 if broken else 0)


def _show(report: Report, folder: Path) -> None:
    japanese = texts.language() == "ja"
    click.secho(report.title_ja if japanese else report.title_en, bold=True)
    for check in report.checks:
        mark = (
            click.style(str(lab_texts.HELD), fg="green")
            if check.held
            else click.style(str(lab_texts.BROKEN), fg="red")
        )
        click.echo(f"  {mark}  {check.ja if japanese else check.en}")
        click.secho(f"        {check.figures}", dim=True)
    click.echo(lab_texts.FILES(folder=folder))


@lab.command("fidelity", help=str(lab_texts.FIDELITY))
@click.option(
    "--pings", type=click.IntRange(min=10), default=1000, show_default=True, help=str(lab_texts.OPTION_PINGS)
)
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help=str(lab_texts.OPTION_ROUNDS))
@json_option
def measure(*, pings: int, rounds: int, as_json: bool) -> None:
    """The help is `lab_texts.FIDELITY`."""
    found: dict[str, list[fidelity.RoundTrips]] = {}
    with Lab() as network:
        for _ in range(rounds):
            for peer in _LINES:
                found.setdefault(peer, []).append(fidelity.round_trips(network, "tokyo", peer, count=pings))
        stream = fidelity.throughput(network, "tokyo", "osaka")
    held = stream.held and all(any(each.held for each in trips) for trips in found.values())
    if as_json:
        click.echo(msgspec.json.encode({"round_trips": found, "throughput": stream, "held": held}).decode())
        sys.exit(0 if held else 1)
    table = Table()
    for column in (
        lab_texts.COLUMN_LINE,
        lab_texts.COLUMN_SET,
        lab_texts.COLUMN_P50,
        lab_texts.COLUMN_P99,
        lab_texts.COLUMN_MAX,
        lab_texts.COLUMN_LOST,
        lab_texts.COLUMN_VERDICT,
    ):
        table.add_column(str(column))
    for trips in found.values():
        for each in trips:
            table.add_row(
                f"{each.a}–{each.b}",
                f"{each.set_ms:g}",
                f"{each.p50_error_ms:+.3f}",
                f"{each.p99_error_ms:.3f}",
                f"{each.max_error_ms:.3f}",
                f"{each.lost}/{each.count}",
                _verdict(each.held),
            )
    Console(highlight=False, markup=False).print(table)
    click.echo(
        lab_texts.THROUGHPUT(
            mbit=stream.mbit,
            delay_ms=stream.delay_ms,
            cpu=stream.router_cpu_us_a_packet,
            verdict=_verdict(stream.held),
        )
    )
    sys.exit(0 if held else 1)


def _verdict(held: bool) -> str:
    return str(lab_texts.HELD if held else lab_texts.BROKEN)
