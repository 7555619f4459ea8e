"""The transparency log: how fast it takes records durably, how soon there is a receipt, how fast it proves and
verifies, how much memory that needs.

`python -m bench.ledger` makes logs below a temporary directory, measures, prints, and writes docs/ (`--quick` leaves
them) and `.bench/ledger.json`. What is measured on one core runs in a process of its own, pinned to it, so that CPU
time and memory are its alone; receipts are waited for with all processes on all cores (`bench/ledger_live.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shlex
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.measure import ROOT
from bench.processes import Failed, MachineClock, Process
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.ledger import log_origin, log_signer
from sekisho.assembly.sequencer_status import SequencerStatus
from sekisho.ledger.model import Attempt, Decision, encode_record
from sekisho.ledger.sequencer import BATCH_ENTRIES, JournalSource, Sequencer
from sekisho.ledger.tlog.entries import decision_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogReader, LogWriter
from sekisho.ledger.tlog.verify import leaf_hash, verify_inclusion
from sekisho.ledger.tlog.years import open_year

ORIGIN = "bench.invalid/log/2026"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
VENV = ROOT / ".bench" / "ledger-venv"
LOCK = ROOT / "requirements" / "bench-ledger.txt"
RAW = ROOT / "docs" / "benchmarks" / "ledger.json"


def decision(number: int) -> Decision:
    """A synthetic decision with the fields of a usual answer (about 900 bytes)."""
    at_ms = 1_795_000_000_000 + number // 4
    return Decision(
        id=f"{at_ms:012x}{number % 4:010x}{number:010x}", at_ms=at_ms, gateway="gateway/w0", outcome="completed",
        status=200, path="/v1/chat/completions", tenant=f"tenant-{number % 50}", key="eea948230d91",
        floor="confidential", data_class="confidential", model="gpt-4o-mini", served_model="smollm2-135m",
        rules=("site-in-jurisdiction",), endpoint="ishikari-1", site="sakura-ishikari", operator="sakura",
        country="JP", attempts=(Attempt(endpoint="ishikari-1", result="ok", duration_us=120_000),), table=7,
        policy="5fad91e74b5ef9d405d0990082b634b7f07029b0b59f146126b923de26e2b0ea", valid_until_ms=at_ms + 86_400_000,
        tokens_in=20, tokens_out=40, first_byte_us=90_000, duration_us=1_200_000, bytes_in=420, bytes_out=4_213,
        request_commitment="ac79f728ce9e654ccbf1c90b105af3c4f890269df7dddf0d8cc9973047169f3c",
        response_commitment="4b2e67955bc058586bbca1141b65899019f760f542ceb47a55817ccbc342bcf9",
    )  # fmt: skip


@contextmanager
def timed(found: dict[str, Any], name: str, count: Callable[[], int]) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found[name] = {
        "count": count(),
        "per_s": count() / wall,
        "per_cpu_s": count() / cpu,
        "wall_s": wall,
        "cpu_s": cpu,
    }


# -- the parts


def sequence(folder: Path, seconds: float) -> dict[str, Any]:
    """Journal segments to a durable log with its index: everything that the sequencer does with a decision."""
    found: dict[str, Any] = {}
    journal = folder / "journal" / "w0"
    journal.mkdir(parents=True)
    log = LogWriter(folder / "log", SIGNER, origin=ORIGIN)
    index = LogIndex(folder / "log", writable=True)
    sequencer = Sequencer(log, index, [JournalSource(folder / "journal")])
    written, wall, cpu, added, number = 0, 0.0, 0.0, 0, 0
    while wall < seconds:
        number += 1
        records = [encode_record(decision(written + at)) for at in range(2 * BATCH_ENTRIES)]
        written += len(records)
        frames = b"".join(struct.pack("<II", len(record), zlib.crc32(record)) + record for record in records)
        (journal / f"{number:08d}.journal").write_bytes(frames)
        began, began_cpu = time.perf_counter(), time.process_time()
        while True:
            step = sequencer.step()
            added += step.added
            if not step.more and not step.added:
                break
        wall += time.perf_counter() - began
        cpu += time.process_time() - began_cpu
        if number > 2:  # the disk should not fill with what was read; the newest show that the one before is finished
            (journal / f"{number - 2:08d}.journal").unlink()
    assert log.size == written == added
    found["sequencer"] = {
        "count": added,
        "per_s": added / wall,
        "per_cpu_s": added / cpu,
        "wall_s": wall,
        "cpu_s": cpu,
    }
    return found


def append(folder: Path, seconds: float) -> dict[str, Any]:
    """The log alone: entries that are ready, in batches, durable."""
    found: dict[str, Any] = {}
    log = LogWriter(folder / "log", SIGNER, origin=ORIGIN)
    entries = _entries(BATCH_ENTRIES)
    end = time.perf_counter() + seconds
    with timed(found, "append", lambda: log.size):
        while time.perf_counter() < end:
            log.append(entries)
    return found


def sqlite(folder: Path, seconds: float) -> dict[str, Any]:
    """For comparison: the same bytes into a SQLite table, durable at each commit; by batch, and one by one."""
    found: dict[str, Any] = {}
    entries = _entries(BATCH_ENTRIES)
    for name, size in (("sqlite, a commit for each batch", BATCH_ENTRIES), ("sqlite, a commit for each row", 1)):
        database = sqlite3.connect(folder / f"{size}.sqlite", isolation_level=None)
        database.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, e BLOB)"
        )
        done = 0
        end = time.perf_counter() + seconds / 2
        with timed(found, name, lambda: done):  # noqa: B023 - called before the next round
            while time.perf_counter() < end:
                database.execute("BEGIN")
                database.executemany("INSERT INTO t (e) VALUES (?)", [(entry,) for entry in entries[:size]])
                database.execute("COMMIT")
                done += size
    return found


def grow(folder: Path, size: int) -> dict[str, Any]:
    """A log of `size` small entries (the proofs' cost does not depend on their length), with its index, in a home: a
    real sequencer opens it afterwards, and says how much memory it needs to go on."""
    found: dict[str, Any] = {}
    home = Home.at(folder / "home")
    create(home)
    ensure_secrets(home)
    year = datetime.now(UTC).year
    opened = open_year(
        home.ledger, origin=log_origin(home), signer=lambda name: log_signer(home, name), year=year, at_ms=1,
        entry_id="0" * 32,
    )  # fmt: skip
    log, index = opened.log, opened.index
    with timed(found, "grown", lambda: log.size):
        while log.size < size:
            first = log.size
            entries = [_small(number) for number in range(first, min(first + 4 * BATCH_ENTRIES, size))]
            log.append([entry.data for entry in entries])
            index.add(first, entries)
    opened.close()
    return found


def go_on(folder: Path, count: int) -> dict[str, Any]:
    """The sequencer of `sekisho up` on that log, with a journal of so many passages: its highest RSS."""
    home = Home.at(folder / "home")
    journal = home.root / "journal" / "w0"
    journal.mkdir(parents=True, exist_ok=True)
    records = [encode_record(msgspec.structs.replace(decision(at), id=f"{at:032x}")) for at in range(count)]
    frames = b"".join(struct.pack("<II", len(record), zlib.crc32(record)) + record for record in records)
    (journal / "00000001.journal").write_bytes(frames)
    process = Process(
        [sys.executable, "-P", "-m", "sekisho.assembly.sequencer", "--home", str(home.root)],
        core=None, log=home.root / "logs" / "bench-sequencer.log",
    )  # fmt: skip
    try:
        end = time.monotonic() + 600
        while time.monotonic() < end:
            if not process.alive():
                raise Failed(f"the sequencer ended: {process.log_tail()}")
            status = _sequencer(home)
            if status is not None and status.added >= count:
                return {"sequencer_memory_mib": _peak_mib(process.popen.pid), "sequencer_size": status.size}
            time.sleep(0.1)
        raise Failed(f"the sequencer did not come to an end: {process.log_tail()}")
    finally:
        process.stop()


def _sequencer(home: Home) -> SequencerStatus | None:
    with suppress(OSError, msgspec.DecodeError), socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(home.sequencer_socket))
        return msgspec.json.decode(asking.makefile("rb").read(), type=SequencerStatus)
    return None


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise Failed(f"process {pid} is gone")


def verify(folder: Path, count: int) -> dict[str, Any]:
    """`sekisho receipt verify` as a command: from its start to its end, each time a new process."""
    command = [str(Path(sys.executable).with_name("sekisho")), "receipt", "verify", "receipt.tlog-proof"]
    walls, cpus = [], []
    for _ in range(count):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run([*command, "--policy", "trust.policy"], cwd=folder, check=True, capture_output=True)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"verify_ms": _spread(walls), "verify_cpu_ms": _spread(cpus)}


def prove(folder: Path, count: int) -> dict[str, Any]:
    """Entry by id, its inclusion proof and the checkpoint: what a receipt needs; each at a random place."""
    log = next((folder / "home" / "log").glob("[0-9]*"))
    reader, index = LogReader(log), LogIndex(log)
    size, root = reader.size, reader.checkpoint().root
    rng = random.Random(1)
    proofs, lookups, consistency = [], [], []
    for _ in range(count):
        at = rng.randrange(size)
        entry = _small(at)
        began = time.perf_counter()
        found_at = index.find(entry.id.hex())
        lookups.append(time.perf_counter() - began)
        began = time.perf_counter()
        proof = reader.inclusion_proof(at, size)
        proofs.append(time.perf_counter() - began)
        assert found_at == at
        assert verify_inclusion(at, size, leaf_hash(reader.entry(at)), proof, root)
        began = time.perf_counter()
        reader.consistency_proof(at + 1, size)
        consistency.append(time.perf_counter() - began)
    return {
        "size": size,
        "proof_ms": _spread(proofs),
        "find_ms": _spread(lookups),
        "consistency_ms": _spread(consistency),
        "prove_memory_mib": _memory_mib(),
    }


_PYMERKLE = """
import json, sys, time
from pymerkle import InmemoryTree
tree = InmemoryTree(algorithm="sha256")
entry = bytes(900)
began = time.process_time()
count = 0
while time.process_time() - began < float(sys.argv[1]):
    for _ in range(1000):
        tree.append_entry(entry)
    count += 1000
spent = time.process_time() - began
print(json.dumps({"count": count, "per_cpu_s": count / spent}))
"""


def pymerkle(seconds: float) -> dict[str, Any]:
    """pymerkle (GPLv3+, for comparison only; in memory, nothing durable), in a virtual environment of its own."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([*install, "--no-deps", "--requirement", str(LOCK)], check=True)
    run = subprocess.run(
        ["taskset", "-c", _core(), str(python), "-c", _PYMERKLE, str(seconds)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(run.stdout))


# -- helpers


def _entries(count: int) -> list[bytes]:
    made = [decision_entry(encode_record(decision(number))) for number in range(count)]
    return [entry.data for entry in made if entry is not None]


def _small(number: int) -> Any:
    entry_id = f"{1_795_000_000_000 + number // 4:012x}{number:020x}"
    record = {"kind": "decision", "id": entry_id, "at_ms": 1, "tenant": "t"}
    entry = decision_entry(msgspec.json.encode(record))
    assert entry is not None
    return entry


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50": ordered[len(ordered) // 2] * 1000,
        "p99": ordered[len(ordered) * 99 // 100] * 1000,
        "mean": sum(ordered) / len(ordered) * 1000,
    }


def _memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _core() -> str:
    return str(max(os.sched_getaffinity(0)))


PARTS: dict[str, Callable[[Path, Any], dict[str, Any]]] = {
    "sequence": sequence, "append": append, "sqlite": sqlite, "grow": grow, "prove": prove, "go_on": go_on,
    "verify": verify,
}  # fmt: skip


def part(name: str, folder: Path, number: float) -> dict[str, Any]:
    """Runs one part in a process of its own, pinned to one core."""
    print(f"… {name}", file=sys.stderr)
    run = subprocess.run(
        [
            "taskset", "-c", _core(),
            sys.executable, "-m", "bench.ledger", "--part", name, "--folder", str(folder), "--number", str(number),
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(run.stdout))


def live(folder: Path, seconds: float) -> dict[str, Any]:
    """Receipts under load, on all cores."""
    print("… receipts", file=sys.stderr)
    run = subprocess.run(
        [sys.executable, "-m", "bench.ledger_live", str(folder), "--seconds", str(seconds)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(run.stdout))


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 s a part, 200,000 entries; docs/ stays as it is")
    parser.add_argument("--seconds", type=float, help="how long records are taken and receipts waited for (60)")
    parser.add_argument("--entries", type=int, help="size of the log that proofs are taken from (10,000,000)")
    parser.add_argument("--proofs", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, help="where the logs are made (default: a temporary directory)")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/ as it is")
    parser.add_argument("--render", action="store_true", help="measure nothing; write docs/ from the raw results")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    chosen.docs = not (chosen.quick or chosen.no_docs or chosen.seconds or chosen.entries)
    chosen.seconds = chosen.seconds or (5.0 if chosen.quick else 60.0)
    chosen.entries = chosen.entries or (200_000 if chosen.quick else 10_000_000)
    return chosen


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, number in (
        ("sequence", chosen.seconds), ("append", chosen.seconds / 3), ("sqlite", chosen.seconds / 3),
        ("grow", chosen.entries), ("prove", chosen.proofs), ("go_on", 20_000),
    ):  # fmt: skip
        place = folder / ("grow" if name in ("prove", "go_on") else name)
        place.mkdir(exist_ok=True)
        found |= part(name, place, number)
        if name not in ("grow", "prove"):
            shutil.rmtree(place)
    found["pymerkle (in memory)"] = pymerkle(min(chosen.seconds, 10))
    (folder / "live").mkdir()
    found |= live(folder / "live", chosen.seconds)
    return found | part("verify", folder / "live", 20)


def main() -> None:
    chosen = options(sys.argv[1:])
    if chosen.part:
        number = int(chosen.number) if chosen.part in ("grow", "prove", "go_on", "verify") else chosen.number
        print(json.dumps(PARTS[chosen.part](chosen.folder, number)))
        return
    # Not for the parts: their memory is measured.
    from rich.console import Console  # noqa: PLC0415

    from bench import ledger_report  # noqa: PLC0415
    from bench.gateway import alone, commit, machine  # noqa: PLC0415

    if chosen.render:
        ledger_report.write(json.loads(RAW.read_text()))
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    folder = Path(tempfile.mkdtemp(prefix="sekisho-ledger-", dir=chosen.folder))
    result: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "bench.ledger", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
    }
    try:
        with alone(console):
            clock = MachineClock()
            result["figures"] = measure(chosen, folder)
            busy, stolen, wall = clock.elapsed()
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            own = children.ru_utime + children.ru_stime
            result["foreign_share"] = max(0.0, busy + stolen - own) / wall / (os.cpu_count() or 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ledger_report.show(result, console)
    (ROOT / ".bench").mkdir(exist_ok=True)
    (ROOT / ".bench" / "ledger.json").write_text(json.dumps(result, indent=1))
    if chosen.docs:
        RAW.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        ledger_report.write(result)
        print(f"written: {ledger_report.DOCUMENT}, {RAW}")


if __name__ == "__main__":
    main()
