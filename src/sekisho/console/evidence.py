"""What stands for each site: attestation, location, declaration, heart-beat. Pure: facts in, views out."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.console.facts import Facts, SiteLive
from sekisho.console.render import View
from sekisho.federation.views import SiteView as Enrolled
from sekisho.residency.evidence import ATTESTATION
from sekisho.residency.evidence_store import Evidence

# Agents bring new evidence at half of its time: with less than this share left, something is wrong.
SOON = 0.25
State = Literal["standing", "soon", "over"]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence at one moment; `left_s` is negative once it has run out."""

    row: Evidence
    age_s: float
    left_s: float
    state: State


class SiteStanding(msgspec.Struct, frozen=True, kw_only=True):
    """`declared_until` None: the declaration is renewed with every route table. `beat` None: it has no agent."""

    live: SiteLive
    attestation: Proof | None
    location: Proof | None
    declared_until: float | None
    beat: Enrolled | None
    suspended: bool


class EvidenceView(View, frozen=True, kw_only=True):
    rows: tuple[SiteStanding, ...]
    table: bool  # whether there is a route table: without one nobody knows the sites

    @property
    def template(self) -> str:
        return "evidence.html"


def state_of(row: Evidence, now: float) -> State:
    if row.until <= now:
        return "over"
    return "soon" if row.until - now < SOON * (row.until - row.at) else "standing"


def proof_of(row: Evidence, now: float) -> Proof:
    return Proof(row=row, age_s=now - row.at, left_s=row.until - now, state=state_of(row, now))


def standing_of(facts: Facts, live: SiteLive) -> SiteStanding:
    here = [row for row in facts.kept if row.site == live.site.id]
    attestation = next((row for row in here if row.about == ATTESTATION), None)
    location = next((row for row in here if row.about != ATTESTATION), None)
    known = next((each for each in facts.enrolled if each.id == live.site.id), None)
    return SiteStanding(
        live=live,
        attestation=proof_of(attestation, facts.now) if attestation else None,
        location=proof_of(location, facts.now) if location else None,
        declared_until=facts.declared_until.get(live.site.id, live.site.valid_until),
        beat=known if known is not None and known.source == "enrolment" else None,
        suspended=known is not None and known.suspended,
    )


def evidence_view(facts: Facts) -> EvidenceView:
    return EvidenceView(rows=tuple(standing_of(facts, live) for live in facts.sites), table=facts.state is not None)
