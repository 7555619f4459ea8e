"""kill -9 of sequencer and workers under load: no answered passage is missing in the log, none is there twice, and
every checkpoint that anybody saw is continued by the next."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from running import Federation, chat, until

from sekisho.assembly.home import Home
from sekisho.assembly.ledger import log_verifier
from sekisho.ledger.journal import read_records
from sekisho.ledger.tlog.entries import DECISION, read_entry
from sekisho.ledger.tlog.fsck import fsck
from sekisho.ledger.tlog.keys import open_note
from sekisho.ledger.tlog.log import LogFault, LogReader, LogWriter
from sekisho.ledger.tlog.note import Checkpoint
from sekisho.ledger.tlog.verify import verify_consistency
from sekisho.ledger.tlog.years import newest, years

pytestmark = [pytest.mark.journey, pytest.mark.alone, pytest.mark.model]
STORM_S = 20.0
CLIENTS = 4


class Watcher(threading.Thread):
    """Reads the published checkpoint again and again, like a witness."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self._home = home
        self._ended = threading.Event()
        self.seen: list[Checkpoint] = []

    def run(self) -> None:
        verifier = log_verifier(Home.at(self._home), years(self._home / "log")[-1])
        path = newest(self._home / "log") / "checkpoint"
        while not self._ended.is_set():
            head = Checkpoint.parse(open_note(path.read_bytes(), [verifier]).text)
            if not self.seen or head != self.seen[-1]:
                self.seen.append(head)
            time.sleep(0.01)

    def end(self) -> None:
        self._ended.set()
        self.join()


class Clients:
    """Ask for a model that there is (answered) and one that there is not (refused), and keep each answer's id."""

    def __init__(self, federation: Federation) -> None:
        ready = federation.ready()
        self._url = ready["gateway_url"]
        self._key = ready["api_keys"]["hospital"]
        self._ended = threading.Event()
        self.answered: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        while not self._ended.is_set():
            model = {} if number % CLIENTS == 0 else {"model": "no-such-model"}
            try:
                answer = httpx.post(
                    f"{self._url}/v1/chat/completions",
                    json=chat(max_tokens=1) | model,
                    headers={"Authorization": f"Bearer {self._key}"},
                    timeout=30,
                    trust_env=False,
                )
            except httpx.HTTPError:
                continue  # its worker was just killed: there was no whole answer
            if "x-sekisho-decision" in answer.headers:
                self.answered.append(answer.headers["x-sekisho-decision"])

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def logged(home: Path) -> list[str]:
    """Passages; policies and other records stand between them."""
    entries = [read_entry(data) for _, data in LogReader(newest(home / "log")).entries()]
    return [entry.id.hex() for entry in entries if entry.kind == DECISION]


def status(home: Path) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home / "run" / "sequencer.sock"))
        found: dict[str, object] = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))
    return found


def test_a_passage_is_in_the_log_within_a_second(small_federation: Callable[..., Federation]) -> None:
    federation = small_federation()
    with federation.client("hospital") as client:
        took = []
        for _ in range(5):
            answer = client.post("/v1/chat/completions", json=chat(max_tokens=1))
            began = time.monotonic()
            decision = answer.headers["x-sekisho-decision"]
            until(lambda wanted=decision: wanted in logged(federation.home), within_s=5, what="the entry")
            took.append(time.monotonic() - began)
    assert sorted(took)[len(took) // 2] < 1.0
    assert status(federation.home)["fault"] == ""


def test_a_storm_of_kill_9_loses_nothing_and_forks_nothing(small_federation: Callable[..., Federation]) -> None:
    federation = small_federation()
    home = federation.home
    rng = random.Random(20_261_124)
    watcher = Watcher(home)
    watcher.start()
    clients = Clients(federation)
    killed = {"sequencer": 0, "worker-0": 0, "worker-1": 0}
    end, latest = time.monotonic() + STORM_S, time.monotonic() + 5 * STORM_S
    # On a slow machine it takes longer until enough was answered and published under fire.
    while time.monotonic() < end or (
        (len(clients.answered) <= 50 or len(watcher.seen) <= 5 or killed["sequencer"] < 5)
        and time.monotonic() < latest
    ):
        time.sleep(rng.uniform(0.05, 1.5))
        name = rng.choice(["sequencer", "sequencer", "sequencer", "worker-0", "worker-1"])
        row = federation.row(name)
        pid = row["pid"]
        # A worker that is killed before it is ready answers nobody, however long the storm takes.
        if pid is not None and (name == "sequencer" or row["state"] == "ready"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed[name] += 1
    clients.end()
    assert killed["sequencer"] >= 5
    assert len(clients.answered) > 50
    until(lambda: set(clients.answered) <= set(logged(home)), within_s=120, what="the last entry")
    watcher.end()
    assert federation.stop() == 0

    found = logged(home)
    assert len(found) == len(set(found)), "a passage is in the log twice"
    root = newest(home / "log")
    verifier = log_verifier(Home.at(home), years(home / "log")[-1])
    checked = fsck(root, verifier, strict=True)
    assert checked.difference is None
    reader = LogReader(root)
    assert len(watcher.seen) > 5
    for old, new in zip(watcher.seen, [*watcher.seen[1:], reader.checkpoint()], strict=True):
        proof = reader.consistency_proof(old.size, new.size)
        assert verify_consistency(old.size, old.root, new.size, new.root, proof), "the log forked"
    # Whatever a journal says in the end, the log says, too.
    written = {
        record["id"]
        for path in (home / "journal").glob("w*/*.journal")
        for record in records(path)
        if record["kind"] == "decision"
    }
    assert written == set(found)


def records(path: Path) -> list[dict[str, object]]:
    return [msgspec.json.decode(payload) for _, payload in read_records(path)]


def test_a_second_sequencer_is_refused(small_federation: Callable[..., Federation]) -> None:
    """Its lock is held by the first one; the second says so and changes nothing."""

    class Signer:
        def sign(self, text: bytes) -> bytes:
            raise AssertionError(f"signed {text!r}")

    federation = small_federation()
    root = newest(federation.home / "log")
    with pytest.raises(LogFault) as refused:
        LogWriter(root, Signer(), origin=LogReader(root).checkpoint().origin)
    assert refused.value.code == "log.locked"
