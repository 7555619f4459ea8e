"""An appraisal as a signed token: an EAR as JWS (RFC 7515, compact) with Ed25519 (RFC 8037) by the control key."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sekisho.residency.attestation.appraise import Appraisal

MAX_TOKEN_CHARS = 256 << 10
TYPE = "eat+jwt"  # RFC 9711 §10.3


class TokenClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What is read back of a token of ours. Times in Unix seconds; `jti` is the id of the evidence."""

    sub: str
    iat: int
    exp: int
    jti: str
    eat_nonce: str
    status: str = msgspec.field(name="ear.status")
    cnf: dict[str, str]


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    alg: str
    typ: str
    kid: str


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(data) != text:
        raise ValueError("not the one form of these bytes")
    return data


def key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign_token(appraisal: Appraisal, evidence_id: str, key: Ed25519PrivateKey) -> str:
    header = {"alg": "EdDSA", "typ": TYPE, "kid": key_id(key.public_key())}
    payload: dict[str, Any] = {**appraisal.ear(), "jti": evidence_id}
    signed = f"{_encode(msgspec.json.encode(header))}.{_encode(msgspec.json.encode(payload))}"
    return f"{signed}.{_encode(key.sign(signed.encode()))}"


def open_token(token: str, key: Ed25519PublicKey) -> TokenClaims | None:
    """None for anything that this key did not sign as such a token. Whether it has run out is for the caller."""
    if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2 or not token.isascii():
        return None
    header_text, payload_text, signature_text = token.split(".")
    try:
        key.verify(_decode(signature_text), f"{header_text}.{payload_text}".encode())
        header = msgspec.json.decode(_decode(header_text), type=_Header)
        claims = msgspec.json.decode(_decode(payload_text), type=TokenClaims)
    except (InvalidSignature, ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        return None
    return claims if header.alg == "EdDSA" and header.typ == TYPE else None
