"""From a federation and a policy to the route table: all decisions are made here, none on the request path.

The life of a route: (1) an endpoint's site and operator become facts, with the time until which the evidence
about them holds; (2) the policy decides once for each class and each kind of facts; (3) the endpoints of a model
that are allowed make a route set, or the reasons of those that are not make a closed route; (4) tenants with the
same floor and models share a profile of routes; (5) the table is what the gateways obey until the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sekisho.federation.keys import key_id
from sekisho.federation.model import Endpoint, Federation, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.kernel.errors import SekishoError
from sekisho.residency.decide import EVIDENCE_FRESH, stale_reason
from sekisho.residency.model import (
    ANYBODY,
    Allowed,
    Denied,
    EndpointFacts,
    Policy,
    Reason,
    SiteEvidence,
    TenantFacts,
    Verdict,
)
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
_NOTHING: Mapping[str, SiteEvidence] = MappingProxyType({})


class CompileRefused(SekishoError):
    """The table can't be made from what was given."""

    code = "table.not_compiled"


def facts_of(
    federation: Federation, evidence: Mapping[str, SiteEvidence], *, now: float, evidence_validity_s: float
) -> tuple[EndpointFacts, ...]:
    """What the rules may know of each endpoint, in the federation's order.

    A declaration holds for `evidence_validity_s` from now, and never longer than the operator's own. `evidence` has
    what was attested and measured, by site id; a site that is not in it has neither.
    """
    operators = {operator.id: operator for operator in federation.operators}
    by_site: dict[str, EndpointFacts] = {}
    for site in federation.sites:
        operator = operators[site.operator]
        declared = site.declaration
        found = evidence.get(site.id, _NO_EVIDENCE)
        declared_until = _FOREVER if site.valid_until is None else site.valid_until
        by_site[site.id] = EndpointFacts(
            site=site.id,
            operator=operator.id,
            site_country=site.country,
            operator_country=operator.country,
            operator_law=operator.law,
            evidence_until=min(declared_until, now + evidence_validity_s),
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


_NO_EVIDENCE = SiteEvidence()


def tenant_facts(tenant: Tenant) -> TenantFacts:
    """What the rules may know of a tenant."""
    return TenantFacts(id=tenant.id, profiles=tuple(sorted(set(tenant.profiles))))


def verdicts_of(
    policy: Policy, tenant: TenantFacts, facts: Sequence[EndpointFacts], *, now: float
) -> dict[DataClass, tuple[Verdict, ...]]:
    """The verdict for each class and endpoint, under two laws that hold whatever the policy says.

    A class never gets an endpoint that a lower class was denied (law 1): the lower class's denial then stands for
    the higher one too. A guarded class is allowed for as long as the evidence holds, never longer (law 2).
    """
    return _verdicts(policy, tenant, *_distinct(facts), now=now)


def _distinct(facts: Sequence[EndpointFacts]) -> tuple[tuple[EndpointFacts, ...], list[int]]:
    """The facts without repetition, and where each endpoint's are among them. By identity: the endpoints of a site
    share one object, and to hash all that is known of a site costs more than to decide about it."""
    distinct = tuple({id(each): each for each in facts}.values())
    place = {id(each): position for position, each in enumerate(distinct)}
    return distinct, [place[id(each)] for each in facts]


def _verdicts(
    policy: Policy, tenant: TenantFacts, distinct: tuple[EndpointFacts, ...], places: Sequence[int], *, now: float
) -> dict[DataClass, tuple[Verdict, ...]]:
    decided: dict[DataClass, tuple[Verdict, ...]] = {}
    below: list[Verdict] | None = None
    for data_class in DataClass:
        verdicts = policy.decide_each(tenant, data_class, distinct, now=now)
        guarded = data_class.guarded
        for position, verdict in enumerate(verdicts):
            if isinstance(verdict, Allowed):
                lower = below[position] if below is not None else None
                if isinstance(lower, Denied):
                    verdicts[position] = lower
                elif guarded or verdict.valid_until is not None or (lower and lower.valid_until is not None):
                    verdicts[position] = _bound(verdict, lower, distinct[position], guarded=guarded, now=now)
        decided[data_class] = tuple([verdicts[each] for each in places])
        below = verdicts
    return decided


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


def suspended_reason(endpoint: Endpoint) -> Reason:
    """Why an endpoint that somebody took out serves nobody."""
    return Reason(
        rule=ENDPOINT_SUSPENDED,
        site=endpoint.site,
        en=f"Endpoint {endpoint.id} at site {endpoint.site} is suspended. Resuming it would change this.",
        ja=f"拠点 {endpoint.site} のエンドポイント {endpoint.id} は停止中です。再開すれば許可されます。",
    )


def in_window(endpoint: Endpoint, verdict: Verdict) -> Verdict:
    """What was started for a window is allowed until the window ends, and never longer than policy allows."""
    if isinstance(verdict, Denied) or endpoint.open_until is None:
        return verdict
    until = verdict.valid_until
    until = endpoint.open_until if until is None else min(until, endpoint.open_until)
    return Allowed(rules=verdict.rules, valid_until=until)


def compile_table(
    federation: Federation,
    policy: Policy,
    *,
    version: int,
    now: float,
    jurisdiction: str,
    evidence_validity_s: float,
    salts: Mapping[str, bytes],
    evidence: Mapping[str, SiteEvidence] = _NOTHING,
    suspended: frozenset[str] = frozenset(),
) -> RouteTable:
    """The route table of this federation under this policy at this moment.

    `salts` has one for each tenant (for commitments in the journal); `suspended` are endpoint ids that are in no
    set. Raises CompileRefused when a tenant has no salt. Issue a new table before `next_expiry`.
    """
    return Compiler().compile(
        federation,
        policy,
        version=version,
        now=now,
        jurisdiction=jurisdiction,
        evidence_validity_s=evidence_validity_s,
        salts=salts,
        evidence=evidence,
        suspended=suspended,
    )


# A tenant's kind, floor and models, and the ids of the endpoints that are there for some tenants only and for it.
_Rights = tuple[TenantFacts, DataClass, tuple[str, ...] | None, tuple[str, ...]]


class Compiler:
    """Makes tables one after the other, and keeps from the last one what is the same in the next."""

    def __init__(self) -> None:
        self._rights: tuple[tuple[Tenant, ...], Policy, dict[str, tuple[str, ...]], tuple[_Rights, ...]] | None = None
        self._tenants: tuple[tuple[object, ...], tuple[TenantEntry, ...]] | None = None
        self._keys: tuple[tuple[object, ...], tuple[KeyEntry, ...]] | None = None

    def compile(
        self,
        federation: Federation,
        policy: Policy,
        *,
        version: int,
        now: float,
        jurisdiction: str,
        evidence_validity_s: float,
        salts: Mapping[str, bytes],
        evidence: Mapping[str, SiteEvidence],
        suspended: frozenset[str],
    ) -> RouteTable:
        """As `compile_table`; `salts` must be another mapping when one of them changes."""
        routes = _Routes(
            federation,
            policy,
            facts_of(federation, evidence, now=now, evidence_validity_s=evidence_validity_s),
            now=now,
            suspended=suspended,
        )
        return RouteTable(
            schema=SCHEMA,
            version=version,
            issued_at=now,
            policy=policy.hash,
            jurisdiction=jurisdiction,
            endpoints=_endpoint_entries(federation, evidence, now=now),
            # first: it adds to the routes and profiles that are taken below
            tenants=self._tenant_entries(federation, self._rights_of(federation, policy), routes, salts),
            routes=tuple(routes.routes),
            profiles=tuple(routes.profiles),
            keys=self._key_entries(federation),
            aliases=dict(federation.aliases),
        )

    def _rights_of(self, federation: Federation, policy: Policy) -> tuple[_Rights, ...]:
        """What each tenant's routes depend on; equal ones are one object."""
        kept = self._rights
        own = own_endpoints(federation)
        if kept is None or kept[1] is not policy or kept[2] != own or kept[0] != federation.tenants:
            distinct: dict[_Rights, _Rights] = {}
            found = (
                (policy.kind_of(tenant_facts(each)), each.floor, each.models, own.get(each.id, ()))
                for each in federation.tenants
            )
            kept = (federation.tenants, policy, own, tuple(distinct.setdefault(rights, rights) for rights in found))
            self._rights = kept
        return kept[3]

    def _tenant_entries(
        self, federation: Federation, rights: tuple[_Rights, ...], routes: _Routes, salts: Mapping[str, bytes]
    ) -> tuple[TenantEntry, ...]:
        # in the order of the tenants, and with it the numbers of the profiles
        index = {id(each): routes.profile_of(each) for each in {id(each): each for each in rights}.values()}
        under = (federation.tenants, rights, tuple(index.values()), salts)
        if self._tenants is not None and _same(self._tenants[0], under):
            return self._tenants[1]
        entries: list[TenantEntry] = []
        for tenant, profile in zip(federation.tenants, (index[id(each)] for each in rights), strict=True):
            salt = salts.get(tenant.id)
            if salt is None:
                raise CompileRefused(
                    f"tenant `{tenant.id}` has no salt", hint="make one for each tenant before the table is compiled"
                )
            entries.append(
                TenantEntry(
                    id=tenant.id,
                    floor=tenant.floor.label,
                    profile=profile,
                    salt=salt,
                    limits=tenant.limits,
                    model_limits=tenant.model_limits,
                )
            )
        self._tenants = (under, tuple(entries))
        return self._tenants[1]

    def _key_entries(self, federation: Federation) -> tuple[KeyEntry, ...]:
        under = (federation.tenants, federation.keys)
        if self._keys is not None and _same(self._keys[0], under):
            return self._keys[1]
        position = {tenant.id: index for index, tenant in enumerate(federation.tenants)}
        entries = tuple(
            KeyEntry(
                id=key.id or key_id(key.sha256),
                tenant=position[key.tenant],
                sha256=bytes.fromhex(key.sha256),
                expires_at=key.expires_at,
            )
            for key in federation.keys
        )
        self._keys = (under, entries)
        return entries


def own_endpoints(federation: Federation) -> dict[str, tuple[str, ...]]:
    """By tenant: the ids of the endpoints that are there for it and not for everybody."""
    own: dict[str, tuple[str, ...]] = {}
    for endpoint in federation.endpoints:
        for tenant in dict.fromkeys(endpoint.tenants or ()):
            own[tenant] = (*own.get(tenant, ()), endpoint.id)
    return own


def _same(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    """Equality that is quick for the same objects in new tuples: Python looks at identity first."""
    return all(old is new or old == new for old, new in zip(before, now, strict=True))


def next_expiry(table: RouteTable) -> float | None:
    """When the first endpoint leaves a route by itself (Unix seconds); None when none does."""
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


def _endpoint_entries(
    federation: Federation, evidence: Mapping[str, SiteEvidence], *, now: float
) -> tuple[EndpointEntry, ...]:
    sites = {site.id: site for site in federation.sites}
    digests = {
        site: tuple(each.digest for each in (found.attestation, found.location) if each.digest and each.until > now)
        for site, found in evidence.items()
    }
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
            evidence=digests.get(endpoint.site, ()),
        )
        for endpoint in federation.endpoints
    )


class _Routes:
    """Routes and profiles, each kept once however many tenants share it."""

    def __init__(
        self,
        federation: Federation,
        policy: Policy,
        facts: Sequence[EndpointFacts],
        *,
        now: float,
        suspended: frozenset[str],
    ) -> None:
        self.profiles: list[Profile] = []
        self._policy = policy
        self._distinct, self._places = _distinct(facts)
        self._now = now
        self._endpoints = federation.endpoints
        self._suspended = {i for i, endpoint in enumerate(federation.endpoints) if endpoint.id in suspended}
        self._windows = {i for i, endpoint in enumerate(federation.endpoints) if endpoint.open_until is not None}
        self._route_index: dict[RouteSet | Closed, int] = {}
        self._verdicts: dict[TenantFacts, dict[DataClass, tuple[Verdict, ...]]] = {}
        # kind of tenant and its own endpoints → [class][model] → index of the route: made once for all of the kind
        self._all: dict[tuple[TenantFacts, tuple[str, ...]], dict[DataClass, dict[str, int]]] = {}
        self._models_of: dict[tuple[str, ...], dict[str, list[int]]] = {}
        self._profile_index: dict[tuple[tuple[str, tuple[tuple[str, int], ...]], ...], int] = {}
        self._of_kind(ANYBODY, ())

    @property
    def routes(self) -> list[RouteSet | Closed]:
        return list(self._route_index)

    def _by_model(self, own: tuple[str, ...]) -> dict[str, list[int]]:
        """The endpoints that are there for everybody and these, by model and in the order of the models."""
        known = self._models_of.get(own)
        if known is None:
            found: dict[str, list[int]] = {}
            for index, endpoint in enumerate(self._endpoints):
                if endpoint.tenants is None or endpoint.id in own:
                    for model in dict.fromkeys(endpoint.models):
                        found.setdefault(model, []).append(index)
            known = self._models_of[own] = dict(sorted(found.items()))
        return known

    def _of_kind(self, kind: TenantFacts, own: tuple[str, ...]) -> dict[DataClass, dict[str, int]]:
        known = self._all.get((kind, own))
        if known is None:
            verdicts = self._verdicts.get(kind)
            if verdicts is None:
                verdicts = _verdicts(self._policy, kind, self._distinct, self._places, now=self._now)
                self._verdicts[kind] = verdicts
            known = self._all[kind, own] = {
                data_class: {
                    model: self._route_index.setdefault(
                        self._route(verdicts[data_class], candidates), len(self._route_index)
                    )
                    for model, candidates in self._by_model(own).items()
                }
                for data_class in DataClass
            }
        return known

    def _route(self, verdicts: Sequence[Verdict], candidates: Sequence[int]) -> RouteSet | Closed:
        """The set of those that may serve, or why nobody may."""
        said = [
            (index, in_window(self._endpoints[index], verdicts[index]) if index in self._windows else verdicts[index])
            for index in candidates
            if index not in self._suspended
        ]
        chosen = [(index, verdict) for index, verdict in said if isinstance(verdict, Allowed)]
        if not chosen:
            denied = dict(said)
            reasons: list[Reason] = []
            for index in candidates:
                verdict = denied.get(index)
                if isinstance(verdict, Denied):
                    reasons += verdict.reasons
                elif verdict is None:
                    reasons.append(suspended_reason(self._endpoints[index]))
            closed_by = dict.fromkeys(reason.rule for reason in reasons)
            return Closed(rules=tuple(closed_by), reasons=bounded_reasons(reasons))
        untils = [verdict.valid_until for _, verdict in chosen]
        return RouteSet(
            endpoints=tuple([index for index, _ in chosen]),
            rules=tuple(dict.fromkeys([rule for _, verdict in chosen for rule in verdict.rules])),
            valid_until=min([until for until in untils if until is not None], default=None),
            # site by site: one that falls silent must not close the route of the others
            untils=tuple(untils) if len(set(untils)) > 1 else (),
        )

    def profile_of(self, rights: _Rights) -> int:
        """The index of the profile of all tenants with these rights, and of those with other ones that come to the
        same: models in another order or all of them by name, policy profiles that make no difference."""
        kind, floor, wanted, own = rights
        every = self._by_model(own)
        # What was started for a tenant is there for it, whatever its list of models says of everybody's endpoints.
        granted = every.keys() - self._by_model(()).keys() if own else frozenset[str]()
        models = list(every) if wanted is None else sorted((granted | set(wanted)).intersection(every))
        whole = len(models) == len(every)
        routes = self._profile_routes(self._of_kind(kind, own), floor, None if whole else models)
        content = tuple((label, tuple(by_model.items())) for label, by_model in routes.items())
        index = self._profile_index.setdefault(content, len(self.profiles))
        if index == len(self.profiles):
            self.profiles.append(Profile(routes=routes))
        return index

    def _profile_routes(
        self, by_class: Mapping[DataClass, dict[str, int]], floor: DataClass, models: Sequence[str] | None
    ) -> dict[str, dict[str, int]]:
        routes: dict[str, dict[str, int]] = {}
        for data_class in DataClass:
            if data_class < floor:
                continue  # a request can be raised above its tenant's floor, never lowered under it
            every = by_class[data_class]
            routes[data_class.label] = every if models is None else {model: every[model] for model in models}
        return routes
