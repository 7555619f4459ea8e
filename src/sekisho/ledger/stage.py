"""The stage: a small mapped file in which frames lie until a thread has copied them to their segment.

Writing to it is a memory copy into pages that are always there: no system call, no page fault, no wait for a disk
that is just writing the same page. What is in it survives kill -9 of the process, and the next one puts it in its
place (`replay`). It says nothing after a loss of power: that is what the segments are synced for.

Two halves take turns. Each has a header (boot, segment number, place in the segment, checksum) and then frames that
follow each other; the word after the last one is zero. A frame is written after the zero behind it, so a reader
never goes on into what an earlier turn has left.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Final

NAME: Final = "stage"
HALF_BYTES: Final = 1 << 20
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_HEADER: Final = struct.Struct("<16sQQI")  # boot, segment number, base, CRC-32 of the three
_HEADER_ROOM: Final = 64
_FRAME: Final = struct.Struct("<II")
_END: Final = bytes(4)


class Segment:
    """A preallocated file. `position` is where the next frame belongs; the stage may still hold the end of it."""

    __slots__ = ("fd", "number", "path", "position", "size")

    def __init__(self, path: Path, number: int, size: int) -> None:
        self.path = path
        self.number = number
        self.size = size
        self.position = 0
        self.fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self.fd, 0, size)
        except OSError:
            os.close(self.fd)
            path.unlink(missing_ok=True)
            raise

    def seal(self) -> None:
        """Give back the unused room, make the rest durable, close."""
        try:
            os.ftruncate(self.fd, self.position)
            os.fsync(self.fd)
        finally:
            os.close(self.fd)


class _Half:
    """Offsets are those of the map: room is `[start, end)`, `at` is the next free byte, `drained` how far the segment
    has it; `base` is the place in the segment of the byte at `start`."""

    __slots__ = ("at", "base", "drained", "end", "header", "segment", "start")

    def __init__(self, header: int, end: int) -> None:
        self.header = header
        self.start = header + _HEADER_ROOM
        self.end = end - len(_END)
        self.at = self.start
        self.drained = self.start
        self.base = 0
        self.segment: Segment | None = None


class Stage:
    """One writer's stage. `put` and `begin` belong to the writer's thread, `drain` to anybody."""

    def __init__(self, directory: Path, half_bytes: int) -> None:
        """Opens the stage that lies there, or makes one. Raises OSError."""
        self._directory = directory
        self.path = directory / NAME
        self._boot = _boot()
        size = 2 * half_bytes
        fd = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size != size:
                os.ftruncate(fd, 0)
                os.posix_fallocate(fd, 0, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._halves = (_Half(0, half_bytes), _Half(half_bytes, size))
        self._half = self._halves[0]
        self._lock = threading.Lock()

    # -- what a process left

    def replay(self) -> None:
        """Puts the frames of a process that died behind the valid part of their segments; twice is harmless."""
        found = []
        for half in self._halves:
            boot, number, base, checksum = _HEADER.unpack_from(self._map, half.header)
            if boot == self._boot and checksum == _checksum(boot, number, base):
                found.append((number, base, half))
        for number, base, half in sorted(found, key=lambda each: (each[0], each[1])):
            self._replay(self._directory / f"{number:08d}.journal", base, half)

    def _replay(self, path: Path, base: int, half: _Half) -> None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # archived since, or of another life of this directory
        try:
            with mmap.mmap(fd, 0) as written:
                end = _valid_end(written, 0, len(written))
            staged_end = _valid_end(self._map, half.start, half.end)
            start = half.start + (end - base)
            if half.start <= start < staged_end:  # else the segment has it all, or it is not what was before it
                data = self._map[start:staged_end]
                _write(fd, data, end)
                os.fsync(fd)
        except ValueError:
            return  # an empty file can't be mapped: nothing was ever reserved in it
        finally:
            os.close(fd)

    def reset(self) -> None:
        """Forgets what was replayed."""
        for half in self._halves:
            self._map[half.header : half.start + len(_END)] = bytes(_HEADER_ROOM + len(_END))
            half.at = half.drained = half.start
            half.segment = None

    # -- writing

    def begin(self, segment: Segment) -> None:
        """From now on frames belong to `segment`, at its position."""
        half = self._halves[1] if self._half is self._halves[0] else self._halves[0]
        if half.drained != half.at:
            self.drain()
        with self._lock:
            half.segment = None
            self._map[half.start : half.start + len(_END)] = _END
            number, base = segment.number, segment.position
            header = _HEADER.pack(self._boot, number, base, _checksum(self._boot, number, base))
            self._map[half.header : half.header + len(header)] = header
            half.at = half.drained = half.start
            half.base = base
            half.segment = segment
        self._half = half

    def put(self, frame: bytes, segment: Segment) -> None:
        """Takes a frame, which belongs at the segment's position, and moves that on."""
        half = self._half
        end = half.at + len(frame)
        if end > half.end:
            if len(frame) > half.end - half.start:
                self._put_large(frame, segment)
                return
            self.begin(segment)
            half = self._half
            end = half.at + len(frame)
        self._map[end : end + 4] = _END
        self._map[half.at : end] = frame
        half.at = end
        segment.position += len(frame)

    def _put_large(self, frame: bytes, segment: Segment) -> None:
        self.drain()
        _write(segment.fd, frame, segment.position)
        segment.position += len(frame)
        self.begin(segment)

    def drain(self) -> None:
        """Copies what is new to the segments' files (not durable by that). Raises OSError; nothing is lost then."""
        with self._lock:
            for half in self._halves:
                segment = half.segment
                end = half.at
                if segment is None or half.drained == end:
                    continue
                with memoryview(self._map) as view, view[half.drained : end] as data:
                    _write(segment.fd, data, half.base + half.drained - half.start)
                half.drained = end

    def rescue(self) -> bytes:
        """The frames that no segment has taken, for a new one: their own can't be written any more."""
        with self._lock:
            frames = b""
            waiting = [half for half in self._halves if half.segment is not None and half.drained != half.at]
            if len(waiting) == 2 and waiting[1] is not self._half:
                waiting.reverse()
            for half in waiting:
                frames += self._map[half.drained : half.at]
                half.drained = half.at
                half.segment = None
            return frames

    def close(self) -> None:
        """After the last drain: there is nothing in it to replay."""
        self._map.close()
        self.path.unlink(missing_ok=True)


def _boot() -> bytes:
    return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))


def _checksum(boot: bytes, number: int, base: int) -> int:
    return zlib.crc32(struct.pack("<16sQQ", boot, number, base))


def _valid_end(data: mmap.mmap, start: int, end: int) -> int:
    """Where the frames that follow each other from `start` end."""
    while start + _FRAME.size <= end:
        length, checksum = _FRAME.unpack_from(data, start)
        after = start + _FRAME.size + length
        if length == 0 or after > end or zlib.crc32(data[start + _FRAME.size : after]) != checksum:
            break
        start = after
    return start


def _write(fd: int, data: bytes | memoryview, position: int) -> None:
    done = os.pwrite(fd, data, position)
    while done < len(data):
        done += os.pwrite(fd, data[done:], position + done)
