"""Evidence of the demonstration's TEE. It is a fake and says so: kind "simulated", a root of its own, never more than
a warning, and no policy takes it for hardware."""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sekisho.federation.simulated_tee import CONTEXT, DEMONSTRATION_ROOT, SIGNATURE_BYTES, SimulatedReport
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import Refused, finding, refuse

_MAX_BYTES = 16 << 10
# Nothing runs out in a fake: its evidence lasts as long as the challenge's answer does.
_NEVER = 253_402_300_799.0  # the year 9999
_decode = msgspec.json.Decoder(SimulatedReport).decode


def verify(data: bytes) -> Claims | Refused:
    """What a report of the demonstration's TEE says."""
    signature, payload = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if len(data) > _MAX_BYTES or not payload:
        return refuse("attestation.truncated", "simulated report")
    try:
        Ed25519PublicKey.from_public_bytes(DEMONSTRATION_ROOT).verify(signature, CONTEXT + payload)
    except InvalidSignature:
        return refuse("attestation.signature", "simulated report")
    try:
        report = _decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return refuse("attestation.truncated", "simulated report")
    if report.debug:
        return refuse("attestation.debug", "simulated guest", bound=report.bound)
    return Claims(
        kind="simulated",
        hardware_id=f"simulated:{report.machine}",
        product="Sekisho simulated TEE",
        bound=report.bound,
        measurements=report.measurements,
        tcb={},
        until=_NEVER,
        findings=(finding("attestation.simulated"),),
    )
