"""Keys and certificates between gateways and sites' agents: P-256, self-signed, believed for their key alone.

Nobody asks an authority: the gateway pins the agent's SubjectPublicKeyInfo, the agent lets in the certificates that
its control plane names. So a certificate has no name that counts and a long life; what ends is the pin.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # RFC 5280 §4.1.2.5: no end is known


def new_key() -> bytes:
    """A private key as PEM (PKCS #8, without a password: the process starts by itself)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey | None:
    """None when it is no P-256 key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        return None
    return key


def certificate(key: ec.EllipticCurvePrivateKey, *, name: str) -> bytes:
    """A certificate of this key for itself (PEM), for TLS servers and clients."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    public = key.public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        # its own authority and nobody else's: path_length 0 and no other certificate ever signed
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def fits(pem: bytes, key: ec.EllipticCurvePrivateKey) -> bool:
    """Whether this certificate (PEM) is of this key."""
    try:
        return x509.load_pem_x509_certificate(pem).public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
