"""Takes what happened into the log: decisions from the journals, other records from the outbox.

The life of a decision: a worker appends it to its journal → `JournalSource` reads it behind the position of the last
commit → it becomes an entry, unless its id is logged already → entries and positions are committed in one step → the
index learns where it stands. A crash anywhere repeats reading and hashing; it never logs a decision twice and never
skips one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sekisho.ledger import outbox
from sekisho.ledger.journal import SUFFIX, read_records
from sekisho.ledger.tlog.entries import Entry, EntryRefused, decision_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.log import LogWriter, Position
from sekisho.runtime.database import Database, DatabaseUnavailable

# What one commit takes: some 64 bundles, a tenth of a second of one core.
BATCH_ENTRIES = 16_384
_DISPATCH = b'{"kind":"dispatch"'


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a source gives: entries, and how far it is read once they are logged (names of the source → position).
    `more`: there was no room for all of it. `unreadable`: sound records that are no entries of this version."""

    entries: list[Entry]
    positions: dict[str, Position]
    more: bool = False
    unreadable: int = 0


class Source(Protocol):
    """Where entries come from. `prefix` begins the names of all its positions."""

    prefix: str

    def take(self, positions: Mapping[str, Position], *, limit: int) -> Taken:
        """What lies behind these positions."""
        ...

    def logged(self) -> None:
        """What was taken last is durable in the log."""
        ...


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one step did. `oldest_ms`: the time of the oldest entry in it, Unix ms; None without one."""

    added: int
    known: int
    unreadable: int
    more: bool
    oldest_ms: int | None


class JournalSource:
    """The segments `root/w*/00000001.journal` …, those of gateways on other machines included (`shipping.py`)."""

    prefix = "journal/"

    def __init__(self, root: Path) -> None:
        """`root` holds a directory for each journal."""
        self._root = str(root)

    def take(self, positions: Mapping[str, Position], *, limit: int) -> Taken:
        entries: list[Entry] = []
        after: dict[str, Position] = {}
        more = False
        unreadable = 0
        for worker in self._workers():
            found = self._segments(worker)
            for number, segment in enumerate(found):
                name = f"{self.prefix}{worker}/{segment}"
                position = positions.get(name, Position(0))
                if position.finished:
                    after[name] = position
                    continue
                # Asked before reading: once a later segment has a record, this one never gets another. (An empty
                # later segment says nothing: the writer reserves it ahead of need.)
                last = not any(self._has_record(worker, later) for later in found[number + 1 :])
                room = limit - len(entries)
                offset, full, bad = self._read(f"{self._root}/{worker}/{segment}", position.offset, room, entries)
                unreadable += bad
                after[name] = Position(offset, finished=not last and not full)
                if full:
                    more = True
                    break
        return Taken(entries=entries, positions=after, more=more, unreadable=unreadable)

    def logged(self) -> None:
        """The journals keep what is logged until they are pruned."""

    def _workers(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in os.scandir(self._root) if entry.name.startswith("w"))
        return []

    def _segments(self, worker: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(
                name
                for name in os.listdir(f"{self._root}/{worker}")
                if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdigit()
            )
        return []

    def _has_record(self, worker: str, segment: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return next(read_records(Path(self._root, worker, segment)), None) is not None
        return False

    @staticmethod
    def _read(path: str, offset: int, room: int, entries: list[Entry]) -> tuple[int, bool, int]:
        """(offset behind what was read, whether the room ran out, records that are no entries)."""
        unreadable = 0
        if room <= 0:
            return offset, True, 0
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if os.stat(path).st_size == offset:
                return offset, False, 0
            for end, payload in read_records(Path(path), offset):
                offset = end
                if payload.startswith(_DISPATCH):
                    continue
                try:
                    entry = decision_entry(payload)
                except EntryRefused:
                    # A sound frame that a later version wrote: it stays in the journal, and is counted.
                    unreadable += 1
                    continue
                if entry is not None:
                    entries.append(entry)
                    room -= 1
                    if room == 0:
                        return offset, True, unreadable
        return offset, False, unreadable


class OutboxSource:
    """What other concepts wrote beside their changes: the outbox, or a table of theirs that serves as one.

    `waiting` gives the oldest rows that are not known to be logged; `done` is told those that are.
    """

    prefix = "outbox/"

    def __init__(
        self,
        database: Database,
        *,
        waiting: Callable[..., list[outbox.Waiting]] = outbox.waiting,
        done: Callable[[sa.Connection, Sequence[Any]], None] = outbox.delete,
    ) -> None:
        self._database = database
        self._waiting = waiting
        self._done = done
        self._rows: list[Any] = []
        self.fault: str = ""

    def take(self, positions: Mapping[str, Position], *, limit: int) -> Taken:
        self._rows = []
        if limit <= 0:
            return Taken(entries=[], positions={}, more=True)
        try:
            with self._database.read() as connection:
                found = self._waiting(connection, limit=limit)
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            # The decisions must not wait for the database; and at the first start its tables are just being made.
            self.fault = str(error)
            return Taken(entries=[], positions={})
        self.fault = ""
        self._rows = [row.row for row in found]
        return Taken(entries=[row.entry for row in found], positions={}, more=len(found) == limit)

    def logged(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            with contextlib.suppress(DatabaseUnavailable, SQLAlchemyError), self._database.write() as connection:
                self._done(connection, rows)  # else they come again, and are known by their ids


class Sequencer:
    """One writer's loop body. Blocking: `step` reads, hashes, waits for the disk."""

    def __init__(
        self, log: LogWriter, index: LogIndex, sources: Sequence[Source], *, earlier: LogIndex | None = None
    ) -> None:
        """`index` has caught up with `log`. `earlier`: the index of the log before this one, whose ids count too."""
        self._log = log
        self._index = index
        self._earlier = earlier
        self._sources = sources

    def step(self) -> Step:
        """Logs at most one batch. LogFault and OSError end this writer: open the log again."""
        positions = dict(self._log.state.positions)
        entries: list[Entry] = []
        after: dict[str, Position] = {}
        more = False
        unreadable = 0
        for source in self._sources:
            taken = source.take(positions, limit=BATCH_ENTRIES - len(entries))
            entries += taken.entries
            after |= taken.positions
            more = more or taken.more
            unreadable += taken.unreadable
        fresh = self._fresh(entries)
        # Positions alone are committed when a segment is finished, since pruning asks for that; else reading the
        # same dispatches again costs less than the disk's time.
        finished = any(
            item.finished and not positions.get(name, Position(0)).finished for name, item in after.items()
        )
        if fresh or finished:
            first = self._log.append([entry.data for entry in fresh], positions=after)
            self._index.add(first, fresh)
        if entries:
            for source in self._sources:
                source.logged()
        return Step(
            added=len(fresh),
            known=len(entries) - len(fresh),
            unreadable=unreadable,
            more=more,
            oldest_ms=min((entry.at_ms for entry in fresh), default=None),
        )

    def _fresh(self, entries: list[Entry]) -> list[Entry]:
        """Those whose id is not in the log; the first of several with one id."""
        if not entries:
            return entries
        unique = {entry.id: entry for entry in reversed(entries)}
        ids = list(unique)
        known = self._index.places(ids)
        if self._earlier is not None:
            known |= self._earlier.places(ids)
        if not known and len(unique) == len(entries):
            return entries
        return [entry for entry in entries if entry.id not in known and unique[entry.id] is entry]
