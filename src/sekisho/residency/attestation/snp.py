"""AMD SEV-SNP attestation reports, offline: SEV Secure Nested Paging Firmware ABI (AMD 56860), VCEK and VLEK
certificates (AMD 57230). Pure: the clock and the roots are arguments."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sekisho.residency.attestation.chains import Certificate, read_certificate, verified_until
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import Refused, refuse
from sekisho.residency.attestation.roots import present, root

# AMD 56860 table "ATTESTATION_REPORT": 0x4A0 bytes, of which 0x2A0 are signed. Every field that is read here lies at
# the same place in versions 2 to 5.
REPORT_BYTES = 0x4A0
_SIGNED_BYTES = 0x2A0
_VERSIONS = range(2, 6)
_ECDSA_P384_SHA384 = 1
_POLICY_DEBUG = 1 << 19
_SIGNATURE_FIELD_BYTES = 72
_P384_BYTES = 48
_VCEK, _VLEK = 0, 1
_ECDSA = ec.ECDSA(hashes.SHA384())

# AMD 57230 table "VCEK certificate extensions"
_PRODUCT = "1.3.6.1.4.1.3704.1.2"
_SPL = "1.3.6.1.4.1.3704.1.3."
_HARDWARE_ID = "1.3.6.1.4.1.3704.1.4"
_CSP_ID = "1.3.6.1.4.1.3704.1.5"
_SPL_OF = {"bootloader": "1", "tee": "2", "snp": "3", "microcode": "8", "fmc": "9"}

Line = Literal["Milan", "Genoa", "Turin"]
# Where TCB_VERSION has each component. Turin's layout begins with the firmware of the FMC (AMD 56860 §2.2).
_TCB: Mapping[str, Mapping[str, int]] = {
    "Milan": {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Genoa": {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Turin": {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
}


class Roots(msgspec.Struct, frozen=True, kw_only=True):
    """Of one product line, DER: the root (ARK), and intermediate certificates (ASK, ASVK) that spare the guest
    sending them; these are verified under the root like any other."""

    ark: bytes
    intermediates: tuple[bytes, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a report that is as long as it should be; nothing in it is verified yet."""

    version: int
    policy: int
    vmpl: int
    algorithm: int
    flags: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    reported_tcb: bytes
    chip_id: bytes
    signed: bytes
    signature: bytes

    @property
    def signer(self) -> int:
        """AMD 56860: bits 2–4 of the flags at 0x48; 0 VCEK, 1 VLEK, 7 none."""
        return self.flags >> 2 & 7


@functools.cache
def amd_roots() -> Mapping[str, Roots]:
    """The product lines whose roots are vendored."""
    return {
        line: Roots(
            ark=root(f"amd-{line.lower()}-ark"),
            intermediates=tuple(
                root(f"amd-{line.lower()}-{kind}")
                for kind in ("ask", "asvk")
                if present(f"amd-{line.lower()}-{kind}")
            ),
        )
        for line in _TCB
        if present(f"amd-{line.lower()}-ark")
    }


def parse(data: bytes) -> Report | None:
    if len(data) != REPORT_BYTES:
        return None
    version, policy = struct.unpack_from("<I4xQ", data)
    vmpl, algorithm = struct.unpack_from("<II", data, 0x30)
    flags = struct.unpack_from("<I", data, 0x48)[0]
    if version not in _VERSIONS:
        return None
    r, s = (data[at : at + _SIGNATURE_FIELD_BYTES] for at in (0x2A0, 0x2A0 + _SIGNATURE_FIELD_BYTES))
    # Little-endian numbers of 576 bits; what is above P-384's 384 bits, and what follows, must be nothing: bytes that
    # no signature covers say nothing.
    if any(
        rest.strip(b"\0") for rest in (r[_P384_BYTES:], s[_P384_BYTES:], data[0x2A0 + 2 * _SIGNATURE_FIELD_BYTES :])
    ):
        return None
    return Report(
        version=version,
        policy=policy,
        vmpl=vmpl,
        algorithm=algorithm,
        flags=flags,
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        reported_tcb=data[0x180:0x188],
        chip_id=data[0x1A0:0x1E0],
        signed=data[:_SIGNED_BYTES],
        signature=r[:_P384_BYTES][::-1] + s[:_P384_BYTES][::-1],
    )


def chip_of(data: bytes) -> str:
    """Whose certificate a report needs (hex); empty for what is no report."""
    report = parse(data)
    return report.chip_id.hex() if report is not None else ""


def chip_of_certificate(der: bytes) -> tuple[str, float] | None:
    """The chip (hex, as in reports) that a VCEK is of, and when it ends; None for what is no VCEK."""
    certificate = read_certificate(der)
    hardware_id = certificate.extensions.get(_HARDWARE_ID, b"") if certificate is not None else b""
    if certificate is None or certificate.common_name != "SEV-VCEK" or len(hardware_id) not in (8, 64):
        return None
    return hardware_id.ljust(64, b"\0").hex(), certificate.until


def verify(
    data: bytes, certificates: Sequence[bytes], *, now: float, roots: Mapping[str, Roots] | None = None
) -> Claims | Refused:
    """What a genuine report says, or the first thing that is wrong with it.

    `certificates`: DER, the VCEK or VLEK first. Whether the guest may be debugged and runs at VMPL 0 is judged here:
    no policy of ours ever wants the other.
    """
    report = parse(data)
    if report is None or report.algorithm != _ECDSA_P384_SHA384 or report.signer not in (_VCEK, _VLEK):
        return refuse("attestation.truncated", "SEV-SNP report")
    read = [read_certificate(der) for der in certificates[:4]]
    if not read or any(certificate is None for certificate in read):
        return refuse("attestation.chain_broken", "VCEK")
    leaf, *others = (certificate for certificate in read if certificate is not None)
    kind = "VCEK" if report.signer == _VCEK else "VLEK"
    line = _line(leaf)
    known = (amd_roots() if roots is None else roots).get(line)
    if known is None or leaf.common_name != f"SEV-{kind}":
        return refuse("attestation.chain_broken", f"{leaf.common_name} ({line or '?'})")
    until = _chain_until(leaf, others, known, now=now)
    if isinstance(until, Refused):
        return until
    if not leaf.verify_p384(report.signature, report.signed, _ECDSA):
        return refuse("attestation.signature", "SEV-SNP report")
    refused = _leaf_fits(report, leaf, kind, line)
    if refused is not None:
        return refused
    if report.policy & _POLICY_DEBUG:
        return refuse("attestation.debug", "SEV-SNP guest", bound=report.report_data)
    if report.vmpl:
        return refuse("attestation.vmpl", str(report.vmpl), bound=report.report_data)
    chip = report.chip_id.hex()
    return Claims(
        kind="snp",
        # A host may mask the chip's id (MASK_CHIP_ID): it is zero then, and no register can know it.
        hardware_id=f"snp:{chip}" if report.chip_id.strip(b"\0") else "",
        product=f"AMD {line}",
        bound=report.report_data,
        measurements={"launch": report.measurement.hex()},
        tcb=_reported(report, line),
        until=until,
        details={
            "signer": kind,
            "host_data": report.host_data.hex(),
            "id_key_digest": report.id_key_digest.hex(),
            "policy": f"{report.policy:#x}",
        },
    )


def _chain_until(leaf: Certificate, others: Sequence[Certificate], known: Roots, *, now: float) -> float | Refused:
    ark = read_certificate(known.ark)
    vendored = [read_certificate(der) for der in known.intermediates]
    candidates = [*others, *(certificate for certificate in vendored if certificate is not None)]
    middle = next((one for one in candidates if one.common_name == leaf.issuer_name and one.der != known.ark), None)
    if middle is None or ark is None:
        return refuse("attestation.chain_broken", leaf.issuer_name)
    return verified_until((leaf, middle, ark), now=now)


def _leaf_fits(report: Report, leaf: Certificate, kind: str, line: str) -> Refused | None:
    """The key is of this chip (or cloud), at the state of the firmware that the report claims."""
    if kind == "VCEK":
        hardware_id = leaf.extensions.get(_HARDWARE_ID, b"")
        # Turin's chip ids have 8 bytes; the report's field is longer and ends in zeros then.
        if len(hardware_id) not in (8, 64) or report.chip_id != hardware_id.ljust(64, b"\0"):
            return refuse("attestation.wrong_chip")
    elif _CSP_ID not in leaf.extensions:
        return refuse("attestation.wrong_chip")
    for component, version in _reported(report, line).items():
        if _der_uint(leaf.extensions.get(_SPL + _SPL_OF[component], b"")) != version:
            return refuse("attestation.tcb_mismatch")
    return None


def _reported(report: Report, line: str) -> dict[str, int]:
    return {component: report.reported_tcb[at] for component, at in _TCB[line].items()}


def _line(leaf: Certificate) -> str:
    """`Milan-B0` (an IA5String) → `Milan`."""
    return leaf.extensions.get(_PRODUCT, b"")[2:].partition(b"-")[0].decode("ascii", "replace")


def _der_uint(der: bytes) -> int | None:
    """A DER INTEGER of at most two bytes; None for anything else."""
    if der[:1] != b"\x02" or len(der) not in (3, 4) or der[1] != len(der) - 2:
        return None
    return int.from_bytes(der[2:], "big", signed=True)
