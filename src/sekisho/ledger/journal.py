"""The journal: what a gateway worker writes before anything leaves, and what survives its death.

A journal is a directory of segments `00000001.journal`, … each preallocated on disk, and of a small mapped file, the
stage (`stage.py`). A record becomes part of the stage by a memory copy: it survives kill -9 of the process without
a system call. A thread copies the stage to its segment and makes that durable against loss of power at most
`sync_s` later (group commit), so a slow disk is the thread's matter and not the event loop's. A full disk shows
when the next segment is reserved, half a segment ahead of need, not as a torn write.

Frame: little-endian u32 length, u32 CRC-32 of the payload, payload. A zero length, a bad checksum or the end of
the file ends the valid part; a torn tail is cut off when the journal is opened again, after what the stage still
held has been put in its place.

Every segment starts with the dispatches that are still open, so the recovery reads one segment however long the
process had run: a dispatch without a decision becomes a decision with the outcome `worker_lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.model import Decision, Dispatch, decode_record, encode_record
from sekisho.ledger.stage import HALF_BYTES, Segment, Stage

_FRAME: Final = struct.Struct("<II")
SUFFIX: Final = ".journal"
# The room that one open passage may still need for its decision: guarded passages start only while it is there.
RECORD_ROOM: Final = 4096
_RETRY_S: Final = 0.25
_LOCK_TRIES: Final = 20


class JournalUnavailable(SekishoError):
    """The journal can't take a record: disk full, I/O error, or not opened yet."""

    code = "journal.unavailable"


def read_records(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield (offset after the record, payload) for each complete valid frame from `offset` on.

    Safe beside a writer: a half-written frame fails its checksum and is read on the next call.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(head)
            if length == 0:
                return
            payload = file.read(length)
            if len(payload) != length or zlib.crc32(payload) != checksum:
                return
            offset += _FRAME.size + length
            yield offset, payload


def segments(directory: Path) -> list[Path]:
    """A journal's segments, oldest first."""
    return sorted(path for path in directory.glob("*" + SUFFIX) if path.stem.isdigit())


def lost(dispatch: Dispatch, *, gateway: str) -> Decision:
    """The decision for a passage whose worker died while the endpoint had the request."""
    return Decision(
        id=dispatch.id,
        at_ms=dispatch.at_ms,
        gateway=gateway,
        outcome="worker_lost",
        status=0,
        path=dispatch.path,
        tenant=dispatch.tenant,
        key=dispatch.key,
        data_class=dispatch.data_class,
        model=dispatch.model,
        code="gateway.worker_lost",
        endpoint=dispatch.endpoint,
        site=dispatch.site,
        operator=dispatch.operator,
        country=dispatch.country,
        table=dispatch.table,
        policy=dispatch.policy,
        partial=True,
    )


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


class Journal:
    """One writer's journal. Not thread-safe: `append` belongs to the event loop's thread.

    MUST: a record that `append` took is read back after kill -9 of this process, and after loss of power once
    `synced` has passed its position. MUST NOT: block the event loop on the disk; write a passage twice.
    """

    def __init__(self, directory: Path, *, gateway: str, segment_bytes: int, sync_s: float) -> None:
        self._directory = directory
        self._gateway = gateway
        self._segment_bytes = segment_bytes
        self._sync_s = sync_s
        self._open: dict[str, bytes] = {}
        self._ample = segment_bytes // RECORD_ROOM - 2  # open passages that a whole spare segment is enough for
        self._segment: Segment | None = None
        self._next: Segment | None = None
        self._old: list[Segment] = []
        self._stage: Stage | None = None
        self._number = 0
        self._recovered = False
        self._broken = False  # the current segment could not be synced: it takes no guarded record any more
        self._appended = 0  # records so far
        self._durable = 0
        self._waiters: list[tuple[int, Callable[[], None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        # The thread sleeps in a read of this: one system call to wake it, and no lock of the interpreter's between.
        self._wake_fd = -1
        self._awake = False
        self._stop = False
        self._syncer: threading.Thread | None = None
        self._lock_fd = -1
        self.error = ""
        self.recovered = 0

    # -- opening and closing

    def open(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Lock, repair, start. Without a loop (tools, tests) every group is synced as soon as the thread runs.

        A full or failing disk is no fault here: the journal opens unavailable and goes on trying.
        """
        self._loop = loop
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._start_segment()
        self._syncer = threading.Thread(target=self._run, name="journal", daemon=True)
        self._syncer.start()

    def _lock(self) -> None:
        """Take the directory for this process; the predecessor may still be on its way out."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_RETRY_S)
            else:
                self._lock_fd = fd
                return
        os.close(fd)
        raise JournalUnavailable(
            f"another process writes the journal in {self._directory.name}/",
            code="journal.locked",
            hint="stop the other gateway worker, or give this one its own directory",
        )

    def close(self) -> None:
        """Make everything durable and give back unused room."""
        self._stop = True
        self._wake()
        if self._syncer is not None:
            self._syncer.join()
        drained = False
        if self._stage is not None:
            with contextlib.suppress(OSError):
                self._stage.drain()
                drained = True
        for segment in (*self._old, *([self._segment] if self._segment else [])):
            with contextlib.suppress(OSError):
                segment.seal()
        if self._stage is not None and drained:  # else the next process tries
            self._stage.close()
        self._stage = None
        if self._next is not None:
            os.close(self._next.fd)
            self._next.path.unlink(missing_ok=True)
        self._segment = self._next = None
        self._old = []
        self.error = "the journal is closed"
        for fd in (self._lock_fd, self._wake_fd):
            if fd >= 0:
                os.close(fd)
        self._lock_fd = self._wake_fd = -1

    def _recover(self) -> None:
        """Cut the torn tail of the last segment, and decide what its writer left open.

        The decisions are built beside and renamed into place: a crash in here changes nothing or everything.
        """
        found = segments(self._directory)
        for leftover in self._directory.glob("*.part"):
            leftover.unlink()
        while found and next(read_records(found[-1]), None) is None:
            found.pop().unlink()  # reserved by the predecessor and never written
        if not found:
            return
        last = found[-1]
        self._number = int(last.stem)
        pending: dict[str, Dispatch] = {}
        end = 0
        for end, payload in read_records(last):  # noqa: B007 - the last offset is the valid length
            record = decode_record(payload)
            if isinstance(record, Dispatch):
                pending[record.id] = record
            else:
                pending.pop(record.id, None)
        if pending:
            self._number += 1
            part = self._directory / f"{self._number:08d}.part"
            with part.open("wb") as file:
                for dispatch in pending.values():
                    file.write(_frame(encode_record(lost(dispatch, gateway=self._gateway))))
                file.flush()
                os.fsync(file.fileno())
            part.rename(self._directory / f"{self._number:08d}{SUFFIX}")
            self._sync_directory()
            self.recovered += len(pending)
        if last.stat().st_size != end:
            os.truncate(last, end)

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _start_segment(self) -> None:
        """Recover and make the first segment; on failure the thread tries again."""
        try:
            if self._lock_fd < 0:
                self._lock()
            if self._stage is None:
                self._stage = Stage(self._directory, min(HALF_BYTES, self._segment_bytes))
            if not self._recovered:
                self._stage.replay()
                self._recover()
                self._stage.reset()
                self._recovered = True
            segment = self._reserve()
            self._stage.begin(segment)
        except (OSError, msgspec.MsgspecError) as error:
            self.error = str(error) or type(error).__name__
        else:
            self._segment = segment
            self.error = ""

    def _reserve(self) -> Segment:
        number = self._number + 1
        segment = Segment(self._directory / f"{number:08d}{SUFFIX}", number, self._segment_bytes)
        self._number += 1
        self._sync_directory()
        return segment

    # -- writing

    @property
    def appended(self) -> int:
        """Records written by this process."""
        return self._appended

    def room(self) -> int:
        """Bytes that can be written without asking the disk for more."""
        room = 0
        if self._segment is not None:
            room = self._segment.size - self._segment.position
        if self._next is not None:
            room += self._next.size
        return room

    @property
    def ready(self) -> bool:
        """Whether a guarded passage may start: its records, and those of all open passages, are certain to fit."""
        if self.error:
            return False
        if self._next is not None and len(self._open) < self._ample:
            return True
        return self.room() > RECORD_ROOM * (len(self._open) + 2)

    def dispatch(self, id: str, payload: bytes, *, guarded: bool) -> bool:
        """Write that a request is about to leave. False: not written (never for a guarded passage that may go)."""
        if not self._append(payload, spare=guarded):
            return False
        self._open[id] = payload
        return True

    def decide(self, id: str, payload: bytes, *, guarded: bool) -> bool:
        """Write the one decision of a passage. An open passage may use the room kept for it."""
        spare = self._open.pop(id, None) is not None or guarded
        return self._append(payload, spare=spare)

    def _append(self, payload: bytes, *, spare: bool) -> bool:
        segment, stage = self._segment, self._stage
        if segment is None or stage is None:
            return False
        length = len(payload)
        end = segment.position + 8 + length
        if end > segment.size:
            segment = self._roll(8 + length)
            if segment is None:
                return False
            end = segment.position + 8 + length
        if not spare and self._next is None and end + RECORD_ROOM * (len(self._open) + 2) > segment.size:
            return False  # the rest is kept for passages that are already under way
        try:
            stage.put(_FRAME.pack(length, zlib.crc32(payload)) + payload, segment)
        except OSError as error:  # both halves are full, and the disk takes neither
            self._break(error)
            return False
        self._appended += 1
        if not self._awake:
            self._awake = True
            if self._loop is not None:
                self._loop.call_later(self._sync_s, self._wake)  # gather a group first
            else:
                self._wake()
        return True

    def _roll(self, needed: int) -> Segment | None:
        """Go on in the segment that lies ready, and carry the open dispatches over."""
        segment, self._next = self._next, None
        if segment is None:
            return None
        stage = self._stage
        assert stage is not None  # noqa: S101 - made before the first segment
        carried = b"".join(map(_frame, self._open.values()))
        if len(carried) + needed > segment.size:
            self._next = segment
            return None  # more is open than a segment holds: nothing new is let in until some of it has ended
        try:
            if self._broken:
                # What the broken segment has not taken comes first; its readers drop what they know by its id.
                rescued = stage.rescue()
                if len(rescued) + len(carried) + needed <= segment.size:
                    carried = rescued + carried
            if carried:
                os.pwrite(segment.fd, carried, 0)
                segment.position = len(carried)
            stage.begin(segment)
        except OSError as error:
            self._next = segment
            self._break(error)
            return None
        if self._segment is not None:
            self._old.append(self._segment)
        self._segment = segment
        return segment

    def when_durable(self, call: Callable[[], None]) -> None:
        """Run `call` on the event loop once all that was appended so far survives a loss of power."""
        self._waiters.append((self._appended, call))
        self._wake()

    # -- the thread

    def _wake(self) -> None:
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        while not self._stop:
            if self._healthy() or select.select([self._wake_fd], [], [], _RETRY_S)[0]:
                os.eventfd_read(self._wake_fd)
            self._awake = False
            self._sync()
            self._prepare()

    def _healthy(self) -> bool:
        """Whether there is nothing to try again without being woken."""
        segment = self._segment
        return (
            segment is not None and not self.error and (self._next is not None or segment.position * 2 < segment.size)
        )

    def _sync(self) -> None:
        target = self._appended
        # Those that were left before the drain: what the stage has of them is in their files after it.
        left = len(self._old)
        try:
            if self._stage is not None and not self._broken:
                self._stage.drain()
                for _ in range(left):
                    self._old.pop(0).seal()
            segment = self._segment
            if segment is not None and target != self._durable and not self._broken:
                os.fdatasync(segment.fd)
        except OSError as error:
            self._break(error)
        if self._broken:
            return
        self._durable = target
        if self._waiters:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._release)
            else:
                self._release()

    def _break(self, error: OSError) -> None:
        # After a failed fsync the kernel may have dropped the pages: this segment can't be trusted further.
        self.error = f"sync failed: {error.strerror}"
        self._broken = True

    def _release(self) -> None:
        durable = self._durable
        ready = [call for count, call in self._waiters if count <= durable]
        self._waiters = [waiter for waiter in self._waiters if waiter[0] > durable]
        for call in ready:
            call()
        if self._waiters:
            self._wake()

    def _prepare(self) -> None:
        """Reserve the next segment half a segment ahead of need."""
        segment = self._segment
        if segment is None:
            self._start_segment()
            return
        if self._next is None:
            if not self.error and segment.position * 2 < segment.size:
                return
            try:
                self._next = self._reserve()
            except OSError as error:
                self.error = f"no room for the next segment: {error.strerror}"
                return
        if not self._broken:
            self.error = ""
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._leave_broken)
        else:
            self._leave_broken()

    def _leave_broken(self) -> None:
        """Go on in a new segment, with the open dispatches; what the broken one holds is as durable as it got."""
        if self._broken and self._roll(0) is not None:
            self._broken = False
            self.error = ""
