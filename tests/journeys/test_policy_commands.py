"""A policy changes on a running federation: in force on every gateway within a second, widened by two people only."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
from running import Federation, chat

from sekisho.residency.policy.bundle import default_bundle

pytestmark = [pytest.mark.journey, pytest.mark.model]

CLOSED = """
@id("closed-for-a-moment")
@reason_en("Site {site} is closed for {class} work for a moment. Waiting would change this.")
@reason_ja("拠点 {site} での {class} の処理は一時的に停止しています。しばらくすれば許可されます。")
forbid (principal, action in Action::"serve-guarded", resource);
"""


def ask(federation: Federation) -> httpx.Response:
    with federation.client("hospital") as client:
        return client.post("/v1/chat/completions", json=chat(max_tokens=1))


def test_a_narrowing_closes_the_route_within_a_second_and_two_people_open_it_again(
    federation_up: Federation, tmp_path: Path
) -> None:
    token = federation_up.run("admin", "add", "sato").stdout.strip()
    (tmp_path / "narrow").mkdir()
    (tmp_path / "narrow" / "9-closed.cedar").write_text(CLOSED, encoding="utf-8")
    (tmp_path / "wide").mkdir()
    assert ask(federation_up).status_code == 200
    try:
        proposed = federation_up.run("policy", "propose", str(tmp_path / "narrow"), "--note", "a drill")
        assert proposed.returncode == 0, proposed.stderr
        deadline = time.monotonic() + 1.0
        while (refused := ask(federation_up)).status_code == 200:
            assert time.monotonic() < deadline
        assert refused.status_code == 403, refused.text
        assert "closed-for-a-moment" in refused.text
        record = refused.headers["x-sekisho-decision"]
    finally:
        back = federation_up.run("policy", "propose", str(tmp_path / "wide"), "--json")
    assert back.returncode == 1  # it waits
    number = str(json.loads(back.stdout)["id"])
    alone = federation_up.run("policy", "approve", number)
    assert alone.returncode == 2
    assert "[policy.two_persons]" in alone.stderr
    approved = federation_up.run("policy", "approve", number, SEKISHO_ADMIN_TOKEN=token)
    assert approved.returncode == 0, approved.stderr
    assert federation_up.run("policy", "apply", number).returncode == 0
    deadline = time.monotonic() + 1.0
    while ask(federation_up).status_code != 200:
        assert time.monotonic() < deadline
    assert default_bundle().files[0].name in federation_up.run("policy", "show").stdout
    # the refusal of before is decided again by the rules of its time
    deadline = time.monotonic() + 10.0
    while (again := federation_up.run("policy", "replay", record)).returncode == 2:
        assert time.monotonic() < deadline, again.stderr
    assert again.returncode == 0, again.stdout
    assert "closed-for-a-moment" in again.stdout
    assert len(json.loads(federation_up.run("policy", "history", "--json").stdout)) == 2
    assert federation_up.run("admin", "revoke", "sato").returncode == 0
