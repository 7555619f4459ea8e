"""The API of reservations on a real control plane: residency is the one of the policy in force."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.testing import TestClient

from support.control import app_of, new_plane

START = (int(time.time()) // 86_400 + 10) * 86_400
BASE = "/api/v1/reserve"
Client = TestClient[Litestar]


@pytest.fixture
def client(tmp_path: Path, database_url: str | sa.URL) -> Iterator[Client]:
    plane = new_plane(tmp_path, database=None if isinstance(database_url, str) else database_url)
    with TestClient(app_of(plane)) as made:
        made.headers["Authorization"] = f"Bearer {plane.admin_token}"
        for site, gpus in (("sakura-ishikari", 16), ("softbank-osaka", 8), ("azure-us-west-2", 64)):
            answer = made.put(f"{BASE}/pools/{site}/h100", json={"gpus": gpus, "yen_per_gpu_hour": 400})
            assert answer.status_code == 200, answer.text
        yield made


def wish(**given: Any) -> dict[str, Any]:
    return {
        "tenant": "hospital",
        "data_class": "confidential",
        "gpus": 8,
        "gpu": ["h100"],
        "start": START,
        "hours": 24,
        **given,
    }


def test_a_reservation_from_offer_to_cancellation(client: Client) -> None:
    offers = client.post(f"{BASE}/find", json=wish(gpus=20)).json()
    assert len(offers) >= 6
    places = {part["pool"] for offer in offers for part in offer["parts"]}
    # the policy in force keeps confidential work of the hospital in Japan, though 64 GPUs are free overseas
    assert "azure-us-west-2.h100" not in places
    assert places
    made = client.post(f"{BASE}/offers", json={"tenant": "hospital", "offer": offers[0]["id"]})
    assert made.status_code == 201
    name = made.json()["id"]
    assert made.headers["etag"] == '"1"'
    longer = client.post(
        f"{BASE}/reservations/{name}/extend", json={"end": made.json()["end"] + 3600}, headers={"If-Match": '"1"'}
    )
    assert (longer.status_code, longer.headers["etag"]) == (200, '"2"')
    stale = client.post(
        f"{BASE}/reservations/{name}/shrink", json={"gpus": 1}, headers={"If-Match": made.headers["etag"]}
    )
    assert (stale.status_code, stale.json()["code"]) == (412, "reserve.changed")
    gone = client.post(f"{BASE}/reservations/{name}/cancel")
    assert gone.json()["state"] == "cancelled"
    history = client.get(f"{BASE}/reservations/{name}/versions").json()
    assert [(each["who"], each["why"]) for each in history] == [
        ("admin", "booked"),
        ("admin", "extended"),
        ("admin", "cancelled"),
    ]
    assert client.get(f"{BASE}/audit").json()["faults"] == []


def test_keys_exports_and_the_waitlist(client: Client) -> None:
    first = client.post(f"{BASE}/reservations", json=wish(note="=1+1"), headers={"Idempotency-Key": "k"})
    again = client.post(f"{BASE}/reservations", json=wish(note="=1+1"), headers={"Idempotency-Key": "k"})
    assert first.json()["id"] == again.json()["id"]
    other = client.post(f"{BASE}/reservations", json=wish(gpus=2), headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (409, "reserve.key_reused")
    rows = list(csv.DictReader(io.StringIO(client.get(f"{BASE}/reservations.csv").text)))
    assert [(row["id"], row["pool"], row["gpus"], row["note"]) for row in rows] == [
        (first.json()["id"], "sakura-ishikari.h100", "8", "'=1+1")
    ]
    calendar = client.get(f"{BASE}/reservations.ics").content
    assert calendar.count(b"BEGIN:VEVENT\r\n") == 1
    assert all(len(line) <= 75 for line in calendar.split(b"\r\n"))
    joined = client.post(f"{BASE}/waitlist", json=wish(gpus=16, sites=["sakura-ishikari"]))
    assert joined.json()["place"] == 1
    assert client.delete(f"{BASE}/waitlist/{joined.json()['id']}").status_code == 204
    assert client.get(f"{BASE}/waitlist").json() == []


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"tenant": "forged"}, 404, "reserve.unknown"),
        ({"gpu": ["h900"]}, 404, "reserve.unknown"),
        ({"gpus": -1}, 400, "request.invalid"),
        ({"gpus": 10**30}, 400, "request.invalid"),
        ({"hours": 0.1}, 422, "reserve.invalid"),
        ({"hours": 39_999}, 422, "reserve.invalid"),
        ({"start": START + 7}, 422, "reserve.invalid"),
        ({"start": 900}, 422, "reserve.invalid"),
        ({"start": 253_402_300_000 // 900 * 900}, 422, "reserve.invalid"),
        ({"gpus_min": 9}, 422, "reserve.invalid"),
        ({"gpus": 17}, 409, "reserve.not_free"),
        ({"surprise": 1}, 400, "request.invalid"),
    ],
)
def test_bad_input_is_refused_with_a_code_and_the_next_step(
    client: Client, given: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post(f"{BASE}/reservations", json=wish(**given))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    if code.startswith("reserve."):
        assert answer.json()["hint"]


def test_nobody_without_the_token_sees_or_books_anything(client: Client) -> None:
    del client.headers["Authorization"]
    assert client.get(f"{BASE}/reservations").status_code == 401
    assert client.post(f"{BASE}/reservations", json=wish()).status_code == 401


def test_a_dry_run_says_what_comes_back_and_changes_nothing(client: Client) -> None:
    made = client.post(f"{BASE}/reservations", json=wish()).json()
    one = f"{BASE}/reservations/{made['id']}"
    for verb, body in (("cancel", None), ("shrink", {"gpus": 1}), ("extend", {"end": made["end"] + 86_400})):
        said = client.post(f"{one}/{verb}", params={"dry_run": "true"}, json=body)
        assert said.status_code == 200, said.text
        assert said.json() != made
        assert client.get(one).json() == made
    assert client.get(f"{BASE}/audit").json()["faults"] == []


def test_where_says_of_each_pool_whether_it_fits_and_why_not(client: Client) -> None:
    found = {each["pool"]: each for each in client.post(f"{BASE}/where", json=wish(gpus=12)).json()}
    assert found["sakura-ishikari.h100"]["fits_at"] == START
    assert found["softbank-osaka.h100"]["fits_at"] is None  # it has 8 GPUs
    overseas = found["azure-us-west-2.h100"]
    assert (overseas["allowed"], overseas["free"]) == (False, 64)
    assert {"site-in-jurisdiction"} <= {each["rule"] for each in overseas["reasons"]}
