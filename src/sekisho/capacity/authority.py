"""The first guard: what decides whether a booking is made, in the transaction that makes it.

PostgreSQL: `capacity_book`, one call under advisory locks of the pools in the order of their numbers. SQLite: the
index, brought to the database's revision inside BEGIN IMMEDIATE: nobody can write between the look and the booking.
The second guard, triggers of their own (migration 0006), looks at the rows again. See README.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from sekisho.capacity import tables
from sekisho.capacity.faults import Oversold
from sekisho.capacity.grid import SLOT_S, span_of
from sekisho.capacity.index import CapacityIndex
from sekisho.capacity.model import Booked, Booking, Decision, Refused
from sekisho.runtime.database import Database, DatabaseUnavailable

_LOCK_SPACE = 7306  # of our advisory locks; the second number is the pool's

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
                sa.text("SELECT pg_advisory_xact_lock(:space, :pool)"), {"space": _LOCK_SPACE, "pool": pool}
            )


def peak(
    connection: sa.Connection, pool: int, first: int, until: int, *, tenant: str = "", tenants: tuple[str, ...] = ()
) -> int:
    """The most GPUs of the pool that are taken at any moment of [first, until): by all, or by these tenants."""
    values: dict[str, object] = {"pool": pool, "lo": first, "hi": until}
    if tenants:
        return int(connection.execute(_PEAK_TENANTS, {**values, "tenants": tenants}).scalar_one())
    if tenant:
        return int(connection.execute(_PEAK_TENANT, {**values, "tenant": tenant}).scalar_one())
    return int(connection.execute(_PEAK_ALL, values).scalar_one())


_BOOK = "SELECT capacity_book(%s, %s, %s, %s, %s, %s::int[], %s::int[], %s, %s, %s, %s, %s, %s, %s)"


class OneCall:
    """Bookings on PostgreSQL: one statement, which is a transaction of its own; one way to the server and back.

    It has connections of its own, which are in autocommit from their birth: pg8000 begins a transaction with whatever
    comes first, the pool's ping included, and what is put into autocommit only then is never committed.
    """

    def __init__(self, database: Database) -> None:
        self._engine = sa.create_engine(database.engine.url, isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        self._engine.dispose()

    def book(self, booking: Booking, *, now: float, who: str) -> Decision:
        """What `capacity_book` answers. Oversold when the second guard spoke."""
        try:
            with self._engine.connect() as connection:
                answer = str(connection.exec_driver_sql(_BOOK, _arguments(booking, now=now, who=who)).scalar_one())
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            raise DatabaseUnavailable(
                "the database did not answer", hint="ask again with the same idempotency key"
            ) from error
        except sa.exc.DBAPIError as error:
            raise guard_fault(error) from error
        return _decision(booking, answer)


def _arguments(booking: Booking, *, now: float, who: str) -> tuple[object, ...]:
    placed, body = booking.placement, booking.body
    parts = sorted(placed.parts, key=lambda part: part.pool)
    return (
        booking.id,
        body.tenant,
        placed.first,
        placed.until,
        span_of(placed.until - placed.first),
        [part.pool for part in parts],
        [part.gpus for part in parts],
        int(body.rank),
        placed.first * SLOT_S * 1000,
        msgspec.json.encode(body).decode(),
        int(now * 1000),
        who,
        booking.key,
        booking.digest,
    )


def _decision(booking: Booking, answer: str) -> Decision:
    verdict, *rest = answer.split()
    match verdict:
        case "booked":
            return Booked(id=booking.id)
        case "again":
            return Booked(id=rest[0], again=True)
        case "key":
            return Refused(reason="key")
        case "unknown":
            return Refused(reason="unknown", pool=int(rest[0]))
        case "limit":
            return Refused(reason="limit", pool=int(rest[0]), free=max(int(rest[1]), 0))
        case _:
            return Refused(reason="taken", pool=int(rest[0]), free=max(int(rest[1]), 0))


_KEY = "SELECT digest, reservation FROM capacity_key WHERE tenant = ? AND key = ?"
_NEW_KEY = "INSERT INTO capacity_key (tenant, key, digest, reservation, at_ms) VALUES (?, ?, ?, ?, ?)"
_NEW_ALLOCATION = (
    "INSERT INTO capacity_allocation (reservation, tenant, pool, first, until, span, gpus, rank)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEW_RESERVATION = (
    "INSERT INTO capacity_reservation (id, tenant, state, version, starts_ms, body) VALUES (?, ?, 'booked', 1, ?, ?)"
)
_NEW_VERSION = (
    "INSERT INTO capacity_version (reservation, version, at_ms, who, why, body) VALUES (?, 1, ?, ?, 'booked', ?)"
)


def book_sqlite(
    connection: sa.Connection, index: CapacityIndex, bookings: Iterable[tuple[Booking, str]], *, now: float
) -> list[Decision]:
    """Decides a batch in the order given, each with who asks. `index` was synchronised in this transaction.

    Through the driver itself: the five statements of a booking take less time than what is saved.
    """
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("book_sqlite needs SQLite")
    cursor = raw.cursor()
    try:
        return [_book_one(connection, cursor, index, booking, now=now, who=who) for booking, who in bookings]
    except sqlite3.IntegrityError as error:
        index.forget()
        raise guard_fault(error) from error
    finally:
        cursor.close()


def _book_one(
    connection: sa.Connection, cursor: sqlite3.Cursor, index: CapacityIndex, booking: Booking, *, now: float, who: str
) -> Decision:
    body, placed = booking.body, booking.placement
    if booking.key:
        earlier = cursor.execute(_KEY, (body.tenant, booking.key)).fetchone()
        if earlier is not None:
            return Booked(id=earlier[1], again=True) if earlier[0] == booking.digest else Refused(reason="key")
    for part in placed.parts:
        pool = index.pools.get(part.pool)
        if pool is None:
            return Refused(reason="unknown", pool=part.pool)
        free = index.free[part.pool]
        if not free.fits(part.gpus, placed.first, placed.until):
            return Refused(reason="taken", pool=part.pool, free=free.least_free(placed.first, placed.until))
        if pool.tenant_limit < pool.gpus:
            held = peak(connection, part.pool, placed.first, placed.until, tenant=body.tenant)
            if held + part.gpus > pool.tenant_limit:
                return Refused(reason="limit", pool=part.pool, free=max(pool.tenant_limit - held, 0))
    text = msgspec.json.encode(body).decode()
    at_ms = int(now * 1000)
    span = span_of(placed.until - placed.first)
    for part in placed.parts:
        cursor.execute(
            _NEW_ALLOCATION,
            (booking.id, body.tenant, part.pool, placed.first, placed.until, span, part.gpus, int(body.rank)),
        )
        index.apply(part.pool, placed.first, placed.until, part.gpus)
    cursor.execute(_NEW_RESERVATION, (booking.id, body.tenant, placed.first * SLOT_S * 1000, text))
    cursor.execute(_NEW_VERSION, (booking.id, at_ms, who, text))
    if booking.key:
        cursor.execute(_NEW_KEY, (body.tenant, booking.key, booking.digest, booking.id, at_ms))
    return Booked(id=booking.id)


def take(connection: sa.Connection, booking: Booking) -> None:
    """Writes the allocations of a placement; the second guard refuses what does not fit (Oversold)."""
    placed = booking.placement
    rows = [
        {
            "reservation": booking.id,
            "tenant": booking.body.tenant,
            "pool": part.pool,
            "first": placed.first,
            "until": placed.until,
            "span": span_of(placed.until - placed.first),
            "gpus": part.gpus,
            "rank": int(booking.body.rank),
        }
        for part in sorted(placed.parts, key=lambda part: part.pool)
    ]
    try:
        connection.execute(tables.allocation.insert(), rows)
    except (sa.exc.IntegrityError, sa.exc.ProgrammingError) as error:
        raise guard_fault(error) from error


def release(connection: sa.Connection, reservation: str) -> None:
    """Everything that the reservation holds is free."""
    connection.execute(tables.allocation.delete().where(tables.allocation.c.reservation == reservation))


def guard_fault(error: Exception) -> Exception:
    """Oversold when it was the guard that spoke; the error itself otherwise."""
    if "capacity_oversold" in str(error):
        return Oversold(
            "the second guard stopped a booking that would have sold GPUs twice; nothing was written",
            hint="run `sekisho reserve audit` and report this",
            fact_ja="GPU の二重販売につながる予約を、第 2 の検査が止めました。何も書き込まれていません",
            hint_ja="`sekisho reserve audit` を実行し、結果を報告してください",
        )
    return error
