"""The commands that change what runs: keys and endpoints, effective on every gateway within a second; and `why`."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from running import Federation, chat

pytestmark = [pytest.mark.journey, pytest.mark.model]

WITHIN_S = 1.0


def status_with(federation: Federation, key: str) -> int:
    """On a connection of its own, so that each worker is met."""
    answer = httpx.get(
        f"{federation.ready()['gateway_url']}/v1/models", headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )
    return answer.status_code


def test_a_key_is_made_works_is_listed_and_is_revoked_everywhere_within_a_second(federation_up: Federation) -> None:
    made = federation_up.run("key", "create", "--tenant", "developer", "--label", "test", "--expires", "1h")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    key_id = made.stderr.split()[1]
    settled(federation_up, key, 200)

    listed = json.loads(federation_up.run("key", "list", "--json").stdout)
    (view,) = [view for view in listed if view["id"] == key_id]
    assert (view["tenant"], view["label"]) == ("developer", "test")
    assert view["expires_at"] > time.time()
    table = federation_up.run("key", "list").stdout
    assert key_id in table
    assert key not in table + json.dumps(listed)

    assert federation_up.run("key", "revoke", key_id).returncode == 0
    settled(federation_up, key, 401)
    again = federation_up.run("key", "revoke", key_id)
    assert again.returncode == 2
    assert "revoked before" in again.stderr


def settled(federation: Federation, key: str, wanted: int) -> None:
    """Within a second every worker answers so, and goes on doing so (64 connections meet both of two workers)."""
    deadline = time.monotonic() + WITHIN_S
    while status_with(federation, key) != wanted:
        assert time.monotonic() < deadline
    time.sleep(max(deadline - time.monotonic(), 0.0))
    assert {status_with(federation, key) for _ in range(64)} == {wanted}


def test_a_key_that_can_not_be_made_or_revoked_says_why(federation_up: Federation) -> None:
    nobody = federation_up.run("key", "create", "--tenant", "nobody")
    assert nobody.returncode == 2
    assert "[name.unknown]" in nobody.stderr
    assert federation_up.run("key", "create", "--tenant", "developer", "--expires", "soon").returncode == 2
    assert federation_up.run("key", "revoke", "000000000000").returncode == 2


def test_a_suspended_endpoint_gets_nothing_until_it_is_resumed(federation_up: Federation) -> None:
    in_japan = ["japan-east", "japan-west", "softbank-osaka-1"]
    try:
        for endpoint in in_japan:
            assert federation_up.run("endpoint", "suspend", endpoint).returncode == 0
        with federation_up.client("hospital") as client:
            answers = [client.post("/v1/chat/completions", json=chat(f"{n}", max_tokens=1)) for n in range(6)]
        assert {answer.headers["X-Sekisho-Site"] for answer in answers} == {"sakura-ishikari"}
        assert federation_up.run("endpoint", "suspend", "ishikari-1").returncode == 0
        refused = federation_up.run("ask", "Hello", "--tenant", "hospital")
        assert refused.returncode == 1
        assert "residency.no_eligible_endpoint" in refused.stderr
    finally:
        for endpoint in [*in_japan, "ishikari-1"]:
            federation_up.run("endpoint", "resume", endpoint)
    asked = federation_up.run("ask", "Hello", "--tenant", "hospital", "--max-tokens", "2")
    assert asked.returncode == 0, asked.stderr


def test_an_endpoint_that_is_not_there_is_refused(federation_up: Federation) -> None:
    result = federation_up.run("endpoint", "suspend", "nowhere")
    assert result.returncode == 2
    assert "[name.unknown]" in result.stderr


def test_why_names_who_may_and_why_the_others_may_not(federation_up: Federation) -> None:
    asked = ("why", "--tenant", "hospital", "--class", "public", "--model", "gpt-4o-mini")
    result = federation_up.run(*asked)
    assert result.returncode == 0, result.stderr
    assert "floor raises it to confidential" in result.stdout
    assert "gpt-4o-mini is an alias of smollm2-135m" in result.stdout
    assert "azure-us-west-2" in result.stdout
    found = json.loads(federation_up.run(*asked, "--json").stdout)
    by_site = {endpoint["site"]: endpoint["verdict"] for endpoint in found["endpoints"]}
    assert by_site["sakura-ishikari"]["type"] == "allowed"
    assert by_site["azure-us-west-2"]["type"] == "denied"
    for reason in by_site["azure-us-west-2"]["reasons"]:
        assert reason["rule"] in result.stdout
    japanese = federation_up.run(*asked, SEKISHO_LANG="ja")
    assert by_site["azure-us-west-2"]["reasons"][0]["ja"][:6] in japanese.stdout


def test_why_agrees_with_the_gateway(federation_up: Federation) -> None:
    """Restricted work: only operators under Japanese law."""
    found = json.loads(
        federation_up.run(
            "why", "--tenant", "hospital", "--class", "restricted", "--model", "smollm2-135m", "--json"
        ).stdout
    )
    may = {endpoint["site"] for endpoint in found["endpoints"] if endpoint["verdict"]["type"] == "allowed"}
    assert may == {"sakura-ishikari", "softbank-osaka"}
    with federation_up.client("hospital") as client:
        for number in range(6):
            answer = client.post(
                "/v1/chat/completions",
                json=chat(f"{number}", max_tokens=1),
                headers={"X-Sekisho-Class": "restricted"},
            )
            assert answer.headers["X-Sekisho-Site"] in may


def test_why_nobody_may_ends_with_one(federation_up: Federation) -> None:
    result = federation_up.run("why", "--tenant", "hospital", "--class", "public", "--model", "nope")
    assert result.returncode == 1
    assert "[model.not_found]" in result.stdout


def test_control_that_is_asked_with_a_wrong_token_says_so(federation_up: Federation) -> None:
    answer = httpx.get(
        f"{federation_up.ready()['console_url']}/api/v1/keys",
        headers={"Authorization": "Bearer wrong"},
        trust_env=False,
    )
    assert answer.status_code == 401
