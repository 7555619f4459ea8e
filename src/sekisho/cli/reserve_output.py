"""How the `reserve` commands read times and show tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.cli import reserve_texts as texts
from sekisho.cli.texts import Text


class Time(click.ParamType[float]):
    """`2027-06-01T09:00+09:00` → Unix seconds; without an offset it is the time of this machine."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return datetime.fromisoformat(str(value)).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} {texts.BAD_TIME}", param, ctx)


def as_json_output(wanted: bool, value: object) -> bool:
    if wanted:
        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
    return wanted


def print_table(columns: tuple[Text, ...], rows: Sequence[tuple[object, ...]]) -> None:
    table = Table()
    for column in columns:
        table.add_column(str(column), overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console(highlight=False, markup=False).print(table)


def when(start: int, end: int) -> str:
    return f"{minute(start)} – {minute(end)}"


def minute(at: int) -> str:
    """In the zone of this machine, as `--start` is read there, with its offset."""
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return f"{local:%Y-%m-%d %H:%M} {'UTC' if not local.utcoffset() else local.isoformat()[-6:]}"
