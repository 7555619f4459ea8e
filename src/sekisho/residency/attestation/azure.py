"""Azure confidential VMs on SEV-SNP, offline: the HCL report that the paravisor leaves in the virtual TPM (NV index
0x01400001). It holds an SNP report whose report_data vouches for runtime claims, and these name the TPM's
attestation key and the 64 bytes of user data (NV index 0x01400002) into which the guest puts what it wants bound."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

import msgspec

from sekisho.residency.attestation import snp
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import Refused, refuse

# learn.microsoft.com, "Guest attestation for confidential VMs": header 32 bytes, hardware report, then the data
_MAGIC = b"HCLA"
_HEADER_BYTES = 32
_DATA_AT = _HEADER_BYTES + snp.REPORT_BYTES
_CLAIMS_AT = _DATA_AT + 20
_SNP = 2
_HASHES = {1: "sha256", 2: "sha384", 3: "sha512"}
MAX_BYTES = 32 << 10


class _Key(msgspec.Struct):
    kid: str = ""
    kty: str = ""
    n: str = ""
    e: str = ""


class _RuntimeClaims(msgspec.Struct, rename="kebab"):
    keys: tuple[_Key, ...] = ()
    user_data: str = ""


_read_claims = msgspec.json.Decoder(_RuntimeClaims).decode


def chip_of(data: bytes) -> str:
    """Whose certificate the report inside needs (hex); empty for what is no HCL report."""
    return snp.chip_of(data[_HEADER_BYTES:_DATA_AT])


def verify(
    data: bytes, certificates: Sequence[bytes], *, now: float, roots: Mapping[str, snp.Roots] | None = None
) -> Claims | Refused:
    """Like `snp.verify`, for an HCL report: `bound` is the user data of the claims that the hardware vouches for."""
    if len(data) > MAX_BYTES or len(data) < _CLAIMS_AT or data[:4] != _MAGIC:
        return refuse("attestation.truncated", "HCL report")
    size, _version, kind, hash_kind, claims_bytes = struct.unpack_from("<5I", data, _DATA_AT)
    raw = data[_CLAIMS_AT : _CLAIMS_AT + claims_bytes]
    name = _HASHES.get(hash_kind)
    if kind != _SNP or name is None or len(raw) != claims_bytes or size < claims_bytes + 20:
        return refuse("attestation.truncated", "HCL report")
    claims = snp.verify(data[_HEADER_BYTES:_DATA_AT], certificates, now=now, roots=roots)
    if isinstance(claims, Refused) and not claims.bound:
        return claims
    if claims.bound != hashlib.new(name, raw).digest().ljust(64, b"\0"):
        return refuse("attestation.claims")
    try:
        runtime = _read_claims(raw)
        user_data = bytes.fromhex(runtime.user_data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return refuse("attestation.truncated", "HCL runtime claims")
    key = next((key for key in runtime.keys if key.kid == "HCLAkPub" and key.kty == "RSA"), None)
    if key is None or len(user_data) != 64:
        return refuse("attestation.truncated", "HCL runtime claims")
    if isinstance(claims, Refused):
        return msgspec.structs.replace(claims, bound=user_data)
    thumbprint = hashlib.sha256(f'{{"e":"{key.e}","kty":"RSA","n":"{key.n}"}}'.encode()).hexdigest()  # RFC 7638
    return msgspec.structs.replace(
        claims,
        kind="azure-snp",
        product=f"Azure {claims.product}",
        bound=user_data,
        details={**claims.details, "attestation_key": thumbprint},
    )
