"""What people look at: how full pools are over time, who holds what, and why a wish does not fit somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import msgspec
import sqlalchemy as sa

from sekisho.capacity import store, tables
from sekisho.capacity.faults import NotAllowed
from sekisho.capacity.grid import HORIZON_SLOTS, current_slot
from sekisho.capacity.index import CapacityIndex, read_pools
from sekisho.capacity.model import Notice, Reservation, State, Wanted
from sekisho.capacity.search import NEVER
from sekisho.capacity.service import CapacityService
from sekisho.kernel.clock import Clock

# A picture of more than this is a blot, and its page would be slow: the reader narrows it.
MAX_TAKEN = 20_000


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a pool that is taken; `tenant` is empty for maintenance and hold-back."""

    reservation: str
    tenant: str
    pool: int
    first: int
    until: int
    gpus: int
    rank: int


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool says to a wish. `free`: GPUs free from its earliest start on, for all of its length. `at`: the
    first slot at which all of it fits, None within four years. `wished`: its site and model are asked for."""

    pool: int
    allowed: bool
    wished: bool
    free: int
    at: int | None


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """A pool over a window: the fewest GPUs that are free in each of the columns, and in all of it."""

    columns: tuple[int, ...]
    least: int


class Survey:
    """Reads only. `capacity` lends its index."""

    def __init__(self, capacity: CapacityService, *, clock: Clock) -> None:
        self._capacity = capacity
        self._clock = clock

    def where(self, wanted: Wanted) -> list[Fit]:
        """Every pool's answer, in the order of the pools; a fault when the wish can't be one."""
        now = self._clock.now()
        try:
            allowed = self._capacity.checked(wanted, now=now)
        except NotAllowed:
            allowed = frozenset()
        stop = current_slot(now) + HORIZON_SLOTS
        found = []
        with self._index() as index:
            for number, pool in index.pools.items():
                free = index.free[number]
                at = free.earliest(wanted.gpus, wanted.slots, wanted.first, stop, stop)
                wished = (not wanted.gpu_models or pool.gpu in wanted.gpu_models) and (
                    not wanted.sites or pool.site in wanted.sites
                )
                found.append(
                    Fit(
                        pool=number,
                        allowed=pool.site in allowed,
                        wished=wished,
                        free=free.least_free(wanted.first, wanted.first + wanted.slots),
                        at=None if at == NEVER else at,
                    )
                )
        return found

    def levels(self, first: int, until: int, *, columns: int) -> dict[int, Level]:
        """Each pool between two slots, in columns of equal width. What lies before today counts as free."""
        found = {}
        with self._index() as index:
            for number, free in index.free.items():
                edges = [first + (until - first) * column // columns for column in range(columns + 1)]
                least = tuple(
                    free.least_free(max(left, free.origin), max(right, left + 1, free.origin + 1))
                    for left, right in pairwise(edges)
                )
                found[number] = Level(columns=least, least=min(least))
        return found

    def taken(
        self, first: int, until: int, *, pools: tuple[int, ...], tenant: str = "", blocks: bool = False
    ) -> tuple[list[Taken], bool]:
        """Parts that overlap the window, and whether there are more of them. `blocks`: maintenance and hold-back
        alone."""
        column = tables.allocation.c
        query = (
            sa.select(*(column[field.name] for field in msgspec.structs.fields(Taken)))
            .select_from(_overlaps(pools, first, until))
            .order_by(column.first, column.id)
            .limit(MAX_TAKEN + 1)
        )
        if blocks:
            query = query.where(column.tenant == "")
        elif tenant:
            query = query.where(column.tenant == tenant)
        else:
            query = query.where(column.tenant != "")
        with self._capacity.database.read() as connection:
            rows = [Taken(**row._mapping) for row in connection.execute(query)]
        return rows[:MAX_TAKEN], len(rows) > MAX_TAKEN

    def reservations(
        self,
        first: int,
        until: int,
        *,
        pools: tuple[int, ...],
        tenant: str = "",
        state: State = "booked",
        after: str = "",
        limit: int,
    ) -> list[Reservation]:
        """In the order of their beginnings: booked ones that overlap the window in these pools; of other states,
        which hold nothing any more, those that began in it."""
        column = tables.reservation.c
        query = tables.reservation.select().where(column.state == state)
        query = query.order_by(column.starts_ms, column.id).limit(limit)
        if state == "booked":
            held = sa.select(tables.allocation.c.reservation).select_from(_overlaps(pools, first, until))
            query = query.where(column.id.in_(held))
        else:
            query = query.where(column.starts_ms >= store.slot_ms(first), column.starts_ms < store.slot_ms(until))
        if tenant:
            query = query.where(column.tenant == tenant)
        with self._capacity.database.read() as connection:
            if after:
                last = store.find(connection, after)
                query = query.where(
                    sa.tuple_(column.starts_ms, column.id)
                    > sa.tuple_(sa.literal(store.slot_ms(last.body.first)), sa.literal(after))
                )
            return [store.read(row) for row in connection.execute(query)]

    def count(self, first: int, until: int, *, pools: tuple[int, ...]) -> dict[str, int]:
        """How many reservations each tenant has in the window."""
        column = tables.allocation.c
        query = (
            sa.select(column.tenant, sa.func.count(column.reservation.distinct()))
            .select_from(_overlaps(pools, first, until))
            .where(column.tenant != "")
            .group_by(column.tenant)
            .order_by(column.tenant)
        )
        with self._capacity.database.read() as connection:
            return {str(tenant): int(number) for tenant, number in connection.execute(query)}

    @contextmanager
    def _index(self) -> Iterator[CapacityIndex]:
        with self._capacity.index() as index:
            yield index


def _overlaps(pools: tuple[int, ...], first: int, until: int) -> sa.FromClause:
    """Allocations that overlap the window, by the classes of length: a few short ranges of the index
    (`grid.span_of`), however many lie before."""
    column, span = tables.allocation.c, tables.span.c
    return sa.join(
        tables.allocation,
        tables.span,
        sa.and_(
            column.span == span.span,
            column.pool.in_(pools),
            column.first > first - span.slots,
            column.first < until,
            column.until > first,
        ),
    )


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The reservations of this moment. `unclaimed`: running, their owners were warned; `told`: notices since
    yesterday; `waiting`: how many wishes wait."""

    gpus: int = 0
    free: int = 0
    unclaimed: tuple[Reservation, ...] = ()
    told: tuple[Notice, ...] = ()
    waiting: int = 0


def standing(connection: sa.Connection, *, now: float) -> Standing:
    """One look for the first page: a few short queries, whatever the number of reservations."""
    here, column = current_slot(now), tables.reservation.c
    pools = read_pools(connection)
    numbers = tuple(pool.number for pool in pools)
    held = _overlaps(numbers, here, here + 1)
    taken = connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(tables.allocation.c.gpus), 0)).select_from(held))
    running = connection.execute(
        tables.reservation.select()
        .where(column.id.in_(sa.select(tables.allocation.c.reservation).select_from(held)))
        .order_by(column.starts_ms)
    )
    open_now = (store.read(row) for row in running)
    gpus = sum(pool.gpus for pool in pools)
    return Standing(
        gpus=gpus,
        free=max(gpus - int(taken or 0), 0),
        unclaimed=tuple(each for each in open_now if each.body.warned and not each.body.claimed),
        told=tuple(each for each in store.notices(connection) if each.at_ms >= (now - 86_400) * 1000),
        waiting=int(connection.scalar(sa.select(sa.func.count()).select_from(tables.wait)) or 0),
    )
