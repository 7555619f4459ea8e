"""Where in the log an entry stands: by its id, and by tenant and time.

A SQLite file beside the log. It follows from the entry bundles and can be thrown away: on opening it catches up with
the log, so it needs no durability of its own and never says more than the log has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sekisho.ledger.tlog.entries import Entry, EntryRefused, read_entry
from sekisho.ledger.tlog.log import LogFault, LogReader

NAME = "index.sqlite"
_ASK_AT_ONCE = 500  # below SQLITE_MAX_VARIABLE_NUMBER of every version
_CATCH_UP = 20_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tenant (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS kind (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS entry (
    id BLOB PRIMARY KEY, position INTEGER NOT NULL, tenant INTEGER NOT NULL, kind INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_tenant ON entry (tenant, id);
CREATE TABLE IF NOT EXISTS covered (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL);
INSERT OR IGNORE INTO covered VALUES (1, 0);
"""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`id` in hex."""

    id: str
    index: int
    tenant: str
    kind: str


class LogIndex:
    """For one thread at a time. With `writable` it is the writer's; readers open it beside."""

    def __init__(self, root: Path, *, writable: bool = False) -> None:
        """LogFault when there is none to read."""
        path = root / "writer" / NAME
        try:
            self._database = _open(path, writable=writable)
        except sqlite3.Error as error:
            raise LogFault(f"the index of {root} can't be read: {error}", hint="is the sequencer running?") from None
        self._numbers: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        self._database.close()

    @property
    def size(self) -> int:
        """How many entries of the log it knows."""
        return int(self._database.execute("SELECT size FROM covered").fetchone()[0])

    # -- asking

    def find(self, entry_id: str) -> int | None:
        """The index of the entry with this id (32 hex digits), or None. ValueError when it is none."""
        row = self._database.execute("SELECT position FROM entry WHERE id = ?", (bytes.fromhex(entry_id),)).fetchone()
        return None if row is None else int(row[0])

    def places(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """Id (16 bytes) → index, for those of these ids that are in the log."""
        found: dict[bytes, int] = {}
        for start in range(0, len(ids), _ASK_AT_ONCE):
            part = ids[start : start + _ASK_AT_ONCE]
            marks = ",".join("?" * len(part))
            query = f"SELECT id, position FROM entry WHERE id IN ({marks})"  # noqa: S608 - question marks only
            found.update(self._database.execute(query, part))
        return found

    def search(
        self,
        *,
        tenant: str | None = None,
        kind: str | None = None,
        since_ms: int = 0,
        until_ms: int = 1 << 47,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Found]:
        """The newest first. `before`: an id, for the next page. Times are those in the ids (Unix ms)."""
        low = since_ms.to_bytes(6, "big") + bytes(10)
        high = until_ms.to_bytes(6, "big") + bytes(10) if before is None else bytes.fromhex(before)
        asked: list[object] = [low, high]
        where = "entry.id >= ? AND entry.id < ?"
        for table, name in (("tenant", tenant), ("kind", kind)):
            if name is not None:
                where += f" AND entry.{table} = (SELECT number FROM {table} WHERE name = ?)"  # noqa: S608 - one of two
                asked.append(name)
        rows = self._database.execute(
            "SELECT entry.id, position, tenant.name, kind.name FROM entry"  # noqa: S608 - names of our own columns
            " JOIN tenant ON tenant.number = entry.tenant JOIN kind ON kind.number = entry.kind"
            f" WHERE {where} ORDER BY entry.id DESC LIMIT ?",
            (*asked, limit),
        )
        return [Found(id=row[0].hex(), index=row[1], tenant=row[2], kind=row[3]) for row in rows]

    # -- following the log

    def add(self, first: int, entries: Iterable[Entry]) -> None:
        """Entries of the log from index `first` on; what is already known stays as it is."""
        rows = [
            (entry.id, position, self._number("tenant", entry.tenant), self._number("kind", entry.kind))
            for position, entry in enumerate(entries, first)
        ]
        with self._transaction():
            self._database.executemany("INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?)", rows)
            self._database.execute("UPDATE covered SET size = max(size, ?)", (first + len(rows),))

    def catch_up(self, reader: LogReader) -> int:
        """Takes over what the log has and this has not; says how many entries those were."""
        size = reader.size
        if self.size > size:  # an older copy of the log was put back
            with self._transaction():
                self._database.execute("DELETE FROM entry WHERE position >= ?", (size,))
                self._database.execute("UPDATE covered SET size = ?", (size,))
        start = missing = self.size
        batch: list[Entry] = []
        for position, data in reader.entries(start, size):
            batch.append(_readable(position, data))
            if len(batch) == _CATCH_UP or position == size - 1:
                self.add(start, batch)
                start, batch = position + 1, []
        return size - missing

    def _number(self, table: str, name: str) -> int:
        """The short form of a name that stands in many rows."""
        known = self._numbers.get((table, name))
        if known is None:
            self._database.execute(f"INSERT OR IGNORE INTO {table} (name) VALUES (?)", (name,))  # noqa: S608 - our own tables
            row = self._database.execute(f"SELECT number FROM {table} WHERE name = ?", (name,)).fetchone()  # noqa: S608
            known = self._numbers[table, name] = int(row[0])
        return known

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database)


def _open(path: Path, *, writable: bool) -> sqlite3.Connection:
    if not writable:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        database.execute("PRAGMA busy_timeout = 5000")
        database.execute("SELECT size FROM covered").fetchone()
        return database
    try:
        return _open_writable(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        # A damaged index is made anew from the entries; nothing is in it that the log has not.
        for file in path.parent.glob(f"{NAME}*"):
            file.unlink()
        return _open_writable(path)


def _open_writable(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Losing the last commits is harmless; a torn file is not, and WAL keeps it whole.
    database.executescript("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
    database.executescript(_SCHEMA)
    return database


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")


def _readable(position: int, data: bytes) -> Entry:
    try:
        return read_entry(data)
    except EntryRefused:
        # A later version's form: it keeps its place, under an id that no decision can have.
        return Entry(id=b"\xff" * 8 + position.to_bytes(8, "big"), at_ms=0, tenant="", kind="?", data=data)
