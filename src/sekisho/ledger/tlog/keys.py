"""Keys that sign notes: a log's own (Ed25519), and the timestamped cosignatures of witnesses (Ed25519, ML-DSA-44).

After C2SP signed-note and tlog-cosignature (the text with `subtree/v1`, 2026). A key is known by its name and a key
id of four bytes; its whole public half travels as a vkey, `name+hex id+base64(type ‖ key)`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from typing import assert_never

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from sekisho.ledger.tlog.note import (
    MAX_NAME_BYTES,
    Checkpoint,
    Note,
    NoteRefused,
    Signature,
    check_name,
    encode_base64,
    parse_base64,
)

_ED25519_PUBLIC = 32
_ED25519_SIGNATURE = 64
# FIPS 204 table 2
_ML_DSA_44_PUBLIC = 1312
_ML_DSA_44_SIGNATURE = 2420
_TIMESTAMP = 8
_MAX_TIMESTAMP = (1 << 63) - 1
_LABEL = b"subtree/v1\n\x00"

_P = 2**255 - 19
# y of the points of small order on edwards25519 (RFC 7748's curve, cofactor 8): under such a "key" anybody can sign.
_SMALL_ORDER_Y = frozenset(
    (
        0,
        1,
        _P - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
    )
)


class Algorithm(enum.IntEnum):
    """Signature types of c2sp.org/signed-note that we make and check."""

    ED25519 = 0x01
    COSIGNATURE = 0x04  # Ed25519 over `cosignature/v1`, with a timestamp
    ML_DSA_44 = 0x06  # ML-DSA-44 over `subtree/v1`, with a timestamp

    @property
    def label(self) -> str:
        """`ed25519`, `cosignature` or `ml-dsa-44`."""
        return self.name.lower().replace("_", "-")


class VerifierKey(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a key, under its name."""

    name: str
    algorithm: Algorithm
    public: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes: a hint, not a hash that an attacker can't collide (c2sp.org/signed-note)."""
        named = self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public
        return hashlib.sha256(named).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.algorithm]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """A vkey. NoteRefused for a wrong id, an unknown type, or an Ed25519 key under which anybody can sign."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = parse_base64(encoded)
        try:
            algorithm = Algorithm(raw[0] if raw else 0)
        except ValueError:
            raise NoteRefused("a key is of a type that is not known here") from None
        key = cls(name=check_name(name), algorithm=algorithm, public=raw[1:])
        if key.key_id.hex() != key_id:
            raise NoteRefused(f"the key id {key_id[:16]!r} does not belong to the key {name}")
        if len(key.public) != (_ML_DSA_44_PUBLIC if algorithm is Algorithm.ML_DSA_44 else _ED25519_PUBLIC):
            raise NoteRefused(f"the key {name} has a wrong length")
        if algorithm is not Algorithm.ML_DSA_44 and not _sound(key.public):
            raise NoteRefused(f"the key {name} is a point under which anybody can sign")
        return key

    def made(self, signature: Signature) -> bool:
        """Whether a signature line names this key."""
        return signature.name == self.name and signature.key_id == self.key_id

    def signed_at(self, text: bytes, data: bytes) -> int | None:
        """When `data` signed the text: Unix seconds, 0 where the type carries no time, None when it did not."""
        try:
            return self._signed_at(text, data)
        except (InvalidSignature, ValueError, NoteRefused):
            return None

    def _signed_at(self, text: bytes, data: bytes) -> int | None:
        match self.algorithm:
            case Algorithm.ED25519:
                Ed25519PublicKey.from_public_bytes(self.public).verify(data, text)
                return 0
            case Algorithm.COSIGNATURE:
                if len(data) != _TIMESTAMP + _ED25519_SIGNATURE:
                    return None
                at_s = _timestamp(data)
                message = _cosignature_message(text, at_s)
                Ed25519PublicKey.from_public_bytes(self.public).verify(data[_TIMESTAMP:], message)
                return at_s
            case Algorithm.ML_DSA_44:
                if len(data) != _TIMESTAMP + _ML_DSA_44_SIGNATURE:
                    return None
                at_s = _timestamp(data)
                message = _subtree_message(self.name, text, at_s)
                MLDSA44PublicKey.from_public_bytes(self.public).verify(data[_TIMESTAMP:], message)
                return at_s
            case _:
                assert_never(self.algorithm)


class NoteSigner:
    """A log's key: signs the texts of its checkpoints (type 0x01)."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier = VerifierKey(
            name=check_name(name), algorithm=Algorithm.ED25519, public=key.public_key().public_bytes_raw()
        )

    def sign(self, text: bytes) -> bytes:
        """The signed note over this text."""
        signature = Signature(name=self.verifier.name, key_id=self.verifier.key_id, data=self._key.sign(text))
        return Note(text=text, signatures=(signature,)).encode()

    def sign_raw(self, message: bytes) -> bytes:
        """64 bytes over a message of another encoding of the same head (COSE); never over a note's text."""
        return self._key.sign(message)


class Cosigner:
    """A witness's key: says that a checkpoint continues all that this witness saw of the log.

    An Ed25519 key must have one name only: its message does not carry the name (c2sp.org/tlog-cosignature).
    """

    def __init__(self, name: str, key: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
        self._key = key
        self.verifier = VerifierKey(
            name=check_name(name),
            algorithm=Algorithm.COSIGNATURE if isinstance(key, Ed25519PrivateKey) else Algorithm.ML_DSA_44,
            public=key.public_key().public_bytes_raw(),
        )

    def cosign(self, text: bytes, *, at_s: int) -> Signature:
        """A cosignature on a checkpoint's text at a time in Unix seconds. NoteRefused when it is no checkpoint."""
        checkpoint = Checkpoint.parse(text)
        if not 0 <= at_s <= _MAX_TIMESTAMP:
            raise ValueError(f"no POSIX time: {at_s}")
        if isinstance(self._key, Ed25519PrivateKey):
            made = self._key.sign(_cosignature_message(text, at_s))
        else:
            made = self._key.sign(_cosigned_message(self.verifier.name, checkpoint, at_s))
        data = at_s.to_bytes(_TIMESTAMP, "big") + made
        return Signature(name=self.verifier.name, key_id=self.verifier.key_id, data=data)


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """A signature that holds. `at_s`: when it was made, by its maker's clock; 0 where the type carries no time."""

    key: VerifierKey
    at_s: int


class OpenedNote(msgspec.Struct, frozen=True, kw_only=True):
    """A note under which at least one known key's signature holds, and none is false."""

    text: bytes
    verified: tuple[Verified, ...]
    unknown: tuple[Signature, ...]


def open_note(data: bytes, keys: Iterable[VerifierKey]) -> OpenedNote:
    """Reads a note and verifies every signature by a known key; those by others are listed and mean nothing.

    NoteRefused with `note.malformed`, `note.forged` (a known key's signature is false) or `note.unsigned` (no known
    key signed it).
    """
    note = Note.parse(data)
    known = {(key.name, key.key_id): key for key in keys}
    verified: list[Verified] = []
    unknown: list[Signature] = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            unknown.append(signature)
            continue
        at_s = key.signed_at(note.text, signature.data)
        if at_s is None:
            raise NoteRefused(f"the signature of {key.name} is false", code="note.forged")
        verified.append(Verified(key=key, at_s=at_s))
    if not verified:
        raise NoteRefused("nobody who is known signed this", code="note.unsigned")
    return OpenedNote(text=note.text, verified=tuple(verified), unknown=tuple(unknown))


def _sound(public: bytes) -> bool:
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    return y < _P and y not in _SMALL_ORDER_Y


def _timestamp(data: bytes) -> int:
    at_s = int.from_bytes(data[:_TIMESTAMP], "big")
    if at_s > _MAX_TIMESTAMP:
        raise ValueError("no POSIX time")
    return at_s


def _cosignature_message(text: bytes, at_s: int) -> bytes:
    """c2sp.org/tlog-cosignature, "Ed25519 signed message"."""
    Checkpoint.parse(text)
    return b"cosignature/v1\ntime %d\n" % at_s + text


def _subtree_message(name: str, text: bytes, at_s: int) -> bytes:
    return _cosigned_message(name, Checkpoint.parse(text), at_s)


def _cosigned_message(name: str, checkpoint: Checkpoint, at_s: int) -> bytes:
    """c2sp.org/tlog-cosignature, "ML-DSA-44 signed message", for a whole tree (`start` is 0)."""
    return b"".join(
        (
            _LABEL,
            _opaque(name.encode()),
            at_s.to_bytes(8, "big"),
            _opaque(checkpoint.origin.encode()),
            bytes(8),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _opaque(data: bytes) -> bytes:
    """`opaque <1..2^8-1>` of RFC 8446 §3.4."""
    if not 0 < len(data) <= MAX_NAME_BYTES:
        raise ValueError("a name has 1 to 255 bytes")
    return bytes([len(data)]) + data
