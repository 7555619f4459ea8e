"""SQL of commitments and their versions. Nothing here decides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.capacity.faults import Changed, NameUnknown
from sekisho.capacity.grid import unix_s
from sekisho.capacity.throughput import tables
from sekisho.capacity.throughput.faults import guard_fault
from sekisho.capacity.throughput.model import Body, Commitment, Version
from sekisho.ledger import outbox

KIND = "throughput"  # in the transparency log


def find(connection: sa.Connection, name: str) -> Commitment:
    """NameUnknown when there is none."""
    row = connection.execute(tables.commitment.select().where(tables.commitment.c.id == name)).one_or_none()
    if row is None:
        raise NameUnknown(
            f"there is no throughput reservation {name!r}", hint="`sekisho reserve throughput list` names them"
        )
    return _read(row)


def find_all(
    connection: sa.Connection, *, tenant: str = "", state: str = "", after: str = "", limit: int = 1000
) -> list[Commitment]:
    """In the order of their beginnings, then of their ids."""
    column = tables.commitment.c
    query = tables.commitment.select().order_by(column.first, column.id).limit(limit)
    if tenant:
        query = query.where(column.tenant == tenant)
    if state:
        query = query.where(column.state == state)
    if after:
        last = find(connection, after)
        query = query.where(
            sa.tuple_(column.first, column.id) > sa.tuple_(sa.literal(last.body.terms.first), sa.literal(after))
        )
    return [_read(row) for row in connection.execute(query)]


def open_after(connection: sa.Connection, first: int) -> list[Commitment]:
    """All that are booked and end later than this, in the order in which they were booked."""
    column = tables.commitment.c
    query = tables.commitment.select().where(column.state == "booked", column.until > first)
    return sorted((_read(row) for row in connection.execute(query)), key=lambda each: each.id)


def over(connection: sa.Connection, slot: int) -> list[Commitment]:
    """Those that are still booked though their window is over."""
    column = tables.commitment.c
    query = tables.commitment.select().where(column.state == "booked", column.until <= slot)
    return [_read(row) for row in connection.execute(query)]


def versions(connection: sa.Connection, name: str) -> list[Version]:
    column = tables.version.c
    query = tables.version.select().where(column.commitment == name).order_by(column.version)
    return [
        Version(
            version=row.version,
            at_ms=row.at_ms,
            who=row.who,
            why=row.why,
            body=msgspec.json.decode(row.body, type=Body),
        )
        for row in connection.execute(query)
    ]


def set_pool(connection: sa.Connection, capacity: Mapping[str, int]) -> str:
    """The id of this set of endpoints, with what it has now. It never becomes smaller than what is sold on it: the
    guard looks at bookings, and what was lost since shows up as missing."""
    names = "\n".join(sorted(capacity))
    name = hashlib.sha256(names.encode()).hexdigest()
    slots = sum(capacity.values())
    known = connection.scalar(sa.select(tables.pool.c.slots).where(tables.pool.c.id == name))
    if known is None:
        connection.execute(tables.pool.insert().values(id=name, endpoints=names, slots=slots))
    elif known != slots:
        connection.execute(tables.pool.update().where(tables.pool.c.id == name).values(slots=slots))
    return name


def insert(
    connection: sa.Connection, made: Commitment, *, pool: str, now: float, who: str, why: str = "booked"
) -> None:
    """Oversold when the second guard speaks."""
    with guard_fault():
        connection.execute(tables.commitment.insert().values(id=made.id, **_row(made, pool)))
    _add_version(connection, made, now=now, who=who, why=why)


def replace(
    connection: sa.Connection, before: Commitment, body: Body, *, pool: str | None, now: float, who: str, why: str
) -> Commitment:
    """The next version. Changed when somebody else was faster; Oversold when the second guard speaks."""
    after = Commitment(id=before.id, version=before.version + 1, body=body)
    column = tables.commitment.c
    with guard_fault():
        done = connection.execute(
            tables.commitment.update()
            .where(column.id == before.id, column.version == before.version)
            .values(**_row(after, pool))
        )
    if not done.rowcount:
        raise Changed("somebody else changed this reservation", hint="read it again and decide anew")
    _add_version(connection, after, now=now, who=who, why=why)
    return after


def _row(made: Commitment, pool: str | None) -> dict[str, Any]:
    terms = made.body.terms
    found: dict[str, Any] = {
        "tenant": terms.tenant,
        "state": made.body.state,
        "version": made.version,
        "first": terms.first,
        "until": terms.until,
        "slots": made.body.held,
        "body": msgspec.json.encode(made.body).decode(),
    }
    if pool is not None:
        found["pool"] = pool
    return found


def _add_version(connection: sa.Connection, made: Commitment, *, now: float, who: str, why: str) -> None:
    """A row of its history, and the same without the note as a record for the transparency log."""
    terms, at_ms = made.body.terms, int(now * 1000)
    outbox.append(
        connection,
        kind=KIND,
        at_ms=at_ms,
        body={
            "reservation": made.id,
            "version": made.version,
            "who": who,
            "why": why,
            "tenant": terms.tenant,
            "data_class": terms.data_class,
            "model": terms.model,
            "state": made.body.state,
            "from_ms": unix_s(terms.first) * 1000,
            "until_ms": unix_s(terms.until) * 1000,
            "slots": made.body.held,
            "tokens_per_s": f"{terms.tokens_per_s:g}",  # as a text: not every fraction has one form in canonical JSON
        },
    )
    connection.execute(
        tables.version.insert().values(
            commitment=made.id,
            version=made.version,
            at_ms=at_ms,
            who=who,
            why=why,
            body=msgspec.json.encode(made.body).decode(),
        )
    )


def _read(row: sa.Row[Any]) -> Commitment:
    return Commitment(id=row.id, version=row.version, body=msgspec.json.decode(row.body, type=Body))
