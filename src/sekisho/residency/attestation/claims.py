"""What a verifier says of a report that is genuine: values that appraisal weighs, before anybody's policy."""

from __future__ import annotations

import msgspec

from sekisho.federation.attester import EvidenceKind
from sekisho.residency.attestation.refusals import Finding


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """A report whose signature and chain hold.

    `hardware_id`: `snp:<chip id>`, `tdx:<PPID>`, `nvidia:<certificate serial>`, lower-case hex; empty when the host
    masks it. `measurements`: name → hex. `tcb`: component → security version. `bound`: the bytes that the report
    binds (64; of a GPU 32). `until` (Unix seconds): the earliest end of what was relied on. `findings`: warnings of
    the maker itself.
    """

    kind: EvidenceKind
    hardware_id: str
    product: str
    bound: bytes
    measurements: dict[str, str]
    tcb: dict[str, int]
    until: float
    details: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()
