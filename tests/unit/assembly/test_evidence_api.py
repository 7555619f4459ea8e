"""Evidence over HTTP, on both databases: from the agent's challenge to the route table, and a tenant's key."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.plane import ControlPlane
from sekisho.federation.declare import SiteDeclaration, encode_signed, sign
from sekisho.federation.key_release import spki_of, unwrap
from sekisho.federation.report import EndpointReport
from sekisho.federation.tokens import new_token
from sekisho.residency.attestation import snp
from sekisho.residency.attestation.register import RegisterEntry, SignedEntry
from sekisho.residency.attestation.register import sign as sign_entry
from support import tee, tee_vectors
from support.control import FEDERATION, MODEL, app_of, new_plane
from support.sites import FakeAgent, operator_hex

Client = TestClient[Litestar]
SITE = "ishikari-9"
OPERATOR = next(operator.id for operator in FEDERATION.operators if operator.country == "JP")
OPERATOR_KEY, AUDITOR_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
MAKER = tee.genoa()


@pytest.fixture
def plane(tmp_path: Path, database_url: str | sa.URL, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    monkeypatch.setattr(snp, "amd_roots", lambda: MAKER.roots)  # the fake maker stands in for AMD
    return new_plane(tmp_path, database=None if isinstance(database_url, str) else database_url)


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with TestClient(app_of(plane)) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        yield made


class Site:
    """An enrolled site that talks to the agents' door. FAKE agent: it signs, and serves nothing."""

    def __init__(self, client: Client, plane: ControlPlane) -> None:
        self.client = client
        self.agent = FakeAgent(SITE)
        now = plane.clock.now()
        office = plane.offices.admin.enrolment
        office.set_operator_key(OPERATOR, operator_hex(OPERATOR_KEY), now=now, actor="test")
        token = office.invite(
            site=SITE,
            operator=OPERATOR,
            expires_in_s=60.0,
            replace=False,
            now=now,
            actor="test",
            token=new_token("t" * 43, control="ab" * 32),
        ).token
        signed = sign(
            SiteDeclaration(operator=OPERATOR, site=SITE, country="JP", valid_until=now + 86_400), OPERATOR_KEY
        )
        office.enrol(
            token=token,
            spki=self.agent.spki,
            proof=self.agent.proof(token, signed),
            declaration=encode_signed(signed),
            now=now,
        )
        office.approve(SITE, pin=None, now=now, actor="test")
        endpoint = EndpointReport(id=f"{SITE}-a", url="https://127.0.0.1:9443/v1", models=(MODEL,))
        self.attest_wanted = self.ask("heartbeat", self.agent.report(endpoints=(endpoint,)))["attest"]

    def post(self, path: str, body: Any) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = self.agent.request(data, path=f"/agent/v1/{path}")
        headers = {
            "Authorization": "",
            "X-Sekisho-Site": request.site,
            "X-Sekisho-Counter": str(request.counter),
            "X-Sekisho-Signature": request.signature,
        }
        return self.client.post(request.path, content=data, headers=headers)

    def ask(self, path: str, body: Any) -> Any:
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def attest(self, **report: Any) -> Any:
        nonce = base64.b64decode(self.ask("challenge", {})["nonce"])
        evidence = MAKER.evidence(nonce, base64.b64decode(self.agent.spki), **report)
        return self.ask("evidence", {"nonce": b64(nonce), "evidence": b64(evidence)})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def site(client: Client, plane: ControlPlane) -> Site:
    return Site(client, plane)


def entry(site: str = SITE) -> SignedEntry:
    now = int(time.time())
    said = RegisterEntry(
        hardware_id="snp:" + MAKER.chip_id.hex(),
        site=site,
        operator=OPERATOR,
        building="Building 1",
        valid_from=now - 60,
        valid_until=now + 86_400,
    )
    return SignedEntry(
        entry=said,
        signatures=(sign_entry(said, "operator", OPERATOR_KEY), sign_entry(said, "auditor", AUDITOR_KEY)),
    )


def approve(client: Client) -> None:
    for key, role, name in ((OPERATOR_KEY, "operator", OPERATOR), (AUDITOR_KEY, "auditor", "an auditor")):
        answer = client.post("/api/v1/evidence/signers", json={"key": operator_hex(key), "role": role, "name": name})
        assert answer.status_code == 201, answer.text
    answer = client.post("/api/v1/evidence/register", content=msgspec.json.encode(entry()))
    assert answer.status_code == 201, answer.text
    reference = {"name": "image-1", "kind": "snp", "measurements": {"launch": [tee.MEASUREMENT.hex()]}}
    answer = client.post("/api/v1/evidence/references", json=reference)
    assert answer.status_code == 201, answer.text
    assert answer.json() == {"name": "image-1", "version": 1}


def level(plane: ControlPlane) -> str:
    """What the table in force was made from."""
    state = plane.table()
    assert state is not None
    found = state.evidence.get(SITE)
    return found.attestation.level if found is not None else ""


def test_evidence_is_in_the_next_route_table(client: Client, plane: ControlPlane, site: Site) -> None:
    assert site.attest_wanted
    assert level(plane) == ""
    taken = site.attest()
    assert taken["accepted"]
    assert level(plane) == taken["level"] == "warning"
    approve(client)
    assert level(plane) == "affirming"
    assert client.delete("/api/v1/evidence/references/image-1").status_code == 204
    assert level(plane) == "warning"
    listed = client.get("/api/v1/evidence", params={"site": SITE}).json()
    assert [row["level"] for row in listed] == ["warning", "affirming", "warning", "warning"]
    detail = client.get(f"/api/v1/evidence/items/{listed[0]['id']}").json()
    assert detail["appraisal"]["parts"][0]["findings"][0]["ja"]
    assert detail["token"].count(".") == 2


def test_a_debug_guest_is_in_the_table_at_once(client: Client, plane: ControlPlane, site: Site) -> None:
    approve(client)
    site.attest()
    taken = site.attest(policy=0x30000 | 1 << 19)
    assert (taken["level"], taken["code"]) == ("contraindicated", "attestation.debug")
    assert level(plane) == "contraindicated"


def test_a_refused_answer_says_why(site: Site) -> None:
    nonce = site.ask("challenge", {})["nonce"]
    taken = site.ask("evidence", {"nonce": nonce, "evidence": b64(b"junk")})
    assert (taken["accepted"], taken["code"]) == (False, "attestation.form")
    assert taken["fact"]
    again = site.ask("evidence", {"nonce": nonce, "evidence": b64(b"junk")})
    assert again["code"] == "attestation.replayed"


def test_a_tenant_s_key_reaches_an_attested_workload(client: Client, plane: ControlPlane, site: Site) -> None:
    approve(client)
    # SCRIPTED: a proof of its place, or no guarded work may be done there
    now = plane.clock.now()
    plane.evidence.record_location(
        SITE, verdict="proven", margin_km=1, until=now + 3600, digest="00", detail=b"{}", now=now, actor="test"
    )
    site.attest()
    key = X25519PrivateKey.generate()
    public = spki_of(key)
    nonce = base64.b64decode(site.ask("release/challenge", {})["nonce"])
    evidence = MAKER.evidence(nonce, public)
    token = site.ask("release/evidence", {"nonce": b64(nonce), "evidence": b64(evidence), "public_key": b64(public)})[
        "token"
    ]

    def ask(**other: str) -> Any:
        return site.post("release/key", {"token": token, "tenant": "hospital", "public_key": b64(public), **other})

    answer = ask()
    assert answer.status_code == 200, answer.text
    released = answer.json()
    secret = unwrap(base64.b64decode(released["wrapped"]), key, tenant="hospital", evidence=released["evidence"])
    assert secret is not None
    assert len(secret) == 32
    stranger = b64(spki_of(X25519PrivateKey.generate()))
    refusals = {
        "release.token": ask(token="a.b.c"),
        "release.key": ask(public_key=stranger),
        "release.not_entitled": ask(tenant="nobody"),
    }
    for code, refused in refusals.items():
        assert refused.status_code == 403
        assert (refused.json()["code"], bool(refused.json()["hint"])) == (code, True)
    site.attest(vmpl=1)
    assert ask().json()["code"] == "release.token"


def test_the_door_opens_for_the_site_s_agent_only(client: Client, site: Site) -> None:
    answer = client.post("/agent/v1/release/challenge", content=b"{}")
    assert answer.status_code == 401
    site.agent.key = FakeAgent(SITE).key
    assert site.post("release/challenge", {}).status_code == 401


def test_what_an_administrator_imports_is_checked(client: Client) -> None:
    moved = msgspec.structs.replace(entry(), entry=entry("elsewhere").entry)
    for path, body, code in (
        ("register", msgspec.json.encode(moved), "evidence.register_refused"),
        ("collateral", json.dumps({"document": b64(b"junk")}).encode(), "evidence.unusable"),
        (
            "collateral",
            json.dumps({"document": b64(tee_vectors.tdx()[1])}).encode(),
            "evidence.collateral_expired",
        ),
    ):
        answer = client.post(f"/api/v1/evidence/{path}", content=body)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert answer.json()["hint"]
    assert client.post("/api/v1/evidence/references", json={"name": "x", "kind": "abacus"}).status_code == 400
    assert client.delete("/api/v1/evidence/references/none").status_code == 404
    assert client.get(f"/api/v1/evidence/items/{'0' * 32}").status_code == 404
    assert client.delete(f"/api/v1/evidence/signers/{'0' * 64}").status_code == 404
    vcek = client.post("/api/v1/evidence/collateral", json={"document": b64(MAKER.leaf())})
    assert vcek.status_code == 201
    listed = client.get("/api/v1/evidence/collateral").json()
    assert [row["digest"] for row in listed] == [vcek.json()["digest"]]
    assert hashlib.sha256(b"").hexdigest() != vcek.json()["digest"]


def test_only_administrators_read_it(client: Client) -> None:
    for path in ("", "/references", "/collateral", "/register", "/signers"):
        assert client.get(f"/api/v1/evidence{path}", headers={"Authorization": ""}).status_code == 401
