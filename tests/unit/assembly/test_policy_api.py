"""Policies through the API: proposed, approved by two, in force, replayed; and administrators with names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.plane import ControlPlane, Loaded
from sekisho.kernel.clock import FixedClock
from sekisho.ledger.model import Decision
from sekisho.residency.policy.bundle import bundle_of, default_bundle
from sekisho.residency.policy.source import KEEP_S
from sekisho.residency.policy.store import prune_sources, table_source, table_source_part
from sekisho.runtime.changes import changes
from support.control import FEDERATION, MODEL, app_of, decision, loaded, new_plane, write_segment

Client = TestClient[Litestar]
CONFIDENTIAL = "2-confidential.cedar"
FORBID_HOSPITAL = """
@id("closed-for-hospital")
@reason_en("Site {site} is closed for this tenant. Another tenant would change this.")
@reason_ja("拠点 {site} はこのテナントには閉じています。別のテナントであれば許可されます。")
forbid (principal == Tenant::"hospital", action, resource);
"""


def default_files() -> dict[str, str]:
    return {file.name: file.text for file in default_bundle().files}


NARROW = default_files() | {"9-own.cedar": FORBID_HOSPITAL}
WIDE = default_files() | {
    CONFIDENTIAL: default_files()[CONFIDENTIAL].replace(
        "resource.site_country == context.jurisdiction", '["JP", "US"].contains(resource.site_country)'
    )
}


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1_795_000_000.0)


@pytest.fixture
def plane(tmp_path: Path, database_url: str | sa.URL, clock: FixedClock) -> ControlPlane:
    return new_plane(tmp_path, clock=clock, database=None if isinstance(database_url, str) else database_url)


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with TestClient(app_of(plane)) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        yield made


def post(client: Client, path: str, body: Any = None, *, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = client.post(f"/api/v1{path}", json=body, headers=headers)
    return answer.status_code, answer.json()


def sites_of(client: Client, tenant: str, data_class: str) -> set[str]:
    found = client.get("/api/v1/why", params={"tenant": tenant, "class": data_class, "model": MODEL}).json()
    return {row["site"] for row in found["endpoints"] if row["verdict"]["type"] == "allowed"}


def admin(client: Client, name: str) -> str:
    status, made = post(client, "/admins", {"name": name})
    assert status == 201
    return str(made["token"])


def test_the_embedded_default_runs_on_the_default_policies(client: Client) -> None:
    told = client.get("/api/v1/policies").json()
    assert told["bundle"] == default_bundle().hash
    assert told["hash"] == client.get("/api/v1/status").json()["policy"]
    assert {"site-in-jurisdiction", "evidence-fresh", "any-site"} <= {rule["id"] for rule in told["rules"]}
    assert told["waiting"] == []


def test_a_narrowing_is_in_force_at_once_and_named_in_the_change_log(client: Client, plane: ControlPlane) -> None:
    assert sites_of(client, "hospital", "confidential")
    before = client.get("/api/v1/status").json()
    status, made = post(client, "/policies/proposals", {"files": NARROW, "note": "closed"})
    assert (status, made["state"], made["widens"]) == (201, "applied", False)
    assert made["difference"]["rules_added"] == ["9-own.cedar: closed-for-hospital"]
    assert [change["tenants"] for change in made["difference"]["changes"]] == [["hospital"]] * len(
        made["difference"]["changes"]
    )
    after = client.get("/api/v1/status").json()
    assert after["table_version"] > before["table_version"]
    assert after["policy"] != before["policy"]
    assert sites_of(client, "hospital", "confidential") == set()
    with plane.database.read() as connection:
        assert [change.actor for change in changes(connection, subjects=("policy/1",))] == ["admin", "admin"]


def test_what_widens_needs_a_second_person_whose_account_is_older(client: Client, clock: FixedClock) -> None:
    early = admin(client, "sato")
    clock.advance(1)
    before = sites_of(client, "hospital", "confidential")
    status, made = post(client, "/policies/proposals", {"files": WIDE})
    assert (status, made["state"], made["widens"]) == (201, "waiting", True)
    assert made["difference"]["widened"]
    number = made["id"]
    clock.advance(1)
    late = admin(client, "suzuki")
    for token, step, code in (
        ("", "apply", "policy.two_persons"),
        ("", "approve", "policy.two_persons"),
        (late, "approve", "policy.two_persons"),
    ):
        status, refused = post(client, f"/policies/proposals/{number}/{step}", token=token)
        assert (status, refused["code"]) == (409, code)
        assert refused["hint"]
    assert sites_of(client, "hospital", "confidential") == before
    status, approved = post(client, f"/policies/proposals/{number}/approve", token=early)
    assert (status, approved["state"], approved["approved_by"]) == (200, "approved", "sato")
    assert sites_of(client, "hospital", "confidential") == before
    status, applied = post(client, f"/policies/proposals/{number}/apply")
    assert (status, applied["state"]) == (200, "applied")
    assert sites_of(client, "hospital", "confidential") > before
    # what is in force is not applied twice, and history has both
    assert post(client, f"/policies/proposals/{number}/apply")[1]["code"] == "policy.proposal"
    history = client.get("/api/v1/policies/history").json()
    assert [version["in_force"] for version in history] == [True, False]


def test_an_approval_holds_for_the_policy_that_it_was_given_over(client: Client, clock: FixedClock) -> None:
    early = admin(client, "sato")
    clock.advance(1)
    _, made = post(client, "/policies/proposals", {"files": WIDE})
    assert post(client, f"/policies/proposals/{made['id']}/approve", token=early)[0] == 200
    assert post(client, "/policies/proposals", {"files": NARROW})[1]["state"] == "applied"
    status, refused = post(client, f"/policies/proposals/{made['id']}/apply")
    assert (status, refused["code"]) == (409, "policy.base_changed")
    assert post(client, f"/policies/proposals/{made['id']}/withdraw")[1]["state"] == "withdrawn"


def test_examining_keeps_nothing_and_mistakes_have_their_places(client: Client) -> None:
    status, told = post(client, "/policies/examine", {"files": NARROW})
    assert status == 200
    assert told["changes"]
    status, refused = post(
        client, "/policies/examine", {"files": {"a.cedar": "permit (principal, action resource);"}}
    )
    assert (status, refused["code"]) == (422, "policy.refused")
    assert refused["detail"].startswith("a.cedar:1:27: unexpected token `resource`")
    assert post(client, "/policies/examine", {"files": {"../a.cedar": ""}})[1]["code"] == "policy.refused"
    assert client.get("/api/v1/policies/proposals").json() == []


def test_the_files_of_a_version_come_back_as_they_were(client: Client) -> None:
    name = client.get("/api/v1/policies").json()["hash"]
    for asked in (name, name[:8], default_bundle().hash[:12]):
        told = client.get("/api/v1/policies/files", params={"version": asked}).json()
        assert {file["name"]: file["text"] for file in told["files"]} == default_files()
    assert client.get("/api/v1/policies/files", params={"version": "f" * 64}).json()["code"] == "policy.unknown"


# -- replays


def record(client: Client, plane: ControlPlane, **given: Any) -> Decision:
    """A decision as a gateway would write it under the table in force."""
    state = plane.table()
    assert state is not None
    usual = {
        "tenant": "hospital", "data_class": "confidential", "model": MODEL, "table": state.table.version,
        "policy": state.table.policy, "at_ms": int(plane.clock.now() * 1000) + 1, "code": "",
    }  # fmt: skip
    made = decision(1, **(usual | given))
    write_segment(plane.home.root, 0, 1, [made])
    return made


def test_an_old_decision_is_decided_again_after_the_policy_has_changed(
    client: Client, plane: ControlPlane, clock: FixedClock
) -> None:
    state = plane.table()
    assert state is not None
    told = client.get("/api/v1/why", params={"tenant": "hospital", "class": "confidential", "model": MODEL}).json()
    serving = next(row for row in told["endpoints"] if row["verdict"]["type"] == "allowed")
    made = record(
        client, plane, endpoint=serving["endpoint"], site=serving["site"], rules=tuple(told["verdict"]["rules"])
    )
    assert post(client, "/policies/proposals", {"files": NARROW})[1]["state"] == "applied"
    plane._projection.step(now=clock.now())
    again = client.get(f"/api/v1/policies/replay/{made.id}").json()
    assert (again["outcome"], again["differences"]) == ("same", [])
    assert again["policy"] == state.table.policy != client.get("/api/v1/status").json()["policy"]


def test_a_record_that_says_something_else_than_the_rules_is_found_out(
    client: Client, plane: ControlPlane, clock: FixedClock
) -> None:
    abroad = next(endpoint.id for endpoint in FEDERATION.endpoints if endpoint.site == "azure-us-west-2")
    made = record(client, plane, endpoint=abroad, rules=("any-site",))
    plane._projection.step(now=clock.now())
    again = client.get(f"/api/v1/policies/replay/{made.id}").json()
    assert again["outcome"] == "different"
    assert any(abroad in line for line in again["differences"])


def test_sources_are_kept_as_long_as_it_is_said_and_their_parts_with_them(
    client: Client, plane: ControlPlane, clock: FixedClock
) -> None:
    for number in range(3):
        clock.advance(10)
        assert post(client, f"/endpoints/{FEDERATION.endpoints[0].id}/{('suspend', 'resume')[number % 2]}")[0] == 200
    with plane.database.write() as connection:
        count = connection.scalar(sa.select(sa.func.count()).select_from(table_source))
        assert count == 4
        # the federation is there once, and the two states of the endpoint
        assert connection.scalar(sa.select(sa.func.count()).select_from(table_source_part)) == 3
        assert prune_sources(connection, before=clock.now() - KEEP_S) == 0
        assert prune_sources(connection, before=clock.now()) == 3
        assert connection.scalar(sa.select(sa.func.count()).select_from(table_source_part)) == 2


# -- the configuration's files


def test_files_of_the_configuration_propose_and_what_widens_waits(tmp_path: Path, clock: FixedClock) -> None:
    plane = new_plane(tmp_path, clock=clock)
    now: Loaded = loaded(FEDERATION)
    first = plane.policies.current().hash
    plane._loaded = msgspec.structs.replace(now, policies=bundle_of(WIDE))
    plane._adopt_policies()
    assert plane.policies.current().hash == first
    (waiting,) = plane.policies.waiting()
    assert (waiting.actor, waiting.widens) == ("configuration", True)
    plane._adopt_policies()  # the same files propose once
    assert len(plane.policies.waiting()) == 1
    plane._loaded = msgspec.structs.replace(now, policies=bundle_of(NARROW))
    plane._adopt_policies()
    assert plane.policies.current().bundle == bundle_of(NARROW)
    plane._loaded = msgspec.structs.replace(now, policies=bundle_of({"a.cedar": "permit"}))
    plane._adopt_policies()
    assert [fault.code for fault in plane.faults()] == ["policy.refused"]
    assert plane.policies.current().bundle == bundle_of(NARROW)


# -- administrators


def test_an_administrator_has_a_name_a_token_and_an_end(client: Client, plane: ControlPlane) -> None:
    token = admin(client, "sato")
    assert client.get("/api/v1/status", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    endpoint = FEDERATION.endpoints[0].id
    assert post(client, f"/endpoints/{endpoint}/suspend", token=token)[0] == 200
    with plane.database.read() as connection:
        assert changes(connection, subjects=(f"endpoint/{endpoint}",))[0].actor == "sato"
    for name in ("sato", "admin", "Sato", "a/b"):
        assert post(client, "/admins", {"name": name})[1]["code"] == "admin.refused"
    assert token not in client.get("/api/v1/admins").text
    assert client.delete("/api/v1/admins/sato").status_code == 204
    assert client.get("/api/v1/status", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert client.delete("/api/v1/admins/sato").json()["code"] == "admin.unknown"
    # the name is not given again: the change log would mean two people
    assert post(client, "/admins", {"name": "sato"})[1]["code"] == "admin.refused"


@pytest.mark.parametrize("data_class", ["public", "internal", "confidential", "restricted"])
def test_every_class_is_replayed_as_itself(
    client: Client, plane: ControlPlane, clock: FixedClock, data_class: str
) -> None:
    told = client.get("/api/v1/why", params={"tenant": "developer", "class": data_class, "model": MODEL}).json()
    serving = [row["endpoint"] for row in told["endpoints"] if row["verdict"]["type"] == "allowed"]
    made = record(
        client,
        plane,
        tenant="developer",
        data_class=data_class,
        endpoint=serving[-1],
        rules=tuple(told["verdict"]["rules"]),
    )
    plane._projection.step(now=clock.now())
    again = client.get(f"/api/v1/policies/replay/{made.id}").json()
    assert (again["outcome"], again["explanation"]["data_class"]) == ("same", data_class)
