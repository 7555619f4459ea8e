"""What a site's agent collects about its hardware, and the form in which that travels to the control plane.

What hardware signs (`report_data`, 64 bytes) binds one challenge and one public key:

    report_data = SHA-512("sekisho/attestation/v1\\n" ‖ nonce ‖ SPKI)

with the 32 bytes of the nonce and the DER SubjectPublicKeyInfo of the agent's key. A GPU signs a nonce of 32 bytes
and nothing else; it is given the SHA-256 over the same bytes with the context "sekisho/attestation-gpu/v1\\n".
"""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol

import msgspec

NONCE_BYTES = 32
FORM = 1
# A Hopper report with its chain is about 10 KiB; a machine has at most 16 GPUs and one CPU.
MAX_PARTS = 20
MAX_BUNDLE_BYTES = 1 << 20

EvidenceKind = Literal["simulated", "tdx", "snp", "azure-snp", "nvidia-hopper"]


class EvidencePart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One report as its hardware gave it. `certificates`: DER, the report's own signer first, as far as the machine
    has them; the verifier brings the roots, and what it keeps in its cache of collateral."""

    kind: EvidenceKind
    report: bytes
    certificates: tuple[bytes, ...] = ()


class EvidenceBundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that one machine says of itself in answer to one challenge: its CPU first, then its GPUs."""

    form: int
    parts: tuple[EvidencePart, ...]


_decode = msgspec.json.Decoder(EvidenceBundle).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def bundle(*parts: EvidencePart) -> bytes:
    """Canonical JSON: members sorted, no white space, bytes as base64 (RFC 4648 §4)."""
    return _encode(EvidenceBundle(form=FORM, parts=parts))


def read_bundle(data: bytes) -> EvidenceBundle | None:
    """None when it is no bundle of a form that we read, or too large."""
    if len(data) > MAX_BUNDLE_BYTES:
        return None
    try:
        read = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return read if read.form == FORM and 0 < len(read.parts) <= MAX_PARTS else None


def report_data(nonce: bytes, public_key: bytes) -> bytes:
    """The 64 bytes that a CPU's report must carry. `public_key`: DER SubjectPublicKeyInfo."""
    return hashlib.sha512(b"sekisho/attestation/v1\n" + nonce + public_key).digest()


def gpu_nonce(nonce: bytes, public_key: bytes) -> bytes:
    """The 32 bytes that a GPU's report must carry."""
    return hashlib.sha256(b"sekisho/attestation-gpu/v1\n" + nonce + public_key).digest()


class Attester(Protocol):
    """Collects one kind of evidence on the machine on which it runs."""

    @property
    def kind(self) -> EvidenceKind: ...

    def collect(self, nonce: bytes, public_key: bytes) -> bytes:
        """A bundle (its bytes) that binds this nonce and key. Raises AttesterUnavailable where the hardware or its
        driver does not answer."""
        ...
