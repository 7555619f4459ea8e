"""A configuration that widens waits; one that narrows does not. Under the default policies."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sekisho.assembly.schema import migrate
from sekisho.federation.model import Declaration, Endpoint, Federation, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.policy.bundle import default_bundle
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.hold import Facts, apply, facts_in, hold
from sekisho.residency.policy.holding import ConfigurationHold, HoldRefused
from sekisho.residency.policy.store import put_in_force, save_version
from sekisho.runtime.changes import changes
from sekisho.runtime.database import Database

NOW = 1_795_000_000.0
POLICY = CedarPolicy(default_bundle(), jurisdiction="JP")
GOOD = Declaration(
    law="JP", owner_country="JP", foreign_owned_percent=0, operator_can_read=False, personnel="cleared"
)
OPERATORS = (
    Operator(id="jp", name="JP", country="JP", law="JP"),
    Operator(id="us", name="US", country="US", law="US"),
)
SITES = (
    Site(id="home", operator="jp", name="home", country="JP", declaration=GOOD),
    Site(id="branch", operator="us", name="branch", country="JP", declaration=GOOD),
    Site(id="abroad", operator="us", name="abroad", country="US"),
)
TENANTS = (Tenant(id="hospital", name="", floor=DataClass.CONFIDENTIAL, profiles=("appi-28",)),)
BEFORE = Facts(jurisdiction="JP", operators=OPERATORS, sites=SITES, tenants=TENANTS)


def changed(**given: object) -> Facts:
    return msgspec.structs.replace(BEFORE, **given)


def with_site(site: str, **given: object) -> Facts:
    return changed(sites=tuple(msgspec.structs.replace(s, **given) if s.id == site else s for s in SITES))


def held(wanted: Facts) -> dict[str, bool]:
    """What waits: `kind/id` → whether it is out meanwhile."""
    return {f"{each.kind}/{each.id}": each.closed for each in hold(BEFORE, wanted, POLICY).held}


def test_nothing_waits_that_changes_nothing_or_narrows() -> None:
    assert not held(BEFORE)
    assert not held(with_site("home", name="another name", prefecture=13))
    for wanted in (with_site("home", country="US"), changed(sites=SITES[1:]), changed(tenants=())):
        assert not held(wanted)
        assert hold(BEFORE, wanted, POLICY).in_force == wanted


def test_a_site_that_moves_home_waits_and_stays_what_it_was() -> None:
    wanted = with_site("abroad", country="JP")
    assert held(wanted) == {"site/abroad": False}
    assert hold(BEFORE, wanted, POLICY).in_force == BEFORE


def test_a_new_site_is_not_there_until_somebody_agrees() -> None:
    new = Site(id="new", operator="jp", name="new", country="JP", declaration=GOOD)
    wanted = changed(sites=(*SITES, new))
    assert held(wanted) == {"site/new": True}
    assert hold(BEFORE, wanted, POLICY).in_force == BEFORE
    # … unless it could serve nothing that is guarded
    useless = msgspec.structs.replace(new, country="US")
    assert not held(changed(sites=(*SITES, useless)))


def test_an_operator_whose_law_becomes_ours_waits_with_all_its_sites() -> None:
    wanted = changed(operators=(OPERATORS[0], msgspec.structs.replace(OPERATORS[1], law="JP", country="JP")))
    assert "site/branch" in held(wanted)
    assert hold(BEFORE, wanted, POLICY).in_force.operators == OPERATORS


def test_what_narrows_in_one_place_holds_at_once_while_the_rest_waits() -> None:
    sites = (
        msgspec.structs.replace(SITES[0], country="US"),
        SITES[1],
        msgspec.structs.replace(SITES[2], country="JP"),
    )
    in_force = hold(BEFORE, changed(sites=sites), POLICY).in_force
    assert {site.id: site.country for site in in_force.sites} == {"home": "US", "branch": "JP", "abroad": "US"}


def test_a_site_whose_facts_changed_both_ways_is_left_out() -> None:
    """Its law became ours in the eyes of one rule, and foreign in those of another: neither version is believed."""
    sites = (msgspec.structs.replace(SITES[0], operator="us"), SITES[1], SITES[2])
    wanted = changed(sites=sites, operators=(OPERATORS[0], msgspec.structs.replace(OPERATORS[1], law="JP")))
    for site in hold(BEFORE, wanted, POLICY).in_force.sites:
        assert site.operator != "us" or site in (*SITES, *sites)


@pytest.mark.parametrize(
    ("given", "floor", "profiles"),
    [
        ({"floor": DataClass.PUBLIC}, DataClass.CONFIDENTIAL, ("appi-28",)),
        ({"profiles": ()}, DataClass.CONFIDENTIAL, ("appi-28",)),
        ({"profiles": ("gov-cloud",)}, DataClass.CONFIDENTIAL, ("gov-cloud", "appi-28")),
        ({"floor": DataClass.RESTRICTED, "profiles": ()}, DataClass.RESTRICTED, ("appi-28",)),
    ],
)
def test_a_tenant_keeps_its_floor_and_its_rules(
    given: dict[str, object], floor: DataClass, profiles: tuple[str, ...]
) -> None:
    wanted = changed(tenants=(msgspec.structs.replace(TENANTS[0], **given),))
    assert held(wanted) == {"tenant/hospital": False}
    (tenant,) = hold(BEFORE, wanted, POLICY).in_force.tenants
    assert (tenant.floor, tenant.profiles) == (floor, profiles)


def test_a_tenant_that_is_guarded_more_or_is_new_does_not_wait() -> None:
    more = msgspec.structs.replace(TENANTS[0], floor=DataClass.RESTRICTED, profiles=("appi-28", "gov-cloud"))
    new = Tenant(id="clinic", name="", floor=DataClass.PUBLIC)
    assert not held(changed(tenants=(more, new)))


def test_another_jurisdiction_waits() -> None:
    assert held(changed(jurisdiction="US")) == {"jurisdiction/US": False}
    assert hold(BEFORE, changed(jurisdiction="US"), POLICY).in_force.jurisdiction == "JP"


# -- kept in the database


def federation(sites: tuple[Site, ...] = SITES) -> Federation:
    return Federation(
        operators=OPERATORS,
        sites=sites,
        endpoints=tuple(
            Endpoint(id=f"e-{site.id}", site=site.id, url="http://127.0.0.1:1/v1", models=("m",)) for site in sites
        ),
        tenants=TENANTS,
        keys=(),
        aliases={},
    )


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'control.sqlite'}")
    migrate(made)
    with made.write() as connection:
        save_version(connection, policy=POLICY.hash, bundle=POLICY.bundle, jurisdiction="JP", now=NOW)
        put_in_force(connection, bundle=POLICY.bundle.hash, configured=POLICY.bundle.hash)
    return made


def test_what_waits_outlives_a_restart_and_is_in_force_after_an_approval(database: Database) -> None:
    first = ConfigurationHold(database)
    assert first.take(federation(), "JP", now=NOW).federation == federation()
    assert first.waiting is None
    moved = federation((SITES[0], SITES[1], msgspec.structs.replace(SITES[2], country="JP")))
    for restart in range(3):
        hold_ = ConfigurationHold(database)
        assert hold_.take(moved, "JP", now=NOW + restart).federation == federation()
        assert hold_.waiting is not None
        assert hold_.waiting.since == NOW
    with pytest.raises(HoldRefused):
        hold_.approve("0" * 64, actor="second", now=NOW + 5)
    hold_.approve(hold_.waiting.wanted, actor="second", now=NOW + 5)
    assert hold_.take(moved, "JP", now=NOW + 6).federation == moved
    assert hold_.waiting is None
    assert ConfigurationHold(database).take(moved, "JP", now=NOW + 7).federation == moved
    with database.read() as connection:
        told = [(each.action, each.actor) for each in changes(connection, limit=10)]
    assert told == [("config.approved", "second"), ("config.waits", "configuration")]


def test_an_approval_is_of_what_was_seen_and_of_nothing_later(database: Database) -> None:
    hold_ = ConfigurationHold(database)
    hold_.take(federation(), "JP", now=NOW)
    moved = federation((SITES[0], SITES[1], msgspec.structs.replace(SITES[2], country="JP")))
    hold_.take(moved, "JP", now=NOW + 1)
    assert hold_.waiting is not None
    hold_.approve(hold_.waiting.wanted, actor="second", now=NOW + 2)
    wider = msgspec.structs.replace(moved, operators=tuple(msgspec.structs.replace(o, law="JP") for o in OPERATORS))
    assert hold_.take(wider, "JP", now=NOW + 3).federation != wider
    assert hold_.waiting is not None


def test_endpoints_of_a_site_that_is_left_out_go_with_it() -> None:
    new = Site(id="new", operator="jp", name="new", country="JP", declaration=GOOD)
    whole = federation((*SITES, new))
    judged = hold(BEFORE, facts_in(whole, jurisdiction="JP"), POLICY)
    assert apply(whole, judged.in_force) == federation()
