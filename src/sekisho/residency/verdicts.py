"""From a federation and its evidence to verdicts: what the rules may know of each site, and what they then say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sekisho.federation.model import Federation, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.decide import EVIDENCE_FRESH, stale_reason
from sekisho.residency.model import (
    Allowed,
    Denied,
    EndpointFacts,
    Policy,
    SiteEvidence,
    TenantFacts,
    Verdict,
)

_FOREVER = float("inf")
_NO_EVIDENCE = SiteEvidence()
# A declaration holds until a moment on a grid, so that two tables of one quarter of an hour or so differ in what has
# changed and not in every end. It costs at most this share of the validity.
_GRID_SHARE = 1 / 32


def facts_of(
    federation: Federation, evidence: Mapping[str, SiteEvidence], *, now: float, evidence_validity_s: float
) -> tuple[EndpointFacts, ...]:
    """What the rules may know of each endpoint, in the federation's order.

    A declaration holds for `evidence_validity_s` from now or a little less (see `declared_until`), and never longer
    than the operator's own. `evidence` has what was attested and measured, by site id; a site that is not in it has
    neither.
    """
    operators = {operator.id: operator for operator in federation.operators}
    by_site: dict[str, EndpointFacts] = {}
    until = declared_until(now, evidence_validity_s)
    for site in federation.sites:
        operator = operators[site.operator]
        declared = site.declaration
        found = evidence.get(site.id, _NO_EVIDENCE)
        by_site[site.id] = EndpointFacts(
            site=site.id,
            operator=operator.id,
            site_country=site.country,
            operator_country=operator.country,
            operator_law=operator.law,
            evidence_until=until if site.valid_until is None else min(site.valid_until, until),
            enrolled=site.enrolled,
            site_law=declared.law,
            owner_country=declared.owner_country,
            foreign_owned_percent=declared.foreign_owned_percent,
            foreign_laws=tuple(sorted(set(declared.foreign_laws))),
            operator_can_read=declared.operator_can_read,
            key_custody=declared.key_custody,
            personnel=declared.personnel,
            # who may reach a site: where the subcontractor sits, and the law over it
            subcontractor_countries=tuple(
                sorted({place for each in declared.subcontractors for place in (each.country, each.law)})
            ),
            log_retention_days=declared.log_retention_days,
            attestation=found.attestation,
            location=found.location,
        )
    return tuple(by_site[endpoint.site] for endpoint in federation.endpoints)


def declared_until(now: float, validity_s: float) -> float:
    """Until when a declaration holds in a table of now (Unix seconds): never longer than `validity_s`, and the same
    for all tables of one step of the grid."""
    until = now + validity_s
    grid_s = validity_s * _GRID_SHARE
    if not (grid_s > 0 and math.isfinite(until)):
        return until
    return min(math.floor(until / grid_s) * grid_s, until)


def tenant_facts(tenant: Tenant) -> TenantFacts:
    """What the rules may know of a tenant."""
    return TenantFacts(id=tenant.id, profiles=tuple(sorted(set(tenant.profiles))))


class Row(NamedTuple):
    """The verdicts for one kind of tenant: by class, one for each of the facts; and until when each fact's verdicts
    are what they are, for all classes, as long as the facts themselves do not change (Unix seconds)."""

    verdicts: dict[DataClass, list[Verdict]]
    same_until: list[float]


def verdicts_of(
    policy: Policy, tenant: TenantFacts, facts: Sequence[EndpointFacts], *, now: float
) -> dict[DataClass, tuple[Verdict, ...]]:
    """The verdict for each class and endpoint, under two laws that hold whatever the policy says.

    A class never gets an endpoint that a lower class was denied (law 1): the lower class's denial then stands for
    the higher one too. A guarded class is allowed for as long as the evidence holds, never longer (law 2).
    """
    different, places = distinct(facts)
    row = row_of(policy, tenant, different, now=now)
    return {data_class: tuple([said[place] for place in places]) for data_class, said in row.verdicts.items()}


def distinct(facts: Sequence[EndpointFacts]) -> tuple[tuple[EndpointFacts, ...], list[int]]:
    """The facts without repetition, and where each endpoint's are among them. By identity: the endpoints of a site
    share one object, and to hash all that is known of a site costs more than to decide about it."""
    different = tuple({id(each): each for each in facts}.values())
    place = {id(each): position for position, each in enumerate(different)}
    return different, [place[id(each)] for each in facts]


def row_of(policy: Policy, tenant: TenantFacts, facts: tuple[EndpointFacts, ...], *, now: float) -> Row:
    """The verdicts of `verdicts_of` for facts without repetition. Each fact's are independent of the others'."""
    decided: dict[DataClass, list[Verdict]] = {}
    same_until = [_FOREVER] * len(facts)
    below: list[Verdict] | None = None
    for data_class in DataClass:
        verdicts, untils = policy.decide_each(tenant, data_class, facts, now=now)
        guarded = data_class.guarded
        for position, verdict in enumerate(verdicts):
            until = untils[position]
            if isinstance(verdict, Allowed):
                lower = below[position] if below is not None else None
                if isinstance(lower, Denied):
                    verdicts[position] = lower
                elif guarded or verdict.valid_until is not None or (lower and lower.valid_until is not None):
                    verdicts[position] = bound = _bound(verdict, lower, facts[position], guarded=guarded, now=now)
                    if isinstance(bound, Allowed) and bound.valid_until is not None and bound.valid_until < until:
                        until = bound.valid_until
            same_until[position] = min(same_until[position], until)
        decided[data_class] = below = verdicts
    return Row(decided, same_until)


def _bound(verdict: Allowed, below: Allowed | None, facts: EndpointFacts, *, guarded: bool, now: float) -> Verdict:
    """Never longer than the class below (law 1 holds at every instant), nor than the evidence (law 2)."""
    until = verdict.valid_until
    if below is not None and below.valid_until is not None and (until is None or below.valid_until < until):
        until = below.valid_until
    if guarded and (until is None or facts.evidence_until < until):
        until = facts.evidence_until
    if until is not None and not until > now:
        # In a set it would close the route of every other endpoint with it.
        return Denied(rules=(EVIDENCE_FRESH,), reasons=(stale_reason(facts),))
    if until == verdict.valid_until:
        return verdict
    return Allowed(rules=verdict.rules, valid_until=until)
