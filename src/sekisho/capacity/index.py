"""The index of all pools, held at the database's revision. Not safe among threads: its owner has a lock."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from sekisho.capacity import tables
from sekisho.capacity.grid import HORIZON_SLOTS, SLOTS_PER_DAY, current_slot
from sekisho.capacity.model import Pool
from sekisho.capacity.search import PoolIndex, load_pools

# The index begins at the day it was made and reaches this far behind the horizon; then it is made anew.
SLACK_DAYS = 8
_SLOTS = HORIZON_SLOTS + SLACK_DAYS * SLOTS_PER_DAY
STANDS = "SELECT count(*), coalesce(sum(revision), 0) FROM capacity_pool"
_POOLS = sa.select(*(tables.pool.c[name] for name in Pool.__struct_fields__)).order_by(tables.pool.c.number)


def read_pools(connection: sa.Connection) -> list[Pool]:
    """All pools in the order of their numbers, which is the order of their locks."""
    return [Pool(**row._mapping) for row in connection.execute(_POOLS)]


class CapacityIndex:
    """For each pool what it is, and what is free of it: backfill and what is borrowed count as taken."""

    def __init__(self) -> None:
        self.pools: dict[int, Pool] = {}
        self.free: dict[int, PoolIndex] = {}
        self._origin = -1

    def sync(self, connection: sa.Connection, *, now: float, stands: tuple[int, int] | None = None) -> None:
        """Brings the index to the state that this transaction sees; `stands` when the caller has asked STANDS itself.

        Inside a writing transaction (SQLite), or under the pools' locks (PostgreSQL), it stays true until the commit.
        """
        today = current_slot(now) // SLOTS_PER_DAY * SLOTS_PER_DAY
        if not self._origin <= today < self._origin + (SLACK_DAYS - 1) * SLOTS_PER_DAY:
            self._origin = today
            self.pools, self.free = {}, {}
        # Revisions only grow, and none of ours is ahead of the database: equal sums mean that each is equal.
        count, total = stands or connection.exec_driver_sql(STANDS).one()
        if count == len(self.pools) and total == sum(pool.revision for pool in self.pools.values()):
            return
        pools = read_pools(connection)
        stale = [pool for pool in pools if not self._catch_up(connection, pool)]
        if stale:
            self._reload(connection, stale)
        if len(pools) != len(self.pools):
            self.forget(set(self.pools) - {pool.number for pool in pools})

    def apply(self, number: int, first: int, until: int, gpus: int) -> None:
        """What this process has written in the same transaction; the trigger counted one revision for it."""
        pool = self.pools[number]
        self.free[number].add(first, until, gpus)
        self.pools[number] = _at(pool, pool.revision + 1)

    def forget(self, numbers: Iterable[int] | None = None) -> None:
        """After a rollback: what was applied is not so. All pools when none are named."""
        for number in list(self.pools if numbers is None else numbers):
            del self.pools[number], self.free[number]

    def _catch_up(self, connection: sa.Connection, pool: Pool) -> bool:
        known = self.pools.get(pool.number)
        if known is None or known.gpus != pool.gpus or known.revision > pool.revision:
            return False
        if known.revision < pool.revision:
            changes = connection.execute(
                sa.select(tables.change)
                .where(tables.change.c.pool == pool.number, tables.change.c.revision > known.revision)
                .order_by(tables.change.c.revision)
            ).all()
            if len(changes) != pool.revision - known.revision:
                return False  # the feed was pruned since
            for row in changes:
                self.free[pool.number].add(row.first, row.until, row.gpus)
        self.pools[pool.number] = pool
        return True

    def _reload(self, connection: sa.Connection, pools: list[Pool]) -> None:
        places = {pool.number: place for place, pool in enumerate(pools)}
        free = [PoolIndex(pool.gpus, self._origin, _SLOTS) for pool in pools]
        load_pools(free, places, _allocations(connection, list(places), self._origin))
        for pool in pools:
            self.pools[pool.number] = pool
            self.free[pool.number] = free[places[pool.number]]


def _at(pool: Pool, revision: int) -> Pool:
    return Pool(
        number=pool.number,
        id=pool.id,
        site=pool.site,
        gpu=pool.gpu,
        gpus=pool.gpus,
        tenant_limit=pool.tenant_limit,
        yen_per_gpu_hour=pool.yen_per_gpu_hour,
        revision=revision,
    )


# pg8000 decodes a million rows in ten seconds and one value of 20 MB in none.
_PACKED = (
    "SELECT string_agg(int4send(pool) || int4send(first) || int4send(until) || int4send(gpus), ''"
    "::bytea) AS packed FROM capacity_allocation WHERE until > :origin AND pool = ANY(:pools)"
)
_ROWS = "SELECT pool, first, until, gpus FROM capacity_allocation WHERE until > ? AND pool = ?"
# Rows in the order in which they lie: half of the table by its index takes longer than all of it.
_EVERY_ROW = "SELECT pool, first, until, gpus FROM capacity_allocation NOT INDEXED WHERE until > ?"


def _allocations(connection: sa.Connection, numbers: list[int], origin: int) -> Iterator[tuple[int, int, int, int]]:
    """(pool, first, until, GPUs) of what is taken from `origin` on."""
    if connection.dialect.name == "postgresql":
        packed = connection.execute(sa.text(_PACKED), {"origin": origin, "pools": numbers}).scalar() or b""
        yield from struct.iter_unpack(">4i", packed)
        return
    # Through the driver itself: SQLAlchemy would make an object of each row.
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("an index needs SQLite or PostgreSQL")
    count: int = raw.execute("SELECT count(*) FROM capacity_pool").fetchone()[0]
    if len(numbers) * 4 > count:
        wanted = set(numbers)
        yield from (row for row in raw.execute(_EVERY_ROW, (origin,)) if row[0] in wanted)
        return
    for number in numbers:
        yield from raw.execute(_ROWS, (origin, number))
