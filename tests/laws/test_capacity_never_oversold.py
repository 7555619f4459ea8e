"""No pool is sold twice: processes that book and cancel against each other and are killed at any moment, and a
program that goes round the first guard. `python -m tests.soak.capacity` is the long form."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.capacity import tables
from sekisho.capacity.audit import audit
from sekisho.capacity.authority import authority, book_alone, guard_fault, take
from sekisho.capacity.faults import Oversold
from sekisho.capacity.grid import span_of
from sekisho.capacity.model import Body, Booked, Booking, Decision, Part, Placement, Refused
from sekisho.capacity.writer import GroupWriter
from sekisho.runtime.database import Database, sqlite_url
from soak.oversold import soak
from support.background import SOAK
from support.control import with_tables

NOW = 1_800_000_000.0
FIRST = int(NOW // 900) + 10
GPUS = (8, 16, 5)


def make_pools(database: Database, sizes: tuple[int, ...] = GPUS, *, tenant_limit: int = 1_000) -> None:
    with database.write(alone=False) as connection:
        connection.execute(
            tables.pool.insert(),
            [
                {
                    "number": number,
                    "id": f"site-{number}.h100",
                    "site": f"site-{number}",
                    "gpu": "h100",
                    "gpus": gpus,
                    "tenant_limit": tenant_limit,
                    "yen_per_gpu_hour": 400,
                    "revision": 0,
                }
                for number, gpus in enumerate(sizes, 1)
            ],
        )


def booking(
    name: str, parts: dict[int, int], first: int, slots: int, *, tenant: str = "hospital", key: str = ""
) -> Booking:
    placed = Placement(
        parts=tuple(Part(pool=pool, gpus=gpus) for pool, gpus in sorted(parts.items())),
        first=first,
        until=first + slots,
    )
    body = Body(
        tenant=tenant,
        data_class="internal",
        priority="standard",
        state="booked",
        first=placed.first,
        until=placed.until,
        parts=placed.parts,
        rank=0,
        price_yen=100,
    )
    return Booking(id=name, placement=placed, body=body, key=key, digest=f"{parts}{first}{slots}"[:64])


class Client:
    """Books as the service does on this database."""

    def __init__(self, url: str | sa.URL) -> None:
        self.database = Database(url)
        self._writer = GroupWriter(self.database, now=lambda: NOW)

    def book(self, wanted: Booking) -> Decision:
        return self._writer.submit(wanted, who="test").result(timeout=60)

    def close(self) -> None:
        self._writer.close()
        self.database.close()


def test_no_interleaving_and_no_crash_sells_a_gpu_twice(database: Database) -> None:
    """The soak in short; `database` is only asked for its kind. SEKISHO_SOAK_STEPS makes it longer."""
    found = soak(
        database.engine.dialect.name,
        steps=int(os.environ.get("SEKISHO_SOAK_STEPS", "1000")),
        clients=3,
        epoch_steps=10_000,
        seed=7,
        folder=Path(tempfile.gettempdir()),
        kill_every=200,
        crash_every=500,
    )
    assert found.faults == ()
    assert found.steps >= 1000
    # It was tight: a test in which nothing is ever full proves nothing.
    assert found.full == found.epochs


def test_the_second_guard_holds_alone(database: Database) -> None:
    make_pools(database, (8,))
    refused = []

    def rogue(number: int) -> None:
        for turn in range(6):
            try:
                with database.write(alone=False) as connection:
                    take(connection, booking(f"block-{number}-{turn}", {1: 3}, FIRST + turn, 4))
            except Oversold:
                refused.append(number)

    threads = [threading.Thread(target=rogue, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit(database).faults == ()
    assert refused


def test_an_allocation_is_never_changed_in_place_and_a_pool_never_shrinks_below_what_is_sold(
    database: Database,
) -> None:
    make_pools(database, (8,))
    with database.write(alone=False) as connection:
        take(connection, booking("block-1", {1: 6}, FIRST, 4))
    for statement in (
        tables.allocation.update().values(gpus=1),
        tables.allocation.update().values(first=FIRST + 1),
        tables.pool.update().values(gpus=5),
    ):
        with (
            pytest.raises((sa.exc.IntegrityError, sa.exc.ProgrammingError)) as raised,
            database.write(alone=False) as connection,
        ):
            connection.execute(statement)
        assert "capacity_" in str(raised.value)
    with database.write(alone=False) as connection:
        connection.execute(tables.pool.update().values(gpus=6))


def test_the_audit_sees_what_a_broken_guard_let_through(database: Database) -> None:
    make_pools(database, (8,))
    drops = (
        ("DROP TRIGGER capacity_guard_taken",)
        if database.engine.dialect.name == "sqlite"
        else ("ALTER TABLE capacity_allocation DISABLE TRIGGER capacity_guard_came",)
    )
    with database.write(alone=False) as connection:
        for drop in drops:
            connection.exec_driver_sql(drop)
        for number in range(2):
            take(connection, booking(f"block-{number}", {1: 5}, FIRST + number, 4))
        take(connection, booking("rv-nobody", {1: 1}, FIRST + 50, 1))
    faults = " / ".join(audit(database).faults)
    assert "guard" in faults
    assert "10 of 8 GPUs are sold" in faults
    assert "rv-nobody" in faults


def test_both_guards_allow_what_just_fits(database: Database, database_url: str | sa.URL) -> None:
    make_pools(database, (8, 4), tenant_limit=6)
    client = Client(database_url)
    assert isinstance(client.book(booking("a", {1: 6}, FIRST, 4)), Booked)
    # touches: what ends at a slot is free in it
    assert isinstance(client.book(booking("b", {1: 6}, FIRST + 4, 4)), Booked)
    assert client.book(booking("c", {1: 1}, FIRST + 3, 2)) == Refused(reason="limit", pool=1, free=0)
    assert client.book(booking("d", {1: 3}, FIRST + 3, 2, tenant="bank")) == Refused(reason="taken", pool=1, free=2)
    # all or nothing
    assert client.book(booking("e", {1: 2, 2: 5}, FIRST, 2, tenant="bank")) == Refused(reason="taken", pool=2, free=4)
    assert isinstance(client.book(booking("f", {1: 2, 2: 4}, FIRST, 8, tenant="bank", key="k")), Booked)
    assert client.book(booking("g", {1: 2, 2: 4}, FIRST, 8, tenant="bank", key="k")) == Booked(id="f", again=True)
    assert client.book(booking("h", {1: 1}, FIRST, 8, tenant="bank", key="k")) == Refused(reason="key")
    assert client.book(booking("i", {9: 1}, FIRST, 8)) == Refused(reason="unknown", pool=9)
    assert audit(client.database).faults == ()
    client.close()


ASKED = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from([1, 1, 2, 3, 9]), st.integers(1, 5), min_size=1, max_size=3),
        st.integers(0, 6),  # first
        st.integers(1, 8),  # slots
        st.sampled_from(["hospital", "bank"]),
        st.sampled_from(["", "", "", "a", "b"]),  # idempotency key
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=300 if SOAK else 25)
@given(
    asked=ASKED, batches=st.lists(st.integers(1, 12), min_size=1, max_size=6), tenant_limit=st.sampled_from([6, 1000])
)
def test_however_bookings_are_batched_every_way_of_deciding_says_the_same(
    postgresql_url: sa.URL, asked: list[Any], batches: list[int], tenant_limit: int
) -> None:
    """The three first guards: one call (PostgreSQL), the index (SQLite), and `admit`, one by one."""
    bookings = [
        booking(f"r{number}", parts, FIRST + first, slots, tenant=tenant, key=key)
        for number, (parts, first, slots, tenant, key) in enumerate(asked)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with_tables(path / "one.sqlite")
        with_tables(path / "two.sqlite")
        in_one_call, by_index, alone = (
            Database(url)
            for url in (postgresql_url, sqlite_url(path / "one.sqlite"), sqlite_url(path / "two.sqlite"))
        )
        with in_one_call.write() as connection:
            connection.exec_driver_sql(
                "TRUNCATE capacity_pool, capacity_allocation, capacity_reservation, capacity_version, capacity_key,"
                " capacity_change, capacity_quota"
            )
        for database in (in_one_call, by_index, alone):
            make_pools(database, tenant_limit=tenant_limit)
        first, second = (authority(database, now=lambda: NOW) for database in (in_one_call, by_index))
        at = turn = 0
        while at < len(bookings):
            batch = [(each, "test") for each in bookings[at : at + batches[turn % len(batches)]]]
            expected = [book_alone(alone, each, who=who, now=NOW) for each, who in batch]
            assert first.decide(batch) == expected
            assert second.decide(batch) == expected
            at, turn = at + len(batch), turn + 1
        assert all(audit(database).faults == () for database in (in_one_call, by_index, alone))
        for each in (first, second, in_one_call, by_index, alone):
            each.close()


def test_other_errors_are_not_called_oversold() -> None:
    error = ValueError("no such table")
    assert guard_fault(error) is error
    assert span_of(1) == 0
    assert [span_of(slots) for slots in (2, 3, 4, 5, 1 << 17)] == [1, 2, 2, 3, 17]
