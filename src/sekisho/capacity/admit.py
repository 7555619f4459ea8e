"""The one decision: may this tenant take these GPUs in this window? Every way to a reservation asks here.

Booking, the waitlist, a change, a transfer, a re-plan: all of them, under the locks of the pools, in the transaction
that writes. Two places decide the common case faster, and are held to the same answers by a test: `capacity_decide`
on PostgreSQL (migration 0012) and the index on SQLite (`authority`); both leave pools with quotas to this.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from sekisho.capacity import decide, store
from sekisho.capacity.index import read_pools
from sekisho.capacity.model import Placement, Rank, Refused

# Of our advisory locks: the second number is the pool's, or the hash of an idempotency key. Keys come before pools.
_POOLS, _KEYS = 7306, 7307

_PEAK = """
SELECT coalesce(max(used), 0) FROM (
  SELECT sum(delta) OVER (ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS used FROM (
    SELECT CASE e.value WHEN 0 THEN CASE WHEN a.first > :lo THEN a.first ELSE :lo END ELSE a.until END AS at,
           CASE e.value WHEN 0 THEN a.gpus ELSE -a.gpus END AS delta
    FROM capacity_span s
    CROSS JOIN capacity_allocation a
    CROSS JOIN (SELECT 0 AS value UNION ALL SELECT 1) e
    WHERE a.pool = :pool AND a.span = s.span AND a.first > :lo - s.slots AND a.first < :hi AND a.until > :lo {only}
  ) steps
) sums
"""
_PEAK_ALL = sa.text(_PEAK.format(only=""))
_PEAK_TENANT = sa.text(_PEAK.format(only="AND a.tenant = :tenant"))
_PEAK_TENANTS = sa.text(_PEAK.format(only="AND a.tenant IN :tenants AND a.rank < 2")).bindparams(
    sa.bindparam("tenants", expanding=True)
)


def lock_pools(connection: sa.Connection, pools: Iterable[int]) -> None:
    """Nobody else books in these pools until this transaction ends. (SQLite: BEGIN IMMEDIATE has done it.)"""
    if connection.dialect.name == "postgresql":
        for pool in sorted(set(pools)):
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(:space, :pool)"), {"space": _POOLS, "pool": pool}
            )


def lock_key(connection: sa.Connection, tenant: str, key: str) -> None:
    """Nobody else books with this idempotency key. Before the locks of pools, never after them."""
    if connection.dialect.name == "postgresql" and key:
        connection.execute(
            sa.text("SELECT pg_advisory_xact_lock(:space, hashtext(:key))"),
            {"space": _KEYS, "key": f"{tenant} {key}"},
        )


def peak(
    connection: sa.Connection, pool: int, first: int, until: int, *, tenant: str = "", tenants: tuple[str, ...] = ()
) -> int:
    """The most GPUs of the pool that are taken at any moment of [first, until): by all, by this tenant, or firmly and
    borrowed by these tenants."""
    values: dict[str, object] = {"pool": pool, "lo": first, "hi": until}
    if tenants:
        return int(connection.execute(_PEAK_TENANTS, {**values, "tenants": tenants}).scalar_one())
    if tenant:
        return int(connection.execute(_PEAK_TENANT, {**values, "tenant": tenant}).scalar_one())
    return int(connection.execute(_PEAK_ALL, values).scalar_one())


def admit(connection: sa.Connection, tenant: str, placed: Placement, *, backfill: bool) -> Rank | Refused:
    """How firmly the tenant may hold this, or why it may not. What it holds already counts: release that first when
    this takes its place."""
    pools = {pool.number: pool for pool in read_pools(connection)}
    rank = Rank.BACKFILL if backfill else Rank.FIRM
    for part in placed.parts:
        pool = pools.get(part.pool)
        if pool is None:
            return Refused(reason="unknown", pool=part.pool)
        taken = peak(connection, part.pool, placed.first, placed.until)
        if taken + part.gpus > pool.gpus:
            return Refused(reason="taken", pool=part.pool, free=max(pool.gpus - taken, 0))
        if pool.tenant_limit < pool.gpus:
            held = peak(connection, part.pool, placed.first, placed.until, tenant=tenant)
            if held + part.gpus > pool.tenant_limit:
                return Refused(reason="limit", pool=part.pool, free=max(pool.tenant_limit - held, 0))
        room = None if backfill else _room(connection, part.pool, placed, tenant)
        if room is not None and part.gpus > room.firm:
            if part.gpus > room.borrowed:
                return Refused(reason="limit", pool=part.pool, free=max(room.firm, room.borrowed))
            rank = Rank.BORROWED
    return rank


def _room(connection: sa.Connection, pool: int, placed: Placement, tenant: str) -> decide.Room | None:
    """None when the pool is not divided. Who has no part of a divided pool may only backfill it."""
    quotas = store.quotas(connection, pool)
    if not quotas:
        return None
    own = next((quota for quota in quotas if quota.tenant == tenant), None)
    if own is None:
        return decide.Room(firm=0, borrowed=0)
    members = tuple(quota.tenant for quota in quotas if quota.cohort == own.cohort)
    return decide.quota_room(
        own,
        quotas,
        own_peak=peak(connection, pool, placed.first, placed.until, tenants=(tenant,)),
        cohort_peak=peak(connection, pool, placed.first, placed.until, tenants=members),
    )
