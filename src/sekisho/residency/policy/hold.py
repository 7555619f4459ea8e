"""A configuration that would let guarded work reach more waits for an administrator, item by item. Pure.

What narrows holds at once. For what widens the version before stays in force: a site with its operator, a tenant's
floor and profiles, the jurisdiction. A site that was not there before is not there yet; one whose facts changed both
ways is left out, because neither version of it may be believed alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar, get_args

import msgspec

from sekisho.federation.model import Endpoint, Federation, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.model import (
    ANYBODY,
    Allowed,
    AttestationFacts,
    AttestationKind,
    AttestationLevel,
    EndpointFacts,
    LocationFacts,
    LocationVerdict,
    Policy,
    SiteEvidence,
    TenantFacts,
)
from sekisho.residency.verdicts import facts_of, tenant_facts

T = TypeVar("T", Operator, Site, Tenant)
GUARDED = tuple(each for each in DataClass if each.guarded)
# Evidence as good as it can be, and none: what a change of facts could ever reach, whatever is handed in later.
_NOW = 1.0
_MARGIN_KM = 20_000
_LEVELS: tuple[AttestationLevel, ...] = ("warning", "affirming")
_ATTESTED = (
    AttestationFacts(),
    AttestationFacts(kind="tdx", level="contraindicated", at=_NOW, until=math.inf),
    *(
        AttestationFacts(kind=kind, level=level, hardware_registered=True, at=_NOW, until=math.inf)
        for kind in get_args(AttestationKind)
        if kind != "none"
        for level in _LEVELS
    ),
)
_LOCATED = tuple(
    LocationFacts(verdict=verdict, margin_km=_MARGIN_KM, at=_NOW, until=math.inf)
    for verdict in get_args(LocationVerdict)
)
_EVIDENCE = tuple(SiteEvidence(attestation=each, location=there) for each in _ATTESTED for there in _LOCATED)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What rules may see of a configuration."""

    jurisdiction: str
    operators: tuple[Operator, ...]
    sites: tuple[Site, ...]
    tenants: tuple[Tenant, ...]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Something whose new version waits. `classes`: those of which more could be reached. `closed`: nothing of it is
    in force meanwhile."""

    kind: Literal["jurisdiction", "site", "tenant"]
    id: str
    classes: tuple[str, ...]
    closed: bool = False


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """`in_force`: what holds now. `wanted`: the digest that an approval has to name."""

    in_force: Facts
    held: tuple[Held, ...]
    wanted: str


def facts_in(federation: Federation, *, jurisdiction: str) -> Facts:
    return Facts(
        jurisdiction=jurisdiction,
        operators=federation.operators,
        sites=federation.sites,
        tenants=tuple(
            # nothing that has no say in where work may go
            Tenant(id=tenant.id, name="", floor=tenant.floor, profiles=tenant.profiles)
            for tenant in federation.tenants
        ),
    )


def digest(facts: Facts) -> str:
    return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()


def hold(before: Facts, wanted: Facts, policy: Policy) -> Judged:
    """What of `wanted` is in force while nobody has approved it. `policy`: the one in force, for the jurisdiction
    before."""
    held: list[Held] = []
    every = tuple(each.label for each in GUARDED)
    if wanted.jurisdiction != before.jurisdiction:
        held.append(Held(kind="jurisdiction", id=wanted.jurisdiction, classes=every))
    operators, sites = _sites(before, wanted, policy, held)
    tenants = tuple(_tenant(_by_id(before.tenants).get(each.id), each, held) for each in wanted.tenants)
    in_force = Facts(jurisdiction=before.jurisdiction, operators=operators, sites=sites, tenants=tenants)
    return Judged(in_force=in_force, held=tuple(held), wanted=digest(wanted))


def apply(federation: Federation, facts: Facts) -> Federation:
    """The federation with what is in force of its facts; endpoints and GPUs of a site that is left out go with it."""
    tenants = _by_id(facts.tenants)
    sites = {site.id for site in facts.sites}
    return msgspec.structs.replace(
        federation,
        operators=facts.operators,
        sites=facts.sites,
        endpoints=tuple(each for each in federation.endpoints if each.site in sites),
        pools=tuple(each for each in federation.pools if each.site in sites),
        tenants=tuple(
            msgspec.structs.replace(each, floor=tenants[each.id].floor, profiles=tenants[each.id].profiles)
            for each in federation.tenants
        ),
    )


def _tenant(before: Tenant | None, wanted: Tenant, held: list[Held]) -> Tenant:
    """Its work may not become less guarded, nor lose a profile's rules, without anybody's word. A new tenant has no
    work yet."""
    if before is None:
        return wanted
    floor = max(before.floor, wanted.floor) if before.floor.guarded else wanted.floor
    profiles = tuple(dict.fromkeys((*wanted.profiles, *before.profiles)))
    lost = set(before.profiles) - set(wanted.profiles)
    if floor == wanted.floor and not lost:
        return wanted
    classes = tuple(each.label for each in GUARDED if lost or wanted.floor < each <= before.floor)
    held.append(Held(kind="tenant", id=wanted.id, classes=classes))
    return msgspec.structs.replace(wanted, floor=floor, profiles=profiles if lost else wanted.profiles)


def _sites(
    before: Facts, wanted: Facts, policy: Policy, held: list[Held]
) -> tuple[tuple[Operator, ...], tuple[Site, ...]]:
    """An operator and its sites are looked at together: its law is a fact of all of them."""
    old_operators, old_sites = _by_id(before.operators), _by_id(before.sites)
    kinds = _kinds(policy, (*before.tenants, *wanted.tenants))
    operators: list[Operator] = []
    sites: dict[str, Site] = {}
    for operator in wanted.operators:
        old = old_operators.get(operator.id)
        its = [site for site in wanted.sites if site.operator == operator.id]
        gains: dict[str, tuple[str, ...]] = {}
        loses: set[str] = set()
        for site in its:
            was = old_sites.get(site.id)
            was_under = None if was is None else old_operators[was.operator]
            if was is not None and was_under == operator and _same(was, site):
                continue
            new = _reach(policy, kinds, operator, site)
            had = frozenset() if was is None or was_under is None else _reach(policy, kinds, was_under, was)
            more = sorted({data_class for _, data_class, _ in new - had})
            if more:
                gains[site.id] = tuple(DataClass(each).label for each in more)
            if had - new:
                loses.add(site.id)
        # Its version before serves only where none of its sites has lost by the new one.
        keep = old is not None and old != operator and bool(gains) and not loses
        operators.append(old if keep and old is not None else operator)
        for site in its:
            was = old_sites.get(site.id)
            stays = was is not None and was.operator == operator.id
            if not keep and site.id not in gains:
                sites[site.id] = site
            elif was is not None and stays and (keep or (old == operator and site.id not in loses)):
                sites[site.id] = msgspec.structs.replace(was, valid_until=_sooner(was, site))
            if keep or site.id in gains:
                classes = gains.get(site.id, tuple(each.label for each in GUARDED))
                if site.id in gains or site.id not in sites:
                    held.append(Held(kind="site", id=site.id, classes=classes, closed=site.id not in sites))
    return tuple(operators), tuple(sites[site.id] for site in wanted.sites if site.id in sites)


def _sooner(before: Site, wanted: Site) -> float | None:
    return min((each.valid_until for each in (before, wanted) if each.valid_until is not None), default=None)


def _same(before: Site, wanted: Site) -> bool:
    """But for what no rule sees."""
    return (before.country, before.declaration) == (wanted.country, wanted.declaration)


Reached = frozenset[tuple[TenantFacts, int, int]]


def _reach(policy: Policy, kinds: Iterable[TenantFacts], operator: Operator, site: Site) -> Reached:
    """Kinds of tenants, classes and evidence (its place) with which the site may serve."""
    return frozenset(
        (kind, int(data_class), place)
        for place, facts in enumerate(_endpoints(operator, site))
        for kind in kinds
        for data_class in GUARDED
        if isinstance(policy.decide(kind, data_class, facts, now=_NOW), Allowed)
    )


def _endpoints(operator: Operator, site: Site) -> Iterator[EndpointFacts]:
    alone = Federation(
        operators=(operator,),
        sites=(msgspec.structs.replace(site, valid_until=None),),
        endpoints=(Endpoint(id="e", site=site.id, url="http://127.0.0.1/v1", models=("m",)),),
        tenants=(),
        keys=(),
        aliases={},
    )
    for evidence in _EVIDENCE:
        yield from facts_of(alone, {site.id: evidence}, now=_NOW, evidence_validity_s=math.inf)


def _kinds(policy: Policy, tenants: Iterable[Tenant]) -> tuple[TenantFacts, ...]:
    found = (policy.kind_of(tenant_facts(tenant)) for tenant in tenants)
    return tuple(dict.fromkeys((ANYBODY, *found)))


def _by_id(items: Iterable[T]) -> dict[str, T]:
    return {item.id: item for item in items}
