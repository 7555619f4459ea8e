"""How a tenant's data key travels to an attested workload: HPKE (RFC 9180) to the key that the evidence binds.

Both sides share this: the control plane wraps, the workload unwraps. Suite: DHKEM(X25519), HKDF-SHA256, AES-256-GCM.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
DATA_KEY_BYTES = 32


def spki_of(key: X25519PrivateKey) -> bytes:
    """DER SubjectPublicKeyInfo: what evidence binds."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def parse_spki(der: bytes) -> X25519PublicKey | None:
    """None for what is no X25519 key."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, X25519PublicKey) else None


def _info(tenant: str, evidence: str) -> bytes:
    return f"sekisho/key-release/v1\n{tenant}\n{evidence}".encode()


def wrap(secret: bytes, to: X25519PublicKey, *, tenant: str, evidence: str) -> bytes:
    """`evidence`: the id of the evidence under which it is released; a wrap for one says nothing under another."""
    return _SUITE.encrypt(secret, to, info=_info(tenant, evidence))


def unwrap(wrapped: bytes, key: X25519PrivateKey, *, tenant: str, evidence: str) -> bytes | None:
    """None when it was not wrapped to this key, for this tenant and evidence."""
    try:
        return _SUITE.decrypt(wrapped, key, info=_info(tenant, evidence))
    except (InvalidTag, ValueError):
        return None
