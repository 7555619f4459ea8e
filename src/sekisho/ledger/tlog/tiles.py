"""Names and contents of a log's files, as C2SP tlog-tiles lays them out.

    checkpoint                        the signed head
    tile/<L>/<N>[.p/<W>]              up to 256 hashes of level L (32 bytes each)
    tile/entries/<N>[.p/<W>]          up to 256 entries, each behind its length (big-endian u16)

`<N>` is written in groups of three digits, all but the last behind an `x`: 1234067 is `x001/x234/067`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import msgspec

TILE_WIDTH = 256
TILE_BYTES = TILE_WIDTH * 32
# The length of an entry has two bytes.
MAX_ENTRY_BYTES = 65_535
CHECKPOINT = "checkpoint"
_LENGTH = struct.Struct(">H")
_GROUP = 1000
_NAME = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_MAX_LEVEL = 63


class TileName(msgspec.Struct, frozen=True, kw_only=True):
    """One file. `level` None: a bundle of entries. `width` 256: full; 1 to 255: partial."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        if self.level is None:
            return bundle_path(self.index, self.width)
        return tile_path(self.level, self.index, self.width)

    @classmethod
    def parse(cls, path: str) -> TileName | None:
        """The file that a path names; None for anything but the one spelling that the specification gives it."""
        found = _NAME.fullmatch(path)
        if found is None:
            return None
        level, groups, width = found.groups()
        index = 0
        for group in groups.split("/"):
            index = index * _GROUP + int(group[-3:])
        name = cls(
            level=None if level == "entries" else int(level), index=index, width=int(width) if width else TILE_WIDTH
        )
        if (name.level or 0) > _MAX_LEVEL or (width and name.width >= TILE_WIDTH) or name.path != path:
            return None
        return name


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    return f"tile/{level}/{_number(index, width)}"


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    return f"tile/entries/{_number(index, width)}"


def _number(index: int, width: int) -> str:
    text = f"{index % _GROUP:03d}"
    while index := index // _GROUP:
        text = f"x{index % _GROUP:03d}/{text}"
    return text if width == TILE_WIDTH else f"{text}.p/{width}"


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries behind their lengths. ValueError when one has more than 65,535 bytes."""
    try:
        return b"".join([part for entry in entries for part in (_LENGTH.pack(len(entry)), entry)])
    except struct.error:
        raise ValueError(f"an entry has at most {MAX_ENTRY_BYTES:,} bytes") from None


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle. ValueError when the lengths don't add up."""
    entries = []
    at, end = 0, len(data)
    while at < end:
        if at + 2 > end:
            raise ValueError("a bundle ends within a length")
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > end:
            raise ValueError("a bundle ends within an entry")
        entries.append(data[start:at])
    return entries
