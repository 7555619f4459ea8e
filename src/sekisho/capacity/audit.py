"""The proof from the rows: no pool is sold twice, and everything else that must agree does. Reads only.

It shares no code with the guards: every boundary of every allocation is sorted and added up in Python.
"""

from __future__ import annotations

import itertools

import msgspec
import sqlalchemy as sa

from sekisho.capacity import tables
from sekisho.capacity.grid import unix_s
from sekisho.capacity.model import Body
from sekisho.runtime.database import Database

_TRIGGERS = {
    "sqlite": (
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'capacity_guard%'",
        {"capacity_guard_taken", "capacity_guard_freed", "capacity_guard_kept", "capacity_guard_pool"},
    ),
    "postgresql": (
        # 'D' is a trigger that somebody switched off
        "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'capacity_guard%' AND tgenabled <> 'D'",
        {"capacity_guard_came", "capacity_guard_gone", "capacity_guard_kept", "capacity_guard_pool"},
    ),
}


class PoolProof(msgspec.Struct, frozen=True, kw_only=True):
    """The fullest moment of a pool: at `at` (Unix seconds) `peak` of `gpus` are taken."""

    pool: str
    gpus: int
    allocations: int
    peak: int
    at: int


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """`faults` is empty when all is well; each says what does not agree."""

    pools: tuple[PoolProof, ...]
    reservations: int
    faults: tuple[str, ...]


def audit(database: Database) -> Audit:
    """One consistent snapshot; memory for one pool's boundaries at a time."""
    with database.read() as connection:
        query, expected = _TRIGGERS[connection.dialect.name]
        missing = expected - {str(row[0]) for row in connection.execute(sa.text(query))}
        faults = [f"the guard {name} is missing" for name in sorted(missing)]
        proofs = []
        for row in connection.execute(tables.pool.select().order_by(tables.pool.c.number)).all():
            proof = _prove(connection, row)
            proofs.append(proof)
            if proof.peak > row.gpus:
                faults.append(f"{row.id}: {proof.peak} of {row.gpus} GPUs are sold at {proof.at}")
        count, found = _held_as_promised(connection)
    return Audit(pools=tuple(proofs), reservations=count, faults=tuple(faults + found))


def _prove(connection: sa.Connection, pool: sa.Row[tuple[object, ...]]) -> PoolProof:
    taken = connection.execute(
        sa.select(tables.allocation.c.first, tables.allocation.c.until, tables.allocation.c.gpus).where(
            tables.allocation.c.pool == pool.number
        )
    ).all()
    steps = sorted(
        itertools.chain.from_iterable(((first, gpus), (until, -gpus)) for first, until, gpus in taken)
    )  # at one slot the negative ones come first: what ends there is free
    used = peak = at = 0
    for slot, delta in steps:
        used += delta
        if used > peak:
            peak, at = used, slot
    return PoolProof(pool=pool.id, gpus=pool.gpus, allocations=len(taken), peak=peak, at=unix_s(at))


def _held_as_promised(connection: sa.Connection) -> tuple[int, list[str]]:
    """A booked reservation holds exactly its parts; one that is not booked holds nothing."""
    held: dict[str, list[tuple[int, int, int, int]]] = {}
    columns = tables.allocation.c
    for row in connection.execute(
        sa.select(columns.reservation, columns.pool, columns.first, columns.until, columns.gpus)
    ):
        held.setdefault(row.reservation, []).append((row.pool, row.first, row.until, row.gpus))
    faults = []
    count = 0
    for row in connection.execute(tables.reservation.select()):
        count += 1
        body = msgspec.json.decode(row.body, type=Body)
        promised = [(part.pool, body.first, body.until, part.gpus) for part in body.parts]
        has = held.pop(row.id, [])
        if row.state == "booked" and sorted(has) != sorted(promised):
            faults.append(f"{row.id}: holds {sorted(has)} but was promised {sorted(promised)}")
        if row.state != "booked" and has:
            faults.append(f"{row.id} is {row.state} but still holds GPUs")
    faults += [f"GPUs are held for {name}, which is no reservation" for name in held if not name.startswith("block-")]
    return count, faults
