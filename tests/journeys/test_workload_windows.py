"""A window opens a real endpoint for its owner, and closes it: real model, real agents, through the gateway."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import Federation, chat, until

pytestmark = [pytest.mark.journey, pytest.mark.model]
SITE = "sakura-ishikari"
BASE = "/api/v1/reserve"


class Owner:
    """The administrator who acts for a tenant, over the API: a command starts Python each time."""

    def __init__(self, federation: Federation) -> None:
        ready = federation.ready()
        self._client = httpx.Client(
            base_url=ready["console_url"],
            headers={"Authorization": f"Bearer {ready['admin_token']}"},
            timeout=60,
            trust_env=False,
        )

    def call(self, method: str, path: str, **more: Any) -> Any:
        answer = self._client.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json()

    def window(self, gpu: str, *, tenant: str) -> str:
        """The id of a reservation whose window is open now."""
        self.call("PUT", f"{BASE}/pools/{SITE}/{gpu}", json={"gpus": 2})
        until(lambda: self.call("GET", "/api/v1/workloads/offers"), what="the site's offer")
        wish = {
            "tenant": tenant,
            "data_class": "internal" if tenant != "hospital" else "restricted",
            "gpus": 2,
            "gpu": [gpu],
            "start": time.time() // 900 * 900,
            "hours": 2,
        }
        return str(self.call("POST", f"{BASE}/reservations", json=wish)["id"])

    def run(self, reservation: str, **spec: Any) -> str:
        body = {"engine": "llama.cpp", "model": "smollm2-135m", "grace_s": 5} | spec
        return str(self.call("POST", f"{BASE}/reservations/{reservation}/workloads", json=body)["id"])

    def state(self, workload: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/v1/workloads/{workload}")
        return found


def ask(federation: Federation, tenant: str, model: str) -> httpx.Response:
    with federation.client(tenant) as client:
        return client.post("/v1/chat/completions", json=chat(model=model, temperature=0))


def leashes(federation: Federation) -> list[Path]:
    return list((federation.home).glob("sites/*/workloads/llama.cpp/wl-*/leash"))


def running(leash: Path) -> bool:
    pid = int(leash.read_text().split()[0])
    return Path(f"/proc/{pid}").exists()


def test_a_window_serves_its_owner_alone_survives_what_dies_and_closes(federation_up: Federation) -> None:
    federation = federation_up
    owner = Owner(federation)
    reservation = owner.window("w1", tenant="developer")
    workload = owner.run(reservation, name="dev-window", replicas=1, gpus_per_replica=2)
    until(lambda: owner.state(workload)["state"] == "serving", within_s=120, what="serving")
    until(lambda: ask(federation, "developer", "dev-window").status_code == 200, what="the route")
    answer = ask(federation, "developer", "dev-window")
    assert answer.headers["X-Sekisho-Site"] == SITE
    assert answer.json()["choices"][0]["message"]["content"].strip()  # what the model says differs from CPU to CPU
    for other in ("hospital", "manufacturer"):
        refused = ask(federation, other, "dev-window")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model.not_found")
    # The agents and control die: the replica does not, and is not started a second time.
    (leash,) = leashes(federation)
    held = leash.read_text()
    for name in ("agents", "control"):
        pid = federation.row(name)["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: federation.row(name)["pid"] not in (None, pid), within_s=120, what=f"{name} again")  # noqa: B023
        until(lambda: federation.row(name)["state"] == "ready", within_s=120, what=f"{name} ready")  # noqa: B023
    until(lambda: ask(federation, "developer", "dev-window").status_code == 200, within_s=120, what="the route again")
    assert [each.read_text() for each in leashes(federation)] == [held]
    # The engine dies: it is started again.
    os.kill(int(held.split()[0]), signal.SIGKILL)
    until(lambda: owner.state(workload)["replicas"][0]["restarts"] == 1, within_s=120, what="the restart")
    until(lambda: ask(federation, "developer", "dev-window").status_code == 200, within_s=120, what="the route again")
    # The reservation is given up: nothing is left of it.
    owner.call("POST", f"{BASE}/reservations/{reservation}/cancel")
    until(lambda: ask(federation, "developer", "dev-window").status_code == 404, what="the end of the route")
    until(lambda: owner.state(workload)["state"] == "ended", within_s=120, what="the end")
    until(lambda: not leashes(federation), what="the end of the processes")
    history = owner.call("GET", f"/api/v1/workloads/{workload}/versions")
    assert history[-1]["why"] == "its reservation is cancelled"


def test_the_command_line_runs_a_workload_and_says_what_became_of_it(federation_up: Federation) -> None:
    federation = federation_up
    owner = Owner(federation)
    reservation = owner.window("w2", tenant="developer")
    refused = federation.run("reserve", "run", reservation, "--model", "smollm2-135m", "--name", "smollm2-135m")
    assert refused.returncode == 2
    assert "workload.refused" in refused.stderr
    made = federation.run(
        "reserve", "run", reservation, "--model", "smollm2-135m", "--name", "dev-two", "--grace", "1"
    )
    assert made.returncode == 0, made.stderr
    workload = made.stdout.split()[0]
    assert SITE in federation.run("workload", "offers").stdout
    assert workload in federation.run("workload", "list", "--tenant", "developer").stdout
    assert federation.run("workload", "stop", workload).returncode == 0
    until(lambda: owner.state(workload)["state"] == "stopped", within_s=120, what="the stop")
    shown = federation.run("workload", "show", workload)
    assert "its owner stopped it" in shown.stdout
    assert json.loads(federation.run("workload", "show", workload, "--json").stdout)["wanted"] is False
    assert federation.run("workload", "start", workload).returncode == 0
    owner.call("POST", f"{BASE}/reservations/{reservation}/cancel")
    until(lambda: owner.state(workload)["state"] == "ended", within_s=120, what="the end")
