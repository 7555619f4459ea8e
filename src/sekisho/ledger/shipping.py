"""Journals of gateways on other machines: sent in order, kept until they are durable here, read like our own.

A shipped journal lies in `journal/w0.NAME/` beside the local ones, so the sequencer and the projection find it with
no further word. What is sent are whole frames from an offset on. Sending twice changes nothing; a gap is refused with
the place to go on from. Decisions are known by their ids, so even a journal that was sent under two names is logged
once.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.journal import SUFFIX, read_records, segments
from sekisho.ledger.tlog import files

_FRAME = struct.Struct("<II")
PATH = "/internal/v1/journal"  # of the control plane, where journals are sent
# Together with the worker at most 16 letters: `w12.tokyo-dc-3`.
GATEWAY = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,10}[a-z0-9])?")
WORKER = re.compile(r"w(?:0|[1-9][0-9]{0,1})")
MAX_PART_BYTES = 1 << 20
_MAX_SEGMENT = 10**8 - 1


class ShipmentRefused(SekishoError):
    """What was sent is not the journal's next part."""

    code = "journal.shipment"


class ShipmentGap(ShipmentRefused):
    """Something before it is missing."""

    code = "journal.gap"


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where a segment is durable here."""

    segment: int
    offset: int


class Inbox:
    """The receiving side. One for each journal directory; blocking, and for one thread at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ends: dict[Path, int] = {}

    def arrived(self, gateway: str, worker: str) -> list[Arrived]:
        """The segments that are here, oldest first. What is older than all of them was here, and is logged."""
        directory = self._directory(gateway, worker)
        return [Arrived(segment=int(path.stem), offset=self._end(path)) for path in segments(directory)]

    def take(self, gateway: str, worker: str, segment: int, offset: int, data: bytes) -> Arrived:
        """Keeps whole frames that stand at `offset` of a segment; durable when it returns.

        ShipmentGap when something before them is missing, ShipmentRefused when they are no frames.
        """
        if not 0 < segment <= _MAX_SEGMENT or offset < 0:
            raise ShipmentRefused("there is no such segment")
        directory = self._directory(gateway, worker)
        path = directory / f"{segment:08d}{SUFFIX}"
        ends = _frame_ends(data)
        end = self._end(path)
        if offset > end:
            raise ShipmentGap(f"segment {segment} is here up to {end}, not {offset}", hint=f"go on from {end}")
        new = data[end - offset :]
        if not new:
            return Arrived(segment=segment, offset=end)
        if end - offset not in ends:
            raise ShipmentRefused("what was sent again is not what was sent before")
        files.make_directory(str(directory))
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            done = 0
            while done < len(new):
                done += os.pwrite(fd, new[done:], end + done)
            os.fsync(fd)
        finally:
            os.close(fd)
        if end == 0:
            files.sync_directory(str(directory))
        self._ends[path] = end + len(new)
        return Arrived(segment=segment, offset=end + len(new))

    def _directory(self, gateway: str, worker: str) -> Path:
        if not GATEWAY.fullmatch(gateway) or not WORKER.fullmatch(worker):
            raise ShipmentRefused(
                "a gateway is named by up to 12 small letters, digits and hyphens, its worker as w0 to w99",
                hint="give the gateway a shorter name",
            )
        return self._root / f"{worker}.{gateway}"

    def _end(self, path: Path) -> int:
        """Where the valid part of a segment ends; what a crash has torn is cut off."""
        if path not in self._ends:
            end = 0
            if path.exists():
                for end, _ in read_records(path):  # noqa: B007 - the last offset is the valid length
                    pass
                if path.stat().st_size != end:
                    os.truncate(path, end)
            self._ends[path] = end
        return self._ends[path]


def _frame_ends(data: bytes) -> set[int]:
    """Where frames begin and end in what was sent. ShipmentRefused when it is anything but whole, sound frames."""
    ends = {0}
    at = 0
    while at < len(data):
        if at + _FRAME.size > len(data):
            raise ShipmentRefused("the last frame is not whole")
        length, checksum = _FRAME.unpack_from(data, at)
        payload = data[at + _FRAME.size : at + _FRAME.size + length]
        if length == 0 or len(payload) != length or zlib.crc32(payload) != checksum:
            raise ShipmentRefused(f"the frame at {at} is damaged", hint="send it again")
        at += _FRAME.size + length
        ends.add(at)
    return ends


Post = Callable[[str, int, int, bytes], int]
"""(worker, segment, offset, data) → up to where the other side has the segment; raises when it can't be asked."""


class Shipper:
    """The sending side: what lies behind the places that the other side has. Blocking."""

    def __init__(self, root: Path, *, arrived: Callable[[str], list[Arrived]], post: Post) -> None:
        """`arrived(worker)` asks the other side once for each worker."""
        self._root = root
        self._arrived = arrived
        self._post = post
        self._places: dict[str, dict[int, int]] = {}

    def step(self) -> int:
        """Sends what is there now; says how many bytes that were."""
        sent = 0
        for directory in sorted(self._root.glob("w*")):
            # What came here from yet another machine is not ours to send.
            if not WORKER.fullmatch(directory.name):
                continue
            if directory.name not in self._places:
                found = self._arrived(directory.name)
                self._places[directory.name] = {item.segment: item.offset for item in found}
            places = self._places[directory.name]
            oldest = min(places, default=0)
            for path in segments(directory):
                segment = int(path.stem)
                if segment >= oldest:
                    sent += self._send(directory.name, path, segment, places)
        return sent

    def _send(self, worker: str, path: Path, segment: int, places: dict[int, int]) -> int:
        sent = 0
        for data in _parts(path, places.get(segment, 0)):
            offset = places.get(segment, 0)
            places[segment] = self._post(worker, segment, offset, data)
            sent += len(data)
        return sent


def _parts(path: Path, offset: int) -> Iterator[bytes]:
    """Whole frames from an offset on, about a megabyte at a time."""
    parts: list[bytes] = []
    size = 0
    for _, payload in read_records(path, offset):
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        if parts and size + len(frame) > MAX_PART_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(frame)
        size += len(frame)
    if parts:
        yield b"".join(parts)
