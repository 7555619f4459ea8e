"""Laws of one direction of a line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sekisho.lab.router import Character, Direction

MS = 1_000_000
characters = st.builds(
    Character,
    delay_ns=st.integers(0, 200 * MS),
    jitter_ns=st.integers(0, 20 * MS),
    loss=st.floats(0, 1),
    mbit=st.none() | st.floats(0.1, 10_000),
    queue_ns=st.integers(0, 200 * MS),
    cut=st.booleans(),
)
packets = st.lists(st.tuples(st.integers(20, 65_535), st.integers(0, 5 * MS)), max_size=60)


@given(characters, packets, st.integers())
def test_every_packet_is_due_in_order_or_counted_as_dropped(
    character: Character, arriving: list[tuple[int, int]], seed: int
) -> None:
    line = Direction(character, out=-1, seed=seed)
    now, last, passed = 1, 0, 0
    for size, pause in arriving:
        now += pause
        due = line.due(size, now)
        if due:
            assert due >= now + character.delay_ns, "no packet is faster than its line"
            assert due >= last, "no packet overtakes another"
            last, passed = due, passed + 1
    dropped = line.lost_packets + line.cut_packets + line.overflowed_packets
    assert line.entered_packets == len(arriving) == passed + dropped
    assert line.entered_bytes == sum(size for size, _ in arriving)
    if character.cut:
        assert passed == 0


@given(packets, st.integers())
def test_the_same_seed_loses_the_same_packets(arriving: list[tuple[int, int]], seed: int) -> None:
    half = Character(delay_ns=MS, loss=0.5, jitter_ns=MS)
    one, two = Direction(half, out=-1, seed=seed), Direction(half, out=-1, seed=seed)
    assert [one.due(size, MS) for size, _ in arriving] == [two.due(size, MS) for size, _ in arriving]


def test_bandwidth_spaces_packets_and_a_full_queue_drops_the_tail() -> None:
    line = Direction(Character(delay_ns=0, mbit=12.0, queue_ns=2 * MS), out=-1, seed=1)
    # 1,500 bytes at 12 Mbit/s are 1 ms
    assert [line.due(1500, MS) for _ in range(5)] == [2 * MS, 3 * MS, 4 * MS, 0, 0]
    assert line.overflowed_packets == 2
