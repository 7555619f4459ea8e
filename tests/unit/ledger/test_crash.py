"""Fault injection: the writer's process ends at each of its file operations, and the log continues as if it had not.

A child runs real batches with every operation of `files.py` counted; at the n-th it exits at once, before the
operation, or in the middle of it where that is a write. Nothing is flushed, no `finally` runs: like kill -9.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_verify import root_of

from sekisho.ledger.tlog import files, verify
from sekisho.ledger.tlog.fsck import fsck
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogReader, LogWriter, Position
from support.background import SOAK

ORIGIN = "sekisho.test/log/2026"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
COUNTED = ("open", "write", "fsync", "rename", "mkdir", "unlink")
DIED = 77
# Batches that leave a partial tile, fill it, jump over several, and end on a boundary.
SIZES = (3, 250, 3, 257, 255, 1)


class Dying:
    """Stands in for `os` in `files.py`: a fake that ends the process at the n-th operation."""

    def __init__(self, at: int, *, torn: bool) -> None:
        self._left = at
        self._torn = torn

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(os, name)
        if name not in COUNTED:
            return real

        def counted(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                if self._torn and name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os._exit(DIED)
            return real(*arguments, **named)

        return counted


def entry(number: int) -> bytes:
    return b"entry %d" % number


def go_on(root: Path, *, mark: str = "") -> None:
    """What the sequencer does: continue behind the committed position. `mark` tells one life's entries from
    another's, so a file that an uncommitted batch left can't pass for the right one."""
    log = LogWriter(root, SIGNER, origin=ORIGIN)
    try:
        done = log.state.positions.get("source", Position(0)).offset
        for batch, size in enumerate(SIZES):
            if batch >= done:
                new = [entry(log.size + number) + mark.encode() for number in range(size)]
                log.append(new, positions={"source": Position(batch + 1)})
    finally:
        log.close()


def life(root: Path, at: int, *, torn: bool) -> int:
    """Runs until the n-th operation in a process of its own; its exit code."""
    child = os.fork()
    if child == 0:
        files.os = Dying(at, torn=torn)  # type: ignore[assignment]
        try:
            go_on(root, mark=f" of life {at}")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: processes die here, disks don't, and a sync costs nothing."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sekisho-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("torn", [False, True])
def test_a_writer_that_dies_at_any_file_operation_continues(memory: Path, torn: bool) -> None:
    deaths = 0
    # Every operation is tried, with a whole last write or with a torn one; with both in the soak mode.
    for at in range(1, 10_000) if SOAK else range(2 if torn else 1, 10_000, 2):
        root = memory / str(at)
        code = life(root, at, torn=torn)
        published = (root / "checkpoint").exists()
        before = LogReader(root).checkpoint() if published else None
        if before is not None:
            # What the dead writer published is whole: every entry leads to its root.
            found = [data for _, data in LogReader(root).entries()]
            assert len(found) == before.size
            assert root_of(found) == before.root, f"after operation {at}"
        go_on(root)
        reader = LogReader(root)
        head = reader.checkpoint()
        assert head.size == sum(SIZES), f"after operation {at}"
        assert reader.state().positions == {"source": Position(len(SIZES))}
        if before is not None:
            assert verify.verify_consistency(
                before.size, before.root, head.size, head.root, reader.consistency_proof(before.size, head.size)
            ), f"forked after operation {at}"
        assert fsck(root, SIGNER.verifier).difference is None, f"after operation {at}"
        if code == 0:
            break
        assert code == DIED
        deaths += 1
    assert deaths > (80 if SOAK else 40)


class Full:
    """Stands in for `os` in `files.py`: a fake disk that takes `room` more bytes of files, then is full."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __getattr__(self, name: str) -> Any:
        if name not in ("write", "mkdir"):
            return getattr(os, name)

        def checked(*arguments: Any, **named: Any) -> Any:
            wanted = len(arguments[1]) if name == "write" else 1
            fits = min(wanted, self.room)
            self.room -= fits
            if fits < wanted:
                if name == "write" and fits:
                    return os.write(arguments[0], arguments[1][:fits])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return getattr(os, name)(*arguments, **named)

        return checked


def test_a_log_on_a_full_disk_goes_on_once_there_is_room(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the disk becomes full: the writer says so, a reader sees a whole log, nothing is lost or twice."""
    faults = 0
    for room in range(0, 60_000, 1733):
        root = memory / f"full-{room}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", Full(room))
            try:
                go_on(root, mark=" in vain")
            except OSError:
                faults += 1
            else:
                break
        before = LogReader(root).checkpoint() if (root / "checkpoint").exists() else None
        if before is not None:
            assert root_of([data for _, data in LogReader(root).entries()]) == before.root
        go_on(root)
        reader = LogReader(root)
        assert reader.checkpoint().size == sum(SIZES)
        assert reader.state().positions == {"source": Position(len(SIZES))}
        if before is not None:
            proof = reader.consistency_proof(before.size, sum(SIZES))
            assert verify.verify_consistency(before.size, before.root, sum(SIZES), reader.checkpoint().root, proof)
        assert fsck(root, SIGNER.verifier).difference is None
    assert faults > 10
