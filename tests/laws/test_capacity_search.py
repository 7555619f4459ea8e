"""The index answers what a scan of every slot answers, after any sequence of changes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sekisho.capacity import search
from sekisho.capacity.search import NEVER, PoolIndex, earliest_of, load_pools

# Two whole groups and a part of a third: runs that cross blocks, groups and the horizon's end.
SLOTS = 2 * search.GROUP + 3 * search.BLOCK + 100
ORIGIN = 5_000
GPUS = 16

windows = st.tuples(
    st.integers(ORIGIN - 50, ORIGIN + SLOTS + 50),
    st.one_of(st.integers(1, 40), st.integers(1, SLOTS)),
    st.integers(-4, 6),
)
questions = st.tuples(
    st.integers(1, GPUS + 1),
    st.one_of(st.integers(1, 60), st.integers(1, SLOTS)),
    st.integers(ORIGIN - 20, ORIGIN + SLOTS),
    st.integers(ORIGIN, ORIGIN + SLOTS + 20),
)


def scan(free: list[int], gpus: int, slots: int, start: int, stop: int) -> int:
    run = 0
    if gpus > GPUS:  # a pool never gives more than it has, even where the changes below say so
        return NEVER
    for slot in range(max(start - ORIGIN, 0), min(stop - ORIGIN, SLOTS)):
        run = run + 1 if free[slot] >= gpus else 0
        if run == slots:
            return slot - slots + 1 + ORIGIN
    return NEVER


@given(st.lists(st.one_of(windows, questions), max_size=30))
def test_index_answers_as_a_scan_does(steps: list[Any]) -> None:
    index = PoolIndex(GPUS, ORIGIN, SLOTS)
    free = [GPUS] * SLOTS
    for step in steps:
        if len(step) == 3:
            first, length, gpus = step
            index.add(first, first + length, gpus)
            for slot in range(max(first - ORIGIN, 0), min(first + length - ORIGIN, SLOTS)):
                free[slot] -= gpus
        else:
            gpus, slots, start, stop = step
            expected = scan(free, gpus, slots, start, stop)
            assert index.earliest(gpus, slots, start, stop, stop) == expected
            assert earliest_of([index], gpus, slots, start, stop)[1] == expected
            if start >= ORIGIN and start + slots <= ORIGIN + SLOTS:
                least = min(free[start - ORIGIN : start - ORIGIN + slots])
                assert index.least_free(start, start + slots) == max(min(least, GPUS), 0)
                assert index.fits(gpus, start, start + slots) is (gpus <= least and gpus <= GPUS)
            else:
                assert not index.fits(gpus, start, start + slots)


@given(st.lists(st.tuples(st.integers(0, 2), windows), max_size=40), st.lists(questions, max_size=5))
def test_rebuilt_index_equals_the_grown_one(
    taken: list[tuple[int, tuple[int, int, int]]], asked: list[tuple[int, int, int, int]]
) -> None:
    grown = [PoolIndex(GPUS, ORIGIN, SLOTS) for _ in range(3)]
    for place, (first, length, gpus) in taken:
        grown[place].add(first, first + length, gpus)
    rebuilt = [PoolIndex(GPUS, ORIGIN, SLOTS) for _ in range(3)]
    rows = [(place + 1, first, first + length, gpus) for place, (first, length, gpus) in taken]
    load_pools(rebuilt, {1: 0, 2: 1, 3: 2}, rows)
    everywhere = range(ORIGIN, ORIGIN + SLOTS)
    for one, other in zip(rebuilt, grown, strict=True):
        assert [one.least_free(slot, slot + 1) for slot in everywhere] == [
            other.least_free(slot, slot + 1) for slot in everywhere
        ]
        assert (one.low, one.high) == (other.low, other.high)
    for gpus, slots, start, stop in asked:
        assert earliest_of(rebuilt, gpus, slots, start, stop) == earliest_of(grown, gpus, slots, start, stop)


@given(st.lists(st.tuples(st.integers(0, 3), windows), max_size=20), questions)
def test_the_earliest_of_all_pools_wins(
    taken: list[tuple[int, tuple[int, int, int]]], question: tuple[int, int, int, int]
) -> None:
    pools = [PoolIndex(GPUS, ORIGIN, SLOTS) for _ in range(4)]
    for place, (first, length, gpus) in taken:
        pools[place].add(first, first + length, abs(gpus))
    gpus, slots, start, stop = question
    alone = [pool.earliest(gpus, slots, start, stop, stop) for pool in pools]
    found = [(slot, place) for place, slot in enumerate(alone) if slot != NEVER]
    place, slot = earliest_of(pools, gpus, slots, start, stop)
    assert (slot, place) == (min(found) if found else (NEVER, NEVER))
