"""The supervisor with real, small processes: it starts, watches, restarts, drains and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent
SOON_S = 15.0


class Running:
    """A supervisor over stand-ins, in a process of its own."""

    def __init__(self, root: Path, *, behaviour: str = "serves", grace_s: float = 5.0) -> None:
        self.root = root
        self.ready_file = root.with_suffix(".ready.json")
        command = [
            sys.executable,
            "-m",
            "stand_ins",
            "fleet",
            str(root),
            behaviour,
            str(grace_s),
            str(self.ready_file),
        ]
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": str(HERE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ready(self) -> dict[str, Any]:
        until(self.ready_file.exists)
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def table(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.root / "run" / "supervisor.sock"))
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        found: dict[str, Any] = json.loads(answer)
        return found

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.table()["processes"] if row["name"] == name)

    def pids(self) -> set[int]:
        return {row["pid"] for row in self.table()["processes"] if row["pid"]}


def until(condition: Callable[[], object], *, within_s: float = SOON_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie is not alive, but it is something that was left: it counts."""
    return Path(f"/proc/{pid}").exists()


def stop(pid: int) -> None:
    """Stopped for certain: the signal is sent at once, but a process on another core obeys a moment later."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def go(**options: Any) -> Running:
        running = Running(tmp_path / "home", **options)
        started.append(running)
        return running

    yield go
    for running in started:
        if running.process.poll() is None:
            running.process.kill()  # its children die with it: that is what a test below proves
        running.process.communicate()


def test_ready_means_that_everything_answers(start: Callable[..., Running]) -> None:
    running = start()
    ready = running.ready()
    assert httpx.get(ready["gateway_url"] + "/readyz").status_code == 200
    assert httpx.get(ready["console_url"] + "/readyz").status_code == 200
    assert ready["api_keys"] == {"hospital": "sk-not-a-secret"}
    pids = ready["pids"]
    assert pids["supervisor"] == running.process.pid
    assert {pids["control"], *pids["workers"], *pids["sites"].values()} == running.pids()
    assert len(pids["workers"]) == 2
    for file in (running.ready_file, running.root / "run" / "ready.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_sigterm_ends_everything_in_order_and_leaves_nothing(start: Callable[..., Running]) -> None:
    running = start()
    running.ready()
    pids = running.pids()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(SOON_S) == 0
    assert not [pid for pid in pids if alive(pid)]
    assert not running.ready_file.exists()
    assert not (running.root / "run" / "supervisor.sock").exists()
    log = (running.root / "logs" / "supervisor.log").read_text()
    last_worker = max(log.index(f"process=worker-{index} state=stopped") for index in (0, 1))
    assert last_worker < log.index("process=control state=stopping")
    assert last_worker < log.index("process=site-here state=stopping")


def test_a_stream_in_flight_is_not_cut_by_a_drain(start: Callable[..., Running]) -> None:
    running = start()
    url = running.ready()["gateway_url"]
    got: list[bytes] = []

    def read() -> None:
        got.append(httpx.get(f"{url}/stream/1.5").content)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    reader.join(SOON_S)
    assert got
    assert got[0].endswith(b"end\n")
    assert running.process.wait(SOON_S) == 0


def test_a_draining_gateway_turns_new_clients_away_at_once(start: Callable[..., Running]) -> None:
    running = start()
    url = running.ready()["gateway_url"]
    reader = threading.Thread(target=httpx.get, args=(f"{url}/stream/2",))
    reader.start()
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    host, port = url.removeprefix("http://").split(":")

    def refused() -> bool:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it came in the moment in which the listener closed
        return False

    until(refused, within_s=1.5)
    assert reader.is_alive(), "the refusal must come while the old stream still runs"
    reader.join()


def test_a_worker_that_is_stuck_is_killed_after_its_grace_and_the_exit_code_says_so(
    start: Callable[..., Running],
) -> None:
    running = start(behaviour="ignores-sigterm", grace_s=0.3)
    running.ready()
    pids = running.pids()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(SOON_S) == 1
    assert not [pid for pid in pids if alive(pid)]
    assert "stopped cut=worker-0" in (running.root / "logs" / "supervisor.log").read_text()


def test_a_second_signal_ends_quickly_but_an_echo_of_the_first_does_not(start: Callable[..., Running]) -> None:
    running = start(behaviour="ignores-sigterm", grace_s=60)
    running.ready()
    pids = running.pids()
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    running.process.send_signal(signal.SIGTERM)  # make passes the terminal's signal on
    time.sleep(1.2)
    assert running.process.poll() is None
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(3) == 1
    assert not [pid for pid in pids if alive(pid)]


@pytest.mark.parametrize("name", ["control", "worker-0", "worker-1", "site-here"])
def test_what_is_killed_comes_back_on_the_same_address(start: Callable[..., Running], name: str) -> None:
    running = start()
    ready = running.ready()
    old = running.row(name)["pid"]
    os.kill(old, signal.SIGKILL)
    until(lambda: running.row(name)["restarts"] == 1 and running.row(name)["state"] == "ready")
    row = running.row(name)
    assert row["pid"] not in (None, old)
    assert row["last_exit"] == "killed by SIGKILL"
    assert not alive(old)
    assert httpx.get(ready["gateway_url"] + "/readyz").status_code == 200
    now = running.ready()["pids"]
    assert row["pid"] in {now["control"], *now["workers"], *now["sites"].values()}
    assert old not in {now["control"], *now["workers"], *now["sites"].values()}


def test_connections_that_wait_survive_the_death_of_their_worker(start: Callable[..., Running]) -> None:
    running = start()
    url = running.ready()["gateway_url"]
    host, port = url.removeprefix("http://").split(":")
    for name in ("worker-0", "worker-1"):
        stop(running.row(name)["pid"])
    clients = [socket.create_connection((host, int(port))) for _ in range(8)]
    for client in clients:
        client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
    for name in ("worker-0", "worker-1"):
        os.kill(running.row(name)["pid"], signal.SIGKILL)
    for client in clients:
        client.settimeout(SOON_S)
        assert client.recv(4096).startswith(b"HTTP/1.0 200")
        client.close()


def test_children_die_with_a_supervisor_that_is_killed(start: Callable[..., Running]) -> None:
    running = start()
    running.ready()
    pids = running.pids()
    running.process.kill()
    running.process.wait()
    until(lambda: not [pid for pid in pids if alive(pid)], within_s=3)


def test_a_home_that_was_left_by_a_killed_supervisor_is_taken_over(start: Callable[..., Running]) -> None:
    first = start()
    first.ready()
    first.process.kill()
    first.process.wait()
    second = start()
    until(lambda: second.ready_file.exists() and second.ready()["pids"]["supervisor"] == second.process.pid)


def test_a_process_that_refuses_its_configuration_ends_the_start(start: Callable[..., Running]) -> None:
    running = start(behaviour="refuses")
    output, _ = running.process.communicate(timeout=SOON_S)
    assert running.process.returncode == 2
    assert "worker-0 refused to start: the key file is missing [worker.key] [start.refused]" in output
    assert "worker-0.log" in output


def test_connections_do_not_wait_for_a_worker_that_dies_again_and_again(start: Callable[..., Running]) -> None:
    running = start(behaviour="crashes")
    until((running.root / "run" / "supervisor.sock").exists)
    until(lambda: running.row("worker-1")["state"] == "ready")
    until(lambda: running.row("worker-0")["restarts"] >= 4, within_s=60.0)  # from here on it rests for seconds
    until(lambda: running.row("worker-0")["state"] == "waiting", within_s=60.0)
    url = running.table()["gateway_url"]
    for _ in range(32):  # half of them would wait in its queue; a ready worker answers all of them
        assert httpx.get(f"{url}/readyz", timeout=SOON_S).text == str(running.row("worker-1")["pid"])


def test_a_process_that_crashes_is_tried_again_ever_more_slowly(start: Callable[..., Running]) -> None:
    running = start(behaviour="crashes")
    until((running.root / "run" / "supervisor.sock").exists)
    until(lambda: running.row("worker-0")["restarts"] >= 3)
    row = running.row("worker-0")
    assert row["last_exit"] == "exit code 1"
    assert row["last_words"] == "something broke"
    assert not running.ready_file.exists()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(SOON_S) == 0


def test_reload_reaches_control_only_when_the_configuration_is_good(start: Callable[..., Running]) -> None:
    running = start()
    running.ready()
    log = running.root / "logs" / "control.log"
    (running.root / "broken").touch()
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.table()["last_reload"])
    assert running.table()["last_reload"]["ok"] is False
    assert "line 3 is wrong" in running.table()["last_reload"]["detail"]
    assert "reloaded" not in log.read_text()
    (running.root / "broken").unlink()
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.table()["last_reload"]["ok"])
    until(lambda: "reloaded" in log.read_text())
