"""Replicas as processes: nothing is started twice, left behind, or alive after its lease, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sekisho.capacity.workloads.model import Order, Parameters
from sekisho.engines.adapter import EngineFault
from sekisho.engines.processes import PORT, LocalProcesses

# A fake: it answers like an engine that has nothing to do.
FAKE_ENGINE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"llamacpp:requests_processing 0\\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
class Server(http.server.HTTPServer):
    allow_reuse_port = True
    allow_reuse_address = False
    def server_bind(self):
        import socket
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()
open(sys.argv[2], "a").write(f"{os.getpid()}\\n")
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
NAME = "wl-00000000000000aa.1.0"
AGENT = """
import sys, time
sys.path.insert(0, {tests!r})
import msgspec
from test_local_processes import adapter
from sekisho.capacity.workloads.model import Order
from pathlib import Path
adapter(Path({root!r})).start(msgspec.json.decode({order!r}, type=Order))
print("started", flush=True)
time.sleep(600)
"""


def adapter(root: Path, **more: float | int | None) -> LocalProcesses:
    started = str(root / "started")

    def command(_order: Order) -> list[str]:
        return [sys.executable, "-c", FAKE_ENGINE, PORT, started]

    return LocalProcesses(root / "engine", {"m": command}, **more)  # type: ignore[arg-type]


def order(*, left_s: float = 600.0) -> Order:
    return Order(
        replica=NAME,
        engine="fake",
        model="m",
        name="mine",
        gpus=1,
        parameters=Parameters(),
        run=True,
        until=time.time() + left_s,
        grace_s=0.0,
    )


def until(condition: Callable[[], object], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def engines(root: Path) -> list[int]:
    """The process ids of every engine that was ever started here."""
    file = root / "started"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def leash_pid(root: Path) -> int:
    return int((root / "engine" / NAME / "leash").read_text().split()[0])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    again = adapter(tmp_path)
    again.stop(NAME)
    until(lambda: again.stop(NAME) or not again.status(NAME).alive)
    assert not any(runs(pid) for pid in engines(tmp_path))


def test_a_replica_answers_is_not_started_twice_and_ends(root: Path) -> None:
    local = adapter(root)
    local.start(order())
    until(lambda: local.status(NAME).ready)
    local.start(order())
    status = local.status(NAME)
    assert (status.busy, local.found()) == (0, frozenset({NAME}))
    assert len(engines(root)) == 1
    with pytest.raises(EngineFault):
        local.forget(NAME)
    local.stop(NAME)
    until(lambda: not local.status(NAME).alive)
    assert local.status(NAME).last_exit == "stopped"
    local.forget(NAME)
    assert local.found() == frozenset()


def test_an_agent_that_is_killed_leaves_a_replica_that_the_next_one_adopts(root: Path) -> None:
    text = msgspec.json.encode(order())
    program = AGENT.format(tests=str(Path(__file__).parent), root=str(root), order=text)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"started\n"
        agent.kill()
    local = adapter(root)
    assert local.found() == frozenset({NAME})
    assert local.status(NAME).alive
    local.start(order())
    until(lambda: local.status(NAME).ready)
    assert len(engines(root)) == 1


def test_an_engine_that_is_killed_is_seen_and_said(root: Path) -> None:
    local = adapter(root)
    local.start(order())
    until(lambda: local.status(NAME).ready)
    os.kill(engines(root)[0], signal.SIGKILL)
    until(lambda: not local.status(NAME).alive)
    assert local.status(NAME).last_exit == "killed by SIGKILL"
    local.start(order())
    until(lambda: local.status(NAME).ready)
    assert len(engines(root)) == 2


def test_a_leash_that_is_killed_takes_its_engine_with_it(root: Path) -> None:
    local = adapter(root)
    local.start(order())
    until(lambda: local.status(NAME).ready)
    os.kill(leash_pid(root), signal.SIGKILL)
    until(lambda: not local.status(NAME).alive)
    assert not runs(engines(root)[0])


def test_a_lease_ends_a_replica_with_nobodys_help_and_can_be_prolonged_before(root: Path) -> None:
    local = adapter(root)
    local.start(order(left_s=20.0))
    until(lambda: local.status(NAME).ready)
    longer = order(left_s=600.0)
    local.renew(longer)
    local.renew(msgspec.structs.replace(longer, until=time.time() + 2.0))
    until(lambda: not local.status(NAME).alive)
    assert local.status(NAME).last_exit == "its lease ended"
    assert not runs(engines(root)[0])


def test_a_replica_whose_agent_does_not_come_back_ends(root: Path) -> None:
    local = adapter(root, alone_s=3.0)
    local.start(order())
    until(lambda: not local.status(NAME).alive)
    assert local.status(NAME).last_exit == "its agent did not come back"


def test_a_replica_ends_with_what_it_is_tied_to(root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        local = adapter(root, tied_to=other.pid)
        local.start(order())
        until(lambda: local.status(NAME).ready)
        other.kill()
    until(lambda: not local.status(NAME).alive)
    assert local.status(NAME).last_exit == "what it lived with has ended"


def test_a_process_that_got_the_leashs_id_later_is_left_alone(root: Path) -> None:
    local = adapter(root)
    local.start(order())
    until(lambda: local.status(NAME).ready)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        file = root / "engine" / NAME / "leash"
        held = file.read_text()
        file.write_text(f"{stranger.pid} {held.split()[1]}")
        local.stop(NAME)
        assert stranger.poll() is None
        stranger.kill()
        file.write_text(held)
