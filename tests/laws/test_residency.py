"""Laws 1 and 2: who may serve what, tried over the whole finite domain and over federations made at random."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.federation.model import Endpoint, Federation, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.compile import compile_table, next_expiry
from sekisho.residency.decide import BuiltinPolicy
from sekisho.residency.model import ANYBODY, Allowed, Denied, EndpointFacts, Policy, Reason, TenantFacts, Verdict
from sekisho.residency.routes import MAX_REASONS
from sekisho.residency.table import Closed, RouteSet, RouteTable

NOW = 1_800_000_000.0
VALIDITY_S = 3600.0
COUNTRIES = ("JP", "US", "GB")
EVIDENCE = (NOW - 1, NOW, NOW + 1e-6, NOW + 1, float("inf"), float("-inf"), float("nan"))


def facts(*, country: str, operator_country: str, law: str, evidence_until: float) -> EndpointFacts:
    return EndpointFacts(
        site="s",
        operator="o",
        site_country=country,
        operator_country=operator_country,
        operator_law=law,
        evidence_until=evidence_until,
    )


DOMAIN = [
    (data_class, jurisdiction, facts(country=country, operator_country=home, law=law, evidence_until=until))
    for data_class, jurisdiction, country, home, law, until in itertools.product(
        DataClass, COUNTRIES, COUNTRIES, COUNTRIES, COUNTRIES, EVIDENCE
    )
]


def allowed(jurisdiction: str, data_class: DataClass, each: EndpointFacts) -> bool:
    return isinstance(BuiltinPolicy(jurisdiction=jurisdiction).decide(ANYBODY, data_class, each, now=NOW), Allowed)


def test_the_rules_are_these_over_the_whole_domain() -> None:
    for data_class, jurisdiction, each in DOMAIN:
        expected = data_class < DataClass.CONFIDENTIAL or (
            (each.site_country == jurisdiction and each.evidence_until > NOW)
            and (data_class < DataClass.RESTRICTED or each.operator_law == jurisdiction)
        )
        assert allowed(jurisdiction, data_class, each) is expected, (data_class, jurisdiction, each)


def test_a_higher_class_is_never_allowed_what_a_lower_one_is_denied() -> None:
    for data_class, jurisdiction, each in DOMAIN:
        if allowed(jurisdiction, data_class, each):
            assert all(allowed(jurisdiction, lower, each) for lower in DataClass if lower <= data_class)


def test_the_operators_own_country_decides_nothing() -> None:
    for data_class, jurisdiction, each in DOMAIN:
        verdicts = {
            allowed(
                jurisdiction,
                data_class,
                facts(
                    country=each.site_country,
                    operator_country=home,
                    law=each.operator_law,
                    evidence_until=each.evidence_until,
                ),
            )
            for home in COUNTRIES
        }
        assert len(verdicts) == 1


def test_a_guarded_verdict_ends_with_its_evidence_and_others_need_none() -> None:
    for data_class, jurisdiction, each in DOMAIN:
        verdict = BuiltinPolicy(jurisdiction=jurisdiction).decide(ANYBODY, data_class, each, now=NOW)
        if isinstance(verdict, Allowed):
            assert verdict.valid_until == (each.evidence_until if data_class.guarded else None)


def test_every_denial_names_each_rule_that_said_no_in_two_languages_and_with_a_way_out() -> None:
    for data_class, jurisdiction, each in DOMAIN:
        verdict = BuiltinPolicy(jurisdiction=jurisdiction).decide(ANYBODY, data_class, each, now=NOW)
        if not isinstance(verdict, Denied):
            continue
        expected = []
        if each.site_country != jurisdiction:
            expected.append("site-in-jurisdiction")
        if data_class is DataClass.RESTRICTED and each.operator_law != jurisdiction:
            expected.append("operator-law-in-jurisdiction")
        if not each.evidence_until > NOW:
            expected.append("evidence-fresh")
        assert list(verdict.rules) == expected == [reason.rule for reason in verdict.reasons]
        for reason in verdict.reasons:
            assert reason.site == "s"
            assert "site s " in reason.en.lower()
            assert reason.en.endswith("would change this.")
            assert "拠点 s" in reason.ja
            assert reason.ja.endswith("許可されます。")


# -- federations made at random


@st.composite
def federations(draw: st.DrawFn) -> Federation:
    country = st.sampled_from(COUNTRIES)
    operators = tuple(
        Operator(id=f"o{index}", name="", country=draw(country), law=draw(country))
        for index in range(draw(st.integers(1, 3)))
    )
    until = st.none() | st.floats(NOW - 100, NOW + 2 * VALIDITY_S)
    sites = tuple(
        Site(
            id=f"s{index}",
            operator=draw(st.sampled_from(operators)).id,
            name="",
            country=draw(country),
            valid_until=draw(until),
        )
        for index in range(draw(st.integers(1, 5)))
    )
    models = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(tuple)
    endpoints = tuple(
        Endpoint(id=f"e{index}", site=draw(st.sampled_from(sites)).id, url="http://x/v1", models=draw(models))
        for index in range(draw(st.integers(1, 8)))
    )
    served = sorted({model for endpoint in endpoints for model in endpoint.models})
    rights = st.none() | st.lists(st.sampled_from(served), min_size=1, max_size=4).map(tuple)
    tenants = tuple(
        Tenant(id=f"t{index}", name="", floor=draw(st.sampled_from(DataClass)), models=draw(rights))
        for index in range(draw(st.integers(1, 6)))
    )
    return Federation(operators=operators, sites=sites, endpoints=endpoints, tenants=tenants, keys=(), aliases={})


def compiled(
    federation: Federation, policy: Policy, *, now: float = NOW, suspended: frozenset[str] = frozenset()
) -> RouteTable:
    return compile_table(
        federation,
        policy,
        version=1,
        now=now,
        jurisdiction="JP",
        evidence_validity_s=VALIDITY_S,
        salts={tenant.id: b"salt" for tenant in federation.tenants},
        suspended=suspended,
    )


def routes_of(table: RouteTable, tenant: str) -> dict[DataClass, dict[str, RouteSet | Closed]]:
    """[class][model] as a gateway looks it up."""
    entry = next(each for each in table.tenants if each.id == tenant)
    found: dict[DataClass, dict[str, RouteSet | Closed]] = {}
    for label, models in table.profiles[entry.profile].routes.items():
        data_class = DataClass.parse(label)
        assert data_class is not None
        found[data_class] = {model: table.routes[index] for model, index in models.items()}
    return found


def may_serve(table: RouteTable, tenant: str, data_class: DataClass, model: str, *, now: float) -> set[str]:
    """Endpoint ids that a gateway with this table would use at `now`."""
    route = routes_of(table, tenant).get(data_class, {}).get(model)
    if not isinstance(route, RouteSet):
        return set()
    untils = route.untils or (route.valid_until,) * len(route.endpoints)
    serving = {index for index, until in zip(route.endpoints, untils, strict=True) if until is None or now < until}
    assert set(route.at(now)) == serving
    return {table.endpoints[index].id for index in serving}


@given(federations())
def test_no_guarded_set_ever_holds_a_site_outside_the_jurisdiction(federation: Federation) -> None:
    table = compiled(federation, BuiltinPolicy())
    sites = {site.id: site for site in federation.sites}
    operators = {operator.id: operator for operator in federation.operators}
    for tenant in federation.tenants:
        for data_class, models in routes_of(table, tenant.id).items():
            for model, route in models.items():
                if not isinstance(route, RouteSet):
                    continue
                for index in route.endpoints:
                    endpoint = federation.endpoints[index]
                    assert table.endpoints[index].id == endpoint.id
                    assert model in endpoint.models
                    if data_class.guarded:
                        assert sites[endpoint.site].country == "JP"
                    if data_class is DataClass.RESTRICTED:
                        assert operators[sites[endpoint.site].operator].law == "JP"


@given(federations())
def test_the_table_is_what_deciding_for_each_alone_gives(federation: Federation) -> None:
    """Against the shortest way to say it: no sharing, no indices."""
    table = compiled(federation, BuiltinPolicy())
    sites = {site.id: site for site in federation.sites}
    operators = {operator.id: operator for operator in federation.operators}
    models = {model for endpoint in federation.endpoints for model in endpoint.models}
    for tenant, data_class, model in itertools.product(federation.tenants, DataClass, models):
        expected = set()
        for endpoint in federation.endpoints:
            site = sites[endpoint.site]
            until = min(NOW + VALIDITY_S, float("inf") if site.valid_until is None else site.valid_until)
            each = facts(
                country=site.country,
                operator_country=operators[site.operator].country,
                law=operators[site.operator].law,
                evidence_until=until,
            )
            if model in endpoint.models and allowed("JP", data_class, each):
                expected.add(endpoint.id)
        if data_class < tenant.floor or (tenant.models is not None and model not in tenant.models):
            expected = set()
        assert may_serve(table, tenant.id, data_class, model, now=NOW) == expected


@given(federations())
def test_a_tenant_has_routes_for_its_classes_and_models_only(federation: Federation) -> None:
    table = compiled(federation, BuiltinPolicy())
    served = {model for endpoint in federation.endpoints for model in endpoint.models}
    for tenant in federation.tenants:
        routes = routes_of(table, tenant.id)
        assert set(routes) == {data_class for data_class in DataClass if data_class >= tenant.floor}
        for models in routes.values():
            assert set(models) == (served if tenant.models is None else set(tenant.models))


class WrittenByAnybody:
    """A policy of any verdicts at all, as a policy engine might be written wrongly."""

    def __init__(self, denied: frozenset[tuple[DataClass, str]]) -> None:
        self._denied = denied

    @property
    def hash(self) -> str:
        return "any"

    def kind_of(self, tenant: TenantFacts) -> TenantFacts:
        return tenant

    def decide(self, tenant: TenantFacts, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Verdict:
        if (data_class, facts.site) in self._denied:
            return Denied(rules=("no",), reasons=(Reason(rule="no", en="no", ja="不可", site=facts.site),))
        return Allowed(rules=("yes",))  # forgets the evidence

    def decide_each(
        self, tenant: TenantFacts, data_class: DataClass, facts: Sequence[EndpointFacts], *, now: float
    ) -> tuple[list[Verdict], list[float]]:
        return [self.decide(tenant, data_class, each, now=now) for each in facts], [math.inf] * len(facts)


DENIALS = st.frozensets(st.tuples(st.sampled_from(DataClass), st.sampled_from([f"s{n}" for n in range(5)])))


@given(federations(), DENIALS, DENIALS)
def test_narrower_policy_never_allows_more(
    federation: Federation, denied: frozenset[tuple[DataClass, str]], more: frozenset[tuple[DataClass, str]]
) -> None:
    wide, narrow = (
        compiled(federation, WrittenByAnybody(denied)),
        compiled(federation, WrittenByAnybody(denied | more)),
    )
    models = {model for endpoint in federation.endpoints for model in endpoint.models}
    for tenant, data_class, model in itertools.product(federation.tenants, DataClass, models):
        assert may_serve(narrow, tenant.id, data_class, model, now=NOW) <= may_serve(
            wide, tenant.id, data_class, model, now=NOW
        )


@given(federations(), DENIALS)
def test_whatever_the_policy_a_higher_class_has_a_subset_of_a_lower_ones_endpoints(
    federation: Federation, denied: frozenset[tuple[DataClass, str]]
) -> None:
    table = compiled(federation, WrittenByAnybody(denied))
    for tenant in federation.tenants:
        routes = routes_of(table, tenant.id)
        for lower, higher in itertools.pairwise(sorted(routes)):
            for model in routes[higher]:
                assert may_serve(table, tenant.id, higher, model, now=float("-inf")) <= may_serve(
                    table, tenant.id, lower, model, now=float("-inf")
                )


@given(federations(), st.floats(0, 3 * VALIDITY_S), st.sampled_from([BuiltinPolicy(), WrittenByAnybody(frozenset())]))
def test_without_fresh_evidence_a_guarded_route_is_closed(
    federation: Federation, later_s: float, policy: Policy
) -> None:
    """Law 2: a gateway that never hears of control again, at any later moment, under any policy."""
    table = compiled(federation, policy)
    sites = {site.id: site for site in federation.sites}
    by_id = {endpoint.id: endpoint for endpoint in federation.endpoints}
    now = NOW + later_s
    models = {model for endpoint in federation.endpoints for model in endpoint.models}
    for tenant, data_class, model in itertools.product(federation.tenants, DataClass, models):
        serving = may_serve(table, tenant.id, data_class, model, now=now)
        if not data_class.guarded:
            assert serving == may_serve(table, tenant.id, data_class, model, now=NOW)
            continue
        for endpoint in serving:
            declared = sites[by_id[endpoint].site].valid_until
            assert now < NOW + VALIDITY_S
            assert declared is None or now < declared
    expiry = next_expiry(table)
    assert expiry is None or NOW < expiry <= NOW + VALIDITY_S


@given(federations(), st.floats(0, 2 * VALIDITY_S))
def test_an_endpoint_leaves_a_route_when_its_own_evidence_ends_and_not_before(
    federation: Federation, later_s: float
) -> None:
    """Whatever becomes of the others."""
    table = compiled(federation, BuiltinPolicy())
    sites = {site.id: site for site in federation.sites}
    now = NOW + later_s
    for tenant, data_class in itertools.product(federation.tenants, DataClass):
        for model in {model for endpoint in federation.endpoints for model in endpoint.models}:
            at_first = may_serve(table, tenant.id, data_class, model, now=NOW)
            left = {
                endpoint.id
                for endpoint in federation.endpoints
                if not data_class.guarded or now < min(NOW + VALIDITY_S, sites[endpoint.site].valid_until or math.inf)
            }
            assert may_serve(table, tenant.id, data_class, model, now=now) == at_first & left


@given(federations(), st.sets(st.integers(0, 7)))
def test_a_suspended_endpoint_is_in_no_set(federation: Federation, chosen: set[int]) -> None:
    suspended = frozenset(f"e{index}" for index in chosen)
    table = compiled(federation, BuiltinPolicy(), suspended=suspended)
    whole = compiled(federation, BuiltinPolicy())
    models = {model for endpoint in federation.endpoints for model in endpoint.models}
    for tenant, data_class, model in itertools.product(federation.tenants, DataClass, models):
        assert (
            may_serve(table, tenant.id, data_class, model, now=NOW)
            == may_serve(whole, tenant.id, data_class, model, now=NOW) - suspended
        )


@given(federations())
def test_nothing_is_in_a_table_twice_and_reasons_are_bounded(federation: Federation) -> None:
    table = compiled(federation, BuiltinPolicy())
    assert len(set(table.routes)) == len(table.routes)
    profiles = [json.dumps(profile.routes, sort_keys=True) for profile in table.profiles]
    assert len(set(profiles)) == len(profiles)
    for route in table.routes:
        match route:
            case RouteSet():
                assert route.endpoints
                assert list(route.endpoints) == sorted(set(route.endpoints))
            case Closed():
                assert 1 <= len(route.reasons) <= MAX_REASONS
                pairs = [(reason.rule, reason.site) for reason in route.reasons]
                assert len(set(pairs)) == len(pairs)
                assert {rule for rule, _ in pairs} <= set(route.rules)


@settings(max_examples=20)
@given(federations())
def test_the_order_of_tenants_changes_no_rights(federation: Federation) -> None:
    table = compiled(federation, BuiltinPolicy())
    turned = compiled(
        Federation(
            operators=federation.operators,
            sites=federation.sites,
            endpoints=federation.endpoints,
            tenants=federation.tenants[::-1],
            keys=(),
            aliases={},
        ),
        BuiltinPolicy(),
    )
    for tenant in federation.tenants:
        assert routes_of(table, tenant.id) == routes_of(turned, tenant.id)
