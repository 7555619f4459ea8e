"""The first guard: what decides whether bookings are made, many in one transaction, and writes them there.

PostgreSQL: `capacity_decide`, one call under advisory locks of the pools in the order of their numbers. SQLite: the
index, brought to the database's revision inside BEGIN IMMEDIATE: nobody can write between the look and the booking.
The second guard, triggers of their own (migration 0006), looks at the rows again. See README.md.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.capacity import store, tables
from sekisho.capacity.admit import admit, lock_key, lock_pools, peak
from sekisho.capacity.faults import Oversold
from sekisho.capacity.grid import SLOT_S, span_of
from sekisho.capacity.index import STANDS, CapacityIndex
from sekisho.capacity.model import Booked, Booking, Decision, Rank, Refused, Reservation
from sekisho.runtime.database import Database, DatabaseUnavailable

Asked = tuple[Booking, str]  # and who asks


class OneCall:
    """Bookings on PostgreSQL: one statement, which is a transaction of its own; one way to the server and back.

    It has connections of its own, which are in autocommit from their birth: pg8000 begins a transaction with whatever
    comes first, the pool's ping included, and what is put into autocommit only then is never committed.
    """

    def __init__(self, database: Database, *, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._engine = sa.create_engine(database.engine.url, isolation_level="AUTOCOMMIT")
        self._kept: sa.Connection | None = None

    def close(self) -> None:
        self._forget()
        self._engine.dispose()

    def _forget(self) -> None:
        """The connection, after a fault: nobody gets it again, and the next decision makes another one."""
        kept, self._kept = self._kept, None
        if kept is not None:
            with contextlib.suppress(Exception):
                kept.invalidate()
                kept.close()

    def decide(self, asked: list[Asked]) -> list[Decision | Exception]:
        """What `capacity_decide` answers. Oversold when the second guard spoke: then none of them is written. A fault
        in the place of a decision is of that booking alone: the others are made."""
        now = self._now()
        batch = msgspec.json.encode([_row(booking, who) for booking, who in asked]).decode()
        # As literals: with parameters it were two ways to the server and back.
        call = f"SELECT to_jsonb(capacity_decide({int(now * 1000)}, {_literal(batch)}::jsonb))::text"
        try:
            if self._kept is None:
                self._kept = self._engine.connect()
            answers: list[str] = msgspec.json.decode(self._kept.exec_driver_sql(call).scalar_one(), type=list[str])
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, OSError) as error:
            self._forget()
            raise DatabaseUnavailable(
                "the database did not answer", hint="ask again with the same idempotency key"
            ) from error
        except sa.exc.DBAPIError as error:
            self._forget()
            error.statement = "SELECT capacity_decide(…)"  # what tenants wrote is not for a log
            raise guard_fault(error) from error
        except BaseException:
            self._forget()
            raise
        return [
            self._alone(booking, who, now) if answer == "divided" else _decision(booking, answer)
            for (booking, who), answer in zip(asked, answers, strict=True)
        ]

    def _alone(self, booking: Booking, who: str, now: float) -> Decision | Exception:
        try:
            return book_alone(self._database, booking, who=who, now=now)
        except Exception as error:
            return error


def _literal(text: str) -> str:
    """As an SQL literal, whatever `standard_conforming_strings` is (PostgreSQL 18, 4.1.2.2)."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _row(booking: Booking, who: str) -> dict[str, object]:
    placed, body = booking.placement, booking.body
    return {
        "id": booking.id,
        "tenant": body.tenant,
        "first": placed.first,
        "until": placed.until,
        "span": span_of(placed.until - placed.first),
        "pools": [part.pool for part in placed.parts],
        "gpus": [part.gpus for part in placed.parts],
        "rank": int(body.rank),
        "starts_ms": placed.first * SLOT_S * 1000,
        "body": msgspec.json.encode(body).decode(),
        "who": who,
        "key": booking.key,
        "digest": booking.digest,
    }


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


def book_alone(database: Database, booking: Booking, *, who: str, now: float) -> Decision:
    """The slower way, for pools that are divided among tenants: `admit` under the locks."""
    with database.write(alone=False) as connection:
        lock_key(connection, booking.body.tenant, booking.key)
        lock_pools(connection, (part.pool for part in booking.placement.parts))
        return _book_here(connection, booking, who=who, now=now)


def _book_here(connection: sa.Connection, booking: Booking, *, who: str, now: float) -> Decision:
    body = booking.body
    if booking.key:
        earlier = store.find_key(connection, body.tenant, booking.key)
        if earlier is not None:
            same = earlier.digest == booking.digest
            return Booked(id=earlier.reservation, again=True) if same else Refused(reason="key")
    rank = admit(connection, body.tenant, booking.placement, backfill=body.priority == "backfill")
    if isinstance(rank, Refused):
        return rank
    write_new(connection, booking, rank, who=who, why="booked", now=now)
    return Booked(id=booking.id)


def write_new(
    connection: sa.Connection, booking: Booking, rank: Rank, *, who: str, why: str, now: float
) -> Reservation:
    """A reservation with its allocations, its first version and its idempotency key, after `admit` said how firm."""
    final = msgspec.structs.replace(booking, body=msgspec.structs.replace(booking.body, rank=int(rank)))
    take(connection, final)
    made = Reservation(id=final.id, version=1, body=final.body)
    store.insert(connection, made, now=now, who=who, why=why)
    if final.key:
        store.insert_key(connection, final.body.tenant, final.key, digest=final.digest, reservation=final.id, now=now)
    return made


class InIndex:
    """Bookings on SQLite: the index decides, at the database's own revision, inside the transaction that writes."""

    def __init__(self, database: Database, *, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._index = CapacityIndex()
        self._kept: sa.Connection | None = None

    def close(self) -> None:
        """After the last decision."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def decide(self, asked: list[Asked]) -> list[Decision | Exception]:
        """In the order given. Oversold when the second guard spoke: then none of them is written."""
        now = self._now()
        try:
            if self._kept is None:
                self._kept = self._database.keep()
                _driver_of(self._kept).execute(_CHECKPOINTS)
            with self._database.write(on=self._kept) as connection:
                raw = _driver_of(connection)
                # By the driver: this is asked for every batch, and SQLAlchemy needs longer for it than SQLite.
                self._index.sync(connection, now=now, stands=raw.execute(STANDS).fetchone())
                batch = _Batch(connection, raw, self._index, now=now)
                decisions: list[Decision | Exception] = [batch.decide(booking, who=who) for booking, who in asked]
                batch.write()
                return decisions
        except sqlite3.IntegrityError as error:
            self._index.forget()
            raise guard_fault(error) from error
        except sqlite3.OperationalError as error:
            self._forget()
            raise DatabaseUnavailable(
                f"the database did not answer: {error}", hint="ask again with the same idempotency key"
            ) from error
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Nothing is known of the database, nor of the connection."""
        self._index.forget()
        with contextlib.suppress(Exception):
            self.close()


# From the write-ahead log to the file after 32 MB instead of 4: measured, p99 of a batch 7.5 ms instead of 11.5.
_CHECKPOINTS = "PRAGMA wal_autocheckpoint = 8000"
# The rows of a batch come as one JSON text: one statement a table, inside which no other thread is waited for.
_WRITES = {
    "capacity_allocation (reservation, tenant, pool, first, until, span, gpus, rank)": 8,
    "capacity_reservation (id, tenant, state, version, starts_ms, body)": 6,
    "capacity_version (reservation, version, at_ms, who, why, body)": 6,
    "capacity_key (tenant, key, digest, reservation, at_ms)": 5,
}
_INSERTS = tuple(
    # S608: the names of this file's own tables and columns
    f"INSERT INTO {into} SELECT {', '.join(f'value ->> {place}' for place in range(count))} FROM json_each(?)"  # noqa: S608
    for into, count in _WRITES.items()
)


def _driver_of(connection: sa.Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("an index decides on SQLite only")
    return raw


class _Batch:
    """What was decided in this transaction and is written with few statements."""

    def __init__(
        self, connection: sa.Connection, raw: sqlite3.Connection, index: CapacityIndex, *, now: float
    ) -> None:
        self._connection = connection
        self._raw = raw
        self._index = index
        self._now = now
        self._rows: tuple[list[Any], ...] = ([], [], [], [])
        self._divided = frozenset(int(pool) for (pool,) in raw.execute("SELECT DISTINCT pool FROM capacity_quota"))

    def decide(self, booking: Booking, *, who: str) -> Decision:
        body, placed = booking.body, booking.placement
        if booking.key or any(part.pool in self._divided for part in placed.parts):
            self.write()  # what follows asks the rows
            decision = _book_here(self._connection, booking, who=who, now=self._now)
            if decision == Booked(id=booking.id):
                self._apply(booking)
            return decision
        for part in placed.parts:
            pool = self._index.pools.get(part.pool)
            if pool is None:
                return Refused(reason="unknown", pool=part.pool)
            free = self._index.free[part.pool]
            if not free.fits(part.gpus, placed.first, placed.until):
                return Refused(reason="taken", pool=part.pool, free=free.least_free(placed.first, placed.until))
            if pool.tenant_limit < pool.gpus:
                self.write()
                held = peak(self._connection, part.pool, placed.first, placed.until, tenant=body.tenant)
                if held + part.gpus > pool.tenant_limit:
                    return Refused(reason="limit", pool=part.pool, free=max(pool.tenant_limit - held, 0))
        allocations, reservations, versions, _ = self._rows
        text = msgspec.json.encode(body).decode()
        span = span_of(placed.until - placed.first)
        allocations.extend(
            (booking.id, body.tenant, part.pool, placed.first, placed.until, span, part.gpus, int(body.rank))
            for part in placed.parts
        )
        reservations.append((booking.id, body.tenant, "booked", 1, placed.first * SLOT_S * 1000, text))
        versions.append((booking.id, 1, int(self._now * 1000), who, "booked", text))
        self._apply(booking)
        return Booked(id=booking.id)

    def write(self) -> None:
        for rows, insert in zip(self._rows, _INSERTS, strict=True):
            if rows:
                self._raw.execute(insert, (msgspec.json.encode(rows).decode(),))
                rows.clear()

    def _apply(self, booking: Booking) -> None:
        placed = booking.placement
        for part in placed.parts:
            self._index.apply(part.pool, placed.first, placed.until, part.gpus)


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
    if "capacity_oversold" in str(getattr(error, "orig", error)):  # not in the statement, where tenants' notes stand
        return Oversold(
            "the second guard stopped a booking that would have sold GPUs twice; nothing was written",
            hint="run `sekisho reserve audit` and report this",
            fact_ja="GPU の二重販売につながる予約を、第 2 の検査が止めました。何も書き込まれていません",
            hint_ja="`sekisho reserve audit` を実行し、結果を報告してください",
        )
    return error


def authority(database: Database, *, now: Callable[[], float]) -> OneCall | InIndex:
    """The first guard of this database."""
    return OneCall(database, now=now) if database.engine.dialect.name == "postgresql" else InIndex(database, now=now)
