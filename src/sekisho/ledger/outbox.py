"""The outbox: what other concepts want in the log, written in the transaction of the change itself.

The sequencer logs each row under its id and deletes it afterwards; a crash in between repeats the row, and the log
knows its id already. So a record is in the log exactly once, and only if its change was committed.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.ledger.tlog.entries import Entry, EntryRefused, read_entry, record_entry
from sekisho.runtime.database import metadata

_log = logging.getLogger(__name__)

outbox = sa.Table(
    "ledger_outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("entry_id", sa.String(32), nullable=False, unique=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
)


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is not known to be logged yet. `row` is its key."""

    row: Any
    entry: Entry


def append(
    connection: sa.Connection,
    *,
    kind: str,
    body: Mapping[str, Any],
    at_ms: int | None = None,
    entry_id: str | None = None,
) -> str:
    """Asks for a record in the log, in the caller's transaction; returns its id (32 hex digits, sorted by time).

    EntryRefused for a body that has no canonical form or is too long: then the change must not happen either.
    """
    at_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    entry_id = entry_id or f"{at_ms:012x}{secrets.token_hex(10)}"
    entry = record_entry(id=entry_id, kind=kind, at_ms=at_ms, body=body)
    connection.execute(outbox.insert().values(entry_id=entry_id, at_ms=at_ms, kind=kind, entry=entry.data))
    return entry_id


def waiting(connection: sa.Connection, *, limit: int) -> list[Waiting]:
    """The oldest rows. One that can't be read stays where it is: nothing else may wait for it."""
    found = []
    for row in connection.execute(outbox.select().order_by(outbox.c.id).limit(limit)):
        try:
            found.append(Waiting(row=row.id, entry=read_entry(row.entry)))
        except EntryRefused as error:
            _log.error("row %d of the outbox is not logged: %s", row.id, error)
    return found


def delete(connection: sa.Connection, rows: Sequence[Any]) -> None:
    """Forgets rows that are in the log."""
    if rows:
        connection.execute(outbox.delete().where(outbox.c.id.in_(rows)))
