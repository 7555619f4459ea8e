"""The default policies and the ready profiles, over the whole finite domain that their rules can see."""

from __future__ import annotations

import itertools
import random
from functools import cache

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sekisho.federation.model import Declaration, Endpoint, Federation, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.compile import Compiler
from sekisho.residency.decide import BuiltinPolicy
from sekisho.residency.model import (
    ANYBODY,
    Allowed,
    AttestationFacts,
    Denied,
    EndpointFacts,
    LocationFacts,
    SiteEvidence,
    TenantFacts,
    Verdict,
)
from sekisho.residency.policy.bundle import Bundle, bundle_of, default_bundle
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.verdicts import declared_until
from support.background import SOAK

NOW = 1_800_000_000.0
COUNTRIES = ("JP", "US", "GB")
EVIDENCE = (NOW - 1, NOW, NOW + 1e-6, NOW + 1, float("inf"), float("-inf"), float("nan"))
PROFILES = default_bundle().profiles


@cache
def cedar(jurisdiction: str = "JP") -> CedarPolicy:
    return CedarPolicy(default_bundle(), jurisdiction=jurisdiction)


def fresh() -> CedarPolicy:
    return CedarPolicy(default_bundle(), jurisdiction="JP")


def endpoint(**axes: object) -> EndpointFacts:
    plain: dict[str, object] = {
        "site": "s", "operator": "o", "site_country": "JP", "operator_country": "JP", "operator_law": "JP",
        "evidence_until": NOW + 1e9, "enrolled": False,
    }  # fmt: skip
    return msgspec.convert(plain | axes, EndpointFacts)


def with_evidence(
    facts: EndpointFacts, *, attestation: AttestationFacts | None = None, location: LocationFacts | None = None
) -> EndpointFacts:
    return msgspec.structs.replace(
        facts, attestation=attestation or facts.attestation, location=location or facts.location
    )


def attested(level: str, *, kind: str = "tdx", at: float = NOW - 60, until: float = NOW + 3600) -> AttestationFacts:
    return msgspec.convert({"kind": kind, "level": level, "at": at, "until": until}, AttestationFacts)


def test_without_evidence_the_default_policies_say_word_for_word_what_the_built_in_rules_say() -> None:
    for jurisdiction in COUNTRIES:
        oracle, policy = BuiltinPolicy(jurisdiction=jurisdiction), cedar(jurisdiction)
        for data_class, country, home, law, until in itertools.product(
            DataClass, COUNTRIES, COUNTRIES, COUNTRIES, EVIDENCE
        ):
            facts = endpoint(site_country=country, operator_country=home, operator_law=law, evidence_until=until)
            expected = oracle.decide(ANYBODY, data_class, facts, now=NOW)
            # twice: the second answer comes from what was kept
            for _ in range(2):
                assert policy.decide(ANYBODY, data_class, facts, now=NOW) == expected


def domain() -> list[EndpointFacts]:
    """Every combination of what the default rules and the profiles can tell apart."""
    found = []
    for country, law, level, verdict, until in itertools.product(
        COUNTRIES,
        COUNTRIES,
        ("none", "contraindicated", "warning", "affirming"),
        ("declared", "contradicted", "consistent", "proven"),
        (NOW - 1, NOW + 10),
    ):
        for reads, custody, foreign, owner in itertools.product(
            (True, False), ("operator", "tenant"), ((), ("US",)), ("", "JP", "US")
        ):
            found.append(
                with_evidence(
                    endpoint(
                        site_country=country,
                        operator_law=law,
                        operator_country=law,
                        site_law=country,
                        evidence_until=until,
                        operator_can_read=reads,
                        key_custody=custody,
                        foreign_laws=foreign,
                        subcontractor_countries=foreign,
                        owner_country=owner,
                        foreign_owned_percent=0 if owner == "JP" else 30,
                        personnel="screened" if reads else "cleared",
                        log_retention_days=400 if owner else 10,
                    ),
                    attestation=attested(level, kind="none" if level == "none" else "snp"),
                    location=LocationFacts(verdict=verdict, at=NOW - 5, until=NOW + 50),  # type: ignore[arg-type]
                )
            )
    return found


DOMAIN = domain()


def some(seed: str) -> list[EndpointFacts]:
    """All of the domain in the soak; otherwise a third of it, another one for each `seed`."""
    return DOMAIN if SOAK else random.Random(seed).sample(DOMAIN, len(DOMAIN) // 3)


def allowed(verdict: Verdict) -> bool:
    return isinstance(verdict, Allowed)


@pytest.mark.parametrize("profile", ["", *PROFILES])
def test_no_combination_lets_guarded_work_leave_the_jurisdiction_and_a_profile_never_allows_more(
    profile: str,
) -> None:
    policy = cedar()
    tenant = TenantFacts(profiles=(profile,)) if profile else ANYBODY
    for facts in some(profile):
        below = True
        for data_class in DataClass:
            verdict = policy.decide(tenant, data_class, facts, now=NOW)
            if allowed(verdict):
                assert below or not data_class.guarded, (data_class, facts)
                assert allowed(policy.decide(ANYBODY, data_class, facts, now=NOW)), (data_class, facts)
            if data_class.guarded and allowed(verdict):
                assert facts.site_country == "JP"
                assert facts.attestation.level != "contraindicated"
                assert facts.location.verdict != "contradicted"
                assert facts.evidence_until > NOW
            if data_class is DataClass.RESTRICTED and allowed(verdict):
                assert facts.operator_law == "JP"
            below = allowed(verdict)


def test_every_profile_forbids_something_and_allows_something_except_the_one_that_asks_nothing() -> None:
    best = with_evidence(
        endpoint(
            site_law="JP",
            owner_country="JP",
            foreign_owned_percent=0,
            operator_can_read=False,
            key_custody="tenant",
            personnel="cleared",
            log_retention_days=365,
        ),
        attestation=msgspec.structs.replace(attested("affirming"), hardware_registered=True),
        location=LocationFacts(verdict="proven", margin_km=100, at=NOW - 5, until=NOW + 50),
    )
    foreign = {"owner_country": "US", "foreign_laws": ("US",), "subcontractor_countries": ("US",)}
    worst = endpoint(operator_country="US", **foreign)
    for profile in PROFILES:
        tenant = TenantFacts(profiles=(profile,))
        assert allowed(cedar().decide(tenant, DataClass.RESTRICTED, best, now=NOW)), profile
        assert allowed(cedar().decide(tenant, DataClass.RESTRICTED, worst, now=NOW)) is (profile == "seal-0"), profile


def test_the_levels_of_seal_are_a_ladder() -> None:
    for facts, data_class in itertools.product(some("ladder"), (DataClass.CONFIDENTIAL, DataClass.RESTRICTED)):
        steps = [
            allowed(cedar().decide(TenantFacts(profiles=(f"seal-{level}",)), data_class, facts, now=NOW))
            for level in range(5)
        ]
        assert steps == sorted(steps, reverse=True), facts


@pytest.mark.parametrize("profile", ["", *PROFILES])
def test_an_enrolled_site_serves_guarded_work_only_while_its_place_is_proven(profile: str) -> None:
    tenant = TenantFacts(profiles=(profile,)) if profile else ANYBODY
    for facts in some(profile):
        enrolled = msgspec.structs.replace(facts, enrolled=True)
        for data_class in DataClass:
            verdict = cedar().decide(tenant, data_class, enrolled, now=NOW)
            configured = cedar().decide(tenant, data_class, facts, now=NOW)
            if not data_class.guarded:
                assert allowed(verdict) is allowed(configured)
            elif isinstance(verdict, Allowed):
                assert allowed(configured)
                assert facts.location.verdict == "proven"
                assert verdict.valid_until is not None
                assert verdict.valid_until <= facts.location.until


def test_an_unknown_profile_is_served_nowhere() -> None:
    for data_class in DataClass:
        verdict = cedar().decide(TenantFacts(profiles=("gov-clout",)), data_class, endpoint(), now=NOW)
        assert isinstance(verdict, Denied)
        assert verdict.rules == ("unknown-profile",)


# -- time

INSTANTS = st.integers(-100_000, 200_000).map(lambda seconds: NOW + seconds / 2)


@st.composite
def timed(draw: st.DrawFn) -> EndpointFacts:
    level = draw(st.sampled_from(["none", "contraindicated", "warning", "affirming"]))
    return with_evidence(
        endpoint(evidence_until=draw(INSTANTS), operator_can_read=draw(st.booleans()), key_custody="tenant",
                 enrolled=draw(st.booleans()),
                 operator_country=draw(st.sampled_from(["JP", "US"]))),
        attestation=attested(
            level, kind="none" if level == "none" else draw(st.sampled_from(["snp", "simulated"])),
            at=draw(INSTANTS), until=draw(INSTANTS),
        ),
        location=LocationFacts(
            verdict=draw(st.sampled_from(["declared", "contradicted", "consistent", "proven"])),
            at=draw(INSTANTS), until=draw(INSTANTS),
        ),
    )  # fmt: skip


@settings(max_examples=300)
@given(timed(), st.sets(st.sampled_from(PROFILES)), st.sampled_from(DataClass), INSTANTS, st.floats(0, 1))
def test_a_verdict_holds_until_its_end_and_deciding_again_at_its_end_is_no_longer_allowed(
    facts: EndpointFacts, profiles: set[str], data_class: DataClass, now: float, part: float
) -> None:
    policy = cedar()
    tenant = TenantFacts(profiles=tuple(sorted(profiles)))
    verdict = policy.decide(tenant, data_class, facts, now=now)
    if not isinstance(verdict, Allowed):
        return
    end = verdict.valid_until
    if end is None:
        assert not data_class.guarded
        assert allowed(policy.decide(tenant, data_class, facts, now=now + part * 1e6))
        return
    assert end > now
    if data_class.guarded:
        assert end <= facts.evidence_until
    assert not allowed(policy.decide(tenant, data_class, facts, now=end))
    between = now + part * (end - now)
    if between < end:
        assert allowed(policy.decide(tenant, data_class, facts, now=between))


@settings(max_examples=100)
@given(timed(), st.sets(st.sampled_from(PROFILES)), st.sampled_from(DataClass), INSTANTS)
def test_what_is_kept_changes_no_answer(
    facts: EndpointFacts, profiles: set[str], data_class: DataClass, now: float
) -> None:
    tenant = TenantFacts(profiles=tuple(sorted(profiles)))
    assert cedar().decide(tenant, data_class, facts, now=now) == fresh().decide(tenant, data_class, facts, now=now)


@settings(max_examples=60)
@given(timed(), st.lists(st.sets(st.sampled_from(PROFILES)), min_size=2, max_size=2), st.sampled_from(DataClass))
def test_more_profiles_never_allow_more_nor_longer(
    facts: EndpointFacts, chosen: list[set[str]], data_class: DataClass
) -> None:
    few, many = (TenantFacts(profiles=tuple(sorted(names))) for names in (chosen[0], chosen[0] | chosen[1]))
    narrow = cedar().decide(many, data_class, facts, now=NOW)
    wide = cedar().decide(few, data_class, facts, now=NOW)
    if isinstance(narrow, Allowed):
        assert isinstance(wide, Allowed)
        assert wide.valid_until is None or (narrow.valid_until is not None and narrow.valid_until <= wide.valid_until)


def added(text: str) -> Bundle:
    return bundle_of({file.name: file.text for file in default_bundle().files} | {"9-own.cedar": text})


CONDITIONS = (
    "resource.operator_can_read",
    'resource.site_country == "JP"',
    "context.attestation_age_s > 60",
    "context.class_level >= 3",
    'resource.foreign_laws.contains("US")',
)


@settings(max_examples=40, deadline=None)
@given(timed(), st.sampled_from(CONDITIONS), st.sampled_from(CONDITIONS), st.sampled_from(DataClass))
def test_narrower_policy_never_allows_more(facts: EndpointFacts, one: str, two: str, data_class: DataClass) -> None:
    """A rule that forbids is added, whatever it says."""
    rule = (
        f'@id("own") @reason_en("No.") @reason_ja("不可。") '
        f"forbid (principal, action, resource) when {{ {one} || !({two}) }};"
    )
    narrow = CedarPolicy(added(rule), jurisdiction="JP").decide(ANYBODY, data_class, facts, now=NOW)
    assert not allowed(narrow) or allowed(cedar().decide(ANYBODY, data_class, facts, now=NOW))


def two_of_each() -> Federation:
    """Sites that the rules tell apart, two endpoints at each, one of them for one tenant and for a while."""
    sites = tuple(
        Site(
            id=f"s{n}", operator="o", name="", country="US" if n == 3 else "JP",
            valid_until=NOW + 900 if n == 2 else None,
            declaration=Declaration(law="JP", owner_country="JP", foreign_owned_percent=0, operator_can_read=n == 1),
        )
        for n in range(4)
    )  # fmt: skip
    endpoints = tuple(
        Endpoint(id=f"e{n}", site=f"s{n % 4}", url="http://x/v1", models=("a", "b")[: 1 + n % 2]) for n in range(8)
    )
    window = Endpoint(
        id="own", site="s0", url="http://x/v1", models=("b", "c"), tenants=("t1",), open_until=NOW + 1200
    )
    tenants = tuple(
        Tenant(id=f"t{n}", name="", floor=DataClass(n % 4), profiles=profiles)
        for n, profiles in enumerate(
            ((), ("seal-2",), ("confidential-computing",), ("gov-cloud", "ismap"), ("none",))
        )
    )
    return Federation(
        operators=(Operator(id="o", name="", country="JP", law="JP"),), sites=sites, endpoints=(*endpoints, window),
        tenants=tenants, keys=(), aliases={},
    )  # fmt: skip


STANDING = st.builds(
    lambda level, verdict, age, left: SiteEvidence(
        attestation=msgspec.convert(
            {"kind": "tdx", "level": level, "at": NOW - age, "until": NOW + left}, AttestationFacts
        ),
        location=msgspec.convert(
            {"verdict": verdict, "margin_km": 10, "at": NOW - age, "until": NOW + 2 * left}, LocationFacts
        ),
    ),
    st.sampled_from(("none", "contraindicated", "warning", "affirming")),
    st.sampled_from(("declared", "contradicted", "consistent", "proven")),
    st.sampled_from((0, 60, 3500, 86_300)),
    st.sampled_from((0, 30, 700, 1e6)),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.0, 1.0, 25.0, 60.0, 600.0, 90_000.0, -50.0, -700.0)),
        st.none() | st.tuples(st.integers(0, 3), STANDING),
        st.sampled_from((frozenset[str](), frozenset[str](), frozenset({"e1"}))),
    ),
    min_size=2,
    max_size=7,
)


def standing(left_s: float) -> SiteEvidence:
    return SiteEvidence(attestation=attested("affirming", until=NOW + left_s))


@settings(max_examples=100, deadline=None)
@given(STEPS)
# evidence runs out, and the clock is put back to before that
@example([(0.0, (0, standing(30)), frozenset()), (60.0, None, frozenset()), (-50.0, None, frozenset())])
def test_the_next_table_is_what_a_first_one_would_be(
    steps: list[tuple[float, tuple[int, SiteEvidence] | None, frozenset[str]]],
) -> None:
    federation, policy, compiler = two_of_each(), cedar(), Compiler()
    now, evidence = NOW, dict[str, SiteEvidence]()
    for later, change, suspended in steps:
        now += later
        if change is not None:
            evidence = evidence | {f"s{change[0]}": change[1]}
        # In the soak the first one has a policy of its own too, which has kept nothing.
        tables = [
            made.compile(
                federation, rules, version=1, now=now, jurisdiction="JP", evidence_validity_s=3200.0,
                salts={tenant.id: b"salt" for tenant in federation.tenants}, evidence=evidence, suspended=suspended,
            )
            for made, rules in ((compiler, policy), (Compiler(), fresh() if SOAK else policy))
        ]  # fmt: skip
        assert tables[0] == tables[1]


@given(st.floats(0, 4e9), st.floats(1, 366 * 86_400))
def test_a_declaration_never_holds_longer_than_it_may_and_hardly_less(now: float, validity_s: float) -> None:
    until = declared_until(now, validity_s)
    assert now + validity_s * 0.96 < until <= now + validity_s
