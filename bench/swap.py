"""The route table at scale: how long a compile takes, and what requests feel while the table is swapped in."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import measure as single
from bench import tables
from bench.peers.sekisho import ControlAt, Sekisho
from bench.processes import LOAD_CORE, CpuClock, Failed, MachineClock, Process, free_port, wait_for
from bench.upstream import JsonUpstream
from sekisho.residency.table import sign_table

TENANTS, ENDPOINTS = 10_000, 100
SWAPS = 5
APART_S = 2.0
RATE_PER_S = 500


def measure(folder: Path, *, key: str) -> dict[str, Any]:
    """Compiles the big table SWAPS times, each with a new version, then publishes one after the other while a
    client sends requests at a fixed rate. A request is timed from when it was due, not from when it was sent."""
    folder = folder.absolute()
    signing = Ed25519PrivateKey.generate()
    with contextlib.ExitStack() as stack:
        upstream = JsonUpstream(folder / "upstream")
        stack.callback(upstream.stop)
        federation = tables.federation(key=key, upstream=upstream.port, tenants=TENANTS, endpoints=ENDPOINTS)
        signed, times = [], []
        for version in range(2, 2 + SWAPS):
            start = time.perf_counter()
            signed.append(sign_table(tables.compiled(federation, version=version, now=time.time()), signing))
            times.append(time.perf_counter() - start)
        shelf = folder / "shelf"
        shelf.mkdir(exist_ok=True)
        for old in shelf.iterdir():
            old.unlink()
        token_file = folder / "token"
        token_file.write_text(secrets.token_hex(16))
        control = _control(folder, shelf, token_file, stack)
        peer = Sekisho(
            folder=folder / "sekisho",
            key=key,
            control=ControlAt(url=f"http://127.0.0.1:{control}", token_file=token_file, signing=signing),
        )
        stack.callback(peer.stop)
        peer.start(free_port(), upstream.port)
        single.verify(peer, limit_s=20)
        calm = _steady(peer, key, seconds=APART_S * SWAPS)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(_steady, peer, key, seconds=APART_S * (SWAPS + 1))
            time.sleep(APART_S)
            versions = []
            clock, peer_clock = MachineClock(), CpuClock(peer.pids())
            for number, data in enumerate(signed, start=2):
                part = shelf / f"{number}.part"
                part.write_bytes(data)
                part.rename(shelf / f"{number}.table")
                time.sleep(APART_S * 0.9)
                versions.append(peer.snapshot().table_version)
            swapped = waiting.result()
            busy, stolen, wall = clock.elapsed()
            peer_share = peer_clock.elapsed_ns() / 1e9 / wall
        if versions != list(range(2, 2 + SWAPS)):
            raise Failed(f"the worker did not take every table: versions {versions}")
        if swapped["failed"] or calm["failed"]:
            raise Failed(f"requests failed during the swap: {swapped['failed']} ({swapped['why']})")
    return {
        "tenants": TENANTS,
        "endpoints": ENDPOINTS,
        "compile_s": round(sorted(times)[len(times) // 2], 3),
        "compile_max_s": round(max(times), 3),
        "table_bytes": len(signed[0]),
        "swaps": SWAPS,
        "rate_per_s": RATE_PER_S,
        "requests": swapped["requests"],
        "swap_max_ms": round(swapped["max_ms"], 2),
        "swap_p999_ms": round(swapped["p999_ms"], 2),
        "slow": swapped["slow"],
        "peer_core_share": round(peer_share, 3),
        "busy_share": round((busy + stolen) / wall / (os.cpu_count() or 1), 3),
        "calm_max_ms": round(calm["max_ms"], 2),
        "calm_p999_ms": round(calm["p999_ms"], 2),
    }


def _control(folder: Path, shelf: Path, token_file: Path, stack: contextlib.ExitStack) -> int:
    port = free_port()
    process = Process(
        [
            sys.executable, "-m", "bench.load.control", "--port", str(port),
            "--shelf", str(shelf), "--token-file", str(token_file),
        ],
        core=LOAD_CORE, log=folder / "control.log", cwd=single.ROOT,
    )  # fmt: skip
    stack.callback(process.stop)
    wait_for(port, seconds=10, process=process)
    return port


def _steady(peer: Sekisho, key: str, *, seconds: float) -> dict[str, Any]:
    return single.run_client(
        "bench.load.steady",
        "--port", str(peer.port), "--key", key, "--rate", str(RATE_PER_S), "--seconds", str(seconds),
        limit_s=seconds + 30,
    )  # fmt: skip
