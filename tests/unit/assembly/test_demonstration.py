"""What a demonstration enrols by itself, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sekisho.assembly.config import load_config
from sekisho.assembly.demo_agents import simulated
from sekisho.assembly.demo_plan import prepare_agents, simulated_sites, without
from sekisho.assembly.demonstration import ACTOR, Demonstration
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.schema import migrate
from sekisho.assembly.site_home import SiteHome, load_enrolment, load_key, load_served
from sekisho.federation.model import Federation, Site
from sekisho.federation.signing import pin_of_spki, spki_of
from sekisho.runtime.database import Database
from support.sites import CONTROL, NOW, FakeAgent, Office

CONFIG = load_config(None).config
SITES = simulated_sites(CONFIG)


class Stage:
    """The services over a real database, with the configuration's part of the embedded default."""

    def __init__(self, root: Path) -> None:
        self.home = Home.at(root)
        create(self.home)
        ensure_secrets(self.home)
        database = Database(f"sqlite:///{self.home.root / 'control.sqlite'}")
        migrate(database)
        placed = frozenset(site.id for site in SITES)
        self.office = Office(database, without(CONFIG.federation, SITES), placed=placed)
        self.made = Demonstration(
            self.home, enrolment=self.office.enrolment, sites=self.office.sites, control_key=CONTROL
        )

    def follow(self, sites: tuple[Site, ...] = SITES, *, now: float = NOW) -> Federation:
        self.made.follow(sites, now=now)
        return self.office.federation.effective(now=now)

    def pin(self, site: str) -> str:
        return pin_of_spki(spki_of(load_key(SiteHome(self.home.site(site)).key).public_key()))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "home")
    yield made
    made.office.database.close()


def test_every_simulated_site_is_enrolled_with_what_the_configuration_says_of_it(stage: Stage) -> None:
    assert not without(CONFIG.federation, SITES).sites
    found = {site.id: site for site in stage.follow().sites}
    assert set(found) == {site.id for site in CONFIG.federation.sites}
    for site in CONFIG.federation.sites:
        enrolled = found[site.id]
        assert enrolled.simulated
        assert msgspec.structs.replace(enrolled, valid_until=site.valid_until) == site
    for view in stage.office.sites.views(now=NOW):
        assert (view.source, view.pin) == ("enrolment", stage.pin(view.id))
    assert {each.decided_by for site in found for each in stage.office.enrolment.enrolments(site)} == {ACTOR}


def test_a_second_start_changes_nothing(stage: Stage) -> None:
    before = stage.follow()
    assert stage.follow(now=NOW + 86_400).sites == before.sites
    assert all(len(stage.office.enrolment.enrolments(site.id)) == 1 for site in SITES)


def test_what_is_declared_otherwise_is_enrolled_anew_and_what_is_gone_is_retired(stage: Stage) -> None:
    stage.follow()
    first, second = SITES[0], SITES[1]
    before = {each.id: stage.pin(each.id) for each in (first, second)}
    moved = msgspec.structs.replace(first, country="SG", prefecture=None)
    federation = stage.follow((moved, second), now=NOW + 10)
    assert {site.id: site.country for site in federation.sites} == {first.id: "SG", second.id: second.country}
    pins = {view.id: view.pin for view in stage.office.sites.views(now=NOW + 10)}
    assert pins == {each.id: stage.pin(each.id) for each in (first, second)}
    assert pins[second.id] == before[second.id]
    assert pins[first.id] != before[first.id], "a key is approved once, for one declaration"
    assert not stage.follow((), now=NOW + 20).sites


def test_a_declaration_that_ends_soon_is_signed_again(stage: Stage) -> None:
    stage.follow()
    later = NOW + 350 * 86_400
    stage.follow(now=later)
    assert all(site.declared_until > later + 300 * 86_400 for site in _declared(stage))


def test_a_start_that_was_cut_off_is_finished_by_the_next(stage: Stage, tmp_path: Path) -> None:
    """Handed in, and not approved."""
    stage.follow()
    site = SITES[0]
    stage.office.enrolment.retire(site.id, now=NOW + 1, actor="test")
    key = Demonstration(stage.home, enrolment=_Cut(stage.office), sites=stage.office.sites, control_key=CONTROL)
    with pytest.raises(KeyboardInterrupt):
        key.follow(SITES, now=NOW + 2)
    assert stage.office.enrolment.waiting()
    assert site.id in {each.id for each in stage.follow(now=NOW + 3).sites}
    assert not stage.office.enrolment.waiting()


def test_a_site_that_people_enrolled_is_left_alone(stage: Stage) -> None:
    site = msgspec.structs.replace(SITES[0], id="ishikari-2", operator="sakura")
    agent: FakeAgent = stage.office.enrolled("ishikari-2")
    stage.follow((site,))
    (view,) = stage.office.sites.views(now=NOW)
    assert view.pin == pin_of_spki(agent.spki)
    stage.follow(())
    assert [each.id for each in stage.office.sites.views(now=NOW)] == ["ishikari-2"]


def test_what_the_supervisor_writes_is_what_an_agent_reads(stage: Stage) -> None:
    ports = {endpoint.id: 20_000 + index for index, endpoint in enumerate(CONFIG.federation.endpoints)}
    prepare_agents(CONFIG, stage.home, servers=ports, control="http://127.0.0.1:8081")
    for endpoint in CONFIG.federation.endpoints:
        place = SiteHome(stage.home.site(endpoint.site))
        (served,) = load_served(place)
        assert (served.id, served.models, served.slots) == (endpoint.id, endpoint.models, endpoint.slots)
        assert served.server == ("127.0.0.1", ports[endpoint.id])
        assert served.url == endpoint.url.replace("http://", "https://")
        enrolment = load_enrolment(place)
        assert (enrolment.site, enrolment.control_key) == (endpoint.site, stage.home.control_pub.read_text().strip())
        counted = simulated(place)
        assert counted.simulated
        assert "demonstration" in counted.note
        pools = [pool for pool in CONFIG.federation.pools if pool.site == endpoint.site]
        assert len(counted.gpus) == sum(pool.count for pool in pools)


class _Cut:
    """FAKE: a process that ends between two steps."""

    def __init__(self, office: Office) -> None:
        self._office = office

    def __getattr__(self, name: str) -> object:
        return getattr(self._office.enrolment, name)

    def approve(self, *_given: object, **_more: object) -> None:
        raise KeyboardInterrupt


class _Until(msgspec.Struct):
    declared_until: float


def _declared(stage: Stage) -> list[_Until]:
    found = []
    for site in SITES:
        newest = stage.office.enrolment.versions(site.id)[0]
        found.append(_Until(msgspec.json.decode(newest.body)["valid_until"]))
    return found
