"""The transparency log: how fast it takes records durably, how fast it proves them, how much memory that needs.

`python -m bench.ledger` makes logs below a temporary directory, measures, prints, and writes `.bench/ledger.json`.
Each part runs in a process of its own on one core, so that CPU time and memory are its alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.measure import ROOT
from sekisho.ledger.model import Attempt, Decision, encode_record
from sekisho.ledger.sequencer import BATCH_ENTRIES, JournalSource, Sequencer
from sekisho.ledger.tlog.entries import decision_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogReader, LogWriter
from sekisho.ledger.tlog.verify import leaf_hash, verify_inclusion

ORIGIN = "bench.invalid/log/2026"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
BENCH_VENV = ROOT / ".bench" / "venv" / "bin" / "python"
# Must and aim of the table in the project's plan for the log.
MUST = {"appends": 10_000, "proof_ms": 1.0, "memory_mib": 150}
AIM = {"appends": 30_000, "proof_ms": 0.2}


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
    """A log of `size` small entries (the proofs' cost does not depend on their length), with its index."""
    found: dict[str, Any] = {}
    log = LogWriter(folder / "log", SIGNER, origin=ORIGIN)
    index = LogIndex(folder / "log", writable=True)
    with timed(found, "grown", lambda: log.size):
        while log.size < size:
            first = log.size
            entries = [_small(number) for number in range(first, min(first + 4 * BATCH_ENTRIES, size))]
            log.append([entry.data for entry in entries])
            index.add(first, entries)
    found["grow_memory_mib"] = _memory_mib()
    return found


def prove(folder: Path, count: int) -> dict[str, Any]:
    """Entry by id, its inclusion proof and the checkpoint: what a receipt needs; each at a random place."""
    reader, index = LogReader(folder / "log"), LogIndex(folder / "log")
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


def pymerkle(seconds: float) -> dict[str, Any] | None:
    """pymerkle (GPLv3+, for comparison only; in memory, nothing durable), where it is installed beside the peers."""
    if not BENCH_VENV.exists():
        return None
    run = subprocess.run(
        [str(BENCH_VENV), "-c", _PYMERKLE, str(seconds)], capture_output=True, text=True, check=False
    )
    return json.loads(run.stdout) if run.returncode == 0 else None


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


def part(name: str, folder: Path, number: float) -> dict[str, Any]:
    """Runs one part in a process of its own, pinned to one core."""
    run = subprocess.run(
        [
            "taskset", "-c", str(max(os.sched_getaffinity(0))),
            sys.executable, "-m", "bench.ledger", "--part", name, "--folder", str(folder), "--number", str(number),
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(run.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long records are taken")
    parser.add_argument("--entries", type=int, default=10_000_000, help="size of the log that proofs are taken from")
    parser.add_argument("--proofs", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, help="where the logs are made (default: a temporary directory)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        made = {"sequence": sequence, "append": append, "sqlite": sqlite, "grow": grow, "prove": prove}[options.part]
        number = int(options.number) if options.part in ("grow", "prove") else options.number
        print(json.dumps(made(options.folder, number)))
        return
    folder = Path(tempfile.mkdtemp(prefix="sekisho-ledger-", dir=options.folder))
    found: dict[str, Any] = {}
    try:
        for name, number in (
            ("sequence", options.seconds), ("append", options.seconds), ("sqlite", options.seconds),
            ("grow", options.entries), ("prove", options.proofs),
        ):  # fmt: skip
            place = folder / ("grow" if name == "prove" else name)
            place.mkdir(exist_ok=True)
            found |= part(name, place, number)
            if name != "grow":
                shutil.rmtree(place)
        found["pymerkle (memory only)"] = pymerkle(min(options.seconds, 10))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (ROOT / ".bench").mkdir(exist_ok=True)
    (ROOT / ".bench" / "ledger.json").write_text(json.dumps(found, indent=1))
    show(found)


def show(found: dict[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, dict) and "per_cpu_s" in value:
            wall = f"{value['per_s']:>10,.0f} /s" if "per_s" in value else " " * 13
            print(f"{name:40} {wall} {value['per_cpu_s']:>10,.0f} /CPU s  ({value['count']:,})")
        elif isinstance(value, dict):
            print(f"{name:40} " + "  ".join(f"{key} {number:.3f}" for key, number in value.items()))
        else:
            print(f"{name:40} {value if value is not None else 'not installed'}")
    speed = found["sequencer"]["per_s"]
    proof = found["proof_ms"]["p50"]
    memory = max(found["grow_memory_mib"], found["prove_memory_mib"])
    print(f"\ndurable appends   {speed:,.0f}/s, must {MUST['appends']:,}, aim {AIM['appends']:,}")
    print(f"proof             {proof:.3f} ms, must {MUST['proof_ms']}, aim {AIM['proof_ms']}")
    print(f"memory            {memory:.0f} MiB, must {MUST['memory_mib']}")


if __name__ == "__main__":
    main()
