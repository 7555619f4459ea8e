"""From a federation and a policy to the route table: all decisions are made here, none on the request path.

The life of a route: (1) an endpoint's site and operator become facts, with the time until which the evidence
about them holds; (2) the policy decides once for each class and each kind of facts (both in `verdicts`); (3) the
endpoints of a model that are allowed make a route set, or the reasons of those that are not make a closed route;
(4) tenants with the same floor and models share a profile of routes (both in `routes`); (5) the table is what the
gateways obey until the next one, which asks again only about what has changed or run out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sekisho.federation.keys import key_id
from sekisho.federation.model import Federation, Tenant
from sekisho.kernel.errors import SekishoError
from sekisho.residency.model import Policy, SiteEvidence
from sekisho.residency.routes import Rights, Routes
from sekisho.residency.table import (
    SCHEMA,
    EndpointEntry,
    KeyEntry,
    RouteSet,
    RouteTable,
    TenantEntry,
)
from sekisho.residency.verdicts import facts_of, tenant_facts

_NOTHING: Mapping[str, SiteEvidence] = MappingProxyType({})


class CompileRefused(SekishoError):
    """The table can't be made from what was given."""

    code = "table.not_compiled"


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


# For each tenant, in their order; and each different one.
_AllRights = tuple[tuple[Rights, ...], tuple[Rights, ...]]


class Compiler:
    """Makes tables one after the other, and keeps from the last one what is the same in the next."""

    def __init__(self) -> None:
        self._rights: tuple[tuple[Tenant, ...], Policy, dict[str, tuple[str, ...]], _AllRights] | None = None
        self._tenants: tuple[tuple[object, ...], tuple[TenantEntry, ...]] | None = None
        self._keys: tuple[tuple[object, ...], tuple[KeyEntry, ...]] | None = None
        self._routes: Routes | None = None

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
        routes = Routes(
            federation,
            policy,
            facts_of(federation, evidence, now=now, evidence_validity_s=evidence_validity_s),
            now=now,
            suspended=suspended,
            last=self._routes,
        )
        self._routes = None  # a table that can't be made leaves nothing half done behind
        table = RouteTable(
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
        routes.finished()
        self._routes = routes
        return table

    def _rights_of(self, federation: Federation, policy: Policy) -> _AllRights:
        """What each tenant's routes depend on; equal ones are one object, and given once as the second."""
        kept = self._rights
        own = own_endpoints(federation)
        if kept is None or kept[1] is not policy or kept[2] != own or kept[0] != federation.tenants:
            distinct: dict[Rights, Rights] = {}
            found = (
                (policy.kind_of(tenant_facts(each)), each.floor, each.models, own.get(each.id, ()))
                for each in federation.tenants
            )
            rights = tuple(distinct.setdefault(each, each) for each in found)
            kept = (federation.tenants, policy, own, (rights, tuple(distinct)))
            self._rights = kept
        return kept[3]

    def _tenant_entries(
        self, federation: Federation, rights: _AllRights, routes: Routes, salts: Mapping[str, bytes]
    ) -> tuple[TenantEntry, ...]:
        # in the order of the tenants, and with it the numbers of the profiles
        index = {id(each): routes.profile_of(each) for each in rights[1]}
        under = (federation.tenants, rights, tuple(index.values()), salts)
        if self._tenants is not None and _same(self._tenants[0], under):
            return self._tenants[1]
        entries: list[TenantEntry] = []
        for tenant, profile in zip(federation.tenants, (index[id(each)] for each in rights[0]), strict=True):
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
