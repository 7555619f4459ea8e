"""Group commit on SQLite: one thread decides for everybody who waits, in the order of their coming.

SQLite has one writer at a time whatever we do, and a durable commit (synchronous FULL) costs a flush of the disk. One
thread that takes what has gathered, decides it one by one in one transaction and commits once loses nothing and
shares the flush. A caller gets its answer after the commit, never before. The batch is as large as the load made it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from sekisho.capacity.authority import book_sqlite
from sekisho.capacity.faults import Oversold, ReserveFault
from sekisho.capacity.index import CapacityIndex
from sekisho.capacity.model import Booking, Decision
from sekisho.runtime.database import Database

MAX_BATCH = 256
_Waiting = tuple[Booking, str, "Future[Decision]"]


class GroupWriter:
    """`submit` from any thread. `now` gives Unix seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._index = CapacityIndex()
        self._waiting: list[_Waiting] = []
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="capacity-writer", daemon=True)
        self._thread.start()

    def submit(self, booking: Booking, *, who: str) -> Future[Decision]:
        """The decision, once it is durable."""
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
            self._wake.notify()
        return future

    def close(self) -> None:
        """Decides what was submitted, then ends."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not batch:
                return
            try:
                decisions = self._decide(batch)
            except Oversold:
                self._one_by_one(batch)
            except Exception as error:
                self._index.forget()
                for _, _, future in batch:
                    future.set_exception(error)
            else:
                for (_, _, future), decision in zip(batch, decisions, strict=True):
                    future.set_result(decision)

    def _decide(self, batch: list[_Waiting]) -> list[Decision]:
        now = self._now()
        with self._database.write() as connection:
            self._index.sync(connection, now=now)
            return book_sqlite(connection, self._index, [(booking, who) for booking, who, _ in batch], now=now)

    def _one_by_one(self, batch: list[_Waiting]) -> None:
        """The guard stopped one of them: the others must not suffer for it."""
        for waiting in batch:
            try:
                waiting[2].set_result(self._decide([waiting])[0])
            except Exception as error:
                self._index.forget()
                waiting[2].set_exception(error)
