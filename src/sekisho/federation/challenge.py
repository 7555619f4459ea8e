"""The challenge that bounds a distance: a question of 128 bytes, an answer of 112, over UDP or TCP.

    question  "SKLQ" · version 1 · 3 zeros · time (Unix ms, u64) · landmark (16) · site (16) · nonce (32) · 48 zeros
    answer    "SKLA" · version 1 · algorithm · 2 zeros · nonce (32) · key (8) · signature (64)

Numbers are big-endian. `landmark`, `site` and `key` are the first bytes of a SHA-256 (of the landmark's and the
answering key's DER SubjectPublicKeyInfo, and of the site's id). The signature is over a context of its own, the whole
question and the answer before it, so it fits one question of one landmark to one site and nothing else. Algorithms:
1 is Ed25519 (RFC 8032), 2 is ECDSA on P-256 with SHA-256 as 32 bytes of r and 32 of s.

The answer is shorter than the question, so that a forged sender's address amplifies nothing. Nobody but the landmark
can know its nonce before it is sent: an answer that fits was made after that moment.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

QUESTION_BYTES = 128
ANSWER_BYTES = 112
NONCE_BYTES = 32
_CONTEXT = b"sekisho/location-challenge/v1\n"
_QUESTION = struct.Struct(">4sB3xQ16s16s32s48x")
_QUESTION_START = b"SKLQ\x01\0\0\0"
_PADDING = bytes(48)
_ANSWER_START = b"SKLA\x01"
_ED25519, _P256 = 1, 2
_ECDSA = ec.ECDSA(hashes.SHA256())

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """`asked_ms`: Unix time of the landmark in milliseconds."""

    asked_ms: int
    landmark: bytes
    site: bytes
    nonce: bytes


def write_question(question: Question) -> bytes:
    return _QUESTION.pack(b"SKLQ", 1, question.asked_ms, question.landmark, question.site, question.nonce)


def read_question(data: bytes) -> Question | None:
    """One reading only: None for any other length, version, or padding that is not zeros."""
    if len(data) != QUESTION_BYTES or not data.startswith(_QUESTION_START) or not data.endswith(_PADDING):
        return None
    _, _, asked_ms, landmark, site, nonce = _QUESTION.unpack(data)
    return Question(asked_ms=asked_ms, landmark=landmark, site=site, nonce=nonce)


def site_name(site: str) -> bytes:
    """How a site's id stands in a question."""
    return hashlib.sha256(site.encode()).digest()[:16]


def landmark_name(spki: bytes) -> bytes:
    """How a landmark stands in its questions: by its key."""
    return hashlib.sha256(spki).digest()[:16]


def spki(key: PrivateKey | PublicKey) -> bytes:
    """DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) of a key or of its public half."""
    public = key.public_key() if isinstance(key, PrivateKey) else key
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_spki(der: bytes) -> PublicKey | None:
    """An Ed25519 or P-256 key; None for anything else."""
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    return None


class Answering:
    """A site's key, ready to answer: what does not depend on the question is made once."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        algorithm = _ED25519 if isinstance(key, Ed25519PrivateKey) else _P256
        self._start = _ANSWER_START + bytes((algorithm, 0, 0))
        self._name = hashlib.sha256(spki(key)).digest()[:8]

    def answer(self, question: bytes) -> bytes:
        """The answer to the bytes of a question that `read_question` could read."""
        head = self._start + question[48:80] + self._name
        return head + sign(self._key, _CONTEXT + question + head)


def answered(question: bytes, answer: bytes, key: PublicKey) -> bool:
    """Whether this key made this answer to this question."""
    if len(answer) != ANSWER_BYTES or not is_about(question, answer):
        return False
    head = answer[:48]
    algorithm = _ED25519 if isinstance(key, Ed25519PublicKey) else _P256
    expected = _ANSWER_START + bytes((algorithm, 0, 0)) + question[48:80] + hashlib.sha256(spki(key)).digest()[:8]
    return head == expected and signed(key, answer[48:], _CONTEXT + question + head)


def is_about(question: bytes, answer: bytes) -> bool:
    """Whether the answer names the question's nonce; says nothing about who made it."""
    return answer[8:40] == question[48:80]


def sign(key: PrivateKey, text: bytes) -> bytes:
    """64 bytes: Ed25519, or r and s of ECDSA."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(text)
    r, s = utils.decode_dss_signature(key.sign(text, _ECDSA))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def signed(key: PublicKey, signature: bytes, text: bytes) -> bool:
    if len(signature) != 64:
        return False
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, text)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(utils.encode_dss_signature(r, s), text, _ECDSA)
    except InvalidSignature:
        return False
    return True
