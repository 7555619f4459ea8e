"""From a landmark's signature to the evidence that stands, and to the next route table."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar.testing import TestClient

from sekisho.assembly.locations import LANDMARKS, Register, read_register
from sekisho.assembly.plane import ControlPlane
from sekisho.cli.main import cli
from sekisho.federation.challenge import Answering, Question, landmark_name, site_name, spki, write_question
from sekisho.federation.errors import UnknownName
from sekisho.federation.landmark import Landmark, Measurement, SignedMeasurement, landmark_of, sign_measurement
from sekisho.federation.model import Site
from sekisho.residency.evidence import EvidenceService
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.model import Finding
from sekisho.residency.location.service import LocationRefused, LocationService
from sekisho.residency.table import RouteSet
from sekisho.runtime.database import Database
from support.control import FEDERATION, MODEL, app_of, new_plane

NOW = 1_800_000_000.0
SITE_KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
MARK_KEY = Ed25519PrivateKey.generate()
SITES = {
    "osaka": Site(id="osaka", operator="o", name="Osaka", country="JP", latitude=34.69, longitude=135.50),
    "nowhere": Site(id="nowhere", operator="o", name="Nowhere", country="JP"),
}
MARKS = {
    name: landmark_of(name, latitude=latitude, longitude=longitude, position_error_km=1.0, key=MARK_KEY)
    for name, latitude, longitude in (("osaka", 34.69, 135.50), ("tokyo", 35.68, 139.77), ("quincy", 47.23, -119.85))
}


def measured(
    mark: str, rtt_ms: float, *, at: float = NOW, site: str = "osaka", key: ec.EllipticCurvePrivateKey = SITE_KEY
) -> SignedMeasurement:
    """What that landmark would sign; the exchange is real, the time is scripted."""
    landmark = MARKS[mark]
    asked = write_question(
        Question(
            asked_ms=int(at * 1000),
            landmark=landmark_name(landmark.spki),
            site=site_name(site),
            nonce=os.urandom(32),
        )
    )
    return sign_measurement(
        Measurement(
            landmark=mark,
            latitude=landmark.latitude,
            longitude=landmark.longitude,
            position_error_km=landmark.position_error_km,
            site=site,
            site_spki=spki(key),
            transport="udp",
            sent=16,
            answered=16,
            rtt_ns=int(rtt_ms * 1e6),
            question=asked,
            answer=Answering(key).answer(asked),
            exchanges="",
            at=at,
        ),
        MARK_KEY,
    )


# The federation of the other tests, with its site in Osaka at its place.
PLACED = msgspec.structs.replace(
    FEDERATION,
    sites=tuple(
        msgspec.structs.replace(SITES["osaka"], operator=site.operator) if site.id == "softbank-osaka" else site
        for site in FEDERATION.sites
    ),
    endpoints=tuple(
        msgspec.structs.replace(each, site="osaka") if each.site == "softbank-osaka" else each
        for each in FEDERATION.endpoints
    ),
)


class House:
    """A service whose surroundings can be changed."""

    def __init__(self, database: Database) -> None:
        self.keys = (spki(SITE_KEY),)
        self.marks = dict(MARKS)
        self.limits: dict[str, float] = {}
        self.evidence = EvidenceService(database, key=Ed25519PrivateKey.generate(), known=SITES.__contains__)
        self.service = LocationService(
            self.evidence,
            sites=lambda: SITES,
            keys=lambda _: self.keys,
            landmarks=lambda: self.marks,
            land=natural_earth,
            limits=lambda _: self.limits,
        )

    def take(self, *given: SignedMeasurement, now: float = NOW) -> Finding:
        return self.service.take("osaka", given, now=now, actor="admin")


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


def test_a_proof_stands_until_its_oldest_measurement_runs_out(house: House) -> None:
    assert house.take(measured("osaka", 1.0)).verdict == "proven"
    facts = house.evidence.standing(NOW)["osaka"].location
    assert (facts.verdict, facts.until) == ("proven", NOW + 3600)
    assert facts.margin_km > 100
    assert len(facts.digest) == 64
    assert house.evidence.standing(NOW + 3600) == {}
    assert house.service.latest("osaka", now=NOW + 3600).verdict == "declared"


def test_measurements_of_several_landmarks_come_together(house: House) -> None:
    house.take(measured("tokyo", 9.0))
    both = house.take(measured("osaka", 1.0, at=NOW + 60), now=NOW + 60)
    assert [disc.landmark for disc in both.discs] == ["osaka", "tokyo"]
    assert house.service.latest("osaka", now=NOW + 61) == both
    assert both.until == NOW + 3600  # the older one's


def test_an_impostor_with_the_stolen_key_is_contradicted_and_stays_so(
    house: House,
) -> None:
    house.take(measured("osaka", 1.0))
    caught = house.take(measured("quincy", 3.0, at=NOW + 10), now=NOW + 10)
    assert (caught.verdict, caught.why) == ("contradicted", "location.declared_outside")
    assert house.evidence.standing(NOW + 11)["osaka"].location.verdict == "contradicted"
    # the honest site answers its landmark again: the two discs still exclude each other
    assert house.take(measured("osaka", 1.0, at=NOW + 20), now=NOW + 20).verdict == "contradicted"


def test_what_contradicts_a_site_stands_until_something_newer_replaces_it(house: House) -> None:
    house.take(measured("quincy", 3.0))
    later = NOW + 3 * 3600
    assert house.evidence.standing(later)["osaka"].location.verdict == "contradicted"
    assert house.service.latest("osaka", now=later).verdict == "contradicted"
    assert house.take(measured("osaka", 1.0, at=later), now=later).verdict == "proven"
    assert house.evidence.standing(later)["osaka"].location.verdict == "proven"


def test_a_slow_answer_contradicts_only_who_set_a_limit(house: House) -> None:
    assert house.take(measured("osaka", 110.0)).verdict == "consistent"
    house.limits = {"osaka": 20.0}
    assert house.take(measured("osaka", 110.0, at=NOW + 1), now=NOW + 1).why == "location.too_slow"


def test_a_key_that_was_changed_takes_its_measurements_out(house: House) -> None:
    house.take(measured("osaka", 1.0))
    house.keys = (spki(OTHER_KEY),)
    with pytest.raises(LocationRefused) as refused:
        house.take(measured("tokyo", 9.0))
    assert refused.value.code == "measurement.other_site"
    again = house.take(measured("tokyo", 9.0, key=OTHER_KEY))
    assert [disc.landmark for disc in again.discs] == ["tokyo"]


def test_a_landmark_that_moved_takes_its_measurements_out(house: House) -> None:
    house.take(measured("osaka", 1.0))
    house.marks["osaka"] = msgspec.structs.replace(MARKS["osaka"], latitude=35.0)
    again = house.take(measured("tokyo", 9.0))
    assert [disc.landmark for disc in again.discs] == ["tokyo"]


def test_what_is_refused_leaves_no_trace(house: House) -> None:
    for given, code in (
        (measured("osaka", 1.0, key=OTHER_KEY), "measurement.other_site"),
        (measured("osaka", 1.0, site="tokyo"), "measurement.other_site"),
        (measured("osaka", 1.0, at=NOW - 3600), "location.refused"),
        (measured("osaka", 1.0, at=NOW + 3600), "location.refused"),
    ):
        with pytest.raises(LocationRefused) as refused:
            house.take(given)
        assert refused.value.code == code
        assert refused.value.hint
    assert house.evidence.history("osaka") == []


def test_sites_without_a_place_or_a_name_are_refused_by_name(house: House) -> None:
    with pytest.raises(UnknownName):
        house.service.take("elsewhere", (measured("osaka", 1.0),), now=NOW, actor="admin")
    with pytest.raises(LocationRefused) as refused:
        house.service.latest("nowhere", now=NOW)
    assert refused.value.code == "location.refused"


# -- the register, the API, the command


def test_a_register_that_can_t_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / LANDMARKS
    assert read_register(file) == Register()
    file.write_bytes(msgspec.json.encode(Register(landmarks=tuple(MARKS.values()))))
    assert {each.id for each in read_register(file).landmarks} == set(MARKS)
    for wrong in (b"{", b"[]", b'{"landmarks":[{"id":"x"}]}', b'{"more":1}', b"\xff"):
        file.write_bytes(wrong)
        with pytest.raises(LocationRefused) as refused:
            read_register(file)
        assert refused.value.code == "location.landmarks"
    file.write_bytes(msgspec.json.encode(Register(landmarks=(MARKS["osaka"], MARKS["osaka"]))))
    with pytest.raises(LocationRefused):
        read_register(file)


def test_the_api_says_where_a_site_can_be_and_refuses_by_code(tmp_path: Path) -> None:
    plane = new_plane(tmp_path, federation=PLACED)
    site = SITES["osaka"]
    with TestClient(app_of(plane)) as client:
        client.headers["Authorization"] = f"Bearer {plane.admin_token}"
        path = f"/api/v1/sites/{site.id}/location"
        assert client.get(path).json()["verdict"] == "declared"
        drawn = client.get(f"{path}/map", params={"lang": "ja"})
        assert drawn.headers["content-type"].startswith("image/svg+xml")
        assert site.id in drawn.text
        given = measured("osaka", 1.0, at=plane.clock.now(), site=site.id)
        body = {"measurements": [msgspec.to_builtins(given)]}
        assert client.post(path, json=body).json()["code"] == "measurement.unknown_landmark"
        (plane.home.root / LANDMARKS).write_bytes(msgspec.json.encode(Register(landmarks=tuple(MARKS.values()))))
        refused = client.post(path, json=body)  # a configured site has no enrolled key
        assert (refused.status_code, refused.json()["code"]) == (409, "measurement.other_site")
        assert client.post(path, json={"measurements": []}).status_code == 400
        assert client.get("/api/v1/sites/elsewhere/location").status_code == 404
        assert client.get(path, headers={"Authorization": ""}).status_code == 401


def test_a_contradicted_site_loses_its_confidential_routes_in_the_next_table(tmp_path: Path) -> None:
    plane = new_plane(tmp_path, federation=PLACED)
    locations = LocationService(
        plane.evidence,
        sites=lambda: {site.id: site for site in PLACED.sites},
        keys=lambda _: (spki(SITE_KEY),),
        landmarks=lambda: MARKS,
        land=natural_earth,
    )
    with TestClient(app_of(plane)) as client, client.portal() as portal:
        assert set(_confidential(plane)) == {"japan-east-1", "ishikari-1", "osaka-1"}
        now = plane.clock.now()
        locations.take("osaka", (measured("quincy", 3.0, at=now),), now=now, actor="admin")
        portal.call(plane.changed)
        assert set(_confidential(plane)) == {"japan-east-1", "ishikari-1"}


def _confidential(plane: ControlPlane) -> list[str]:
    made = plane.table()
    assert made is not None
    hospital = next(tenant for tenant in made.table.tenants if tenant.id == "hospital")
    route = made.table.routes[made.table.profiles[hospital.profile].routes["confidential"][MODEL]]
    assert isinstance(route, RouteSet)
    return [made.table.endpoints[index].id for index in route.endpoints]


def test_a_landmark_is_made_once_and_printed_the_same_again(tmp_path: Path) -> None:
    key = tmp_path / "mark.pem"
    command = ["site", "landmark", "tokyo", "--at", "35.68,139.77", "--key", str(key)]
    first, again = CliRunner().invoke(cli, command), CliRunner().invoke(cli, command)
    assert first.exit_code == 0, first.output
    assert msgspec.json.decode(first.output, type=Landmark).latitude == 35.68
    assert first.output == again.output
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        ["landmark", "tokyo", "--at", "north", "--key", "k"],
        ["landmark", "tokyo", "--at", "95,0", "--key", "k"],
        ["landmark", "tokyo", "--at", "nan,nan", "--key", "k"],
        ["measure", "s", "--address", "127.0.0.1:1", "--site-key", "x", "--landmark", "none.json", "--key", "k"],
        ["locate", "s", "--measurement", "none.json"],
    ],
)
def test_what_can_t_be_used_is_a_fault_with_a_code(arguments: list[str]) -> None:
    found = CliRunner().invoke(cli, ["site", *arguments])
    assert getattr(found.exception, "code", None) == "location.file", found.exception
