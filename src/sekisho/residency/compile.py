"""From a federation and a policy to the route table: all decisions are made here, none on the request path.

The life of a route: (1) an endpoint's site and operator become facts, with the time until which the evidence
about them holds; (2) the policy decides once for each class and each kind of facts; (3) the endpoints of a model
that are allowed make a route set, or the reasons of those that are not make a closed route; (4) tenants with the
same floor and models share a profile of routes; (5) the table is what the gateways obey until the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from sekisho.federation.keys import key_id
from sekisho.federation.model import Endpoint, Federation, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.kernel.errors import SekishoError
from sekisho.residency.decide import EVIDENCE_FRESH, stale_reason
from sekisho.residency.model import Allowed, Denied, EndpointFacts, Policy, Reason, Verdict
from sekisho.residency.table import (
    SCHEMA,
    Closed,
    EndpointEntry,
    KeyEntry,
    Profile,
    RouteSet,
    RouteTable,
    TenantEntry,
)

# Reasons travel in every refusal and every table, so a federation of a thousand sites must not make them grow.
MAX_REASONS = 20
ENDPOINT_SUSPENDED = "endpoint-suspended"
_FOREVER = float("inf")


class CompileRefused(SekishoError):
    """The table can't be made from what was given."""

    code = "table.not_compiled"


def facts_of(federation: Federation, *, now: float, evidence_validity_s: float) -> tuple[EndpointFacts, ...]:
    """What the rules may know of each endpoint, in the federation's order.

    Evidence holds for `evidence_validity_s` from now, and never longer than the operator's own declaration.
    """
    operators = {operator.id: operator for operator in federation.operators}
    by_site: dict[str, EndpointFacts] = {}
    for site in federation.sites:
        operator = operators[site.operator]
        declared_until = _FOREVER if site.valid_until is None else site.valid_until
        by_site[site.id] = EndpointFacts(
            site=site.id,
            operator=operator.id,
            site_country=site.country,
            operator_country=operator.country,
            operator_law=operator.law,
            evidence_until=min(declared_until, now + evidence_validity_s),
        )
    return tuple(by_site[endpoint.site] for endpoint in federation.endpoints)


def verdicts_of(
    policy: Policy, facts: Sequence[EndpointFacts], *, now: float
) -> dict[DataClass, tuple[Verdict, ...]]:
    """The verdict for each class and endpoint, under two laws that hold whatever the policy says.

    A class never gets an endpoint that a lower class was denied (law 1): the lower class's denial then stands for
    the higher one too. A guarded class is allowed for as long as the evidence holds, never longer (law 2).
    """
    decided: dict[tuple[DataClass, EndpointFacts], Verdict] = {}
    for each in facts:
        below: Verdict | None = None
        for data_class in DataClass:
            known = decided.get((data_class, each))
            if known is None:
                known = policy.decide(data_class, each, now=now)
                if isinstance(known, Allowed):
                    known = (
                        below if isinstance(below, Denied) else _bound_to_evidence(known, data_class, each, now=now)
                    )
                decided[data_class, each] = known
            below = known
    return {data_class: tuple(decided[data_class, each] for each in facts) for data_class in DataClass}


def _bound_to_evidence(verdict: Allowed, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Verdict:
    until = verdict.valid_until
    if data_class.guarded:
        until = facts.evidence_until if until is None else min(until, facts.evidence_until)
    if until is not None and not until > now:
        # In a set it would close the route of every other endpoint with it.
        return Denied(rules=(EVIDENCE_FRESH,), reasons=(stale_reason(facts),))
    return Allowed(rules=verdict.rules, valid_until=until)


def suspended_reason(endpoint: Endpoint) -> Reason:
    """Why an endpoint that somebody took out serves nobody."""
    return Reason(
        rule=ENDPOINT_SUSPENDED,
        site=endpoint.site,
        en=f"Endpoint {endpoint.id} at site {endpoint.site} is suspended. Resuming it would change this.",
        ja=f"拠点 {endpoint.site} のエンドポイント {endpoint.id} は停止中です。再開すれば許可されます。",
    )


def compile_table(
    federation: Federation,
    policy: Policy,
    *,
    version: int,
    now: float,
    jurisdiction: str,
    evidence_validity_s: float,
    salts: Mapping[str, bytes],
    suspended: frozenset[str] = frozenset(),
) -> RouteTable:
    """The route table of this federation under this policy at this moment.

    `salts` has one for each tenant (for commitments in the journal); `suspended` are endpoint ids that are in no
    set. Raises CompileRefused when a tenant has no salt. Issue a new table before the earliest `valid_until`.
    """
    routes = _Routes(federation, policy, now=now, evidence_validity_s=evidence_validity_s, suspended=suspended)
    tenants: list[TenantEntry] = []
    for tenant in federation.tenants:
        salt = salts.get(tenant.id)
        if salt is None:
            raise CompileRefused(
                f"tenant `{tenant.id}` has no salt", hint="make one for each tenant before the table is compiled"
            )
        tenants.append(
            TenantEntry(
                id=tenant.id,
                floor=tenant.floor.label,
                profile=routes.profile_of(tenant),
                salt=salt,
                limits=tenant.limits,
                model_limits=tenant.model_limits,
            )
        )
    position = {tenant.id: index for index, tenant in enumerate(federation.tenants)}
    return RouteTable(
        schema=SCHEMA,
        version=version,
        issued_at=now,
        policy=policy.hash,
        jurisdiction=jurisdiction,
        endpoints=_endpoint_entries(federation),
        routes=tuple(routes.routes),
        profiles=tuple(routes.profiles),
        tenants=tuple(tenants),
        keys=tuple(
            KeyEntry(
                id=key.id or key_id(key.sha256),
                tenant=position[key.tenant],
                sha256=bytes.fromhex(key.sha256),
                expires_at=key.expires_at,
            )
            for key in federation.keys
        ),
        aliases=dict(federation.aliases),
    )


def next_expiry(table: RouteTable) -> float | None:
    """When the first route closes by itself (Unix seconds); None when none does."""
    times = [
        route.valid_until for route in table.routes if isinstance(route, RouteSet) and route.valid_until is not None
    ]
    return min(times, default=None)


def bounded_reasons(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """One reason for each rule and site, and no more than MAX_REASONS, in the order they came."""
    distinct: dict[tuple[str, str], Reason] = {}
    for reason in reasons:
        distinct.setdefault((reason.rule, reason.site), reason)
    return tuple(distinct.values())[:MAX_REASONS]


def _endpoint_entries(federation: Federation) -> tuple[EndpointEntry, ...]:
    sites = {site.id: site for site in federation.sites}
    return tuple(
        EndpointEntry(
            id=endpoint.id,
            site=endpoint.site,
            operator=sites[endpoint.site].operator,
            country=sites[endpoint.site].country,
            url=endpoint.url,
            slots=endpoint.slots,
            api_key=endpoint.api_key,
            tls=endpoint.tls,
        )
        for endpoint in federation.endpoints
    )


class _Routes:
    """Routes and profiles, each kept once however many tenants share it."""

    def __init__(
        self,
        federation: Federation,
        policy: Policy,
        *,
        now: float,
        evidence_validity_s: float,
        suspended: frozenset[str],
    ) -> None:
        self.routes: list[RouteSet | Closed] = []
        self.profiles: list[Profile] = []
        self._endpoints = federation.endpoints
        self._suspended = suspended
        self._verdicts = verdicts_of(
            policy, facts_of(federation, now=now, evidence_validity_s=evidence_validity_s), now=now
        )
        by_model: dict[str, list[int]] = {}
        for index, endpoint in enumerate(federation.endpoints):
            for model in dict.fromkeys(endpoint.models):
                by_model.setdefault(model, []).append(index)
        self._models = sorted(by_model)
        route_index: dict[RouteSet | Closed, int] = {}
        # [class][model] → index of the route: every route there can be, made once for all tenants
        self._all: dict[DataClass, dict[str, int]] = {
            data_class: {
                model: route_index.setdefault(self._route(data_class, by_model[model]), len(route_index))
                for model in self._models
            }
            for data_class in DataClass
        }
        self.routes.extend(route_index)
        self._profile_index: dict[tuple[DataClass, tuple[str, ...] | None], int] = {}

    def _route(self, data_class: DataClass, candidates: Sequence[int]) -> RouteSet | Closed:
        """The set of those that may serve, or why nobody may."""
        chosen: list[int] = []
        rules: list[str] = []
        reasons: list[Reason] = []
        valid_until = _FOREVER
        for index in candidates:
            if self._endpoints[index].id in self._suspended:
                reasons.append(suspended_reason(self._endpoints[index]))
                continue
            match self._verdicts[data_class][index]:
                case Allowed() as allowed:
                    chosen.append(index)
                    rules += allowed.rules
                    if allowed.valid_until is not None:
                        valid_until = min(valid_until, allowed.valid_until)
                case Denied() as denied:
                    reasons += denied.reasons
                case unknown:
                    assert_never(unknown)
        if not chosen:
            closed_by = dict.fromkeys(reason.rule for reason in reasons)
            return Closed(rules=tuple(closed_by), reasons=bounded_reasons(reasons))
        return RouteSet(
            endpoints=tuple(chosen),
            rules=tuple(dict.fromkeys(rules)),
            valid_until=None if valid_until == _FOREVER else valid_until,
        )

    def profile_of(self, tenant: Tenant) -> int:
        """The index of the profile of all tenants with this one's floor and models."""
        key = (tenant.floor, tenant.models)
        known = self._profile_index.get(key)
        if known is not None:
            return known
        # The same models in another order, or all of them by name, are the same rights.
        models = self._models if tenant.models is None else sorted(set(tenant.models).intersection(self._models))
        whole = len(models) == len(self._models)
        canonical = (tenant.floor, None if whole else tuple(models))
        index = self._profile_index.get(canonical)
        if index is None:
            index = len(self.profiles)
            self._profile_index[canonical] = index
            self.profiles.append(Profile(routes=self._profile_routes(tenant.floor, None if whole else models)))
        self._profile_index[key] = index
        return index

    def _profile_routes(self, floor: DataClass, models: Sequence[str] | None) -> dict[str, dict[str, int]]:
        routes: dict[str, dict[str, int]] = {}
        for data_class in DataClass:
            if data_class < floor:
                continue  # a request can be raised above its tenant's floor, never lowered under it
            every = self._all[data_class]
            routes[data_class.label] = every if models is None else {model: every[model] for model in models}
        return routes
