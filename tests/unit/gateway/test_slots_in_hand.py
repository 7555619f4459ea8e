"""Slots in hand: what an owner has just given back, and has again without asking the board of all workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sekisho.gateway.limits import Board
from sekisho.gateway.live import Grant
from sekisho.gateway.shares import Share, Shares
from sekisho.gateway.upstream import Endpoint
from support.routes import endpoints, over

LIMIT = 2


class Worker:
    """One process's view of an endpoint of two slots, one of which is somebody's."""

    def __init__(self, folder: Path, index: int, stack: ExitStack, *, keep_warm_s: float, until: float) -> None:
        board = Board(folder / "limits.shm", worker=index, workers=2)
        stack.callback(board.close)
        (self.endpoint,) = stack.enter_context(endpoints((LIMIT,)))
        self.asked = 0
        self.shares = Shares(board, later=self._later)
        self.slots = self.shares.slots(self.endpoint.id, LIMIT)
        self.shares.adopt({self.endpoint.id})
        grants = [Grant(((self.endpoint, 1),), until, keep_warm_s)]
        share = self.shares.find(tenant="owner", data_class=1, model="m", grants=grants)
        assert share is not None
        self.share: Share = share

    def _later(self) -> None:
        self.asked += 1

    def take(self, endpoint: Endpoint | None = None) -> bool:
        place = self.share.take(over(endpoint or self.endpoint), None, ())
        if place is None:
            return False
        self.place = place
        return True


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    with ExitStack() as stack:
        one, two = (Worker(tmp_path, index, stack, keep_warm_s=1000.0, until=4e9) for index in range(2))
        yield one, two


def test_a_slot_in_hand_is_had_again_here_and_elsewhere_once_it_is_settled(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    assert one.take()
    one.place.release()
    assert one.asked == 1, "somebody sees to it that it is settled"
    assert not two.take(), "on the board it is still in use"
    assert one.take()
    assert one.place.running == 1
    one.place.release()
    one.shares.settle()
    assert two.take()
    assert not one.take(), "the share is one slot"


def test_a_slot_in_hand_is_kept_from_borrowers_as_it_would_be_on_the_board(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    assert one.take()
    one.place.release()
    assert two.slots.take()
    assert not two.slots.take()
    one.shares.settle()
    assert not two.slots.take()


def test_while_the_owner_waits_elsewhere_nothing_stays_in_hand(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    assert one.take()
    waiter = type("Waiter", (), {"waiting": True})()
    assert not two.take()
    two.share.wait(waiter)
    one.place.release()
    assert one.place.spare == 0
    assert two.shares.next_owner(two.endpoint.id) is not None


def test_what_nobody_keeps_warm_is_not_held_either(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = Worker(tmp_path, 0, stack, keep_warm_s=0.0, until=4e9)
        assert one.take()
        one.place.release()
        assert one.place.spare == 0
        assert [one.slots.take() for _ in range(LIMIT)] == [True, True]


def test_a_grant_that_ends_takes_what_is_in_hand_with_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = Worker(tmp_path, 0, stack, keep_warm_s=1000.0, until=time.time() + 0.2)
        assert one.take()
        one.place.release()
        assert one.place.spare == 1
        time.sleep(0.25)
        assert not one.take()
        one.shares.settle()
        assert [one.slots.take() for _ in range(LIMIT)] == [True, True], "lent, and not kept"
