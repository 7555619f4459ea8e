"""Enrolment over HTTP, on both databases: what administrators ask, what agents send, and what control signs for
them."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.plane import ControlPlane
from sekisho.federation.declare import SignedDeclaration, SiteDeclaration, sign
from sekisho.federation.report import EndpointReport, HandIn
from sekisho.federation.signing import answer_text, control_signed, pin_of_spki, spki_of
from sekisho.federation.tokens import control_key_of
from sekisho.residency.table import Closed, RouteSet, RouteTable
from support.control import FEDERATION, app_of, new_plane
from support.sites import FakeAgent, operator_hex

Client = TestClient[Litestar]
OPERATOR = FEDERATION.operators[0].id
SITE = "ishikari-9"


@pytest.fixture
def plane(tmp_path: Path, database_url: str | sa.URL) -> ControlPlane:
    return new_plane(tmp_path, database=None if isinstance(database_url, str) else database_url)


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with TestClient(app_of(plane)) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        yield made


class Hall:
    """A site that talks to a control plane over HTTP. FAKE agent: it signs, and serves nothing."""

    def __init__(self, client: Client, plane: ControlPlane) -> None:
        self.client = client
        self.plane = plane
        self.operator_key = Ed25519PrivateKey.generate()
        self.agent = FakeAgent(SITE)
        answer = client.post(f"/api/v1/operators/{OPERATOR}/key", json={"key": operator_hex(self.operator_key)})
        assert answer.status_code == 200, answer.text

    def invite(self, **more: Any) -> str:
        answer = self.client.post("/api/v1/sites", json={"operator": OPERATOR, "site": SITE, **more})
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["token"]
        return token

    def declaration(self) -> SignedDeclaration:
        return sign(
            SiteDeclaration(operator=OPERATOR, site=SITE, country="JP", valid_until=time.time() + 86_400),
            self.operator_key,
        )

    def enrol(self, token: str, signed: SignedDeclaration | None = None) -> Any:
        signed = signed or self.declaration()
        body = HandIn(
            token=token,
            spki=self.agent.spki,
            proof=self.agent.proof(token, signed),
            declaration=msgspec.Raw(msgspec.json.encode(signed)),
        )
        return self.client.post("/agent/v1/enrol", content=msgspec.json.encode(body), headers={"Authorization": ""})

    def send(self, path: str, body: bytes, *, believed: bool = True) -> Any:
        request = self.agent.request(body, path=path)
        answer = self.client.post(
            path,
            content=body,
            headers={
                "Authorization": "",
                "X-Sekisho-Site": request.site,
                "X-Sekisho-Counter": str(request.counter),
                "X-Sekisho-Signature": request.signature,
            },
        )
        if believed and answer.status_code == 200:
            signature = base64.b64decode(answer.headers["x-sekisho-signature"])
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.plane.home.control_pub.read_text().strip()))
            text = answer_text(site=request.site, counter=request.counter, body=answer.content)
            assert control_signed(key, signature, text)
            assert not control_signed(key, signature, text + b"x")
        return answer

    def beat(self, **report: Any) -> Any:
        endpoint = EndpointReport(id=f"{SITE}-a", url="https://127.0.0.1:9443/v1", models=("llama-3",))
        return self.send("/agent/v1/heartbeat", self.agent.report(**{"endpoints": (endpoint,), **report}))

    def serving(self) -> None:
        assert self.enrol(self.invite()).status_code == 202
        approved = self.client.post(f"/api/v1/sites/{SITE}/approve", json={"pin": pin_of_spki(self.agent.spki)})
        assert approved.status_code == 200, approved.text
        assert self.beat().status_code == 200


@pytest.fixture
def hall(client: Client, plane: ControlPlane) -> Hall:
    return Hall(client, plane)


def table(plane: ControlPlane) -> RouteTable:
    state = plane.table()
    assert state is not None
    return state.table


def test_from_invitation_to_the_table_of_the_gateways(hall: Hall, plane: ControlPlane) -> None:
    token = hall.invite()
    assert control_key_of(token) == plane.home.control_pub.read_text().strip()
    handed_in = hall.enrol(token)
    assert (handed_in.status_code, handed_in.json()["state"]) == (202, "waiting")
    assert hall.beat().json()["code"] == "agent.waiting"
    assert [entry.site for entry in table(plane).endpoints].count(SITE) == 0

    hall.client.post(f"/api/v1/sites/{SITE}/approve", json={}).raise_for_status()
    # SCRIPTED: a proof of its place, or no guarded route would have it
    now = time.time()
    plane.evidence.record_location(
        SITE, verdict="proven", margin_km=1, until=now + 3600, digest="00", detail=b"{}", now=now, actor="test"
    )
    answer = hall.beat()
    assert answer.json()["gateways"] == [plane.home.gateway_certificate.read_text()]
    (entry,) = [entry for entry in table(plane).endpoints if entry.site == SITE]
    assert entry.tls is not None
    assert entry.tls.pins == (pin_of_spki(hall.agent.spki),)
    assert entry.tls.client_key == str(plane.home.gateway_key)
    routes = [route for route in table(plane).routes if isinstance(route, RouteSet) and route.valid_until is not None]
    assert min(route.valid_until or 0.0 for route in routes) <= time.time() + 60

    listed = {site["id"]: site for site in hall.client.get("/api/v1/sites").json()}
    assert listed[SITE]["state"] == "approved"
    detail = hall.client.get(f"/api/v1/sites/{SITE}").json()
    assert detail["enrolments"][0]["declaration"]["operator_key"] == operator_hex(hall.operator_key)
    assert [version["actor"] for version in detail["versions"]] == ["admin"]


def test_refusals_have_their_status_code_and_way_out(hall: Hall) -> None:
    token = hall.invite()
    assert hall.enrol(token).status_code == 202
    again = hall.enrol(token)
    assert (again.status_code, again.json()["code"]) == (403, "enrol.token_used")
    assert again.json()["hint"]
    for body in (b"", b"{}", b"[]", b"\xff", b"[" * 10_000, b'{"token":1}'):
        answer = hall.client.post("/agent/v1/enrol", content=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "agent.report"), body
    second = hall.client.post("/api/v1/sites", json={"operator": OPERATOR, "site": SITE})
    assert (second.status_code, second.json()["code"]) == (403, "enrol.second")
    for path, json in (
        ("/api/v1/sites/nowhere/approve", {}),
        ("/api/v1/sites/nowhere/reject", None),
        ("/api/v1/sites/nowhere/suspend", None),
        ("/api/v1/operators/nobody/key", {"key": "0" * 64}),
    ):
        answer = hall.client.post(path, json=json)
        assert (answer.status_code, answer.json()["code"]) == (404, "name.unknown"), path


def test_only_administrators_decide(hall: Hall) -> None:
    for method, path in (
        ("GET", "/api/v1/sites"),
        ("POST", "/api/v1/sites"),
        ("POST", f"/api/v1/sites/{SITE}/approve"),
        ("POST", f"/api/v1/sites/{SITE}/suspend"),
        ("GET", "/api/v1/operators"),
        ("GET", "/api/v1/pools"),
    ):
        answer = hall.client.request(method, path, headers={"Authorization": ""}, json={})
        assert (answer.status_code, answer.json()["code"]) == (401, "auth.required"), path


def test_what_is_not_signed_is_not_heard(hall: Hall) -> None:
    hall.serving()
    body = hall.agent.report()
    request = hall.agent.request(body)
    good = {
        "X-Sekisho-Site": SITE,
        "X-Sekisho-Counter": str(request.counter),
        "X-Sekisho-Signature": request.signature,
    }
    for changed in (
        {"X-Sekisho-Site": ""},
        {"X-Sekisho-Counter": ""},
        {"X-Sekisho-Counter": "-1"},
        {"X-Sekisho-Counter": "9" * 30},
        {"X-Sekisho-Signature": ""},
        {"X-Sekisho-Signature": "x" * 5000},
    ):
        answer = hall.client.post("/agent/v1/heartbeat", content=body, headers={**good, **changed})
        assert answer.status_code == 401, changed
        assert answer.json()["code"].startswith("agent.")
    assert hall.client.post("/agent/v1/heartbeat", content=body, headers=good).status_code == 200
    replayed = hall.client.post("/agent/v1/heartbeat", content=body, headers=good)
    assert (replayed.status_code, replayed.json()["code"]) == (401, "agent.replayed")


def test_suspending_a_site_is_one_step_and_in_the_table_before_the_answer(hall: Hall, plane: ControlPlane) -> None:
    hall.serving()
    answer = hall.client.post(f"/api/v1/sites/{SITE}/suspend").json()
    assert (answer["changed"], answer["table_version"]) == (True, table(plane).version)
    used = {index for route in table(plane).routes if isinstance(route, RouteSet) for index in route.endpoints}
    assert SITE not in {table(plane).endpoints[index].site for index in used}
    assert any(isinstance(route, Closed) and "endpoint-suspended" in route.rules for route in table(plane).routes)
    assert hall.beat().json()["suspended"]
    assert not hall.client.post(f"/api/v1/sites/{SITE}/suspend").json()["changed"]
    hall.client.post(f"/api/v1/sites/{SITE}/resume").raise_for_status()
    used = {index for route in table(plane).routes if isinstance(route, RouteSet) for index in route.endpoints}
    assert SITE in {table(plane).endpoints[index].site for index in used}


def test_a_configured_site_is_suspended_the_same_way(hall: Hall, plane: ControlPlane) -> None:
    site = FEDERATION.sites[0].id
    hall.client.post(f"/api/v1/sites/{site}/suspend").raise_for_status()
    used = {index for route in table(plane).routes if isinstance(route, RouteSet) for index in route.endpoints}
    assert site not in {table(plane).endpoints[index].site for index in used}


def test_a_key_is_rotated_over_the_wire(hall: Hall, plane: ControlPlane) -> None:
    hall.serving()
    new = ec.generate_private_key(ec.SECP256R1())
    spki = spki_of(new.public_key())
    body = msgspec.json.encode({"spki": spki, "proof": base64.b64encode(hall.agent.rotation(new)).decode()})
    assert hall.send("/agent/v1/rotate", body).json()["pin"] == pin_of_spki(spki)
    (entry,) = [entry for entry in table(plane).endpoints if entry.site == SITE]
    assert entry.tls is not None
    assert entry.tls.pins == (pin_of_spki(spki),)
    assert hall.beat().json()["code"] == "agent.signature"
    hall.agent.key = new
    assert hall.beat().status_code == 200


def test_operators_and_pools_are_listed(hall: Hall) -> None:
    wanted = {"id": "kddi", "name": "KDDI", "country": "JP", "law": "JP"}
    listed = hall.client.post("/api/v1/operators", json=wanted).json()
    assert {"id": "kddi", "source": "enrolment"}.items() <= next(o for o in listed if o["id"] == "kddi").items()
    clash = hall.client.post("/api/v1/operators", json={**wanted, "id": OPERATOR})
    assert (clash.status_code, clash.json()["code"]) == (409, "state.conflict")
    assert hall.client.post("/api/v1/operators", json={**wanted, "country": "UK"}).json()["code"] == "enrol.country"
    hall.serving()
    assert hall.client.get("/api/v1/pools").status_code == 200
