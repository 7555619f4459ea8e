"""Wires attestation to the door of the sites' agents."""

from __future__ import annotations

from sekisho.federation.report import Challenged, Taken
from sekisho.residency.attestation.refusals import Refused
from sekisho.residency.evidence import EvidenceService

# Evidence is asked for again when less than this share of its time is left.
_AGAIN = 0.5


class AgentEvidences:
    """`console.agents.Evidences` on the service."""

    def __init__(self, service: EvidenceService) -> None:
        self._service = service

    def wanted(self, site: str, *, now: float) -> bool:
        facts = self._service.standing(now).get(site)
        if facts is None or facts.attestation.kind == "none":
            return True
        attestation = facts.attestation
        return attestation.until - now < _AGAIN * (attestation.until - attestation.at)

    def challenge(self, site: str, *, now: float) -> Challenged:
        made = self._service.challenge(site, now=now)
        return Challenged(nonce=made.nonce, expires_at=made.expires_at)

    def submit(self, site: str, nonce: bytes, evidence: bytes, public_key: bytes, *, now: float) -> Taken:
        result = self._service.submit(site, nonce, evidence, public_key, now=now)
        if isinstance(result, Refused):
            return Taken(accepted=False, code=result.code, fact=result.finding.en)
        return Taken(accepted=True, level=result.level, code=result.code)
