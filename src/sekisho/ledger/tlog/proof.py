"""A proof that an entry is in a log, as one text file: `c2sp.org/tlog-proof@v1`.

    c2sp.org/tlog-proof@v1
    extra <base64: the entry itself>
    index <n>
    <hashes from the leaf's sibling up>

    <checkpoint with its signatures>

The entry travels in `extra`, so that one file is enough. `extra` is not signed as such, and needs not be: its hash is
the leaf that the proof leads from.
"""

from __future__ import annotations

import msgspec

from sekisho.ledger.tlog.note import (
    MAX_NOTE_BYTES,
    NoteRefused,
    encode_base64,
    parse_base64,
    parse_hash,
    parse_number,
)
from sekisho.ledger.tlog.verify import MAX_PROOF

HEADER = "c2sp.org/tlog-proof@v1"
MEDIA_TYPE = "text/plain"
# tlog-tiles: an entry has a length of two bytes.
MAX_ENTRY_BYTES = 65_535


class TlogProof(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says, nothing of it verified. `checkpoint` is the signed note, byte for byte."""

    entry: bytes
    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        lines = [HEADER, f"extra {encode_base64(self.entry)}", f"index {self.index}"]
        lines += map(encode_base64, self.hashes)
        return "\n".join([*lines, "", ""]).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """NoteRefused for anything that `encode` would write differently."""
        if len(data) > MAX_NOTE_BYTES + 2 * MAX_ENTRY_BYTES:
            raise NoteRefused("this is longer than a proof can be")
        head, empty, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise NoteRefused("the head of a proof is ASCII") from None
        if not empty or lines[0] != HEADER:
            raise NoteRefused(f"a proof begins with the line {HEADER} and has an empty line before its checkpoint")
        if len(lines) < 3 or not lines[1].startswith("extra ") or not lines[2].startswith("index "):
            raise NoteRefused("a receipt has a line `extra` with the entry, then a line `index`")
        if len(lines) - 3 > MAX_PROOF:
            raise NoteRefused(f"a proof has at most {MAX_PROOF} hashes")
        entry = parse_base64(lines[1].removeprefix("extra "))
        if len(entry) > MAX_ENTRY_BYTES:
            raise NoteRefused(f"an entry has at most {MAX_ENTRY_BYTES} bytes")
        return cls(
            entry=entry,
            index=parse_number(lines[2].removeprefix("index ")),
            hashes=tuple(parse_hash(line) for line in lines[3:]),
            checkpoint=checkpoint,
        )
