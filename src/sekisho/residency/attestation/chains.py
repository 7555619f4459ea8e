"""Certificates: read once, verified once for each pair, judged against a clock every time."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.utils import CryptographyDeprecationWarning

from sekisho.residency.attestation.refusals import Refused, refuse

# AMD's key distribution gives every VCEK the serial number 0; cryptography warns of that each time.
warnings.filterwarnings("ignore", message="Parsed a serial number", category=CryptographyDeprecationWarning)

MAX_CERTIFICATE_BYTES = 16 << 10
P384_BYTES = 48


class Certificate:
    """A certificate with what is asked of it again and again. Times in Unix seconds."""

    def __init__(self, der: bytes) -> None:
        self.der = der
        self.parsed = x509.load_der_x509_certificate(der)
        self.key = self.parsed.public_key()
        self.since = self.parsed.not_valid_before_utc.timestamp()
        self.until = self.parsed.not_valid_after_utc.timestamp()
        self.subject = self.parsed.subject.rfc4514_string()
        self.common_name = _common_name(self.parsed.subject)
        self.issuer_name = _common_name(self.parsed.issuer)
        self.extensions: dict[str, bytes] = {
            extension.oid.dotted_string: extension.value.public_bytes() for extension in self.parsed.extensions
        }
        self.may_issue = _may_issue(self.parsed)

    def verify_p384(self, signature: bytes, data: bytes, algorithm: ec.ECDSA) -> bool:
        """Whether this certificate's P-384 key made the signature (r ‖ s, big-endian)."""
        if not isinstance(self.key, ec.EllipticCurvePublicKey) or not isinstance(self.key.curve, ec.SECP384R1):
            return False
        r, s = signature[:P384_BYTES], signature[P384_BYTES:]
        try:
            self.key.verify(encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")), data, algorithm)
        except (InvalidSignature, ValueError):
            return False
        return True


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _may_issue(parsed: x509.Certificate) -> bool:
    try:
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca


@functools.lru_cache(maxsize=512)
def read_certificate(der: bytes) -> Certificate | None:
    """None for what is no certificate. Cached by its bytes: a fleet's chains share all but their leaves."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        return None
    try:
        return Certificate(der)
    except Exception:
        return None


@functools.lru_cache(maxsize=1024)
def issued_by(child: bytes, issuer: bytes) -> bool:
    """Whether `issuer` (DER) may issue, is named in `child` (DER), and signed it."""
    one, other = read_certificate(child), read_certificate(issuer)
    if one is None or other is None or not other.may_issue:
        return False
    try:
        one.parsed.verify_directly_issued_by(other.parsed)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def verified_until(chain: Sequence[Certificate], *, now: float) -> float | Refused:
    """The earliest end of a chain (leaf first, trusted root last), or what is wrong with it."""
    for child, issuer in itertools.pairwise(chain):
        if not issued_by(child.der, issuer.der):
            return refuse("attestation.chain_broken", f"{child.common_name} ← {issuer.common_name}")
    for certificate in chain:
        if not certificate.since <= now < certificate.until:
            return refuse("attestation.certificate_expired", certificate.common_name)
    return min(certificate.until for certificate in chain)
