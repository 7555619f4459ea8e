"""The control plane's API and long poll, with a real database and a real table; only the network is left out."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from litestar import Litestar
from litestar.testing import TestClient
from schemathesis import GenerationMode

import sekisho.residency.http
from sekisho.assembly.app import build_app
from sekisho.assembly.plane import ControlPlane
from sekisho.residency.table import RouteTable, open_table
from support.control import FEDERATION, HOSPITAL_KEY, MODEL, app_of, decision, new_plane, refusal, write_segment

ID = "eea948230d91"  # of HOSPITAL_KEY
# Examples of each operation and mode; to look longer: SEKISHO_API_EXAMPLES=200 make test ARGS="-k no_input"
API_EXAMPLES = int(os.environ.get("SEKISHO_API_EXAMPLES", "8"))
Client = TestClient[Litestar]


@pytest.fixture
def plane(tmp_path: Path, database_url: str | sa.URL) -> ControlPlane:
    return new_plane(tmp_path, database=None if isinstance(database_url, str) else database_url)


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with TestClient(app_of(plane)) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        yield made


def table_after(client: Client, plane: ControlPlane, after: int = 0) -> RouteTable | None:
    """What a gateway gets: verified with the public key that lies in the home directory."""
    answer = client.get(
        f"/internal/v1/table?after={after}", headers={"Authorization": f"Bearer {plane.gateway_token}"}
    )
    if answer.status_code == 204:
        return None
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    table = open_table(answer.content, public_key(plane))
    assert answer.headers["x-sekisho-table-version"] == str(table.version)
    return table


def public_key(plane: ControlPlane) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(plane.home.control_pub.read_text().strip()))


def key_ids(table: RouteTable | None) -> set[str]:
    assert table is not None
    return {key.id for key in table.keys}


# -- the table


def test_the_table_is_signed_and_only_for_gateways(client: Client, plane: ControlPlane) -> None:
    table = table_after(client, plane)
    assert table is not None
    assert {tenant.id for tenant in table.tenants} == {tenant.id for tenant in FEDERATION.tenants}
    for wrong in ("", "Bearer", "Bearer x", f"Bearer {plane.admin_token}", f"Basic {plane.gateway_token}"):
        answer = client.get("/internal/v1/table", headers={"Authorization": wrong})
        assert (answer.status_code, answer.json()["code"]) == (401, "auth.required")


def test_a_poll_that_waits_is_answered_by_the_change(
    client: Client, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table_after(client, plane)
    assert first is not None
    got: list[tuple[RouteTable | None, float]] = []

    def wait() -> None:
        got.append((table_after(client, plane, first.version), time.monotonic()))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while plane.publisher.waiting == 0:
        time.sleep(0.01)
    changed_at = time.monotonic()
    client.delete(f"/api/v1/keys/{ID}").raise_for_status()
    waiting.join(timeout=10)
    ((table, at),) = got
    assert key_ids(table) == set()
    assert at - changed_at < 1.0  # law 5: within a second

    monkeypatch.setattr(sekisho.residency.http, "LONG_POLL_S", 0.05)
    assert table is not None
    assert table_after(client, plane, table.version) is None


def test_versions_grow_across_restarts_and_even_a_lost_database(tmp_path: Path) -> None:
    versions: list[int] = []
    for _ in range(2):
        plane = new_plane(tmp_path)
        with TestClient(app_of(plane)) as client:
            table = table_after(client, plane)
            assert table is not None
            versions.append(table.version)
            current = plane.publisher.current
            assert current is not None
            plane.home.table.write_bytes(current.data)  # as a gateway leaves it
    for file in tmp_path.glob("control.sqlite*"):
        file.unlink()
    plane = new_plane(tmp_path)
    with TestClient(app_of(plane)) as client:
        table = table_after(client, plane)
        assert table is not None
        versions.append(table.version)
    assert versions == sorted(set(versions))


def test_salts_stay_the_same(tmp_path: Path) -> None:
    salts = []
    for _ in range(2):
        plane = new_plane(tmp_path)
        with TestClient(app_of(plane)) as client:
            table = table_after(client, plane)
            assert table is not None
            salts.append({tenant.id: tenant.salt for tenant in table.tenants})
    assert salts[0] == salts[1]
    assert len(set(salts[0].values())) == len(FEDERATION.tenants)
    assert all(len(salt) == 32 for salt in salts[0].values())


# -- keys


def test_a_made_key_works_and_is_never_seen_again(client: Client, plane: ControlPlane) -> None:
    answer = client.post("/api/v1/keys", json={"tenant": "hospital", "label": "ward 3"})
    assert answer.status_code == 201
    made = answer.json()
    assert made["id"] in key_ids(table_after(client, plane))
    listed = client.get("/api/v1/keys")
    assert made["key"] not in listed.text
    assert {key["id"]: key["label"] for key in listed.json()}[made["id"]] == "ward 3"
    for file in plane.home.root.rglob("*"):
        if file.is_file():
            assert made["key"].encode() not in file.read_bytes(), file


def test_a_revoked_declared_key_stays_revoked_after_a_restart(tmp_path: Path) -> None:
    plane = new_plane(tmp_path)
    with TestClient(app_of(plane)) as client:
        client.headers["Authorization"] = f"Bearer {plane.admin_token}"
        assert ID in key_ids(table_after(client, plane))
        assert client.delete(f"/api/v1/keys/{ID}").status_code == 204
        again = client.delete(f"/api/v1/keys/{ID}")
        assert (again.status_code, again.json()["code"]) == (409, "state.conflict")
    plane = new_plane(tmp_path)
    with TestClient(app_of(plane)) as client:
        client.headers["Authorization"] = f"Bearer {plane.admin_token}"
        assert ID not in key_ids(table_after(client, plane))
        (key,) = client.get("/api/v1/keys").json()
        assert key["source"] == "configuration"
        assert key["revoked_at"] is not None
    assert HOSPITAL_KEY not in (tmp_path / "control.sqlite").read_bytes().decode("latin-1")


def test_an_expired_key_is_in_no_table(client: Client, plane: ControlPlane) -> None:
    made = client.post("/api/v1/keys", json={"tenant": "hospital", "expires_at": time.time() + 0.5}).json()
    assert made["id"] in key_ids(table_after(client, plane))
    time.sleep(0.6)
    client.post("/api/v1/endpoints/osaka-1/suspend").raise_for_status()
    assert made["id"] not in key_ids(table_after(client, plane))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"tenant": "nobody"}, 404, "name.unknown"),
        ({"tenant": "hospital", "expires_at": 1}, 409, "state.conflict"),
        ({"tenant": "hospital", "expires_at": -1}, 400, "request.invalid"),
        ({"tenant": "hospital", "label": "x" * 121}, 400, "request.invalid"),
        ({"tenant": "hospital", "colour": "red"}, 400, "request.invalid"),
        ({}, 400, "request.invalid"),
        ([], 400, "request.invalid"),
    ],
)
def test_a_key_that_can_not_be_made_says_why(client: Client, body: Any, status: int, code: str) -> None:
    answer = client.post("/api/v1/keys", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {
        "type",
        "title",
        "status",
        "detail",
        "code",
        "hint",
        "detail_ja",
        "hint_ja",
    }
    assert client.get("/api/v1/keys").json()[0]["id"] == ID


# -- endpoints, why, passages, status


def test_a_suspended_endpoint_is_in_no_route_until_it_is_resumed(client: Client, plane: ControlPlane) -> None:
    def serving(table: RouteTable | None) -> set[str]:
        assert table is not None
        return {table.endpoints[i].id for route in table.routes for i in getattr(route, "endpoints", ())}

    assert client.post("/api/v1/endpoints/osaka-1/suspend").json()["changed"] is True
    assert client.post("/api/v1/endpoints/osaka-1/suspend").json()["changed"] is False
    assert "osaka-1" not in serving(table_after(client, plane))
    answer = client.post("/api/v1/endpoints/osaka-1/resume").json()
    table = table_after(client, plane)
    assert "osaka-1" in serving(table)
    assert table is not None
    assert answer["table_version"] == table.version
    assert client.post("/api/v1/endpoints/nowhere/suspend").status_code == 404


def test_why_names_the_rule_of_every_refusal(client: Client) -> None:
    found = client.get("/api/v1/why", params={"tenant": "hospital", "class": "public", "model": "gpt-4o-mini"}).json()
    assert (found["asked_class"], found["data_class"], found["model"]) == ("public", "confidential", MODEL)
    verdicts = {row["endpoint"]: row["verdict"]["type"] for row in found["endpoints"]}
    assert verdicts == {
        "japan-east-1": "allowed",
        "ishikari-1": "allowed",
        "osaka-1": "allowed",
        "us-west-1": "denied",
    }
    denied = next(row["verdict"] for row in found["endpoints"] if row["endpoint"] == "us-west-1")
    assert denied["rules"] == ["site-in-jurisdiction"]
    assert denied["reasons"][0]["ja"]
    for endpoint in ("japan-east-1", "ishikari-1", "osaka-1"):
        client.post(f"/api/v1/endpoints/{endpoint}/suspend").raise_for_status()
    closed = client.get("/api/v1/why", params={"tenant": "hospital", "class": "public", "model": MODEL}).json()
    assert closed["code"] == "residency.no_eligible_endpoint"
    missing = client.get("/api/v1/why", params={"tenant": "hospital", "class": "public", "model": "gpt-9"}).json()
    assert missing["code"] == "model.not_found"


def test_passages_of_the_journals_are_listed_page_by_page(client: Client, plane: ControlPlane) -> None:
    write_segment(plane.home.root, 0, 1, [*(decision(n) for n in range(4)), refusal(4)])
    deadline = time.monotonic() + 10
    while len(client.get("/api/v1/passages").json()["passages"]) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    seen: list[str] = []
    before: str | None = ""
    while before is not None:
        page = client.get("/api/v1/passages", params={"limit": 2, **({"before": before} if before else {})}).json()
        seen += [row["id"] for row in page["passages"]]
        before = page["next_before"]
    assert seen == [refusal(4).id, *(decision(n).id for n in (3, 2, 1, 0))]
    refused = client.get("/api/v1/passages", params={"verdict": "refused", "class": "confidential"}).json()
    assert [row["id"] for row in refused["passages"]] == [refusal(4).id]
    one = client.get(f"/api/v1/passages/{refusal(4).id}").json()
    assert msgspec.convert(one["decision"], type=type(refusal(4))) == refusal(4)
    assert client.get(f"/api/v1/passages/{'0' * 32}").status_code == 404


def test_status_says_what_runs(client: Client) -> None:
    status = client.get("/api/v1/status").json()
    assert status["tenants"] == ["hospital", "manufacturer", "developer"]
    assert status["workers"] == []
    assert status["faults"] == []
    assert [row["id"] for row in status["endpoints"]] == [endpoint.id for endpoint in FEDERATION.endpoints]


# -- who may ask


def test_every_path_of_the_api_needs_the_admin_token(client: Client, plane: ControlPlane) -> None:
    schema = client.get("/api/openapi.json").json()
    assert len(schema["paths"]) >= 9
    for path, methods in schema["paths"].items():
        for method in methods:
            for token in ("", "Bearer wrong", f"Bearer {plane.gateway_token}"):
                answer = client.request(
                    method, path.replace("{", "").replace("}", ""), headers={"Authorization": token}
                )
                assert (answer.status_code, answer.json()["code"]) == (401, "auth.required"), (method, path)


def operations() -> list[Any]:
    """From the document that the control plane itself hands out, by anybody's reading."""
    with tempfile.TemporaryDirectory() as root, TestClient(app_of(new_plane(Path(root)))) as client:
        document = client.get("/api/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    return [found.ok() for found in schema.get_all_operations()]


@pytest.fixture(scope="module")
def hammered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    plane = new_plane(tmp_path_factory.mktemp("hammered"))
    with TestClient(app_of(plane), raise_server_exceptions=False) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        yield made


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label.replace("/", "."))
def test_no_input_gets_a_500(hammered: Client, operation: Any, mode: GenerationMode) -> None:
    """Schemathesis makes requests that fit our OpenAPI, and ones that do not."""

    @settings(max_examples=API_EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def hammer(case: Any) -> None:
        asked = case.as_transport_kwargs(base_url="http://testserver.local")
        body = {name: asked[name] for name in ("params", "json") if name in asked}
        body["content"] = asked.get("data")
        headers = {name: value for name, value in (asked.get("headers") or {}).items() if name != "User-Agent"}
        answer = hammered.request(asked["method"], asked["url"], headers=headers, **body)
        assert answer.status_code < 500, (asked, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"]

    hammer()


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/internal/v1/table?after=abc", b""),
        ("GET", "/internal/v1/table?after=-1", b""),
        ("GET", f"/internal/v1/table?after={10**40}", b""),
        ("GET", "/api/v1/passages?since_ms=1e400", b""),
        ("GET", "/api/v1/passages?site=%00%ff%0d%0a", b""),
        ("GET", "/api/v1/passages/%ff", b""),
        ("GET", "/api/v1/why?tenant=%E9&class=public&model=%FF", b""),
        ("POST", "/api/v1/keys", b"\xff\xfe"),
        ("POST", "/api/v1/keys", b"[" * 10_000),
        ("POST", "/api/v1/keys", b'{"tenant": "hospital", "expires_at": 1e400}'),
        ("POST", "/api/v1/keys", b'{"tenant": "\\ud800"}'),
        ("POST", "/api/v1/keys", b'{"label": "' + b"x" * 100_000 + b'"}'),
        ("POST", "/api/v1/endpoints/%2e%2e%2f/suspend", b""),
        ("DELETE", "/api/v1/keys/%00", b""),
        ("PATCH", "/api/v1/keys", b""),
        ("GET", "/api/v1/nothing", b""),
    ],
)
def test_odd_bytes_get_a_problem_document(hammered: Client, method: str, path: str, content: bytes) -> None:
    answer = hammered.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"]


# -- who may look at the metrics, and who is let in


def test_metrics_are_open_on_this_machine_and_need_a_token_beyond_it(tmp_path: Path) -> None:
    here = new_plane(tmp_path / "here")
    with TestClient(build_app(here)) as client:
        assert client.get("/metrics").status_code == 200
    beyond = new_plane(tmp_path / "beyond", listen="0.0.0.0:8081")
    token = beyond.home.metrics_token.read_text().strip()
    with TestClient(build_app(beyond)) as client:
        for wrong in ("", "Bearer ", "Bearer x", token, f"Bearer {beyond.gateway_token}"):
            assert client.get("/metrics", headers={"Authorization": wrong}).status_code == 401
        for right in (token, beyond.admin_token):
            answer = client.get("/metrics", headers={"Authorization": f"Bearer {right}"})
            assert answer.status_code == 200
            assert b"sekisho_" in answer.content


def test_wrong_guesses_from_the_same_address_lock_no_administrator_out(plane: ControlPlane) -> None:
    with TestClient(app_of(plane)) as client:

        def sign_in(token: str) -> int:
            page = client.get("/sign-in").text
            found = re.search(r'name="form" value="([^"]+)"', page)
            assert found is not None
            form = {"form": found[1], "token": token, "next": "/"}
            return client.post("/sign-in", data=form, follow_redirects=False).status_code

        statuses = [sign_in("a guess") for _ in range(8)]
        assert statuses[0] == 403
        assert statuses[-1] == 429
        assert sign_in(plane.admin_token) == 303
