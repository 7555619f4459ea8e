"""The logs of one installation: a log for each year, each begun by naming the last checkpoint of the one before it.

    BASE/2026/…, BASE/2027/…       origins `<origin>/2026`, `<origin>/2027`, all signed by one key

Rotation keeps every single log small enough to be handed over whole, and lets a finished year move to slow disks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from sekisho.ledger.tlog.entries import CONTINUES, record_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.log import LogFault, LogReader, LogWriter, Signer


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A log that is being written. `earlier`: the index of the year before, whose ids count as known."""

    year: int
    log: LogWriter
    index: LogIndex
    earlier: LogIndex | None

    def close(self) -> None:
        self.log.close()
        self.index.close()
        if self.earlier is not None:
            self.earlier.close()


def years(base: Path) -> list[int]:
    """The years that have a log, oldest first."""
    if not base.is_dir():
        return []
    return sorted(int(path.name) for path in base.iterdir() if len(path.name) == 4 and path.name.isdigit())


def directory(base: Path, year: int) -> Path:
    return base / f"{year:04d}"


def newest(base: Path) -> Path:
    """The log that takes entries now. LogFault when there is none."""
    found = years(base)
    if not found:
        raise LogFault(f"{base} holds no log", hint="is the sequencer running?")
    return directory(base, found[-1])


def origin_of(origin: str, year: int) -> str:
    return f"{origin}/{year:04d}"


def open_year(
    base: Path, *, origin: str, signer: Callable[[str], Signer], year: int, at_ms: int, entry_id: str
) -> Opened:
    """Opens the log of this year for writing; the one before it is closed for good first.

    `signer(name)` signs for the origin `name`. `at_ms` and `entry_id` are for the first entry of a log that
    continues another. A clock that went back to an earlier year changes nothing. Raises as LogWriter does.

    LogFault `log.clock` for a year that does not follow on the newest log: a year once begun can't be taken back, and
    witnesses don't know a log of the year 2099.
    """
    found = years(base)
    if found and year > found[-1] + 1:
        raise LogFault(
            f"the clock says {year}, the newest log is that of {found[-1]}",
            code="log.clock",
            hint=f"set the clock of this machine; if it is right, make the empty directory {directory(base, year)}",
        )
    year = max([year, *found])
    before = [other for other in found if other < year]
    earlier_log = None
    if before:
        last = directory(base, before[-1])
        name = origin_of(origin, before[-1])
        old = LogWriter(last, signer(name), origin=name)
        try:
            earlier_log = old.seal()
            with_index = LogIndex(last, writable=True)
            with_index.catch_up(LogReader(last))
            with_index.close()
        finally:
            old.close()
    name = origin_of(origin, year)
    log = LogWriter(directory(base, year), signer(name), origin=name)
    try:
        if before and earlier_log is not None and log.size == 0:
            link = record_entry(
                id=entry_id,
                kind=CONTINUES,
                at_ms=at_ms,
                body={
                    "origin": origin_of(origin, before[-1]),
                    "size": earlier_log.size,
                    "root": earlier_log.root,
                    "checkpoint": earlier_log.checkpoint,
                },
            )
            # The sources' positions move over in the same step: nothing is read twice or left out.
            log.append([link.data], positions=earlier_log.positions)
        index = LogIndex(log.root, writable=True)
        index.catch_up(LogReader(log.root))
        earlier = LogIndex(directory(base, before[-1])) if before else None
    except BaseException:
        log.close()
        raise
    return Opened(year=year, log=log, index=index, earlier=earlier)
