"""`sekisho up` from start to end: the real model answers, confidential work stays in Japan, what dies comes back."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from running import Federation, alive, chat, environment, sekisho, until

pytestmark = [pytest.mark.journey, pytest.mark.model]

JAPAN = {"azure-japan-east", "azure-japan-west", "sakura-ishikari", "softbank-osaka"}


def test_the_ready_file_tells_all_that_a_client_needs_and_nobody_else_may_read_it(federation_up: Federation) -> None:
    ready = federation_up.ready()
    assert set(ready["api_keys"]) == {"hospital", "manufacturer", "developer"}
    assert set(ready["pids"]["sites"]) == JAPAN | {"azure-us-west-2"}
    assert len(ready["pids"]["workers"]) == 2
    assert stat.S_IMODE(federation_up.ready_file.stat().st_mode) == 0o600
    assert json.loads((federation_up.home / "run" / "ready.json").read_text()) == ready
    assert httpx.get(f"{ready['gateway_url']}/readyz").status_code == 200
    assert httpx.get(f"{ready['console_url']}/readyz").status_code == 200


def test_no_secret_gets_into_a_log(federation_up: Federation) -> None:
    ready = federation_up.ready()
    secrets = [ready["admin_token"], *ready["api_keys"].values()]
    secrets.append((federation_up.home / "secrets" / "gateway_token").read_text().strip())
    with federation_up.client("hospital") as client:
        client.post("/v1/chat/completions", json=chat("The word is kasumigaseki-4711."))
    written = federation_up.output.read_text()
    written += "".join(path.read_text() for path in (federation_up.home / "logs").iterdir())
    assert not [secret for secret in [*secrets, "kasumigaseki-4711"] if secret in written]


def test_the_real_model_answers(federation_up: Federation) -> None:
    with federation_up.client("developer") as client:
        answer = client.post("/v1/chat/completions", json=chat(temperature=0))
    assert answer.status_code == 200
    assert "Tokyo" in answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["usage"]["completion_tokens"] > 0


def test_the_hospital_is_answered_in_japan_every_time(federation_up: Federation) -> None:
    served = []
    with federation_up.client("hospital") as client:
        for number in range(12):
            answer = client.post("/v1/chat/completions", json=chat(f"Number {number}.", max_tokens=1))
            assert answer.status_code == 200
            assert answer.headers["X-Sekisho-Country"] == "JP"
            served.append(answer.headers["X-Sekisho-Site"])
    assert set(served) <= JAPAN


def test_the_developer_may_be_answered_abroad(federation_up: Federation) -> None:
    """Without this the test above could not fail."""

    def asked_abroad() -> bool:
        with federation_up.client("developer") as client:
            answer = client.post("/v1/chat/completions", json=chat(max_tokens=1))
        return answer.headers["X-Sekisho-Country"] == "US"

    until(asked_abroad, what="an answer from abroad")


def test_with_only_the_site_abroad_left_the_hospital_is_refused_with_the_way_out(
    small_federation: Callable[..., Federation],
) -> None:
    abroad = small_federation(sites=("azure-us-west-2",))
    with abroad.client("developer") as client:
        assert client.post("/v1/chat/completions", json=chat(max_tokens=1)).status_code == 200
    with abroad.client("hospital") as client:
        refused = client.post("/v1/chat/completions", json=chat(max_tokens=1))
    assert refused.status_code == 403
    error = refused.json()["error"]
    assert error["code"] == "residency.no_eligible_endpoint"
    assert error["rules"]
    assert error["way_out"]
    asked = abroad.run("ask", "Hello", "--tenant", "hospital")
    assert asked.returncode == 1
    assert "residency.no_eligible_endpoint" in asked.stderr
    assert error["rules"][0] in asked.stderr


def test_ask_prints_the_answer_and_who_served_it(federation_up: Federation) -> None:
    for mode in ("--stream", "--no-stream"):
        asked = federation_up.run("ask", "What is the capital of Japan?", "--class", "confidential", mode)
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.strip()
        assert "country JP" in asked.stderr
        assert "class confidential" in asked.stderr


def test_chat_completions_embeddings_and_json_mode_are_served(federation_up: Federation) -> None:
    with federation_up.client("manufacturer") as client:
        completion = client.post(
            "/v1/completions", json={"model": "smollm2-135m", "prompt": "One, two,", "max_tokens": 4}
        )
        embedding = client.post("/v1/embeddings", json={"model": "smollm2-135m", "input": "checkpoint"})
        formatted = client.post(
            "/v1/chat/completions",
            json=chat("Give a JSON object with a name.", max_tokens=64, response_format={"type": "json_object"}),
        )
        aliased = client.post("/v1/chat/completions", json=chat(max_tokens=1) | {"model": "gpt-4o-mini"})
    assert completion.json()["choices"][0]["text"]
    assert len(embedding.json()["data"][0]["embedding"]) == 576  # SmolLM2-135M's width
    choice = formatted.json()["choices"][0]
    assert choice["finish_reason"] == "length" or isinstance(json.loads(choice["message"]["content"]), dict)
    assert choice["message"]["content"].lstrip().startswith("{")
    assert aliased.status_code == 200


def test_status_is_well_and_ends_with_zero(federation_up: Federation) -> None:
    result = federation_up.run("status")
    assert result.returncode == 0, result.stdout
    assert "All is well." in result.stdout
    for site in JAPAN:
        assert f"site-{site}" in result.stdout
    health = json.loads(federation_up.run("status", "--json").stdout)
    assert health["ok"] is True
    assert health["table_versions"] == [health["workers"][0]["table_version"]]
    assert {endpoint["country"] for endpoint in health["endpoints"]} == {"JP", "US"}


def test_a_second_supervisor_on_the_same_home_is_refused(federation_up: Federation) -> None:
    second = federation_up.run("up")
    assert second.returncode == 2
    assert "[home.in_use]" in second.stderr
    assert "sekisho down" in second.stderr
    assert federation_up.process.poll() is None


def test_a_second_supervisor_on_the_same_ports_is_refused(federation_up: Federation) -> None:
    other = federation_up.home.with_name("other")
    port = federation_up.ready()["gateway_url"].rpartition(":")[2]
    config = federation_up.config.with_name("other.toml")
    config.write_text(federation_up.config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
    second = subprocess.run(
        [*sekisho(), "up", "--home", other, "--config", config],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment(),
    )
    assert second.returncode == 2
    assert f"127.0.0.1:{port} is in use by another program [listen.in_use]" in second.stderr
    assert "ss -ltnp" in second.stderr


@pytest.mark.parametrize("name", ["worker-0", "control", "site-sakura-ishikari"])
def test_what_is_killed_comes_back_and_serves(federation_up: Federation, name: str) -> None:
    before = federation_up.row(name)
    os.kill(before["pid"], signal.SIGKILL)
    until(
        lambda: (
            federation_up.row(name)["restarts"] == before["restarts"] + 1
            and federation_up.row(name)["state"] == "ready"
        ),
        what="the restart",
    )
    now = federation_up.row(name)
    assert now["pid"] != before["pid"]
    assert not alive(before["pid"])
    assert now["pid"] in federation_up.pids()
    assert before["pid"] not in federation_up.pids()
    until(lambda: federation_up.run("status").returncode == 0, what="health")
    with federation_up.client("hospital") as client:
        assert client.post("/v1/chat/completions", json=chat(max_tokens=1)).status_code == 200


def test_the_gateway_goes_on_while_control_is_down(federation_up: Federation) -> None:
    control = federation_up.row("control")["pid"]
    os.kill(control, signal.SIGSTOP)
    try:
        with federation_up.client("hospital") as client:
            assert client.post("/v1/chat/completions", json=chat(max_tokens=1)).status_code == 200
    finally:
        os.kill(control, signal.SIGCONT)


def test_sigterm_lets_a_stream_end_and_leaves_nothing_running(small_federation: Callable[..., Federation]) -> None:
    federation = small_federation()
    pids = federation.pids()
    lines: list[str] = []
    streaming = threading.Event()

    def read() -> None:
        with (
            federation.client("hospital") as client,
            client.stream(
                "POST",
                "/v1/chat/completions",
                json=chat("Tell a long story.", max_tokens=120, stream=True, ignore_eos=True),
            ) as answer,
        ):
            for line in answer.iter_lines():
                lines.append(line)
                streaming.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert streaming.wait(30)
    chunks_before = len(lines)
    began = time.monotonic()
    assert federation.stop() == 0
    drained_s = time.monotonic() - began
    reader.join(10)
    data = [line for line in lines if line]
    assert data[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in data[-2] or '"finish_reason":"length"' in data[-3]
    assert len(lines) > chunks_before, "the stream was over before the drain began: nothing was tried"
    assert drained_s > 0.2
    assert not [pid for pid in pids if alive(pid)]
    assert not federation.ready_file.exists()


def test_a_killed_supervisor_takes_everything_with_it_and_the_next_one_starts_at_once(
    small_federation: Callable[..., Federation],
) -> None:
    federation = small_federation()
    keys, pids = federation.ready()["api_keys"], federation.pids()
    federation.process.kill()
    federation.process.wait()
    until(lambda: not [pid for pid in pids if alive(pid)], within_s=5, what="their end")
    again = Federation(federation.home.parent, federation.config.read_text())
    try:
        until(lambda: again.ready_file.exists() and again.ready()["pids"]["supervisor"] == again.process.pid)
        assert again.ready()["api_keys"] == keys
        with again.client("hospital") as client:
            assert client.post("/v1/chat/completions", json=chat(max_tokens=1)).status_code == 200
    finally:
        assert again.stop() == 0


def test_reload_takes_a_good_configuration_and_refuses_a_bad_one(small_federation: Callable[..., Federation]) -> None:
    federation = small_federation()
    good = federation.config.read_text()
    federation.config.write_text(good + "\n[[tenant]]\n")
    refused = federation.run("reload")
    assert refused.returncode == 2
    assert "[reload.refused]" in refused.stderr
    assert "federation.toml:" in refused.stderr
    federation.config.write_text(good + '\n[[alias]]\nname = "house-model"\nmodel = "smollm2-135m"\n')
    taken = federation.run("reload")
    assert taken.returncode == 0, taken.stderr

    def new_name_answers() -> bool:
        with federation.client("hospital") as client:
            body = chat(max_tokens=1) | {"model": "house-model"}
            return client.post("/v1/chat/completions", json=body).status_code == 200

    until(new_name_answers, within_s=10, what="the new alias")
