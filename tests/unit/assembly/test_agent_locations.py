"""From an agent that answers landmarks to the confidential route of its site, over HTTP: enrolled sites measure each
other, and a declared place alone opens nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.locations import LANDMARKS, Register, SiteLandmark
from sekisho.assembly.plane import ControlPlane
from sekisho.federation.challenge import Answering, Question, landmark_name, site_name, spki, write_question
from sekisho.federation.declare import SiteDeclaration, sign
from sekisho.federation.landmark import Landmark, Measurement, SignedMeasurement, sign_measurement
from sekisho.federation.model import Declaration
from sekisho.federation.report import HeartbeatAnswer, Target
from sekisho.federation.signing import COUNTER_HEADER, SIGNATURE_HEADER, SITE_HEADER
from sekisho.federation.tokens import new_token
from sekisho.kernel.classes import DataClass
from sekisho.residency.table import RouteSet
from support.control import app_of, new_plane
from support.sites import HEARTBEAT, FakeAgent, operator_hex

MODEL = "m"
OSAKA = (34.69, 135.50)
NEW, NEAR, FAR = "new", "near", "far"


class Town:
    """A control plane with three enrolled sites, all of them declared in Osaka. FAKE agents: they sign, and serve
    nothing; what they measure is scripted, each exchange is real."""

    def __init__(self, plane: ControlPlane, client: TestClient[Litestar]) -> None:
        self.plane = plane
        self.client = client
        key = Ed25519PrivateKey.generate()
        now = time.time()
        plane.enrolment.set_operator_key("sakura", operator_hex(key), now=now, actor="test")
        self.agents = {name: FakeAgent(name) for name in (NEW, NEAR, FAR)}
        for number, (name, agent) in enumerate(self.agents.items()):
            made = plane.enrolment.invite(
                site=name,
                operator="sakura",
                expires_in_s=3600.0,
                replace=False,
                now=now,
                actor="test",
                token=new_token(f"{number:043d}", control="ab" * 32),
            )
            declared = SiteDeclaration(
                site=name,
                operator="sakura",
                country="JP",
                latitude=OSAKA[0],
                longitude=OSAKA[1],
                valid_until=now + 86_400,
                declaration=Declaration(law="JP"),
            )
            agent.enrol(plane, made.token, sign(declared, key), now=now)  # type: ignore[arg-type]
            plane.enrolment.approve(name, pin=None, now=now, actor="test")

    def trust(self, *sites: SiteLandmark) -> None:
        (self.plane.home.root / LANDMARKS).write_bytes(msgspec.json.encode(Register(sites=sites)))

    def beat(self, name: str) -> HeartbeatAnswer:
        agent = self.agents[name]
        body = agent.report(location=f"{agent.host or f'{name}.example.jp'}:7845")
        request = agent.request(body)
        answer = self.client.post(
            HEARTBEAT,
            content=body,
            headers={
                SITE_HEADER: name, COUNTER_HEADER: str(request.counter), SIGNATURE_HEADER: request.signature,
            },
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=HeartbeatAnswer)

    def measured(self, landmark: Landmark, target: Target, rtt_ms: float) -> SignedMeasurement:
        at, key = time.time(), self.agents[target.site].key
        asked = write_question(
            Question(
                asked_ms=int(at * 1000),
                landmark=landmark_name(landmark.spki),
                site=site_name(target.site),
                nonce=os.urandom(32),
            )
        )
        return sign_measurement(
            Measurement(
                landmark=landmark.id,
                latitude=landmark.latitude,
                longitude=landmark.longitude,
                position_error_km=landmark.position_error_km,
                site=target.site,
                site_spki=target.spki,
                transport="udp",
                sent=16,
                answered=16,
                rtt_ns=int(rtt_ms * 1e6),
                question=asked,
                answer=Answering(key).answer(asked),
                exchanges="",
                at=at,
            ),
            self.agents[landmark.id].key,
        )

    def hand_in(self, *signed: SignedMeasurement) -> Any:
        body = {"measurements": [msgspec.to_builtins(each) for each in signed]}
        return self.client.post("/agent/v1/measurements", json=body)

    def confidential(self) -> set[str]:
        """The sites that confidential work of the hospital may go to."""
        made = self.plane.table()
        assert made is not None
        hospital = next(tenant for tenant in made.table.tenants if tenant.id == "hospital")
        routes = made.table.profiles[hospital.profile].routes[DataClass.CONFIDENTIAL.label]
        route = made.table.routes[routes[MODEL]]
        if not isinstance(route, RouteSet):
            return set()
        return {made.table.endpoints[index].site for index in route.endpoints}


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    plane = new_plane(tmp_path)
    with TestClient(app_of(plane)) as client:
        yield Town(plane, client)


def test_a_declared_place_opens_nothing_a_proof_does_and_a_contradiction_closes_at_once(town: Town) -> None:
    for name in (NEW, NEAR, FAR):
        town.beat(name)
    assert town.confidential() == set()

    town.trust(
        SiteLandmark(site=NEAR, latitude=34.70, longitude=135.49),
        SiteLandmark(site=FAR, latitude=47.23, longitude=-119.85),
    )
    landmark, far = (town.beat(name) for name in (NEAR, FAR))
    assert landmark.landmark is not None
    assert far.landmark is not None
    assert {each.site for each in landmark.measure} == {NEW, FAR}  # nobody measures itself
    target = next(each for each in landmark.measure if each.site == NEW)
    assert target.address == "new.example.jp:7845"
    assert target.spki == spki(town.agents[NEW].key)

    # slow answers prove nothing, and nothing opens
    slow = town.hand_in(town.measured(landmark.landmark, target, 110.0))
    assert slow.json() == {"verdicts": {NEW: "consistent"}}
    assert town.confidential() == set()

    assert town.hand_in(town.measured(landmark.landmark, target, 1.0)).json() == {"verdicts": {NEW: "proven"}}
    assert town.confidential() == {NEW}
    # measured a moment ago: nothing to do
    assert NEW not in {each.site for each in town.beat(NEAR).measure}

    # its key answers in America as well: stolen
    caught = town.hand_in(town.measured(far.landmark, target, 2.0))
    assert caught.json() == {"verdicts": {NEW: "contradicted"}}
    assert town.confidential() == set()


def test_a_site_that_moves_to_other_hosts_has_proved_nothing_yet_and_is_measured_at_once(town: Town) -> None:
    town.trust(SiteLandmark(site=NEAR, latitude=34.70, longitude=135.49))
    town.beat(NEW)
    answer = town.beat(NEAR)
    assert answer.landmark is not None
    (target,) = answer.measure
    before = town.measured(answer.landmark, target, 1.0)
    town.hand_in(before)
    assert town.confidential() == {NEW}
    town.beat(NEW)  # as before
    assert town.confidential() == {NEW}
    assert town.beat(NEAR).measure == ()

    town.agents[NEW].host = "elsewhere.example.com"
    town.beat(NEW)
    assert town.confidential() == set()
    (again,) = town.beat(NEAR).measure
    assert again.address == "elsewhere.example.com:7845"
    assert town.hand_in(before).json()["code"] == "location.refused"
    assert town.confidential() == set()
    town.hand_in(town.measured(answer.landmark, again, 1.0))
    assert town.confidential() == {NEW}


def test_only_those_whom_the_register_names_are_landmarks(town: Town) -> None:
    town.trust(SiteLandmark(site=NEAR, latitude=34.70, longitude=135.49))
    answer = town.beat(NEW)
    assert (answer.landmark, answer.measure) == (None, ())
    town.beat(NEAR)
    landmark = town.beat(NEAR).landmark
    assert landmark is not None
    # what an impostor measures of itself, under a landmark's name or its own, counts nowhere
    itself = Target(site=NEW, address="", spki=spki(town.agents[NEW].key))
    town.agents["mine"] = town.agents[NEW]
    for pretended in (landmark, msgspec.structs.replace(landmark, id="mine")):
        forged = msgspec.structs.replace(town.measured(pretended, itself, 0.1))
        body = msgspec.json.decode(forged.body, type=Measurement)
        refused = town.hand_in(sign_measurement(body, town.agents[NEW].key))
        assert refused.status_code == 409
        assert refused.json()["code"] in ("measurement.signature", "measurement.unknown_landmark")
    assert town.confidential() == set()


def test_a_measurement_that_is_sent_again_leaves_no_second_trace(town: Town) -> None:
    town.trust(SiteLandmark(site=NEAR, latitude=34.70, longitude=135.49))
    town.beat(NEW)
    answer = town.beat(NEAR)
    assert answer.landmark is not None
    (target,) = answer.measure
    signed = town.measured(answer.landmark, target, 1.0)
    for _ in range(3):
        assert town.hand_in(signed).json() == {"verdicts": {NEW: "proven"}}
    assert len(town.plane.evidence.history(NEW)) == 1
    for wrong in (b"", b"[]", b'{"measurements": []}', b'{"measurements": [{"body": "", "signature": ""}]}'):
        refused = town.client.post("/agent/v1/measurements", content=wrong)
        assert 400 <= refused.status_code < 500, wrong


def test_on_demand_every_landmark_among_the_sites_measures_at_its_next_heart_beat(town: Town) -> None:
    town.trust(SiteLandmark(site=NEAR, latitude=34.70, longitude=135.49))
    town.beat(NEW)
    answer = town.beat(NEAR)
    assert answer.landmark is not None
    (target,) = answer.measure
    town.hand_in(town.measured(answer.landmark, target, 1.0))
    assert town.beat(NEAR).measure == ()
    admin = {"Authorization": f"Bearer {town.plane.admin_token}"}
    path = f"/api/v1/sites/{NEW}/location/measure"
    assert town.client.post(path).status_code == 401
    asked = town.client.post(path, headers=admin)
    assert (asked.status_code, asked.json()) == (202, {"landmarks": [NEAR]})
    assert [each.site for each in town.beat(NEAR).measure] == [NEW]


def test_an_address_that_no_landmark_shall_be_sent_to_is_refused(town: Town) -> None:
    agent = town.agents[NEW]
    for wrong in ("host", "host:22", "host:1023", "host:65536", "a b:7845", "http://host:7845", ":7845"):
        body = agent.report(location=wrong)
        request = agent.request(body)
        headers = {SITE_HEADER: NEW, COUNTER_HEADER: str(request.counter), SIGNATURE_HEADER: request.signature}
        refused = town.client.post(HEARTBEAT, content=body, headers=headers)
        assert refused.json()["code"] == "agent.report", wrong
