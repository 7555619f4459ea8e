"""The register that says in which building a piece of hardware stands: attestation says what, never where.

An entry is signed twice, by the operator of the site and by an auditor who saw the machine there; each signature is
Ed25519 over "sekisho/hardware-register/v1\\n" and the entry as canonical JSON. After the idea of Proof of Cloud.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_CONTEXT = b"sekisho/hardware-register/v1\n"
_Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}$")]
Role = Literal["operator", "auditor"]
_YEAR_9999 = 253_402_300_799


class RegisterEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`hardware_id` as verifiers give it (`snp:…`, `tdx:…`, `nvidia:…`). Times in Unix seconds."""

    hardware_id: Annotated[str, msgspec.Meta(pattern=r"^(?:snp|tdx|nvidia|simulated):[0-9a-f]{1,128}$")]
    site: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]
    operator: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]
    building: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    valid_from: Annotated[int, msgspec.Meta(ge=0, le=_YEAR_9999)]
    valid_until: Annotated[int, msgspec.Meta(ge=0, le=_YEAR_9999)]


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Role
    key: _Hex32
    signature: _Hex64


class SignedEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is imported: `{"entry": {…}, "signatures": [operator's, auditor's]}`."""

    entry: RegisterEntry
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=8)]


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signature counts, in which role. `name`: of an operator its id."""

    key: _Hex32
    role: Role
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


_encode = msgspec.json.Encoder(order="deterministic").encode


def signed_bytes(entry: RegisterEntry) -> bytes:
    return _CONTEXT + _encode(entry)


def sign(entry: RegisterEntry, role: Role, key: Ed25519PrivateKey) -> Signature:
    return Signature(
        role=role, key=key.public_key().public_bytes_raw().hex(), signature=key.sign(signed_bytes(entry)).hex()
    )


def fault_of(signed: SignedEntry, signers: Iterable[Signer]) -> str:
    """Why an entry does not count; empty when it does: signed by its operator and by an auditor who is not it."""
    known = {(signer.key, signer.role): signer for signer in signers}
    good: dict[str, set[str]] = {"operator": set(), "auditor": set()}
    data = signed_bytes(signed.entry)
    for signature in signed.signatures:
        signer = known.get((signature.key, signature.role))
        if signer is None:
            return f"the {signature.role}'s key {signature.key[:16]}… is not trusted here"
        if not _verifies(signature, data):
            return f"the signature of {signer.name} ({signature.role}) does not fit"
        if signature.role == "operator" and signer.name != signed.entry.operator:
            return f"the operator {signer.name} can't sign for {signed.entry.operator}"
        good[signature.role].add(signature.key)
    if not good["operator"] or not good["auditor"] - good["operator"]:
        return "it needs two signatures: one of the operator and one of an auditor with another key"
    if signed.entry.valid_until <= signed.entry.valid_from:
        return "it ends before it begins"
    return ""


def _verifies(signature: Signature, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key)).verify(
            bytes.fromhex(signature.signature), data
        )
    except (InvalidSignature, ValueError):
        return False
    return True
