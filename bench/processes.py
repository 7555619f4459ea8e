"""Processes that a benchmark starts: pinned to a core, bounded in time, always stopped, and what CPU they used."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROXY_CORE = 0
LOAD_CORE = 1


class Failed(Exception):
    """A peer or a load generator did not do what was asked; the text goes to the report."""


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, *, seconds: float, process: Process) -> None:
    """Until something accepts connections at `port`; Failed with the end of its log when it dies or is late."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not process.alive():
            raise Failed(f"ended with {process.popen.returncode}: {process.log_tail()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise Failed(f"did not listen within {seconds:.0f} s: {process.log_tail()}")


class Process:
    """A process in a session of its own, so that Ctrl-C reaches the bench alone; it dies with the bench."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int | None,
        log: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
        cwd: Path | None = None,
    ) -> None:
        """`core` None: wherever the system puts it."""
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        pinned = ["setpriv", "--pdeathsig", "TERM", *command]
        if core is not None:
            pinned = ["taskset", "-c", str(core), *pinned]
        with log.open("ab") as sink:
            self.popen = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, **(env or {})},
                pass_fds=pass_fds,
                cwd=cwd,
                start_new_session=True,
            )

    def alive(self) -> bool:
        return self.popen.poll() is None

    def pids(self) -> tuple[int, ...]:
        """The process and all that descend from it."""
        return descendants(self.popen.pid) if self.alive() else ()

    def log_tail(self, lines: int = 6) -> str:
        with contextlib.suppress(OSError):
            return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])[-900:]
        return ""

    def stop(self, *, grace_s: float = 5.0) -> None:
        """TERM to the process that we started; KILL, by pid, to what of its family is left after the grace."""
        family = {pid: _start_time(pid) for pid in self.pids()}
        if self.alive():
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(grace_s)
        for pid, born in family.items():
            if born is not None and _start_time(pid) == born:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(grace_s)


def descendants(pid: int) -> tuple[int, ...]:
    found = [pid]
    for parent in found:
        for task in _tasks(parent):
            with contextlib.suppress(OSError):
                found += [int(child) for child in Path(f"/proc/{parent}/task/{task}/children").read_text().split()]
    return tuple(found)


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat: with the pid it names a process for good. None for a dead or defunct one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class CpuClock:
    """CPU time of some processes between two moments, from /proc/PID/task/*/schedstat (nanoseconds on the core,
    user and kernel together, softirq work in their context included)."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.pids = tuple(pids)
        self._start = self._read()

    def elapsed_ns(self) -> int:
        now = self._read()
        return sum(spent - self._start.get(thread, 0) for thread, spent in now.items())

    def _read(self) -> dict[tuple[int, str], int]:
        spent = {}
        for pid in self.pids:
            for task in _tasks(pid):
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
                    spent[pid, task] = int(text.split()[0])
        return spent


class MachineClock:
    """Seconds of all cores' busy and stolen time between two moments, from /proc/stat (ticks of 10 ms)."""

    def __init__(self) -> None:
        self._start = self._read()
        self._at = time.monotonic()

    def elapsed(self) -> tuple[float, float, float]:
        """(busy, stolen, wall), in seconds."""
        busy, stolen = self._read()
        return busy - self._start[0], stolen - self._start[1], time.monotonic() - self._at

    @staticmethod
    def _read() -> tuple[float, float]:
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, _idle, _iowait, irq, softirq, steal = (
            int(field) / tick for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
        return user + nice + system + irq + softirq, steal


def memory_kib(pids: Sequence[int]) -> dict[str, int]:
    """`rss` and `pss` of some processes together, in KiB, from smaps_rollup."""
    total = {"rss": 0, "pss": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                total[name.lower()] += int(rest.split()[0])
    return total
