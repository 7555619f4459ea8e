"""Group commit: a thread decides for everybody who waits for it, in the order of their coming.

A durable commit costs a flush of the disk, and on both databases whoever books in a pool waits for the flush of
whoever booked in it before. A thread that takes what has gathered, decides it in one transaction and commits once
loses nothing and shares the flush. A caller gets its answer after the commit, never before. The batch is as large as
the load made it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from sekisho.capacity.authority import authority
from sekisho.capacity.faults import Oversold, ReserveFault
from sekisho.capacity.model import Booking, Decision
from sekisho.runtime.database import Database

MAX_BATCH = 256
POSTGRESQL_LANES = 2
# While fewer wait, one lane: what is decided together shares a call and a commit.
ONE_LANE = 16
# Those who were answered together ask again together, if they do: as many are waited for, but not for long.
GATHER_S = 0.001
_Waiting = tuple[Booking, str, "Future[Decision]"]


class GroupWriter:
    """`submit` from any thread. `now` gives Unix seconds.

    PostgreSQL decides about several pools at once, so there are several threads for it, each with a connection: when
    many wait, a booking goes to that of its first pool, so that two of them seldom wait for the same lock. SQLite has
    one writer.
    """

    def __init__(self, database: Database, *, now: Callable[[], float]) -> None:
        lanes = POSTGRESQL_LANES if database.engine.dialect.name == "postgresql" else 1
        self._lanes = [_Lane(database, now=now, number=number) for number in range(lanes)]

    def submit(self, booking: Booking, *, who: str) -> Future[Decision]:
        """The decision, once it is durable."""
        lane = self._lanes[0]
        if len(self._lanes) > 1 and sum(each.waiting for each in self._lanes) > ONE_LANE:
            first = min((part.pool for part in booking.placement.parts), default=0)
            lane = self._lanes[first % len(self._lanes)]
        return lane.submit(booking, who=who)

    def close(self) -> None:
        """Decides what was submitted, then ends."""
        for lane in self._lanes:
            lane.close()


class _Lane:
    """One thread with what waits for it."""

    def __init__(self, database: Database, *, now: Callable[[], float], number: int) -> None:
        self._authority = authority(database, now=now)
        self._waiting: list[_Waiting] = []
        self._wake = threading.Condition()
        self._enough = 1
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"capacity-writer-{number}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many bookings wait, roughly."""
        return len(self._waiting)

    def submit(self, booking: Booking, *, who: str) -> Future[Decision]:
        future: Future[Decision] = Future()
        with self._wake:
            if self._closed:
                raise ReserveFault(
                    "the control plane is ending",
                    hint="try again when it runs",
                    fact_ja="コントロールプレーンは終了処理中です",
                    hint_ja="起動してから、もう一度試してください",
                )
            self._waiting.append((booking, who, future))
            if len(self._waiting) == 1 or len(self._waiting) >= self._enough:
                self._wake.notify()
        return future

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._authority.close()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if len(self._waiting) < self._enough and not self._closed:
                    self._wake.wait(GATHER_S)
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                self._enough = max(len(batch), 1)
            if not batch:
                return
            self._answer(batch)

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            decisions = self._authority.decide([(booking, who) for booking, who, _ in batch])
        except Oversold as error:
            # The guard stopped one of them: the others must not suffer for it.
            if len(batch) == 1:
                batch[0][2].set_exception(error)
            else:
                for waiting in batch:
                    self._answer([waiting])
        except Exception as error:
            for _, _, future in batch:
                future.set_exception(error)
        else:
            for (_, _, future), decision in zip(batch, decisions, strict=True):
                if isinstance(decision, Exception):
                    future.set_exception(decision)
                else:
                    future.set_result(decision)
