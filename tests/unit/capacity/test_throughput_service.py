"""Guaranteed throughput on a real control plane: promised on measured capacity, never more than there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.testing import TestClient

from sekisho.assembly.plane import ControlPlane
from sekisho.ledger.model import encode_record
from sekisho.ledger.store import insert_decisions
from sekisho.residency.table import ShareEntry
from support.control import MODEL, app_of, decision, new_plane

BASE = "/api/v1/reserve/throughput"


class Desk:
    """The API, and the plane behind it."""

    def __init__(self, client: TestClient[Litestar], plane: ControlPlane) -> None:
        self.client = client
        self.plane = plane

    def post(self, path: str = "", body: dict[str, Any] | None = None, **headers: str) -> Any:
        return self.client.post(BASE + path, json=body or {}, headers=headers)

    def shares(self) -> tuple[ShareEntry, ...]:
        made = self.plane.table()
        assert made is not None
        return made.table.shares


@pytest.fixture
def desk(tmp_path: Path, database_url: str | sa.URL) -> Iterator[Desk]:
    plane = new_plane(tmp_path, database=None if isinstance(database_url, str) else database_url)
    with TestClient(app_of(plane)) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        yield Desk(made, plane)


def quarter() -> int:
    """The quarter of an hour that has begun: asked for anew, because a run of all tests takes longer than one."""
    return int(time.time()) // 900 * 900


def wish(**given: Any) -> dict[str, Any]:
    """The hospital's confidential work may go to three endpoints in Japan with 8 slots each."""
    return {
        "tenant": "hospital",
        "model": MODEL,
        "data_class": "confidential",
        "start": quarter(),
        "hours": 24,
        **({} if "tokens_per_s" in given else {"concurrency": 10}),
        **given,
    }


def test_what_is_promised_stands_in_the_signed_table_at_once_and_goes_with_it(desk: Desk) -> None:
    start = quarter()
    made = desk.post("", wish(start=start))
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    (share,) = desk.shares()
    assert share.id == made.json()["id"]
    assert sum(slots for _, slots in share.places) == 10
    # spread over its endpoints, so that no owner stands and falls with one of them
    assert len(share.places) == 3
    assert share.until == start + 24 * 3600
    less = desk.post(f"/{share.id}/change", {"concurrency": 4}, **{"If-Match": '"1"'})
    assert less.json()["held"] == 4
    assert sum(slots for _, slots in desk.shares()[0].places) == 4
    stale = desk.post(f"/{share.id}/cancel", None, **{"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "reserve.changed")
    assert desk.post(f"/{share.id}/cancel").json()["state"] == "cancelled"
    assert desk.shares() == ()
    history = desk.client.get(f"{BASE}/{share.id}/versions").json()
    assert [(each["who"], each["why"]) for each in history] == [
        ("admin", "booked"),
        ("admin", "changed"),
        ("admin", "cancelled"),
    ]


def test_no_more_is_promised_than_the_allowed_endpoints_have_and_the_refusal_says_what_can_be_had(desk: Desk) -> None:
    assert desk.post("", wish(concurrency=20)).status_code == 201
    refused = desk.post("", wish(concurrency=5))
    assert (refused.status_code, refused.json()["code"]) == (409, "throughput.not_enough")
    assert "4 at a time in the same window" in refused.json()["hint"]
    answer = desk.post("/find", wish(concurrency=5)).json()
    assert (answer["fits"], answer["needed"], answer["most"]) == (False, 5, 4)
    assert {each["kind"] for each in answer["alternatives"]} == {"fewer", "later"}
    assert all(each["ja"] for each in answer["alternatives"])
    # others that may go abroad have the overseas endpoint's slots besides
    assert desk.post("", wish(tenant="developer", data_class="public", concurrency=12)).status_code == 201
    assert desk.post("", wish(tenant="developer", data_class="public", concurrency=1)).status_code == 409
    audit = desk.client.get(f"{BASE}/audit").json()
    assert (audit["faults"], audit["peak"]) == ([], 32)


def test_tokens_a_second_become_slots_by_what_was_metered(desk: Desk) -> None:
    at_ms = int(time.time() * 1000) - 60_000
    names = ("ishikari-1", "osaka-1", "japan-east-1")
    made = [
        decision(n, at_ms=at_ms + n, endpoint=names[n % 3], tokens_out=40, duration_us=2_500_000, queue_us=500_000)
        for n in range(30)
    ]
    with desk.plane.database.write() as connection:
        insert_decisions(connection, "w0", [(each, encode_record(each)) for each in made])
    unmeasured = desk.post("", wish(tenant="developer", data_class="public", tokens_per_s=100))
    assert unmeasured.json()["code"] == "throughput.unmeasured", "nothing was metered overseas"
    # 40 tokens in 2 s of a busy slot are 20 a second; 100 a second are 5 slots
    assert {each["tokens_per_s"] for each in desk.client.get(f"{BASE}/endpoints").json()} == {20.0, 0.0}
    start = quarter()
    booked = desk.post("", wish(start=start, tokens_per_s=100)).json()
    assert (booked["held"], booked["tokens_per_s"]) == (5, 100)
    (used,) = desk.client.get(f"{BASE}/in-force").json()
    assert used["missing"] == 0
    assert used["use"]["requests"] == 30 or at_ms < start * 1000


def test_bad_wishes_are_refused_with_their_reason(desk: Desk) -> None:
    for body, status, code in (
        (wish(concurrency=0), 400, "request.invalid"),
        (wish(concurrency=1, tokens_per_s=5), 422, "reserve.invalid"),
        (wish(start=quarter() - 900 * 100), 422, "reserve.invalid"),
        (wish(start=quarter() + 1), 422, "reserve.invalid"),
        (wish(hours=0.1), 422, "reserve.invalid"),
        (wish(tenant="nobody"), 404, "reserve.unknown"),
        (wish(model="no-such-model"), 403, "reserve.residency"),
        (wish(data_class="public"), 403, "reserve.residency"),
    ):
        answer = desk.post("", body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    again = [desk.post("", wish(concurrency=2), **{"Idempotency-Key": "k1"}).json()["id"] for _ in range(2)]
    assert again[0] == again[1]
    other = desk.post("", wish(concurrency=3), **{"Idempotency-Key": "k1"})
    assert other.json()["code"] == "reserve.key_reused"
