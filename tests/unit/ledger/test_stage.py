"""The stage: frames reach their segments whatever the turns of its halves, and come back after kill -9."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sekisho.ledger.journal import read_records
from sekisho.ledger.stage import Segment, Stage

HALF = 1024


def frame(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


def segment(folder: Path, number: int) -> Segment:
    return Segment(folder / f"{number:08d}.journal", number, 1 << 16)


def payloads(path: Path) -> list[bytes]:
    return [payload for _, payload in read_records(path)]


# Payloads of all sizes, some larger than a half; None: the thread comes by and drains.
STEPS = st.lists(st.one_of(st.binary(min_size=1, max_size=400), st.just(b"x" * 1500), st.none()), max_size=30)


def play(stage: Stage, into: Segment, steps: list[bytes | None]) -> list[bytes]:
    for step in steps:
        if step is None:
            stage.drain()
        else:
            stage.put(frame(step), into)
    return [step for step in steps if step is not None]


@settings(max_examples=150)
@given(STEPS)
def test_a_drain_brings_everything_to_the_segment(steps: list[bytes | None]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        stage, into = Stage(Path(temporary), HALF), segment(Path(temporary), 1)
        stage.begin(into)
        put = play(stage, into, steps)
        stage.drain()
        assert payloads(into.path) == put
        stage.close()
        into.seal()


@settings(max_examples=150)
@given(STEPS, STEPS)
def test_replay_after_kill_9_brings_back_what_was_not_drained(
    first: list[bytes | None], second: list[bytes | None]
) -> None:
    """Over a change of segments too; and a second replay changes nothing."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        killed = Stage(folder, HALF)  # its process ends without another word
        one, two = segment(folder, 1), segment(folder, 2)
        killed.begin(one)
        put_one = play(killed, one, first)
        killed.begin(two)
        put_two = play(killed, two, second)
        for _ in range(2):
            found = Stage(folder, HALF)
            found.replay()
            assert payloads(one.path) == put_one
            assert payloads(two.path) == put_two
        found.reset()
        Stage(folder, HALF).replay()
        assert payloads(two.path) == put_two


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=12), st.data())
def test_what_an_earlier_turn_left_is_never_read_as_new(puts: list[bytes], data: st.DataObject) -> None:
    """Kill -9 in the middle of the copy of a frame: the bytes behind it are those of an earlier lap."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stage, into = Stage(folder, HALF), segment(folder, 1)
        stage.begin(into)
        written: list[bytes] = []
        for _ in range(8):  # every half gets old frames of the same sizes
            for payload in puts:
                stage.put(frame(payload), into)
                written.append(payload)
        last = len(frame(written.pop()))
        torn = data.draw(st.integers(1, last))
        half = stage._half
        whole = stage._map[half.at - torn : half.at]
        left = bytes(torn) if data.draw(st.booleans()) else os.urandom(torn)
        assume(left != whole)
        stage._map[half.at - torn : half.at] = left
        Stage(folder, HALF).replay()
        assert payloads(into.path) == written


def test_a_stage_of_another_boot_says_nothing(tmp_path: Path) -> None:
    stage, into = Stage(tmp_path, HALF), segment(tmp_path, 1)
    stage.begin(into)
    stage.put(frame(b"lost with the power"), into)
    with (tmp_path / "stage").open("r+b") as file:
        for at in (0, HALF):
            file.seek(at)
            file.write(os.urandom(16))
    Stage(tmp_path, HALF).replay()
    assert payloads(into.path) == []


def test_a_stage_whose_segment_is_gone_is_left_alone(tmp_path: Path) -> None:
    stage, into = Stage(tmp_path, HALF), segment(tmp_path, 1)
    stage.begin(into)
    stage.put(frame(b"x"), into)
    into.path.unlink()
    Stage(tmp_path, HALF).replay()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stage"]


def test_what_a_broken_segment_did_not_take_is_rescued_in_order(tmp_path: Path) -> None:
    stage, into = Stage(tmp_path, HALF), segment(tmp_path, 1)
    stage.begin(into)
    for text in (b"a" * 700, b"b" * 700):  # one in each half
        stage.put(frame(text), into)
    os.close(into.fd)
    rescued = stage.rescue()
    assert rescued == frame(b"a" * 700) + frame(b"b" * 700)
    assert stage.rescue() == b""
    stage.drain()
