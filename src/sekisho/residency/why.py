"""Why a passage would be allowed or refused: the same decisions as the route table's, told endpoint by endpoint."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sekisho.federation.model import Federation
from sekisho.kernel.classes import DataClass
from sekisho.residency.compile import bounded_reasons, facts_of, suspended_reason, verdicts_of
from sekisho.residency.model import Allowed, Denied, Policy, Reason, Verdict

MODEL_NOT_FOUND = "model.not_found"
NO_ELIGIBLE_ENDPOINT = "residency.no_eligible_endpoint"


class EndpointVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say of one endpoint for one class."""

    endpoint: str
    site: str
    operator: str
    country: str
    verdict: Verdict


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`data_class` is the one that counts (`asked_class`, raised to the tenant's floor); `model` is what is served
    (`asked_model` may be an alias). `code` is empty when somebody may serve."""

    tenant: str
    asked_class: str
    data_class: str
    asked_model: str
    model: str
    code: str
    verdict: Verdict
    endpoints: tuple[EndpointVerdict, ...]
    policy: str


def endpoint_verdicts(
    federation: Federation,
    policy: Policy,
    *,
    now: float,
    evidence_validity_s: float,
    suspended: frozenset[str],
) -> dict[DataClass, tuple[EndpointVerdict, ...]]:
    """For each class, every endpoint in the federation's order; a suspended one is denied as such."""
    facts = facts_of(federation, now=now, evidence_validity_s=evidence_validity_s)
    decided = verdicts_of(policy, facts, now=now)
    told: dict[DataClass, tuple[EndpointVerdict, ...]] = {}
    for data_class in DataClass:
        rows = []
        for endpoint, fact, verdict in zip(federation.endpoints, facts, decided[data_class], strict=True):
            if endpoint.id in suspended:
                reason = suspended_reason(endpoint)
                verdict = Denied(rules=(reason.rule,), reasons=(reason,))  # noqa: PLW2901 - suspension comes first
            rows.append(
                EndpointVerdict(
                    endpoint=endpoint.id,
                    site=endpoint.site,
                    operator=fact.operator,
                    country=fact.site_country,
                    verdict=verdict,
                )
            )
        told[data_class] = tuple(rows)
    return told


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """Allowed when one is, with the rules and the earliest expiry of those; else Denied with every reason."""
    allowed: list[Allowed] = []
    reasons: list[Reason] = []
    for verdict in verdicts:
        match verdict:
            case Allowed():
                allowed.append(verdict)
            case Denied():
                reasons += verdict.reasons
    if not allowed:
        return Denied(rules=tuple(dict.fromkeys(reason.rule for reason in reasons)), reasons=bounded_reasons(reasons))
    expiries = [verdict.valid_until for verdict in allowed if verdict.valid_until is not None]
    return Allowed(
        rules=tuple(dict.fromkeys(rule for verdict in allowed for rule in verdict.rules)),
        valid_until=min(expiries, default=None),
    )


def explain(
    federation: Federation,
    policy: Policy,
    *,
    tenant: str,
    data_class: DataClass,
    model: str,
    now: float,
    evidence_validity_s: float,
    suspended: frozenset[str] = frozenset(),
) -> Explanation | None:
    """None when there is no such tenant. A model that the tenant may not use is `model.not_found`, as on the wire."""
    found = next((known for known in federation.tenants if known.id == tenant), None)
    if found is None:
        return None
    effective = max(data_class, found.floor)
    served = federation.aliases.get(model, model)
    serving = {endpoint.id for endpoint in federation.endpoints if served in endpoint.models}
    permitted = found.models is None or served in found.models
    told = endpoint_verdicts(
        federation, policy, now=now, evidence_validity_s=evidence_validity_s, suspended=suspended
    )[effective]
    rows = tuple(row for row in told if row.endpoint in serving) if permitted else ()
    verdict = combined(row.verdict for row in rows)
    if not rows:
        code = MODEL_NOT_FOUND
    elif isinstance(verdict, Denied):
        code = NO_ELIGIBLE_ENDPOINT
    else:
        code = ""
    return Explanation(
        tenant=tenant,
        asked_class=data_class.label,
        data_class=effective.label,
        asked_model=model,
        model=served,
        code=code,
        verdict=verdict,
        endpoints=rows,
        policy=policy.hash,
    )
