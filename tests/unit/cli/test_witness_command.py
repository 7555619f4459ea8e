"""`sekisho witness`: a real process that is killed in the middle of its work and has forgotten nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sekisho.ledger.tlog.keys import VerifierKey, open_note
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.witness.service import AddCheckpoint
from support.ledger import LedgerLab, decision

COMMAND = [sys.executable, "-m", "sekisho.cli.main", "witness"]
NAME = "witness.example/osaka"


class Running:
    """`sekisho witness run` on a port of its own."""

    def __init__(self, folder: Path, lab: LedgerLab) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.arguments = [
            "run", "--name", NAME, "--keys", str(folder / "keys"), "--state", str(folder / "state"),
            "--log", lab.signer.verifier.vkey, "--listen", f"127.0.0.1:{self.port}",
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([*COMMAND, *self.arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "the witness did not answer within 30 s"
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def add(self, body: bytes) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}/add-checkpoint", content=body)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LedgerLab]:
    made = LedgerLab(tmp_path / "lab")
    yield made
    made.close()


@pytest.fixture
def witness(tmp_path: Path, lab: LedgerLab) -> Iterator[Running]:
    made = Running(tmp_path, lab)
    yield made
    made.kill()


def request(lab: LedgerLab, old: int) -> bytes:
    reader = LogReader(lab.root)
    proof = tuple(reader.consistency_proof(old, reader.size)) if old else ()
    return AddCheckpoint(old_size=old, proof=proof, note=reader.checkpoint_note()).encode()


def test_a_killed_witness_still_refuses_what_it_refused(lab: LedgerLab, witness: Running) -> None:
    lab.log([decision(0), decision(1)])
    first = request(lab, 0)
    size = 2
    assert witness.add(first).status_code == 200
    for _ in range(3):
        lab.log([decision(size), decision(size + 1)])
        answer = witness.add(request(lab, size))
        assert answer.status_code == 200
        size += 2
        witness.kill()
        witness.start()
        rolled_back = witness.add(first)
        assert (rolled_back.status_code, rolled_back.text) == (409, f"{size}\n")


def test_its_keys_are_printed_for_policies_and_stay(tmp_path: Path, lab: LedgerLab, witness: Running) -> None:
    printed = [
        subprocess.run(
            [*COMMAND, "init", "--name", NAME, "--keys", str(tmp_path / "keys")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert printed[0] == printed[1] == httpx.get(f"http://127.0.0.1:{witness.port}/keys").text
    assert (tmp_path / "keys" / "ed25519.key").stat().st_mode & 0o777 == 0o600
    lab.log([decision(0)])
    lines = witness.add(request(lab, 0)).content
    keys = [VerifierKey.parse(line) for line in printed[0].splitlines()]
    opened = open_note(LogReader(lab.root).checkpoint_note() + lines, keys)
    assert {found.key.algorithm.label for found in opened.verified} == {"cosignature", "ml-dsa-44"}


def test_a_second_witness_on_the_same_memory_refuses_to_start(tmp_path: Path, witness: Running) -> None:
    arguments = [*witness.arguments[:-1], "127.0.0.1:0"]
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"SEKISHO_LANG": "en"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "[witness.in_use]" in done.stderr
    (tmp_path / "keys" / "ed25519.key").write_text("no key")
    damaged = subprocess.run(
        [*COMMAND, "init", "--name", NAME, "--keys", str(tmp_path / "keys")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert damaged.returncode == 2
    assert "[witness.key]" in damaged.stderr
