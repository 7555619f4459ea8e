"""Signatures of enrolment: operators sign declarations (Ed25519), agents sign requests (ECDSA P-256), control
answers.

Each kind of text begins with a context of its own, so that a signature made for one purpose fits no other. Agents
have P-256 because the same key serves their TLS certificate, and every TLS library takes that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# Names of headers of a signed request; the answer is signed in the last of them.
SITE_HEADER = "X-Sekisho-Site"
COUNTER_HEADER = "X-Sekisho-Counter"
SIGNATURE_HEADER = "X-Sekisho-Signature"
_DECLARATION = b"sekisho/site-declaration/v1\n"
_ENROLMENT = b"sekisho/enrolment/v1\n"
_ROTATION = b"sekisho/key-rotation/v1\n"
_REQUEST = b"sekisho/agent-request/v1\n"
_ANSWER = b"sekisho/agent-answer/v1\n"
_ECDSA = ec.ECDSA(hashes.SHA256())


def parse_operator_key(text: str) -> Ed25519PublicKey | None:
    """64 hex digits → an Ed25519 public key (RFC 8032 §5.1.5); None for anything else."""
    try:
        raw = bytes.fromhex(text)
        return Ed25519PublicKey.from_public_bytes(raw) if len(raw) == 32 and text == raw.hex() else None
    except ValueError:
        return None


def parse_spki(text: str) -> ec.EllipticCurvePublicKey | None:
    """Base64 of a DER SubjectPublicKeyInfo with a point on P-256 (RFC 5480); None for anything else."""
    try:
        der = base64.b64decode(text, validate=True)
        key = serialization.load_der_public_key(der)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return None
    return key if spki_of(key) == text else None  # one key has one text: no second reading, no second pin


def spki_of(key: ec.EllipticCurvePublicKey) -> str:
    """The key as `parse_spki` reads it."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def pin_of_spki(spki: str) -> str:
    """`sha256:<hex>` over the DER SubjectPublicKeyInfo (RFC 7469 §2.4), as gateways pin it."""
    return "sha256:" + hashlib.sha256(base64.b64decode(spki)).hexdigest()


def sign_declaration(key: Ed25519PrivateKey, declaration: bytes) -> bytes:
    return key.sign(_DECLARATION + declaration)


def declaration_signed(key: Ed25519PublicKey, signature: bytes, declaration: bytes) -> bool:
    return _ed25519(key, signature, _DECLARATION + declaration)


def enrolment_text(*, token: str, spki: str, declaration: bytes) -> bytes:
    """What an agent signs to show that it has the key, bound to its token and its declaration."""
    parts = (token.encode(), spki.encode(), declaration)
    return _ENROLMENT + b"\n".join(hashlib.sha256(part).hexdigest().encode() for part in parts)


def rotation_text(*, site: str, old: str, new: str) -> bytes:
    """What the new key signs when an agent changes its key."""
    return _ROTATION + f"{site}\n{old}\n{new}".encode()


def request_text(*, method: str, path: str, site: str, counter: int, body: bytes) -> bytes:
    """What an agent signs with each request."""
    return _REQUEST + f"{method}\n{path}\n{site}\n{counter}\n{hashlib.sha256(body).hexdigest()}".encode()


def answer_text(*, site: str, counter: int, body: bytes) -> bytes:
    """What the control plane signs with each answer: it fits one request of one agent."""
    return _ANSWER + f"{site}\n{counter}\n{hashlib.sha256(body).hexdigest()}".encode()


def agent_sign(key: ec.EllipticCurvePrivateKey, text: bytes) -> bytes:
    return key.sign(text, _ECDSA)


def agent_signed(key: ec.EllipticCurvePublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text, _ECDSA)
    except InvalidSignature:
        return False
    return True


def control_signed(key: Ed25519PublicKey, signature: bytes, text: bytes) -> bool:
    return _ed25519(key, signature, text)


def _ed25519(key: Ed25519PublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text)
    except InvalidSignature:
        return False
    return True
