"""What lies in a journal's stage and not yet in its segments, as a recovery would find it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<16sQQI")
_FRAME = struct.Struct("<II")
_HEADER_ROOM = 64


def snapshot(folder: Path) -> bytes:
    """Take it before the segments are read: what leaves it in between is then found there."""
    try:
        return (folder / "stage").read_bytes()
    except FileNotFoundError:
        return b""


def staged(stage: bytes) -> Iterator[tuple[str, int, int, bytes]]:
    """(segment's name, offset of the frame in it, offset after, payload), in the order of the journal."""
    half = len(stage) // 2
    turns = []
    for header in (0, half) if stage else ():
        boot, number, base, checksum = _HEADER.unpack_from(stage, header)
        if checksum == zlib.crc32(struct.pack("<16sQQ", boot, number, base)) and number:
            turns.append((number, base, header))
    for number, base, header in sorted(turns):
        at = header + _HEADER_ROOM
        while at + 8 <= header + half:
            length, checksum = _FRAME.unpack_from(stage, at)
            payload = stage[at + 8 : at + 8 + length]
            if length == 0 or at + 8 + length > header + half or zlib.crc32(payload) != checksum:
                break
            offset = base + at - header - _HEADER_ROOM
            yield f"{number:08d}.journal", offset, offset + 8 + length, payload
            at += 8 + length
