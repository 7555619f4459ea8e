"""The control plane as a process: started alone, told to read again, stopped, killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

FEDERATION = """
[[operator]]
id = "sakura"
country = "JP"
law = "JP"
[[site]]
id = "ishikari"
operator = "sakura"
country = "JP"
prefecture = "Hokkaido"
[[endpoint]]
id = "ishikari-1"
site = "ishikari"
url = "http://127.0.0.1:9/v1"
models = ["smollm2-135m"]
[[tenant]]
id = "hospital"
keys = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]
"""


class Control:
    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.config = directory / "federation.toml"
        self.config.write_text(FEDERATION)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.log = directory / "control.log"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        fd = self.listening.fileno()
        command = [sys.executable, "-m", "sekisho.assembly.control"]
        command += ["--home", str(self.home), "--config", str(self.config), "--fd", str(fd)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, pass_fds=(fd,), stderr=log)
        return self.process

    def secret(self, name: str) -> str:
        return (self.home / "secrets" / name).read_text().strip()

    def get(self, path: str, *, by: str = "admin_token") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.secret(by)}"}
        return httpx.get(self.url + path, headers=headers, timeout=30, trust_env=False)

    def version(self) -> int:
        answer = self.get("/internal/v1/table", by="gateway_token")
        return int(answer.headers["x-sekisho-table-version"])

    def wait_ready(self) -> None:
        assert httpx.get(self.url + "/readyz", timeout=120, trust_env=False).json()["status"] == "ready"

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listening.close()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path)
    try:
        made.wait_ready()
        yield made
    finally:
        made.stop()


def until(condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_started_alone_it_makes_its_secrets_for_the_owner_only(control: Control) -> None:
    for name in ("admin_token", "gateway_token", "control.key"):
        assert (control.home / "secrets" / name).stat().st_mode & 0o777 == 0o600
    assert control.get("/api/v1/status").json()["tenants"] == ["hospital"]
    settings = {row["name"]: row for row in control.get("/api/v1/config").json()}
    assert settings["site.ishikari.country"]["value"] == "JP"
    assert settings["site.ishikari.country"]["source"].endswith(":9")
    assert settings["residency.evidence_validity"]["source"] == "default"
    assert "1111111111111111" not in control.get("/api/v1/config").text


def test_sighup_takes_a_good_configuration_and_leaves_a_broken_one(control: Control) -> None:
    before = control.version()
    control.config.write_text(FEDERATION.replace('id = "hospital"', 'id = "clinic"'))
    control.process.send_signal(signal.SIGHUP)
    until(lambda: control.version() > before)
    assert control.get("/api/v1/status").json()["tenants"] == ["clinic"]

    before = control.version()
    control.config.write_text(FEDERATION.replace('country = "JP"\nprefecture', 'country = "Nippon"\nprefecture'))
    control.process.send_signal(signal.SIGHUP)
    until(lambda: bool(control.get("/api/v1/status").json()["faults"]))
    status = control.get("/api/v1/status").json()
    assert (status["tenants"], status["table_version"]) == (["clinic"], before)
    (fault,) = status["faults"]
    assert fault["code"] == "config.refused"
    assert "federation.toml:9" in fault["fact"]

    control.config.write_text(FEDERATION)
    control.process.send_signal(signal.SIGHUP)
    until(lambda: control.get("/api/v1/status").json()["faults"] == [])


def test_what_widens_by_the_file_alone_waits_for_an_administrator(control: Control) -> None:
    abroad = '[[site]]\nid = "abroad"\noperator = "sakura"\ncountry = "US"\n'
    abroad += (
        '[[endpoint]]\nid = "abroad-1"\nsite = "abroad"\nurl = "http://127.0.0.1:8/v1"\nmodels = ["smollm2-135m"]\n'
    )
    before = control.version()
    control.config.write_text(FEDERATION + abroad)
    control.process.send_signal(signal.SIGHUP)
    until(lambda: control.version() > before)
    assert control.get("/api/v1/configuration/waiting").json() == {"waiting": None}

    control.config.write_text(FEDERATION + abroad.replace("US", "JP"))
    control.process.send_signal(signal.SIGHUP)
    until(lambda: bool(control.get("/api/v1/status").json()["faults"]))
    (fault,) = control.get("/api/v1/status").json()["faults"]
    assert fault["code"] == "config.waits"
    assert "site abroad" in fault["fact"]
    assert "US" in {site["country"] for site in control.get("/api/v1/sites").json()}

    control.process.kill()  # a restart puts nothing in force
    control.process.wait()
    control.start()
    control.wait_ready()
    waiting = control.get("/api/v1/configuration/waiting").json()["waiting"]
    assert "US" in {site["country"] for site in control.get("/api/v1/sites").json()}
    answer = httpx.post(
        f"{control.url}/api/v1/configuration/approve",
        json={"wanted": waiting["wanted"]},
        headers={"Authorization": f"Bearer {control.secret('admin_token')}"},
        timeout=30,
        trust_env=False,
    )
    assert answer.json() == {"waiting": None}
    assert {site["country"] for site in control.get("/api/v1/sites").json()} == {"JP"}
    assert control.get("/api/v1/status").json()["faults"] == []


def test_sigterm_answers_the_polls_and_ends_in_a_moment(control: Control) -> None:
    version = control.version()
    address = ("127.0.0.1", int(control.url.rpartition(":")[2]))
    with socket.create_connection(address) as poll:
        token = control.secret("gateway_token")
        poll.sendall(
            f"GET /internal/v1/table?after={version} HTTP/1.1\r\n"
            f"Host: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        until(lambda: control.get("/api/v1/status").json()["gateways_waiting"] == 1)
        started = time.monotonic()
        control.process.send_signal(signal.SIGTERM)
        poll.settimeout(10)
        assert poll.recv(64).startswith(b"HTTP/1.1 204")
        assert control.process.wait(timeout=10) == 0
    assert time.monotonic() - started < 3.0


def test_killed_and_started_again_it_goes_on_with_higher_versions(control: Control) -> None:
    seen = [control.version()]
    for _ in range(2):
        made = httpx.post(
            control.url + "/api/v1/keys",
            json={"tenant": "hospital"},
            headers={"Authorization": f"Bearer {control.secret('admin_token')}"},
            timeout=30,
            trust_env=False,
        )
        assert made.status_code == 201
        control.process.kill()
        control.process.wait()
        control.start()
        control.wait_ready()
        assert made.json()["id"] in {key["id"] for key in control.get("/api/v1/keys").json()}
        seen.append(control.version())
    assert seen == sorted(set(seen))


def test_a_second_one_on_the_same_home_is_refused(control: Control) -> None:
    command = [sys.executable, "-m", "sekisho.assembly.control", "--home", str(control.home)]
    second = subprocess.run(
        [*command, "--config", str(control.config)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert b"home.in_use" in second.stderr


def test_a_broken_configuration_at_start_is_refused_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "federation.toml"
    config.write_text('[[operator]]\nid = "x"\ncountry = "Nippon"\nlaw = "JP"\n')
    command = [sys.executable, "-m", "sekisho.assembly.control", "--home", str(tmp_path / "home")]
    refused = subprocess.run([*command, "--config", str(config)], capture_output=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert b"federation.toml:3" in refused.stderr
