"""A TEE for the demonstration and for tests. It is a fake and says so in every report: kind "simulated".

Its root's private key follows from a sentence that everybody can read here: whoever wants can sign such a report, so
it proves nothing, and the control plane never affirms one.
"""

from __future__ import annotations

import hashlib

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.attester import EvidenceKind, EvidencePart, bundle, report_data

CONTEXT = b"sekisho/simulated-tee/v1\n"
SIGNATURE_BYTES = 64
_ROOT = Ed25519PrivateKey.from_private_bytes(
    hashlib.sha256(b"Sekisho demonstration TEE: this is no hardware and proves nothing").digest()
)
DEMONSTRATION_ROOT = _ROOT.public_key().public_bytes_raw()


class SimulatedReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`machine`: what stands for the id of a chip."""

    machine: str
    bound: bytes
    measurements: dict[str, str]
    debug: bool = False


class SimulatedTee:
    """An Attester. The same `machine` name gives the same hardware id for ever."""

    kind: EvidenceKind = "simulated"

    def __init__(self, machine: str, *, measurements: dict[str, str] | None = None, debug: bool = False) -> None:
        self._machine = hashlib.sha256(machine.encode()).hexdigest()[:32]
        self._measurements = measurements or {"image": hashlib.sha384(b"sekisho demonstration image").hexdigest()}
        self._debug = debug

    @property
    def hardware_id(self) -> str:
        return f"simulated:{self._machine}"

    def collect(self, nonce: bytes, public_key: bytes) -> bytes:
        payload = msgspec.json.encode(
            SimulatedReport(
                machine=self._machine,
                bound=report_data(nonce, public_key),
                measurements=self._measurements,
                debug=self._debug,
            )
        )
        return bundle(EvidencePart(kind="simulated", report=_ROOT.sign(CONTEXT + payload) + payload))
