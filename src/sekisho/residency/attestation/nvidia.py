"""NVIDIA Hopper attestation reports, offline: an SPDM 1.1 GET_MEASUREMENTS exchange (DMTF DSP0274) that the GPU
signed with a P-384 key of its own, with opaque fields of NVIDIA's. Pure: the clock and the root are arguments."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sekisho.residency.attestation.chains import read_certificate, verified_until
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import Refused, refuse
from sekisho.residency.attestation.roots import root

MAX_REPORT_BYTES = 8192  # NVML_CC_GPU_ATTESTATION_REPORT_SIZE
_REQUEST_BYTES = 37  # DSP0274 §10.11.1: header 4, nonce 32, slot 1
_SIGNATURE_BYTES = 96
_REQUEST, _RESPONSE = b"\x11\xe0", b"\x11\x60"  # SPDM 1.1, GET_MEASUREMENTS and MEASUREMENTS
_DMTF = 1
_ECDSA = ec.ECDSA(hashes.SHA384())
_CHAIN_MAX = 6

# NVIDIA's opaque fields (type, size, bytes), by their numbers in its own verifier (BSD-3-Clause)
_OPAQUE = {3: "driver", 6: "vbios", 8: "tamper", 14: "board_id", 15: "chip_sku", 17: "project", 18: "project_sku"}
_FWID = 20
# TCG DICE: the firmware's digest in the certificate of the key that it was given
_DICE_FWID = ("2.23.133.5.4.1", "2.23.133.5.4.1.1")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`nonce` is the requester's. `measurements`: index (from 0) → digest."""

    nonce: bytes
    measurements: dict[int, bytes]
    opaque: dict[int, bytes]
    signed: bytes
    signature: bytes


def parse(data: bytes) -> Report | None:
    """The fields of a report that is of its form to the last byte; nothing is verified yet."""
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError):
        return None


def _parse(data: bytes) -> Report:
    if len(data) > MAX_REPORT_BYTES or data[:2] != _REQUEST or data[_REQUEST_BYTES : _REQUEST_BYTES + 2] != _RESPONSE:
        raise ValueError
    at = _REQUEST_BYTES + 4
    blocks = data[at]
    record_bytes = int.from_bytes(data[at + 1 : at + 4], "little")
    at += 4
    record_end = at + record_bytes
    measurements: dict[int, bytes] = {}
    for _ in range(blocks):
        index, specification, size = struct.unpack_from("<BBH", data, at)
        value_size = struct.unpack_from("<xH", data, at + 4)[0]
        value = data[at + 7 : at + 7 + value_size]
        if specification != _DMTF or size != value_size + 3 or len(value) != value_size or not index:
            raise ValueError
        if index - 1 in measurements:
            raise ValueError
        measurements[index - 1] = value
        at += 4 + size
    if at != record_end:
        raise ValueError
    at += 32  # the responder's nonce
    opaque_bytes = struct.unpack_from("<H", data, at)[0]
    at += 2
    end = at + opaque_bytes
    if end + _SIGNATURE_BYTES != len(data):
        raise ValueError
    opaque: dict[int, bytes] = {}
    while at < end:
        kind, size = struct.unpack_from("<HH", data, at)
        at += 4 + size
        if at > end or kind in opaque:
            raise ValueError
        opaque[kind] = data[at - size : at]
    return Report(
        nonce=data[4:36],
        measurements=measurements,
        opaque=opaque,
        signed=data[:end],
        signature=data[end:],
    )


def verify(
    data: bytes, certificates: Sequence[bytes], *, now: float, device_root: bytes | None = None
) -> Claims | Refused:
    """What a genuine report says, or the first thing that is wrong with it. `certificates`: DER, the GPU's own
    attestation certificate first, up to NVIDIA's root (which may be left out: ours counts)."""
    report = parse(data)
    if report is None:
        return refuse("attestation.truncated", "GPU report")
    trusted = read_certificate(root("nvidia-device-root") if device_root is None else device_root)
    read = [read_certificate(der) for der in certificates[:_CHAIN_MAX]]
    chain = [certificate for certificate in read if certificate is not None]
    if trusted is None or not chain or len(chain) != len(certificates):
        return refuse("attestation.chain_broken", "GPU")
    if chain[-1].der == trusted.der:
        chain.pop()
    until = verified_until((*chain, trusted), now=now) if chain else refuse("attestation.chain_broken", "GPU")
    if isinstance(until, Refused):
        return until
    leaf = chain[0]
    if not leaf.verify_p384(report.signature, report.signed, _ECDSA):
        return refuse("attestation.signature", "GPU report")
    fwid = report.opaque.get(_FWID, b"")
    certified = next((leaf.extensions[oid] for oid in _DICE_FWID if oid in leaf.extensions), b"")
    if fwid and not (len(fwid) == 48 and certified.endswith(fwid)):
        return refuse("attestation.tcb_mismatch")
    return Claims(
        kind="nvidia-hopper",
        hardware_id=f"nvidia:{leaf.parsed.serial_number:x}",
        product=f"NVIDIA {leaf.common_name.split()[0] if leaf.common_name else 'GPU'}",
        bound=report.nonce,
        measurements={f"{index:02d}": digest.hex() for index, digest in sorted(report.measurements.items())},
        tcb={},
        until=until,
        details={name: _text(report.opaque[kind]) for kind, name in _OPAQUE.items() if kind in report.opaque},
    )


def _text(value: bytes) -> str:
    """NVIDIA's strings end in NUL; numbers (VBIOS, board id) are shown as hex."""
    plain = value.rstrip(b"\0")
    if plain and all(0x20 <= byte < 0x7F for byte in plain):
        return plain.decode("ascii")
    return value[::-1].hex()
