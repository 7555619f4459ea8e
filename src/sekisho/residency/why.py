"""Why a passage would be allowed or refused: the same decisions as the route table's, told endpoint by endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sekisho.federation.model import Federation
from sekisho.kernel.classes import DataClass
from sekisho.residency.matrix import EndpointVerdict, decide_all
from sekisho.residency.model import Allowed, Denied, Policy, Reason, SiteEvidence, Verdict
from sekisho.residency.routes import bounded_reasons
from sekisho.residency.verdicts import tenant_facts

__all__ = ["EndpointVerdict", "Explanation", "explain"]

MODEL_NOT_FOUND = "model.not_found"
EVIDENCE_EXPIRED = "residency.evidence_expired"
NO_ELIGIBLE_ENDPOINT = "residency.no_eligible_endpoint"


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
    evidence: Mapping[str, SiteEvidence],
    issued_at: float,
    now: float,
    evidence_validity_s: float,
    suspended: frozenset[str] = frozenset(),
) -> Explanation | None:
    """What the table that was issued at `issued_at` says at `now`; None when there is no such tenant.

    A model that the tenant may not use is `model.not_found`, as on the wire.
    """
    found = next((known for known in federation.tenants if known.id == tenant), None)
    if found is None:
        return None
    effective = max(data_class, found.floor)
    served = federation.aliases.get(model, model)
    endpoints = federation.endpoints
    serving = {endpoint.id for endpoint in endpoints if served in endpoint.models and endpoint.is_for(tenant)}
    own = any(served in endpoint.models and endpoint.tenants and endpoint.is_for(tenant) for endpoint in endpoints)
    permitted = found.models is None or served in found.models or own
    told = decide_all(
        federation,
        policy,
        evidence=evidence,
        now=issued_at,
        evidence_validity_s=evidence_validity_s,
        suspended=suspended,
        tenant=tenant_facts(found),
    )[effective]
    rows = tuple(row for row in told if row.endpoint in serving) if permitted else ()
    verdict = combined(row.verdict for row in rows)
    if not rows:
        code = MODEL_NOT_FOUND
    elif isinstance(verdict, Denied):
        code = NO_ELIGIBLE_ENDPOINT
    elif verdict.valid_until is not None and verdict.valid_until <= now:
        code = EVIDENCE_EXPIRED  # the gateways close the route by themselves at that moment
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
