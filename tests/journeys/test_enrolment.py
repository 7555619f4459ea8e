"""A site joins: invited, declared, enrolled, approved; it serves over mutual TLS, and only while all of that holds.

The model server is SCRIPTED: it answers, and infers nothing. Everything else is real: `sekisho up`, the agent's own
process, the commands that people type.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import Federation, environment, free_ports, sekisho, until

from sekisho.assembly.identity import certificate, new_key, read_key
from support.upstream import Upstream, answers, message

pytestmark = [pytest.mark.journey, pytest.mark.alone]
MODEL = "llama-3"
VALIDITY_S = 3.0

CONFIG = f"""
[gateway]
listen = "127.0.0.1:0"
workers = 2
[control]
listen = "127.0.0.1:0"
[residency]
heartbeat_validity = "{VALIDITY_S:g}s"
[[operator]]
id = "sakura"
country = "JP"
law = "JP"
[[tenant]]
id = "hospital"
floor = "confidential"
[[tenant]]
id = "developer"
floor = "public"
"""

SITE = """
[site]
id = "ishikari-2"
operator = "sakura"
country = "JP"
prefecture = "Hokkaido"
latitude = 43.19
longitude = 141.33
[site.declaration]
law = "JP"
owner_country = "JP"
foreign_owned_percent = 10
operator_can_read = false
key_custody = "tenant"
subcontractors = [{ name = "a maintenance company", country = "JP", law = "JP", tasks = ["maintenance"] }]
"""


class Place:
    """A site's machine: a model server, and an agent in front of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.agent = directory / "agent"
        self.log = directory / "agent.log"
        self.model = Upstream(answers(message("はい。"))).start()
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*sekisho(), *map(str, arguments)],
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment(),
            cwd=self.directory,
        )

    def write_settings(self) -> None:
        (self.agent / "agent.toml").write_text(
            f"""
[[endpoint]]
id = "ishikari-2-a"
listen = "127.0.0.1:{self.port}"
url = "https://127.0.0.1:{self.port}/v1"
server = "http://127.0.0.1:{self.model.port}"
models = ["{MODEL}"]
slots = 4
"""
        )

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*sekisho(), "site", "run", "--dir", self.agent], stdout=log, stderr=log, env=environment()
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


class Client:
    def __init__(self, federation: Federation, tenant: str) -> None:
        made = federation.run("key", "create", "--tenant", tenant)
        assert made.returncode == 0, made.stderr
        self._client = httpx.Client(
            base_url=federation.ready()["gateway_url"],
            headers={"Authorization": f"Bearer {made.stdout.strip()}"},
            timeout=30,
            trust_env=False,
        )

    def ask(self) -> httpx.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
        return self._client.post("/v1/chat/completions", json=body)

    def served(self) -> bool:
        return self.ask().status_code == 200


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    made.model.stop()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, CONFIG)
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.stop()


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def within(condition: Any, seconds: float) -> float:
    """How long it took; fails when it took longer."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
    return time.monotonic() - started


def enrol(federation: Federation, place: Place) -> str:
    """From the operator's key to an enrolment that waits; the fingerprint that the agent showed."""
    public = said(place.run("operator", "key", "new", "--out", "operator.key"))
    assert os.stat(place.directory / "operator.key").st_mode & 0o077 == 0
    said(federation.run("operator", "trust", "sakura", public))
    token = said(federation.run("site", "invite", "--operator", "sakura", "--site", "ishikari-2"))
    (place.directory / "site.toml").write_text(SITE)
    said(place.run("site", "declare", "site.toml", "--key", "operator.key", "--out", "declaration.json"))
    control = federation.ready()["console_url"]
    arguments = ("site", "enrol", "--control", control, "--declaration", "declaration.json", "--dir", place.agent)
    shown = said(place.run(*arguments, text=token + "\n"))
    assert os.stat(place.agent / "agent.key").st_mode & 0o077 == 0
    again = place.run(*arguments, text=token + "\n")
    assert again.returncode == 2
    assert "enrol.token_used" in again.stderr
    return next(line for line in shown.splitlines() if line.startswith("sha256:"))


def prove(federation: Federation, place: Place) -> str:
    """Measures the site from a landmark next to it, and hands that in; what came of it."""
    mark = said(place.run("site", "landmark", "near", "--at", "43.20,141.34", "--key", "mark.pem"))
    (place.directory / "near.json").write_text(mark)
    (federation.home / "landmarks.json").write_text(f'{{"landmarks": [{mark}]}}')

    def view() -> dict[str, Any]:
        (found,) = json.loads(said(federation.run("site", "list", "--json")))
        return dict(found)

    until(lambda: view()["location"] != "", within_s=30, what="where the agent answers landmarks")
    asked = ("--address", view()["location"], "--site-key", view()["key"])
    by = ("--landmark", "near.json", "--key", "mark.pem", "--control", federation.ready()["console_url"])
    return said(place.run("site", "measure", "ishikari-2", *asked, *by))


def test_a_site_joins_serves_and_leaves(federation: Federation, place: Place) -> None:
    hospital, developer = Client(federation, "hospital"), Client(federation, "developer")
    pin = enrol(federation, place)
    place.write_settings()
    place.start()

    # nobody is served before somebody approved, and a wrong fingerprint approves nothing
    refused = federation.run("site", "approve", "ishikari-2", "--pin", "sha256:" + "0" * 64)
    assert refused.returncode == 2
    assert "state.conflict" in refused.stderr
    time.sleep(1)
    assert developer.ask().status_code == 404
    assert not place.model.received or all("chat" not in each.target for each in place.model.received)

    said(federation.run("site", "approve", "ishikari-2", "--pin", pin))
    until(developer.served, within_s=30, what="the first answer")
    # its place is its own word so far: public work goes there, confidential work does not
    assert hospital.ask().status_code == 403
    assert "location-proven" in hospital.ask().text
    assert "proven" in prove(federation, place)
    until(hospital.served, within_s=20, what="the first confidential answer")
    answer = hospital.ask()
    assert answer.headers["x-sekisho-site"] == "ishikari-2"
    assert answer.json()["choices"][0]["message"]["content"] == "はい。"
    listed = json.loads(said(federation.run("site", "list", "--json")))
    assert [(site["id"], site["state"]) for site in listed] == [("ishikari-2", "approved")]
    assert listed[0]["inventory"]["simulated"] or listed[0]["inventory"]["gpus"]

    # heart-beats keep the confidential route open for longer than one of them holds
    for _ in range(int(VALIDITY_S * 3)):
        time.sleep(0.5)
        assert hospital.served()

    # the agent lets in nobody but the installation's gateways
    for shown in (None, *_stranger(place.directory)):
        assert _knock(place.port, shown, federation.home) == b""
    reached = len(place.model.received)
    assert hospital.served()
    assert len([each for each in place.model.received[reached:] if "chat" in each.target]) == 1

    # suspended in one step, on every gateway within a second
    said(federation.run("site", "suspend", "ishikari-2"))
    within(lambda: all(hospital.ask().status_code == 403 for _ in range(8)), 1.0)
    assert "endpoint-suspended" in hospital.ask().text
    assert developer.ask().status_code in (403, 503)
    said(federation.run("site", "resume", "ishikari-2"))
    within(lambda: all(hospital.served() for _ in range(8)), 1.0)

    # another key of the agent is taken without a gap that anybody keeps
    changed = said(place.run("site", "rotate", "--dir", place.agent))
    assert pin not in changed
    until(lambda: all(hospital.served() for _ in range(8)), within_s=10, what="the new key")

    # the agent is gone: the confidential route closes by itself, and is back when the agent is
    place.stop(signal.SIGKILL)
    within(lambda: hospital.ask().status_code == 403, VALIDITY_S + 2)
    assert "evidence-fresh" in hospital.ask().text
    # what people see and what gateways do follow from the same heart-beat
    until(
        lambda: json.loads(said(federation.run("site", "list", "--json")))[0]["state"] == "stale",
        what="the word for it",
    )
    assert hospital.ask().status_code == 403
    place.start()
    until(hospital.served, within_s=20, what="the return")
    assert place.stop() == 0


def test_an_agent_with_another_key_gets_nothing(federation: Federation, place: Place) -> None:
    hospital = Client(federation, "hospital")
    enrol(federation, place)
    place.write_settings()
    place.start()
    said(federation.run("site", "approve", "ishikari-2"))
    prove(federation, place)
    until(hospital.served, within_s=20, what="the first answer")
    place.stop()
    # somebody else on the same address, with the same files but for the key
    key = read_key(new_key())
    assert key is not None
    thief = place.directory / "thief"
    shutil.copytree(place.agent, thief)
    (thief / "agent.key").write_bytes(new_key())
    stolen = read_key((thief / "agent.key").read_bytes())
    assert stolen is not None
    (thief / "agent.crt").write_bytes(certificate(stolen, name="thief"))
    place.agent = thief
    place.start()
    until(lambda: "agent.signature" in place.log.read_text(), what="the refusal")
    before = len([each for each in place.model.received if "chat" in each.target])
    deadline = time.monotonic() + VALIDITY_S + 1
    while time.monotonic() < deadline:
        assert hospital.ask().status_code in (403, 502, 503)
    assert len([each for each in place.model.received if "chat" in each.target]) == before


def _stranger(directory: Path) -> Iterator[tuple[Path, Path]]:
    """A certificate that nobody named: right form, wrong key."""
    pem = new_key()
    key = read_key(pem)
    assert key is not None
    files = (directory / "stranger.crt", directory / "stranger.key")
    files[0].write_bytes(certificate(key, name="sekisho gateway"))
    files[1].write_bytes(pem)
    yield files


def _knock(port: int, shown: tuple[Path, Path] | None, _home: Path) -> bytes:
    """What comes back for a request over TLS with this certificate, or none: nothing, when it is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(*shown)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
            return secure.recv(4096)
    except (OSError, ssl.SSLError):
        return b""
