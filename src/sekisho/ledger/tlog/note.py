"""Signed notes and checkpoints: the texts by which a log and its witnesses speak (C2SP signed-note, tlog-checkpoint).

A note is a text, an empty line, and signature lines. Everything here is parsed in one strict way: what can be read
can be written again byte for byte, so a changed byte is either a different note or no note at all.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.verify import HASH_BYTES, MAX_SIZE

# c2sp.org/signed-note: verifiers MUST accept at least 16 signatures; a post-quantum one takes up to 5 kB.
MAX_SIGNATURES = 64
MAX_NOTE_BYTES = 256 * 1024
# c2sp.org/tlog-cosignature: the name and the origin have a length of one byte in `cosigned_message`.
MAX_NAME_BYTES = 255
_DASH = "— "
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_SEPARATOR = b"\n\n"
# c2sp.org/signed-note: below U+0020 there is only the newline.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteRefused(SekishoError):
    """A text that is no note, no checkpoint or no key in the form of the specification."""

    code = "note.malformed"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A log's head: `size` leaves under `root` (32 bytes). `extensions` are signed by the log and by nobody else."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The text of the note (c2sp.org/tlog-checkpoint). ValueError when it can't be a checkpoint."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        text = "".join(f"{line}\n" for line in lines).encode()
        if Checkpoint.parse(text) != self:
            raise ValueError(f"no checkpoint: {self!r}")
        return text

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """The checkpoint in a note's text. NoteRefused for anything that `encode` would write differently."""
        lines = _printable(text).split("\n")
        if len(lines) < 4 or lines.pop() != "" or not all(lines):
            raise NoteRefused("a checkpoint has an origin, a size and a root, each on a line that is not empty")
        origin, size, root, *extensions = lines
        if len(origin.encode()) > MAX_NAME_BYTES:
            raise NoteRefused(f"the origin is longer than {MAX_NAME_BYTES} bytes")
        return cls(
            origin=origin,
            size=parse_number(size),
            root=parse_hash(root),
            extensions=tuple(extensions),
        )


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature line. `key_id` (4 bytes) and `name` together say which key; `data` is what that key made."""

    name: str
    key_id: bytes
    data: bytes

    def line(self) -> str:
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.data)}\n"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """One line without its newline. NoteRefused for anything that `line` would write differently."""
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise NoteRefused("a signature line is an em dash, a name and a signature")
        raw = parse_base64(encoded)
        if len(raw) <= 4:
            raise NoteRefused("a signature is longer than its key id")
        return cls(name=check_name(name), key_id=raw[:4], data=raw[4:])


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A text and the signatures under it, none of them verified: see `sekisho.ledger.tlog.keys.open_note`."""

    text: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return self.text + b"\n" + "".join(signature.line() for signature in self.signatures).encode()

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """A signed note. NoteRefused when it is none, or when two lines are by the same key."""
        if len(data) > MAX_NOTE_BYTES:
            raise NoteRefused(f"a note of more than {MAX_NOTE_BYTES} bytes is not read")
        _printable(data)
        # The last empty line parts text and signatures: the text itself may hold empty lines.
        cut = data.rfind(_SEPARATOR)
        if cut < 0 or not data.endswith(b"\n"):
            raise NoteRefused("a note is a text, an empty line and signature lines")
        return cls(text=data[: cut + 1], signatures=parse_signatures(data[cut + 2 :]))


def parse_signatures(block: bytes) -> tuple[Signature, ...]:
    """Signature lines, as they stand under a note and in a witness's answer."""
    lines = _printable(block).split("\n")
    if lines.pop() != "" or not 0 < len(lines) <= MAX_SIGNATURES:
        raise NoteRefused(f"there must be 1 to {MAX_SIGNATURES} signature lines, each with its newline")
    signatures = tuple(Signature.parse(line) for line in lines)
    if len({(signature.name, signature.key_id) for signature in signatures}) < len(signatures):
        raise NoteRefused("two signature lines are by the same key")
    return signatures


def merge(note: Note, others: Iterable[Signature]) -> Note:
    """The note with further signatures after its own; one that a key has already made stays as it was."""
    known = {(signature.name, signature.key_id): signature for signature in note.signatures}
    for signature in others:
        known.setdefault((signature.name, signature.key_id), signature)
    return Note(text=note.text, signatures=tuple(known.values()))


def check_name(name: str) -> str:
    """A key's name: not empty, at most 255 bytes, no Unicode space and no plus (c2sp.org/signed-note)."""
    # `surrogateescape` is how other octets than UTF-8 come out of a policy file.
    if not 0 < len(name.encode(errors="surrogateescape")) <= MAX_NAME_BYTES or not _may_be_name(name):
        raise NoteRefused("a key's name has 1 to 255 bytes and neither spaces nor a plus")
    return name


def _may_be_name(name: str) -> bool:
    return not any(char.isspace() or char < " " or char == "+" or "\ud800" <= char <= "\udfff" for char in name)


def parse_number(text: str) -> int:
    """A size or an index: decimal, without leading zeros, below 2^63."""
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SIZE:
        raise NoteRefused("a number is decimal, without leading zeros, and below 2^63")
    return int(text)


def parse_hash(text: str) -> bytes:
    raw = parse_base64(text)
    if len(raw) != HASH_BYTES:
        raise NoteRefused(f"a hash has {HASH_BYTES} bytes")
    return raw


def encode_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def parse_base64(text: str) -> bytes:
    """RFC 4648 §4 with padding, and only the one canonical spelling of the bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteRefused("this is no base64") from None
    # Python ignores the unused bits of the last digit; two texts for the same bytes would make receipts malleable.
    if encode_base64(raw) != text:
        raise NoteRefused("this is not the canonical base64 of its bytes")
    return raw


def _printable(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise NoteRefused("a note is UTF-8") from None
    if _CONTROL.search(text) is not None:
        raise NoteRefused("a note has no control characters but newlines")
    return text
