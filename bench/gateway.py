"""`python -m bench.gateway`: all peers side by side in one run."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import memory, report, rounds, swap
from bench.measure import Sample
from bench.peers import BY_NAME, NEED_WHEELS, PEERS, Peer, installed
from bench.processes import Failed
from bench.upstream import raise_file_limit

HOME = Path(".bench")
DOCUMENT = Path("docs/benchmarks.md")
RAW = Path("docs/benchmarks/gateway.json")
CHART = Path("docs/benchmarks/gateway.svg")
EXTRAS = ("memory", "tables")


def options(arguments: list[str]) -> argparse.Namespace:
    known = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short: direct, nginx, bare and sekisho only")
    parser.add_argument("--only", help=f"peers, comma-separated: {','.join(known)}")
    names = [*(scenario.name for scenario in rounds.SCENARIOS), *EXTRAS]
    parser.add_argument("--scenarios", help=f"comma-separated: {','.join(names)}")
    parser.add_argument("--rounds", type=int, help="5, or 2 with --quick")
    parser.add_argument("--soak", default=None, help="how long memory is watched: 1m (default), 10m, …")
    parser.add_argument("--streams", type=int, help="streams a round; 600, or 1200 where chunks are 2 ms apart")
    parser.add_argument("--docs", action="store_true", help="write docs/ even when the run is not a whole one")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/ as it is")
    parser.add_argument("--render", action="store_true", help="measure nothing; write docs/ from the raw results")
    chosen = parser.parse_args(arguments)
    quick = ["direct", "nginx", "bare", "sekisho"]
    chosen.peers = chosen.only.split(",") if chosen.only else (quick if chosen.quick else known)
    chosen.names = chosen.scenarios.split(",") if chosen.scenarios else names
    if chosen.quick and not chosen.scenarios:
        chosen.names = [name for name in names if name not in (*EXTRAS, "small_c1_split")]
    for wanted, offered in ((chosen.peers, known), (chosen.names, names)):
        for name in wanted:
            if name not in offered:
                parser.error(f"`{name}` is none of {', '.join(offered)}")
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 5)
    chosen.soak_s = _seconds(chosen.soak or "1m", parser)
    chosen.whole = not (chosen.quick or chosen.only or chosen.scenarios)
    return chosen


def _seconds(text: str, parser: argparse.ArgumentParser) -> float:
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    if unit is None or not text[:-1].isdigit():
        parser.error("--soak is a number with s, m or h, as in 10m")
    return int(text[:-1]) * unit


@contextlib.contextmanager
def alone(console: Console) -> Iterator[None]:
    """Two measurements at a time would measure each other: the second waits."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another measurement runs; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "cpu": cpu + (" (virtual machine)" if virtual else ""),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def measure(chosen: argparse.Namespace, arguments: list[str], console: Console) -> dict[str, Any]:
    raise_file_limit()
    key = "sk-bench-" + secrets.token_hex(24)
    kinds: list[type[Peer]] = [BY_NAME[name] for name in chosen.peers]
    broken = ""
    if NEED_WHEELS & set(chosen.peers):
        console.print("peers: checking .bench/venv (the first time installs it) …")
        try:
            installed.make()
        except Failed as error:
            broken = str(error)
            console.print(f"[red]{broken}[/]")
    result: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "bench.gateway", *arguments]),
        "commit": commit(),
        "machine": machine(),
        "rounds": chosen.rounds,
        "pace_ms": {scenario.name: scenario.pace_ms for scenario in rounds.SCENARIOS if scenario.pace_ms},
    }
    scenarios = [scenario for scenario in rounds.SCENARIOS if scenario.name in chosen.names]
    samples: rounds.Samples = {}
    entries: list[rounds.Entry] = []
    if scenarios:
        with console.status("starting the peers") as status:

            def done(scenario: rounds.Scenario, entry: rounds.Entry, number: int, sample: Sample | None) -> None:
                status.update(f"round {number + 1} of {chosen.rounds} · {scenario.title} · {entry.kind.name}")
                if sample is not None:
                    console.print(
                        f"[dim]{number + 1} {scenario.name:16} {entry.kind.name:8} cpu {sample.cpu_us:9.1f} µs "
                        f" p50 {sample.p50_us:9.0f}  p99 {sample.p99_us:9.0f}  {sample.rps:9,.0f}/s "
                        f" failed {sample.failed}  others {sample.foreign_share:.0%}[/]",
                        highlight=False,
                        soft_wrap=True,
                    )

            field = rounds.Field(kinds, folder=HOME / "run", key=key, tell=console.print)
            if broken:
                for entry in field.entries:
                    entry.error = broken if entry.kind.name in NEED_WHEELS else ""
            with field:
                entries = field.entries
                samples = rounds.measure_rounds(
                    field, scenarios, rounds=chosen.rounds, streams=chosen.streams, done=done
                )
    result["peers"] = [
        {
            "name": entry.kind.name,
            "version": entry.version,
            "what_is_on": entry.kind.what_is_on,
            "error": entry.error,
        }
        for entry in entries
    ]
    result["samples"] = samples
    result["summary"] = rounds.summary(samples)
    if "sekisho" in chosen.peers:
        if "memory" in chosen.names:
            with console.status(f"memory: 5,000 idle connections, 1,000 streams, {chosen.soak_s:.0f} s"):
                result["memory"] = _or_error(lambda: memory.watch(HOME / "memory", key=key, seconds=chosen.soak_s))
        if "tables" in chosen.names:
            with console.status("route table: compile, and swap while serving"):
                result["tables"] = _or_error(lambda: swap.measure(HOME / "swap", key=key))
    return result


def _or_error(work: Any) -> dict[str, Any]:
    try:
        return work()
    except (Failed, OSError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def write_docs(result: dict[str, Any]) -> None:
    from bench import chart  # noqa: PLC0415 - only when it is drawn

    RAW.parent.mkdir(parents=True, exist_ok=True)
    RAW.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    CHART.write_text(chart.draw(result), encoding="utf-8")
    report.write_markdown(result, DOCUMENT)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    arguments = sys.argv[1:]
    chosen = options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    if chosen.render:
        write_docs(json.loads(RAW.read_text(encoding="utf-8")))
        return 0
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        with alone(console):
            start = time.monotonic()
            result = measure(chosen, arguments, console)
            result["seconds"] = round(time.monotonic() - start, 1)
    except KeyboardInterrupt:
        console.print("[yellow]stopped; nothing is left running, docs/ is as it was[/]")
        return 130
    report.show(result, console)
    (HOME / "last.json").write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
    if (chosen.whole or chosen.docs) and not chosen.no_docs:
        write_docs(result)
        console.print(f"written: {DOCUMENT}, {RAW}, {CHART}")
    console.print(f"took {result['seconds']:.0f} s; raw results in {HOME / 'last.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
