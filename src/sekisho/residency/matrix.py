"""Every class against every endpoint, and what a change to the federation would do to that. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sekisho.federation.model import Federation
from sekisho.kernel.classes import DataClass
from sekisho.residency.model import ANYBODY, Allowed, Denied, Policy, Reason, SiteEvidence, TenantFacts, Verdict
from sekisho.residency.routes import in_window, suspended_reason
from sekisho.residency.verdicts import facts_of, verdicts_of


class EndpointVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say of one endpoint for one class."""

    endpoint: str
    site: str
    operator: str
    country: str
    verdict: Verdict

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return self.verdict.reasons if isinstance(self.verdict, Denied) else ()


Matrix = dict[DataClass, tuple[EndpointVerdict, ...]]


class RouteChange(msgspec.Struct, frozen=True, kw_only=True):
    """How the set for one class and model would change. `tenants` are those that may send such work."""

    data_class: str
    model: str
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    left: int  # endpoints in the set afterwards
    tenants: tuple[str, ...]
    reasons: tuple[Reason, ...]  # why the lost ones would be

    @property
    def closes(self) -> bool:
        return bool(self.lost) and self.left == 0

    @property
    def opens(self) -> bool:
        return bool(self.gained) and self.left == len(self.gained) and not self.lost


def decide_all(
    federation: Federation,
    policy: Policy,
    *,
    evidence: Mapping[str, SiteEvidence],
    now: float,
    evidence_validity_s: float,
    suspended: frozenset[str],
    tenant: TenantFacts = ANYBODY,
) -> Matrix:
    """For each class, every endpoint in the federation's order; a suspended one is denied as such.

    Without a tenant, what holds for one without profiles.
    """
    facts = facts_of(federation, evidence, now=now, evidence_validity_s=evidence_validity_s)
    decided = verdicts_of(policy, policy.kind_of(tenant), facts, now=now)
    matrix: Matrix = {}
    for data_class in DataClass:
        rows = []
        for endpoint, fact, ruled in zip(federation.endpoints, facts, decided[data_class], strict=True):
            verdict = in_window(endpoint, ruled)
            if endpoint.id in suspended:
                reason = suspended_reason(endpoint)
                verdict = Denied(rules=(reason.rule,), reasons=(reason,))
            rows.append(
                EndpointVerdict(
                    endpoint=endpoint.id,
                    site=endpoint.site,
                    operator=fact.operator,
                    country=fact.site_country,
                    verdict=verdict,
                )
            )
        matrix[data_class] = tuple(rows)
    return matrix


def difference(federation: Federation, before: Matrix, after: Matrix) -> tuple[RouteChange, ...]:
    """What changes, route by route: those that close come first, then those that lose, then those that gain.

    `federation` names the endpoints, which are the same before and after.
    """
    models = {endpoint.id: frozenset(endpoint.models) for endpoint in federation.endpoints}
    shared = {model for endpoint in federation.endpoints if endpoint.tenants is None for model in endpoint.models}
    owners = {
        (tenant, model)
        for endpoint in federation.endpoints
        for tenant in endpoint.tenants or ()
        for model in endpoint.models
    }
    changes: list[RouteChange] = []
    for data_class in DataClass:
        for model in sorted({model for served in models.values() for model in served}):
            old = {row.endpoint for row in before[data_class] if _serves(row, model, models)}
            new = {row.endpoint for row in after[data_class] if _serves(row, model, models)}
            if old == new:
                continue
            lost = tuple(sorted(old - new))
            changes.append(
                RouteChange(
                    data_class=data_class.label,
                    model=model,
                    lost=lost,
                    gained=tuple(sorted(new - old)),
                    left=len(new),
                    tenants=tuple(
                        tenant.id
                        for tenant in federation.tenants
                        if tenant.floor <= data_class
                        and (
                            (tenant.id, model) in owners
                            or (model in shared and (tenant.models is None or model in tenant.models))
                        )
                    ),
                    reasons=tuple(
                        reason for row in after[data_class] if row.endpoint in lost for reason in row.reasons
                    ),
                )
            )
    return tuple(sorted(changes, key=lambda change: (not change.closes, not change.lost, change.opens)))


def _serves(row: EndpointVerdict, model: str, models: dict[str, frozenset[str]]) -> bool:
    return isinstance(row.verdict, Allowed) and model in models[row.endpoint]
