"""Memory of a sekisho worker that holds many connections: 5,000 idle ones and 1,000 open streams."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.measure import ROOT
from bench.peers.sekisho import Sekisho
from bench.processes import LOAD_CORE, Failed, free_port, memory_kib
from bench.upstream import StreamUpstream
from sekisho.gateway.settings import GatewaySettings

IDLE, STREAMS = 5_000, 1_000
PACE_MS = 1_000.0
SETTLE_S = 10.0


def watch(folder: Path, *, key: str, seconds: float) -> dict[str, Any]:
    """RSS and PSS each second, while every stream gets a chunk a second and every idle connection stays open."""
    folder = folder.absolute()
    chunks = int(seconds + SETTLE_S) + 120
    settings = GatewaySettings(idle_timeout_s=7200.0)  # or idle connections would end before the soak does
    with contextlib.ExitStack() as stack:
        upstream = StreamUpstream(folder / "upstream", pace_ms=PACE_MS, chunks=chunks)
        stack.callback(upstream.stop)
        peer = Sekisho(folder=folder / "sekisho", key=key, settings=settings)
        stack.callback(peer.stop)
        peer.start(free_port(), upstream.port)
        _wait_ready(peer)
        empty = memory_kib(peer.pids())
        holder = subprocess.Popen(
            [
                "taskset", "-c", str(LOAD_CORE), "setpriv", "--pdeathsig", "TERM",
                sys.executable, "-m", "bench.load.holder", "--port", str(peer.port), "--key", key,
                "--idle", str(IDLE), "--streams", str(STREAMS),
            ],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        stack.callback(_end, holder)
        assert holder.stdout is not None
        ready = holder.stdout.readline()
        if not ready:
            raise Failed("the load that holds connections ended early")
        told = json.loads(ready)
        if told["failed"]:
            raise Failed(f"{told['failed']} of {IDLE + STREAMS} connections could not be held: {told['why']}")
        time.sleep(SETTLE_S)
        samples = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            samples.append(memory_kib(peer.pids()))
            time.sleep(1)
        state = peer.snapshot()
        holder_end = _ask_end(holder)
        if holder_end["lost"]:
            raise Failed(f"{holder_end['lost']} connections were lost while they were held")
    rss = [sample["rss"] / 1024 for sample in samples]
    pss = [sample["pss"] / 1024 for sample in samples]
    third = max(1, len(rss) // 3)
    return {
        "idle": IDLE,
        "streams": STREAMS,
        "seconds": seconds,
        "empty_rss_mb": round(empty["rss"] / 1024, 1),
        "rss_mb": round(max(rss), 1),
        "pss_mb": round(max(pss), 1),
        "growth_mb": round(statistics.median(rss[-third:]) - statistics.median(rss[:third]), 2),
        "connections": state.connections,
        "in_flight": state.in_flight,
        "chunks_seen": holder_end["reads"],
        "rss_samples_mb": [round(value, 1) for value in rss],
    }


def _wait_ready(peer: Sekisho) -> None:
    """Until the worker has its route table."""
    end = time.monotonic() + peer.start_limit_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if peer.snapshot().table_version == 1:
                return
        time.sleep(0.1)
    raise Failed(f"not ready within {peer.start_limit_s:.0f} s: {peer.process.log_tail() if peer.process else ''}")


def _ask_end(holder: subprocess.Popen[str]) -> dict[str, int]:
    """One line in, one line out: how many connections were lost, and how many pieces arrived."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    return json.loads(holder.stdout.readline())


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
        return
    process.kill()
    process.wait()
