"""Captures in the classic pcap format (draft-ietf-opsawg-pcap), link type RAW: packets begin with their IP header."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from sekisho.kernel.errors import SekishoError

_MAGIC_NS = 0xA1B23C4D  # times in nanoseconds
_LINKTYPE_RAW = 101
_HEADER = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")


class CaptureDamaged(SekishoError):
    """This is no capture of ours."""

    code = "lab.capture"


class Packet(msgspec.Struct, frozen=True):
    """One packet: when (Unix ns), how long it was, and its first bytes."""

    at_ns: int
    length: int
    head: bytes

    @property
    def source(self) -> str:
        """IPv4 source address (RFC 791 §3.1); empty for what is no IPv4."""
        return _dotted(self.head[12:16]) if self.head[:1] and self.head[0] >> 4 == 4 else ""

    @property
    def target(self) -> str:
        return _dotted(self.head[16:20]) if self.head[:1] and self.head[0] >> 4 == 4 else ""


class Writer:
    """Appends packets to a file. `flush` makes them visible to readers."""

    def __init__(self, file: IO[bytes], *, snap_bytes: int) -> None:
        self._file = file
        self._snap = snap_bytes
        file.write(_HEADER.pack(_MAGIC_NS, 2, 4, 0, 0, snap_bytes, _LINKTYPE_RAW))

    def add(self, at_ns: int, data: bytes, length: int) -> None:
        head = data[: self._snap]
        seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
        self._file.write(_RECORD.pack(seconds, nanoseconds, len(head), length) + head)

    def flush(self) -> None:
        self._file.flush()


def read(path: Path, offset: int = 0) -> Iterator[tuple[int, Packet]]:
    """(offset after it, packet) for each whole packet from `offset` on; 0 is the beginning. A record that is being
    written is left for the next time. CaptureDamaged when the file is none of ours."""
    with path.open("rb") as file:
        if offset == 0:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return
            fields = _HEADER.unpack(header)
            if fields[0] != _MAGIC_NS or fields[6] != _LINKTYPE_RAW:
                raise CaptureDamaged(f"{path} is no capture of the laboratory", hint="make it anew")
            offset = _HEADER.size
        file.seek(offset)
        while True:
            record = file.read(_RECORD.size)
            if len(record) < _RECORD.size:
                return
            seconds, nanoseconds, kept, length = _RECORD.unpack(record)
            head = file.read(kept)
            if len(head) < kept:
                return
            offset += _RECORD.size + kept
            yield offset, Packet(seconds * 1_000_000_000 + nanoseconds, length, head)


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))
