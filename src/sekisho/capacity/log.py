"""Reservations in the transparency log: every version of each, once. The sequencer asks for them here.

The history itself is the outbox: a version is a row anyway, and booking stays as cheap as it was.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.capacity import tables
from sekisho.capacity.grid import unix_s
from sekisho.capacity.model import Body
from sekisho.ledger.outbox import Waiting
from sekisho.ledger.tlog.entries import EntryRefused, record_entry

_log = logging.getLogger(__name__)
KIND = "reservation"


def waiting(connection: sa.Connection, *, limit: int) -> list[Waiting]:
    """The oldest versions that are not known to be logged."""
    column = tables.version.c
    rows = connection.execute(
        tables.version.select()
        .where(sa.not_(column.logged))
        .order_by(column.at_ms, column.reservation, column.version)
        .limit(limit)
    )
    found = []
    for row in rows:
        try:
            found.append(_waiting(row))
        except (msgspec.MsgspecError, EntryRefused) as error:
            # A later version's form: it stays where it is, and nothing else waits for it.
            _log.error("version %d of reservation %s is not logged: %s", row.version, row.reservation, error)
    return found


def logged(connection: sa.Connection, rows: Sequence[Any]) -> None:
    """Marks versions (name, number) that are in the log."""
    column = tables.version.c
    connection.execute(
        tables.version.update()
        .where(column.reservation == sa.bindparam("name"), column.version == sa.bindparam("number"))
        .values(logged=True),
        [{"name": name, "number": number} for name, number in rows],
    )


def _waiting(row: sa.Row[tuple[object, ...]]) -> Waiting:
    body = msgspec.json.decode(row.body, type=Body)
    # The same row makes the same entry, whoever reads it and how often.
    digest = hashlib.sha256(f"{row.reservation}/{row.version}".encode()).hexdigest()
    entry = record_entry(
        id=f"{row.at_ms:012x}{digest[:20]}",
        kind=KIND,
        at_ms=row.at_ms,
        body={
            "reservation": row.reservation,
            "version": row.version,
            "who": row.who,
            "why": row.why,
            "tenant": body.tenant,
            "data_class": body.data_class,
            "state": body.state,
            "priority": body.priority,
            "from_ms": unix_s(body.first) * 1000,
            "until_ms": unix_s(body.until) * 1000,
            "parts": [{"pool": part.pool, "gpus": part.gpus} for part in body.parts],
            # As texts: a price may be beyond the 2^53 that a number of canonical JSON can have.
            "price_yen": str(body.price_yen),
            "refund_yen": str(body.refund_yen),
        },
    )
    return Waiting(row=(row.reservation, row.version), entry=entry)
