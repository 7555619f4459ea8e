"""`sekisho ledger status|fsck|show|archive|erase-tenant|ship`: the transparency log from the command line."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from sekisho.assembly.home import Home
from sekisho.assembly.ledger import log_key_of
from sekisho.assembly.sequencer_status import SequencerStatus
from sekisho.cli import ledger_texts as says
from sekisho.cli.control_client import call
from sekisho.cli.ledger_ship import ship
from sekisho.cli.local import home_option, json_option
from sekisho.kernel.errors import SekishoError
from sekisho.kernel.ids import DECISION
from sekisho.ledger.tlog.archive import archive as move_to_archive
from sekisho.ledger.tlog.fsck import fsck as check_log
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.years import directory, newest, years

_ANSWER_TIMEOUT_S = 5.0


class NoSuchEntry(SekishoError):
    """The log has no such entry (yet)."""

    code = "log.no_entry"


@click.group(help=str(says.LEDGER))
def ledger() -> None:
    """The help is `LEDGER`."""


year_option = click.option("--year", type=click.IntRange(1000, 9999), help=str(says.OPTION_YEAR))
log_option = click.option("--log", "log_dir", type=click.Path(path_type=Path), help=str(says.OPTION_LOG))


def _log_of(root: Path, year: int | None, log_dir: Path | None) -> Path:
    if log_dir is not None:
        return log_dir
    base = Home.at(root).ledger
    return newest(base) if year is None else directory(base, year)


@ledger.command(help=str(says.STATUS))
@json_option
@home_option
def status(*, as_json: bool, root: Path) -> None:
    """The help is `STATUS`."""
    home = Home.at(root)
    heads = [LogReader(directory(home.ledger, year)).checkpoint() for year in years(home.ledger)]
    found = _sequencer(home)
    if as_json:
        logs = [{"origin": head.origin, "size": head.size, "root": head.root.hex()} for head in heads]
        sequencer = msgspec.to_builtins(found) if found is not None else None
        click.echo(json.dumps({"logs": logs, "sequencer": sequencer}, indent=1))
    else:
        for head in heads:
            click.echo(says.ONE_LOG(origin=head.origin, size=f"{head.size:,}"))
        if not heads:
            click.echo(says.NO_LOG)
        if found is None:
            click.echo(says.SILENT)
        else:
            click.echo(says.SEQUENCER(pid=found.pid, added=f"{found.added:,}", lag_ms=round(found.lag_s * 1000)))
            if found.fault:
                click.echo(says.FAULTY(fault=found.fault))
            if found.unreadable:
                click.echo(says.UNREADABLE(count=found.unreadable))
    sys.exit(0 if found is not None and not found.fault else 1)


def _sequencer(home: Home) -> SequencerStatus | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_ANSWER_TIMEOUT_S)
        try:
            client.connect(str(home.sequencer_socket))
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            return msgspec.json.decode(answer, type=SequencerStatus)
        except (OSError, msgspec.DecodeError):
            return None


@ledger.command(help=str(says.FSCK))
@year_option
@log_option
@json_option
@home_option
def fsck(*, year: int | None, log_dir: Path | None, as_json: bool, root: Path) -> None:
    """The help is `FSCK`. Exits with 1 when something differs."""
    place = _log_of(root, year, log_dir)
    mine = log_dir is None
    checked = check_log(place, log_key_of(Home.at(root), place) if mine else None, strict=mine)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(checked), indent=1).decode())
    elif checked.difference is None:
        root_hex = checked.root[:16]
        click.echo(
            says.SOUND(
                origin=checked.origin, entries=f"{checked.entries:,}", tiles=f"{checked.tiles:,}", root=root_hex
            )
        )
    else:
        click.echo(says.DIFFERENT(file=checked.difference.file, fact=checked.difference.fact))
        if checked.difference.index is not None:
            click.echo(says.FROM_ENTRY(index=checked.difference.index))
    sys.exit(0 if checked.difference is None else 1)


@ledger.command(help=str(says.SHOW))
@click.argument("entry", metavar="ID|INDEX")
@year_option
@log_option
@home_option
def show(*, entry: str, year: int | None, log_dir: Path | None, root: Path) -> None:
    """The help is `SHOW`."""
    place = _log_of(root, year, log_dir)
    reader = LogReader(place)
    index: int | None
    if DECISION.fullmatch(entry):
        found = LogIndex(place)
        index = found.find(entry)
        found.close()
    else:
        index = int(entry) if entry.isascii() and entry.isdigit() else None
    if index is None or index >= reader.size:
        raise NoSuchEntry(
            f"the log {reader.checkpoint().origin} has no entry {entry}",
            hint="a passage is logged within a second; older years are asked with --year",
        )
    head = reader.checkpoint()
    click.echo(
        json.dumps(
            {"origin": head.origin, "index": index, "size": head.size, "entry": json.loads(reader.entry(index))},
            indent=1,
            ensure_ascii=False,
        )
    )


@ledger.command(help=str(says.ARCHIVE))
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), required=True, help=str(says.OPTION_TO))
@click.option("--keep", type=click.IntRange(0), default=1_000_000, show_default=True, help=str(says.OPTION_KEEP))
@year_option
@home_option
def archive(*, to: Path, keep: int, year: int | None, root: Path) -> None:
    """The help is `ARCHIVE`."""
    moved = move_to_archive(_log_of(root, year, None), to, keep_entries=keep)
    click.echo(says.MOVED(files=f"{moved.files:,}", index=f"{moved.minimum_index:,}"))


@ledger.command("erase-tenant", help=str(says.ERASE))
@click.argument("tenant")
@click.option("--yes", is_flag=True, help=str(says.OPTION_YES))
@home_option
def erase_tenant(*, tenant: str, yes: bool, root: Path) -> None:
    """The help is `ERASE`."""
    if not yes:
        click.confirm(says.REALLY(tenant=tenant), abort=True)
    call(root, "POST", f"/api/v1/tenants/{quote(tenant, safe='')}/erase-salt", answer=Any)
    click.echo(says.ERASED(tenant=tenant))


ledger.add_command(ship)
