"""Whatever the order of events, on however many workers: when a borrower starts, a free slot is left for each request
of an owner that waits below its share; no endpoint has more under way than it has slots; everybody is served."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.gateway.limits import Board
from sekisho.gateway.live import Grant
from sekisho.gateway.shares import Place, Share, Shares
from sekisho.gateway.upstream import Endpoint
from support.background import SOAK
from support.routes import endpoints, over

WORKERS = 3
OWNERS = 3
LIMIT = 6
FOREVER = 4e9
NOBODY = -1


@dataclass(eq=False)
class Waits:
    """A request, without what it asks."""

    owner: int
    waiting: bool = True
    share: Share | None = None


@dataclass
class Worker:
    """One process's view: its own board, shares and endpoint."""

    board: Board
    shares: Shares
    endpoint: Endpoint
    owned: list[Share]
    running: list[tuple[int, Place | None]] = field(default_factory=list)
    waiting: list[Waits] = field(default_factory=list)

    def begin(self, owner: int) -> bool:
        """What a passage does. True: a borrower has started."""
        share = self.owned[owner] if owner != NOBODY else None
        if share is not None:
            place = share.take(over(self.endpoint), None, ())
            if place is not None:
                self.running.append((owner, place))
                return False
        if not self.waiting and self.shares.slots(self.endpoint.id, LIMIT).take():
            self.running.append((owner, share.at(self.endpoint) if share is not None else None))
            return True
        waiter = Waits(owner, share=share)
        self.waiting.append(waiter)
        if share is not None:
            share.wait(waiter)
            place = share.take(over(self.endpoint), None, ())
            if place is not None:
                self.serve(place)
        return False

    def serve(self, place: Place) -> None:
        waiter = place.share.pop()
        if not isinstance(waiter, Waits):
            place.release()
            return
        self.leave(waiter)
        self.running.append((waiter.owner, place))

    def leave(self, waiter: Waits) -> None:
        waiter.waiting = False
        self.waiting.remove(waiter)
        if waiter.share is not None:
            waiter.share.left()

    def slot_free(self) -> int:
        """As the gateway does when a slot may be free; how many borrowers have started."""
        while (place := self.shares.next_owner(self.endpoint.id)) is not None:
            self.serve(place)
        started = 0
        slots = self.shares.slots(self.endpoint.id, LIMIT)
        while self.waiting and slots.take():
            waiter = self.waiting[0]
            self.leave(waiter)
            self.running.append((waiter.owner, waiter.share.at(self.endpoint) if waiter.share is not None else None))
            started += 1
        return started

    def end(self, index: int) -> int:
        _, place = self.running.pop(index % len(self.running))
        if place is not None:
            place.release()
        else:
            self.shares.slots(self.endpoint.id, LIMIT).release()
        return self.slot_free()


STEPS = st.lists(
    st.tuples(
        st.integers(0, WORKERS - 1),
        st.sampled_from(["own"] * 3 + ["borrow"] * 3 + ["end"] * 4 + ["poll", "sweep", "go", "settle"]),
        st.integers(0, 5),
    ),
    max_size=120,
)  # fmt: skip


def under_way(workers: list[Worker]) -> list[int]:
    """Of each owner."""
    return [sum(1 for each in workers for who, _ in each.running if who == owner) for owner in range(OWNERS)]


def owed(workers: list[Worker], owned: list[int]) -> int:
    """Requests of owners that wait though less than their share is under way."""
    found = 0
    running = under_way(workers)
    for owner, share in enumerate(owned):
        waiting = sum(1 for each in workers for waiter in each.waiting if waiter.owner == owner)
        found += min(waiting, max(share - running[owner], 0))
    return found


def _worker(index: int, folder: Path, stack: ExitStack, owned: list[int], keep_warm_s: float) -> Worker:
    board = Board(folder / "limits.shm", worker=index, workers=WORKERS)
    stack.callback(board.close)
    (endpoint,) = stack.enter_context(endpoints((LIMIT,)))
    shares = Shares(board)
    shares.slots(endpoint.id, LIMIT)
    shares.adopt({endpoint.id})
    found = []
    for owner, slots in enumerate(owned):
        grants = [Grant(((endpoint, slots),), FOREVER, keep_warm_s)]
        share = shares.find(tenant=f"owner-{owner}", data_class=owner, model="m", grants=grants)
        assert share is not None
        found.append(share)
    return Worker(board, shares, endpoint, found)


def _step(worker: Worker, step: str, what: int) -> int:
    """How many borrowers have started."""
    match step:
        case "own":
            return int(worker.begin(what % OWNERS))
        case "borrow":
            return int(worker.begin(NOBODY))
        case "end" if worker.running:
            return worker.end(what)
        case "poll":
            return worker.slot_free()
        case "sweep":
            worker.shares.sweep(time.monotonic() + (10_000.0 if what > 3 else 0.0))
        case "settle":
            worker.shares.settle()
        case "go" if worker.waiting:
            worker.leave(worker.waiting[what % len(worker.waiting)])
        case _:
            pass
    return 0


@settings(max_examples=1500 if SOAK else 120, deadline=None)
@given(
    steps=STEPS,
    owned=st.lists(st.integers(0, 2), min_size=OWNERS, max_size=OWNERS),
    keep_warm_s=st.sampled_from([0.0, 0.0, 1000.0]),
)
def test_a_borrower_never_starts_on_a_slot_that_an_owner_waits_for(
    steps: list[tuple[int, str, int]], owned: list[int], keep_warm_s: float
) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = [_worker(index, Path(folder), stack, owned, keep_warm_s) for index in range(WORKERS)]
        for number, step, what in steps:
            before = under_way(workers)
            borrowed = _step(workers[number], step, what)
            # an owner beyond its share is a borrower like any other, however it came to its slot
            rows = zip(under_way(workers), before, owned, strict=True)
            borrowed += sum(after > max(earlier, share) for after, earlier, share in rows)
            free = LIMIT - sum(len(each.running) for each in workers)
            assert free >= 0
            # In another worker an owner takes its slot a moment later: until then it has to lie there.
            assert not borrowed or free >= owed(workers, owned), f"a borrower took an owner's slot at {step}"
        # and in the end everybody is served: nothing is lost, nothing lies idle
        for _ in range(1000):
            if not any(worker.waiting or worker.running for worker in workers):
                break
            for worker in workers:
                worker.shares.sweep(time.monotonic() + 10_000.0)
                worker.slot_free()
                if worker.running:
                    worker.end(0)
        assert not any(worker.waiting or worker.running for worker in workers)
