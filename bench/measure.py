"""One measurement: a load against one peer for a short while, with what it cost the peer's processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import content
from bench.peers import Peer
from bench.processes import LOAD_CORE, PROXY_CORE, CpuClock, Failed, MachineClock

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One round of one scenario. Latencies in µs; `cpu_us` is the peer's CPU a request (or a stream).

    `core_share` is how much of its core the peer used; `foreign_share` is what others took of all cores.
    """

    requests: int
    seconds: float
    rps: float
    cpu_us: float
    p50_us: float
    p99_us: float
    max_us: float
    failed: int
    core_share: float
    foreign_share: float
    why_failed: str = ""

    def record(self) -> dict[str, Any]:
        return {name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(self).items()}


class _Costs:
    """What a peer, the upstream, the load and everybody else used since it was made."""

    def __init__(self, peer: Peer, upstream_pids: tuple[int, ...]) -> None:
        self._peer = CpuClock(peer.pids())
        self._upstream = CpuClock(upstream_pids)
        self._machine = MachineClock()
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._self = time.process_time()

    def read(self) -> tuple[float, float, float]:
        """(CPU seconds of the peer, share of its core, share of all cores that others used)."""
        peer = self._peer.elapsed_ns() / 1e9
        upstream = self._upstream.elapsed_ns() / 1e9
        busy, stolen, wall = self._machine.elapsed()
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        load = now.ru_utime + now.ru_stime - self._children.ru_utime - self._children.ru_stime
        own = peer + upstream + load + time.process_time() - self._self
        cores = os.cpu_count() or 1
        return peer, peer / wall, max(0.0, (busy + stolen - own) / wall / cores)


def _pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core), "setpriv", "--pdeathsig", "TERM"]


@contextlib.contextmanager
def upstream_on(core: int, pids: tuple[int, ...]) -> Iterator[None]:
    """The upstream on another core than its own for a while."""
    try:
        for pid in pids:
            os.sched_setaffinity(pid, {core})
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, {LOAD_CORE})


def ask(port: int, key: str, body: bytes, *, limit_s: float = 30) -> tuple[int, bytes]:
    """One plain request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def verify(peer: Peer, *, limit_s: float) -> None:
    """Before it is measured: a real request is answered with the canned text, and what is refused is refused."""
    end = time.monotonic() + limit_s
    while True:
        try:
            status, body = ask(peer.port, peer.key, content.prompt(360))
        except OSError as error:
            status, body = 0, str(error).encode()
        if status == 200:
            break
        if time.monotonic() > end or not (peer.process is None or peer.process.alive()):
            tail = peer.process.log_tail() if peer.process else ""
            raise Failed(f"no 200 within {limit_s:.0f} s but {status} {body[:200]!r} {tail}")
        time.sleep(0.2)
    told = json.loads(body)["choices"][0]["message"]["content"]
    if told != content.ANSWER_TEXT:
        raise Failed(f"answered something else: {told[:80]!r}")
    if peer.authenticates:
        status, _ = ask(peer.port, "sk-wrong-" + peer.key[9:], content.prompt(360))
        if status not in peer.refuses_with:
            raise Failed(f"a wrong key got {status} instead of 401")
    if peer.routes_by_model:
        unknown = content.prompt(360).replace(b'"canned"', b'"nobody-serves-this"')
        status, _ = ask(peer.port, peer.key, unknown)
        if status not in (400, 403, 404):
            raise Failed(f"an unknown model got {status}")


def verify_stream(peer: Peer, *, limit_s: float) -> None:
    """Before it is measured: a whole stream comes through, and in many pieces, not at its end in one."""
    end = time.monotonic() + limit_s
    while True:
        told = run_client(
            "bench.load.streams",
            "--port", str(peer.port), "--key", peer.key, "--concurrency", "1", "--streams", "1", "--limit-s", "20",
            limit_s=40,
        )  # fmt: skip
        if told["complete"]:
            break
        if time.monotonic() > end or not (peer.process is None or peer.process.alive()):
            raise Failed(f"no whole stream within {limit_s:.0f} s: {told['flaws']}")
        time.sleep(0.3)
    if told["reads"] < content.CHUNKS // 4:
        raise Failed(f"a paced stream of {content.CHUNKS} chunks came in {told['reads']} pieces: it is buffered")


def settle(peer: Peer, *, limit_s: float = 5.0) -> None:
    """Until the peer is quiet, so that what it still works on doesn't fall into its neighbour's round."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        clock = CpuClock(peer.pids())
        time.sleep(0.05)
        if clock.elapsed_ns() < 2_500_000:
            return


def wrk(
    peer: Peer,
    body: Path,
    *,
    connections: int,
    seconds: float,
    upstream_pids: tuple[int, ...],
    one_core: bool = False,
) -> Sample:
    """wrk's closed loop: each connection sends the next request when it has the answer.

    `one_core` puts load and upstream beside the peer: with one connection only one of the three works at a time,
    and otherwise every hop would wait for the (virtual) machine to wake the other core.
    """
    core = PROXY_CORE if one_core else LOAD_CORE
    with upstream_on(core, upstream_pids):
        _run_wrk(peer, body, connections=connections, seconds=0.3, core=core)
        costs = _Costs(peer, upstream_pids)
        told = _run_wrk(peer, body, connections=connections, seconds=seconds, core=core)
        cpu, core_share, foreign = costs.read()
        settle(peer)
    requests = max(1, told["requests"])
    elapsed = told["duration_us"] / 1e6
    return Sample(
        requests=told["requests"],
        seconds=elapsed,
        rps=told["requests"] / elapsed,
        cpu_us=cpu * 1e6 / requests,
        p50_us=told["p50_us"],
        p99_us=told["p99_us"],
        max_us=told["max_us"],
        failed=told["bad_status"] + told["errors"],
        core_share=core_share,
        foreign_share=foreign,
    )


def _run_wrk(peer: Peer, body: Path, *, connections: int, seconds: float, core: int) -> dict[str, int]:
    # wrk knows whole seconds only; a shorter run (the warm-up) is ended by SIGINT, on which wrk reports as usual
    whole = max(1, round(seconds))
    command = [*_pinned(core), "wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "30s"]
    command += ["-s", str(ROOT / "bench" / "load" / "post.lua"), f"http://127.0.0.1:{peer.port}/v1/chat/completions"]
    environment = {**os.environ, "BENCH_BODY": str(body), "BENCH_KEY": peer.key}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            if seconds < 1:
                time.sleep(seconds)
                process.send_signal(2)
            output, _ = process.communicate(timeout=whole + 60)
        except BaseException:
            process.kill()
            raise
    last = output.strip().rpartition("\n")[2]
    try:
        return json.loads(last)
    except ValueError:
        raise Failed(f"wrk: {output.strip()[-300:]}") from None


def streams(peer: Peer, *, concurrency: int, count: int, limit_s: float, upstream_pids: tuple[int, ...]) -> Sample:
    """Paced streams, each checked to be whole; `cpu_us` is the peer's CPU a stream."""
    costs = _Costs(peer, upstream_pids)
    start = time.monotonic()
    told = run_client(
        "bench.load.streams",
        "--port", str(peer.port), "--key", peer.key, "--concurrency", str(concurrency),
        "--streams", str(count), "--limit-s", str(limit_s),
        limit_s=limit_s + 30,
    )  # fmt: skip
    elapsed = time.monotonic() - start
    cpu, core_share, foreign = costs.read()
    settle(peer)
    done = told["complete"]
    if not done:
        raise Failed(f"no stream was whole: {told['flaws']}")
    first, duration = sorted(told["first_byte_ms"]), sorted(told["duration_ms"])
    return Sample(
        requests=done,
        seconds=elapsed,
        rps=done / elapsed,
        cpu_us=cpu * 1e6 / done,
        p50_us=1000 * first[len(first) // 2],
        p99_us=1000 * first[min(len(first) - 1, len(first) * 99 // 100)],
        max_us=1000 * duration[-1],
        failed=told["flawed"] + told["unfinished"],
        core_share=core_share,
        foreign_share=foreign,
        why_failed="; ".join(told["flaws"])[:300],
    )


def run_client(module: str, *arguments: str, limit_s: float) -> dict[str, Any]:
    """One of our load clients, in a process of its own; it prints one JSON object."""
    with subprocess.Popen(
        [*_pinned(LOAD_CORE), sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{module} did not end within {limit_s:.0f} s") from None
            raise
    if process.returncode:
        raise Failed(f"{module}: {errors.strip()[-400:]}")
    return json.loads(output)
