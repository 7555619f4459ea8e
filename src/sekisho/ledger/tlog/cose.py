"""The same proof as a COSE Receipt: RFC 9942 over RFC9162_SHA256 (the trees of RFC 6962 and 9162 are the same).

A COSE_Sign1 by the log over the root, detached, with the inclusion proof in its unprotected header. The signature
says nothing of an entry, so one for each head is enough. Two labels of the private range let one file carry what an
offline verifier asks for beside: the entry, and the checkpoint with its cosignatures.
"""

from __future__ import annotations

import io
from typing import Any

import cbor2
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sekisho.ledger.tlog.keys import Algorithm, NoteSigner, VerifierKey
from sekisho.ledger.tlog.note import MAX_NOTE_BYTES, NoteRefused
from sekisho.ledger.tlog.proof import MAX_ENTRY_BYTES
from sekisho.ledger.tlog.verify import HASH_BYTES, MAX_PROOF, MAX_SIZE

MEDIA_TYPE = "application/cose"
# RFC 9052 §4.2: the tag of a COSE_Sign1; 0xD2 is its first byte.
TAG = 18
FIRST_BYTE = b"\xd2"
MAX_BYTES = MAX_NOTE_BYTES + 2 * MAX_ENTRY_BYTES
_ALG, _KID, _CWT, _VDS, _VDP = 1, 4, 15, 395, 396
_EDDSA = -8
_RFC9162_SHA256 = 1
_INCLUSION = -1
_ISS, _SUB = 1, 2
# RFC 9052 §2: labels below -65536 are for private use. They are not signed by the log: the entry is bound by its
# leaf hash and the checkpoint by its own signatures.
ENTRY, CHECKPOINT = -65_801, -65_802


class CoseReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says, nothing of it verified. `origin` and `key_id` are from the protected header."""

    origin: str
    key_id: bytes
    signature: bytes
    entry: bytes
    index: int
    size: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        proof = cbor2.dumps([self.size, self.index, list(self.hashes)], canonical=True)
        unprotected = {_VDP: {_INCLUSION: [proof]}, ENTRY: self.entry, CHECKPOINT: self.checkpoint}
        parts = [_protected(self.origin, self.key_id), unprotected, None, self.signature]
        return cbor2.dumps(cbor2.CBORTag(TAG, parts), canonical=True)

    @classmethod
    def parse(cls, data: bytes) -> CoseReceipt:
        """NoteRefused for anything that `encode` would write differently."""
        if len(data) > MAX_BYTES:
            raise NoteRefused("this is longer than a receipt can be")
        try:
            receipt = _read(data)
            if receipt.encode() == data:
                return receipt
        except (cbor2.CBORError, ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError):
            pass
        raise NoteRefused("this is no COSE receipt with the entry and the checkpoint in it, in canonical form")

    def signed_by(self, key: VerifierKey, root: bytes) -> bool:
        """Whether this key signed the root, in the name of its log."""
        if key.algorithm is not Algorithm.ED25519 or key.name != self.origin or key.key_id != self.key_id:
            return False
        try:
            message = _message(self.origin, self.key_id, root)
            Ed25519PublicKey.from_public_bytes(key.public).verify(self.signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def sign_root(signer: NoteSigner, root: bytes) -> bytes:
    """The signature (64 bytes) of every receipt under this root."""
    return signer.sign_raw(_message(signer.verifier.name, signer.verifier.key_id, root))


def _protected(origin: str, key_id: bytes) -> bytes:
    # RFC 9943 §6 asks a receipt for an issuer and a subject: both are the log.
    claims = {_ISS: origin, _SUB: origin}
    return cbor2.dumps({_ALG: _EDDSA, _KID: key_id, _CWT: claims, _VDS: _RFC9162_SHA256}, canonical=True)


def _message(origin: str, key_id: bytes, root: bytes) -> bytes:
    """Sig_structure of RFC 9052 §4.4."""
    return cbor2.dumps(["Signature1", _protected(origin, key_id), b"", root], canonical=True)


def _read(data: bytes) -> CoseReceipt:
    tagged = cbor2.CBORDecoder(io.BytesIO(data)).decode()
    if not isinstance(tagged, cbor2.CBORTag) or tagged.tag != TAG:
        raise ValueError("no COSE_Sign1")
    protected, unprotected, _, signature = tagged.value
    head: Any = cbor2.loads(protected)
    (proof,) = unprotected[_VDP][_INCLUSION]
    size, index, hashes = cbor2.loads(proof)
    receipt = CoseReceipt(
        origin=head[_CWT][_ISS],
        key_id=head[_KID],
        signature=signature,
        entry=unprotected[ENTRY],
        index=index,
        size=size,
        hashes=tuple(hashes),
        checkpoint=unprotected[CHECKPOINT],
    )
    # `convert` checks the types; what it can't say follows.
    receipt = msgspec.convert(msgspec.structs.asdict(receipt), CoseReceipt, builtin_types=(bytes,))
    sound = 0 <= index < size <= MAX_SIZE and len(hashes) <= MAX_PROOF
    if not sound or any(len(item) != HASH_BYTES for item in hashes) or len(receipt.entry) > MAX_ENTRY_BYTES:
        raise ValueError("no proof")
    return receipt
