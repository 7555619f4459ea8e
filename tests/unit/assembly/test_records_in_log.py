"""What other concepts decide stands in the transparency log beside the passages: each kind arrives, exactly once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.plane import ControlPlane
from sekisho.assembly.sequencer import sources_of
from sekisho.capacity import log as reservations
from sekisho.capacity.throughput import store as throughput
from sekisho.console.ledger_pages import KINDS
from sekisho.federation import border
from sekisho.ledger import outbox
from sekisho.ledger.sequencer import Sequencer
from sekisho.ledger.tlog.entries import CONTINUES
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogReader, LogWriter
from sekisho.residency import evidence_store
from sekisho.residency.policy import service, store
from sekisho.residency.policy.bundle import default_bundle
from support.control import app_of, new_plane

ORIGIN = "log.example/2026"
START = (int(time.time()) // 86_400 + 10) * 86_400
Client = TestClient[Litestar]


class TheLog:
    """A real log beside a control plane, and what stands in it."""

    def __init__(self, folder: Path, plane: ControlPlane) -> None:
        signer = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
        self.writer = LogWriter(folder / "beside", signer, origin=ORIGIN)
        self.index = LogIndex(folder / "beside", writable=True)
        self.sequencer = Sequencer(self.writer, self.index, sources_of(folder / "journal", plane.database))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of the entries of this kind, the oldest first; logs what waits before it looks."""
        while self.sequencer.step().added:
            pass
        reader = LogReader(self.writer.root)
        return [json.loads(reader.entry(found.index))["body"] for found in reversed(self.index.search(kind=kind))]

    def close(self) -> None:
        self.index.close()
        self.writer.close()


@pytest.fixture
def plane(tmp_path: Path, database_url: str | sa.URL) -> ControlPlane:
    return new_plane(tmp_path, database=None if isinstance(database_url, str) else database_url)


@pytest.fixture
def log(tmp_path: Path, plane: ControlPlane) -> Iterator[TheLog]:
    made = TheLog(tmp_path, plane)
    yield made
    made.close()


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with TestClient(app_of(plane)) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        yield made


def test_every_policy_version_and_who_put_it_in_force(client: Client, plane: ControlPlane, log: TheLog) -> None:
    (first,) = log.of("policy.version")
    assert first["policy"] == plane.policies.current().hash
    assert set(first["files"]) == {file.name for file in default_bundle().files}
    assert [each["actor"] for each in log.of("policy.applied")] == ["configuration"]
    texts = {file.name: file.text for file in default_bundle().files}
    texts["9-nothing.cedar"] = (
        '@id("nothing-at-all")\n@reason_en("never")\n@reason_ja("常に該当しません")\n'
        "forbid (principal, action, resource) when { false };\n"
    )
    made = client.post("/api/v1/policies/proposals", json={"files": texts, "note": "try"})
    assert (made.status_code, made.json().get("state")) == (201, "applied"), made.text
    versions, applied = log.of("policy.version"), log.of("policy.applied")
    assert len(versions) == len(applied) == 2
    assert applied[-1] == {
        "policy": plane.policies.current().hash,
        "bundle": versions[-1]["bundle"],
        "jurisdiction": "JP",
        "actor": "admin",
        "proposal": made.json()["id"],
        "proposed_by": "admin",
        "approved_by": "",
    }
    assert versions[-1]["policy"] == applied[-1]["policy"]


def test_every_step_of_a_reservation(client: Client, log: TheLog) -> None:
    pool = {"gpus": 16, "yen_per_gpu_hour": 100_000_000}
    assert client.put("/api/v1/reserve/pools/sakura-ishikari/h100", json=pool).status_code == 200
    wish = {"tenant": "hospital", "data_class": "confidential", "gpus": 16, "start": START, "hours": 30_000}
    made = client.post("/api/v1/reserve/reservations", json={**wish, "note": "a patient's name"})
    assert made.status_code == 201, made.text
    name = made.json()["id"]
    assert client.post(f"/api/v1/reserve/reservations/{name}/cancel").status_code == 200
    found = log.of("reservation")
    assert [(each["reservation"], each["version"], each["state"], each["who"]) for each in found] == [
        (name, 1, "booked", "admin"),
        (name, 2, "cancelled", "admin"),
    ]
    assert found[0]["from_ms"] == START * 1000
    assert int(found[0]["price_yen"]) == made.json()["price_yen"]
    assert "patient" not in json.dumps(found)
    assert [each.tenant for each in log.index.search(tenant="hospital")] == ["hospital", "hospital"]
    refused = client.post("/api/v1/reserve/reservations", json={**wish, "gpus": 17})
    assert refused.status_code == 409
    assert len(log.of("reservation")) == 2


def test_every_step_of_a_reservation_of_throughput(client: Client, log: TheLog) -> None:
    wish = {
        "tenant": "hospital", "data_class": "confidential", "model": "smollm2-135m", "start": START,
        "hours": 2, "concurrency": 2, "note": "a patient's name",
    }  # fmt: skip
    made = client.post("/api/v1/reserve/throughput", json=wish)
    assert made.status_code == 201, made.text
    name = made.json()["id"]
    assert client.post(f"/api/v1/reserve/throughput/{name}/cancel").status_code == 200
    found = log.of("throughput")
    assert [(each["reservation"], each["version"], each["state"], each["who"]) for each in found] == [
        (name, 1, "booked", "admin"),
        (name, 2, "cancelled", "admin"),
    ]
    assert (found[0]["slots"], found[0]["model"], found[0]["tokens_per_s"]) == (2, "smollm2-135m", "0")
    assert found[0]["from_ms"] == START * 1000
    assert "patient" not in json.dumps(found)
    assert len(log.index.search(tenant="hospital")) == 2


def test_evidence_of_a_site_under_the_digest_that_decisions_name(plane: ControlPlane, log: TheLog) -> None:
    now = plane.clock.now()
    kept = plane.evidence.record_location(
        "sakura-ishikari", verdict="proven", margin_km=40, until=now + 60, digest="ab" * 32, detail=b"{}", now=now,
        actor="admin",
    )  # fmt: skip
    (found,) = log.of("evidence")
    assert (found["evidence"], found["site"], found["level"], found["digest"]) == (
        kept.id, "sakura-ishikari", "proven", "ab" * 32,
    )  # fmt: skip
    assert found["until_ms"] == int((now + 60) * 1000)


def test_border_statements_and_a_destroyed_salt(client: Client, plane: ControlPlane, log: TheLog) -> None:
    way = border.Way(site="osaka", peer="us-west", data_class="confidential")
    counted = border.statement(
        border="japan", before={}, after={way: border.Reading()}, from_ms=1, to_ms=60_001, previous=None
    )
    signed = border.sign(counted, Ed25519PrivateKey.generate())
    with plane.database.write() as connection:
        outbox.append(connection, kind=border.KIND, body=border.body(signed), at_ms=60_001)
    (found,) = log.of("border")
    assert found == {**json.loads(border.to_json([signed]))[0], "finding": "blind"}
    assert client.post("/api/v1/tenants/hospital/erase-salt").status_code in (200, 201, 204)
    assert log.of("salt.destroyed") == [{"tenant": "hospital"}]


def test_a_change_that_was_rolled_back_is_not_logged(plane: ControlPlane, log: TheLog) -> None:
    before = len(log.of("policy.version"))
    with plane.database.engine.connect() as connection:
        outbox.append(connection, kind="border", body={"statement": {}})
        connection.rollback()
    assert log.of("border") == []
    assert len(log.of("policy.version")) == before


@pytest.mark.parametrize(
    "kind",
    [store.VERSION, service.APPLIED, evidence_store.EVIDENCE, reservations.KIND, throughput.KIND, border.KIND,
     "key.released", "salt.destroyed", CONTINUES],
)  # fmt: skip
def test_every_kind_is_in_the_reference_and_suggested_by_the_search(kind: str) -> None:
    assert kind in KINDS
    page = Path(__file__).parents[3] / "docs" / "reference" / "receipts.md"
    assert f"| `{kind}` |" in page.read_text()
