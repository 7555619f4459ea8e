"""Verdicts: who may serve what, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from sekisho.kernel.classes import DataClass


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a rule said no to an endpoint, in both languages."""

    rule: str
    en: str
    ja: str
    site: str = ""


class Allowed(msgspec.Struct, frozen=True, kw_only=True, tag="allowed"):
    """`valid_until` (Unix seconds): the earliest expiry of the evidence under this verdict; None: it needs none."""

    rules: tuple[str, ...]
    valid_until: float | None = None


class Denied(msgspec.Struct, frozen=True, kw_only=True, tag="denied"):
    rules: tuple[str, ...]
    reasons: tuple[Reason, ...]


Verdict = Allowed | Denied


AttestationKind = Literal["none", "simulated", "tdx", "snp", "azure-snp", "nvidia-hopper"]
AttestationLevel = Literal["none", "contraindicated", "warning", "affirming"]
LocationVerdict = Literal["declared", "contradicted", "consistent", "proven"]
KeyCustody = Literal["operator", "tenant", "third-party"]
Personnel = Literal["unscreened", "screened", "cleared"]


class AttestationFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What hardware said of a site, as it was appraised. Times in Unix seconds; `hardware_registered`: the id that
    the hardware gave stands in the signed register for this site's building."""

    kind: AttestationKind = "none"
    level: AttestationLevel = "none"
    hardware_registered: bool = False
    at: float = 0.0
    until: float = 0.0
    digest: str = ""  # SHA-256 (hex) of the evidence itself


class LocationFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of where a site stands. `margin_km`: from the edge of the feasible region to the nearest foreign
    land; negative when foreign land lies inside it."""

    verdict: LocationVerdict = "declared"
    margin_km: int = 0
    at: float = 0.0
    until: float = 0.0
    digest: str = ""


class SiteEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence that stands for one site."""

    attestation: AttestationFacts = AttestationFacts()
    location: LocationFacts = LocationFacts()


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule may know of an endpoint: the axes of policy, each separate from the others on purpose.

    Country is where the machines stand; `site_law` governs the contract about the site; `operator_country` and
    `operator_law` are the operator's own; `owner_country` is who controls it; `foreign_laws` are others that could
    compel it to disclose. `enrolled`: the site entered by invitation, so its place is its operator's word; otherwise
    this installation's configuration names it. What nobody declared has the value that allows least.
    """

    site: str
    operator: str
    site_country: str
    operator_country: str
    operator_law: str
    evidence_until: float
    enrolled: bool = True
    site_law: str = ""
    owner_country: str = ""
    foreign_owned_percent: int = 100
    foreign_laws: tuple[str, ...] = ()
    operator_can_read: bool = True
    key_custody: KeyCustody = "operator"
    personnel: Personnel = "unscreened"
    subcontractor_countries: tuple[str, ...] = ()
    log_retention_days: int = 0
    attestation: AttestationFacts = AttestationFacts()
    location: LocationFacts = LocationFacts()


class TenantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule may know of a tenant. `profiles` are names of policy profiles, sorted."""

    id: str = ""
    profiles: tuple[str, ...] = ()


ANYBODY = TenantFacts()


class Policy(Protocol):
    """Decides for one tenant, class and endpoint. `hash` names the rules, and is written into every decision.

    `kind_of` gives the same value for all tenants that no rule tells apart: they share decisions and routes.
    """

    @property
    def hash(self) -> str: ...

    def kind_of(self, tenant: TenantFacts) -> TenantFacts: ...

    def decide(self, tenant: TenantFacts, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Verdict: ...

    def decide_each(
        self, tenant: TenantFacts, data_class: DataClass, facts: Sequence[EndpointFacts], *, now: float
    ) -> tuple[list[Verdict], list[float]]:
        """What `decide` says of each, in their order; and until when (Unix seconds, later than now) it says that of
        the same facts."""
        ...
