"""The journal: what was taken is read back, whatever happened to the file's end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.ledger.journal import Journal, read_records, segments
from sekisho.ledger.model import Decision, Dispatch, Record, decode_record, encode_record
from support.background import SOAK, until


def dispatch(id: str) -> Dispatch:
    return Dispatch(
        id=id, at_ms=1, tenant="t", key="k", data_class="public", model="m", path="/v1/x", endpoint="e",
        site="s", operator="o", country="JP", table=1, policy="p",
    )  # fmt: skip


def decision(id: str) -> Decision:
    return Decision(id=id, at_ms=1, gateway="g", outcome="completed", status=200)


@contextmanager
def opened(folder: Path, *, segment_bytes: int = 1 << 16) -> Iterator[Journal]:
    journal = Journal(folder, gateway="g", segment_bytes=segment_bytes, sync_s=0.001)
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


def contents(folder: Path) -> list[Record]:
    return [decode_record(payload) for path in segments(folder) for _, payload in read_records(path)]


def write(journal: Journal, record: Record) -> bool:
    payload = encode_record(record)
    if isinstance(record, Dispatch):
        return journal.dispatch(record.id, payload, guarded=False)
    return journal.decide(record.id, payload, guarded=False)


# What happens to passages: d(ispatched) and decided, dispatched only, refused at once.
PASSAGES = st.lists(st.sampled_from(["whole", "open", "refused"]), min_size=1, max_size=12)


def play(journal: Journal, passages: list[str]) -> list[Record]:
    written: list[Record] = []
    for index, kind in enumerate(passages):
        id = f"{index:032x}"
        records: list[Record] = [dispatch(id)] if kind != "refused" else []
        records += [decision(id)] if kind != "open" else []
        for record in records:
            assert write(journal, record)
            written.append(record)
    return written


def judge(before: list[Record], after: list[Record]) -> None:
    """`after` is `before` and, for each dispatch left open in it, one decision that its worker was lost."""
    assert after[: len(before)] == before
    added = after[len(before) :]
    open_ = {record.id for record in before if isinstance(record, Dispatch)} - {
        record.id for record in before if isinstance(record, Decision)
    }
    assert all(isinstance(record, Decision) and record.outcome == "worker_lost" for record in added)
    assert sorted(record.id for record in added) == sorted(open_)


def copy_as_killed(folder: Path) -> Path:
    """The directory as kill -9 leaves it: the writer's mapping is not closed, room is not given back."""
    killed = folder.parent / "killed"
    shutil.copytree(folder, killed)
    return killed


def copy_as_after_power_loss(folder: Path, journal: Journal) -> Path:
    """The directory as a loss of power leaves it once everything was synced: the stage says nothing any more."""
    durable: list[bool] = []
    journal.when_durable(lambda: durable.append(True))
    until(lambda: bool(durable), what="the group commit")
    killed = copy_as_killed(folder)
    stage = bytearray((killed / "stage").read_bytes())
    for header in (0, len(stage) // 2):
        stage[header : header + 16] = os.urandom(16)  # of another boot
    (killed / "stage").write_bytes(stage)
    return killed


@settings(max_examples=300 if SOAK else 60)
@given(PASSAGES, st.data())
def test_every_record_before_the_damage_is_kept_and_none_is_invented(
    passages: list[str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "journal"
        with opened(folder) as journal:
            written = play(journal, passages)
            killed = copy_as_after_power_loss(folder, journal)
        path = segments(killed)[0]
        ends = [0, *(offset for offset, _ in read_records(path))]
        assert len(ends) - 1 == len(written)
        at = data.draw(st.integers(0, ends[-1]), label="damage at")
        kind = data.draw(st.sampled_from(["truncate", "flip", "zero", "garbage"]), label="damage")
        raw = bytearray(path.read_bytes())
        if kind == "truncate":
            raw = raw[:at]
        elif kind == "flip":
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "zero":
            raw[at:] = bytes(len(raw) - at)
        else:
            noise = data.draw(st.binary(min_size=1, max_size=64))
            raw[at : at + len(noise)] = noise
        path.write_bytes(raw)
        kept = [decode_record(payload) for _, payload in read_records(path)]
        assert kept == written[: len(kept)]
        whole_before = sum(end <= at for end in ends) - 1
        assert len(kept) >= whole_before
        with opened(killed) as journal:
            assert not journal.error
            assert write(journal, decision("f" * 32))
        after = contents(killed)
        assert after.pop() == decision("f" * 32)
        judge(kept, after)


@settings(max_examples=200 if SOAK else 40)
@given(PASSAGES, st.data())
def test_what_no_segment_has_yet_comes_back_from_the_stage(passages: list[str], data: st.DataObject) -> None:
    """kill -9 before the thread copied anything from some byte on, a half-written frame included."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "journal"
        with opened(folder) as journal:
            written = play(journal, passages)
            killed = copy_as_killed(folder)
        path = segments(killed)[0]
        raw = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, 200 * len(written)), label="copied up to")
        raw[at:] = bytes(len(raw) - at)
        path.write_bytes(raw)
        with opened(killed):
            pass
        judge(written, contents(killed))


@settings(max_examples=20)
@given(PASSAGES)
def test_opening_again_and_again_changes_nothing_more(passages: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "journal"
        with opened(folder) as journal:
            written = play(journal, passages)
            killed = copy_as_killed(folder)
        for _ in range(3):
            with opened(killed):
                pass
            judge(written, contents(killed))


def test_open_passages_are_found_however_many_segments_ago_they_started(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with opened(folder, segment_bytes=64 << 10) as journal:
        assert write(journal, dispatch("old"))
        for index in range(2500):
            until(lambda: journal.room() > 20_000, what="room")
            assert write(journal, decision(f"{index:032x}"))
        killed = copy_as_killed(folder)
    assert len(segments(killed)) > 3
    with opened(killed):
        pass
    decided = [record for record in contents(killed) if isinstance(record, Decision)]
    assert [record.id for record in decided if record.outcome == "worker_lost"] == ["old"]
    assert len(decided) == 2501
    assert len({record.id for record in decided}) == 2501


@pytest.mark.skipif(not SOAK, reason="waits five seconds for the lock")
def test_two_writers_never_share_a_journal(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(Exception, match="another process"):
        Journal(tmp_path, gateway="g", segment_bytes=1 << 16, sync_s=0.001).open()


def test_a_record_survives_kill_9_the_moment_it_was_taken(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        journal = Journal(tmp_path, gateway="g", segment_bytes=1 << 16, sync_s=10.0)
        journal.open()
        play(journal, ["whole", "open"])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with opened(tmp_path) as journal:
        assert journal.recovered == 1
    assert [(record.id[-1], getattr(record, "outcome", "")) for record in contents(tmp_path)] == [
        ("0", ""), ("0", "completed"), ("1", ""), ("1", "worker_lost"),
    ]  # fmt: skip


# -- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path, leave: int = 0) -> Path:
    filler = place / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    if leave:
        os.truncate(filler, filler.stat().st_size - leave)
    return filler


def test_a_full_disk_takes_no_guarded_passage_and_every_open_one_finishes(small_disk: Path) -> None:
    folder = small_disk / "journal"
    with opened(folder, segment_bytes=64 << 10) as journal:
        filler = fill(small_disk)
        index = 0
        started: list[str] = []
        while journal.ready:
            id = f"{index:032x}"
            assert journal.dispatch(id, encode_record(dispatch(id)), guarded=True), "ready means that it fits"
            started.append(id)
            if index % 2:
                done = started.pop(0)
                assert journal.decide(done, encode_record(decision(done)), guarded=True)
            index += 1
        assert started
        for id in started:
            assert journal.decide(id, encode_record(decision(id)), guarded=True), "what was let in is recorded"
        filler.unlink()
        until(lambda: journal.ready, what="recovery once there is room")
    decided = [record.id for record in contents(folder) if isinstance(record, Decision)]
    assert sorted(decided) == [f"{n:032x}" for n in range(index)]


def test_a_disk_that_is_full_at_the_start_loses_no_open_passage(small_disk: Path, tmp_path: Path) -> None:
    """A worker dies, the disk fills up, the next one starts, somebody makes room: the lost passage is decided."""
    with opened(tmp_path / "journal", segment_bytes=16 << 10) as journal:
        play(journal, ["whole", "open"])
        killed = copy_as_killed(tmp_path / "journal")
    folder = small_disk / "journal"
    shutil.copytree(killed, folder)
    filler = fill(small_disk)
    with opened(folder, segment_bytes=16 << 10) as journal:
        assert not journal.ready
        filler.unlink()
        until(lambda: journal.ready, what="recovery once there is room")
        assert write(journal, decision("f" * 32))
    decided = [(record.id[-1], record.outcome) for record in contents(folder) if isinstance(record, Decision)]
    assert decided == [("0", "completed"), ("1", "worker_lost"), ("f", "completed")]
