"""Limits over workers that share a board: never more than the limit, whatever the order of events."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.gateway.limits import Board, Bucket, Slots

WORKERS = 3
STEPS = st.lists(
    st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(["take", "take", "release", "give_back", "die"])),
    max_size=60,
)


@settings(max_examples=40)
@given(limit=st.integers(1, 40), steps=STEPS)
def test_slots_over_all_workers_never_exceed_the_limit(limit: int, steps: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limits.shm"
        boards = [Board(path, worker=n, workers=WORKERS) for n in range(WORKERS)]
        slots = [Slots(board, "e/one", limit) for board in boards]
        for worker, step in steps:
            match step:
                case "take":
                    taken = slots[worker].take()
                    assert taken or sum(each.in_use for each in slots) > 0
                case "release":
                    if slots[worker].in_use:
                        slots[worker].release()
                case "give_back":
                    slots[worker].give_back()
                case _:  # its successor frees what it held
                    boards[worker].close()
                    boards[worker] = Board(path, worker=worker, workers=WORKERS)
                    slots[worker] = Slots(boards[worker], "e/one", limit)
            assert sum(each.in_use for each in slots) <= limit
        for each in slots:
            while each.in_use:
                each.release()
            each.give_back()
        assert sum(slots[0].take() for _ in range(limit + 1)) == limit, "none is lost either"
        for board in boards:
            board.close()


TAKES = st.lists(
    st.tuples(st.integers(0, WORKERS - 1), st.floats(0, 5), st.sampled_from([1.0, 1.0, 7.0, 50.0]), st.booleans()),
    max_size=60,
)


@settings(max_examples=40)
@given(per_minute=st.integers(1, 200), takes=TAKES)
def test_a_bucket_never_admits_more_than_its_burst_and_its_rate(
    per_minute: int, takes: list[tuple[int, float, float, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        boards = [Board(Path(folder) / "limits.shm", worker=n, workers=WORKERS) for n in range(WORKERS)]
        buckets = [Bucket(board, "t/one", per_minute) for board in boards]
        now, started, admitted = 1000.0, 1000.0, 0.0
        for worker, later_s, amount, give_back in takes:
            now += later_s
            if give_back:
                buckets[worker].give_back(now)
            wait = buckets[worker].take(amount, now)
            assert wait >= 0
            admitted += amount if wait == 0 else 0
            assert admitted <= per_minute + (now - started) * per_minute / 60 + 1e-6
        for board in boards:
            board.close()


@given(overrun=st.floats(1, 100_000), per_minute=st.integers(60, 6000))
@settings(max_examples=30)
def test_what_was_used_beyond_the_estimate_is_paid_in_full(overrun: float, per_minute: int) -> None:
    """A debt that the bucket can't cover at once stays a debt: else every overrun is a gift."""
    with tempfile.TemporaryDirectory() as folder:
        board = Board(Path(folder) / "limits.shm", worker=0, workers=1)
        bucket = Bucket(board, "t/one", per_minute)
        now = 1000.0
        assert bucket.take(per_minute, now) == 0.0
        bucket.settle(-overrun)
        ends = now + overrun / per_minute * 60
        for _ in range(50):
            now += (ends - 1000.0) / 60
            bucket.give_back(now)
            assert bucket.take(1.0, now) > 0, "admitted before the debt was paid"
        board.close()


def test_the_wait_is_honest() -> None:
    with tempfile.TemporaryDirectory() as folder:
        board = Board(Path(folder) / "limits.shm", worker=0, workers=1)
        bucket = Bucket(board, "r/one", 60)
        now = 1000.0
        while (wait := bucket.take(1.0, now)) == 0.0:
            pass
        assert bucket.take(1.0, now + wait + 0.001) == 0.0
        board.close()
