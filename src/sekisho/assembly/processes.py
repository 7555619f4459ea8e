"""A child process that is kept alive: started, watched, logged, restarted with back-off, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from sekisho.assembly.logs import BoundedLog
from sekisho.assembly.ready import Probe, until
from sekisho.runtime.children import exit_in_words

# A child that exits with this code refuses its configuration: sysexits(3) has 78, our commands say 2 to people.
EXIT_REFUSED = 2


class State(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # died, and waits for its next start
    STOPPING = "stopping"
    STOPPED = "stopped"


class Kind(enum.Enum):
    CONTROL = "control"
    WORKER = "worker"
    SITE = "site"
    AGENTS = "agents"
    SEQUENCER = "sequencer"
    WITNESS = "witness"


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the process table. Times are Unix seconds; `last_exit` is in words ("killed by SIGKILL")."""

    name: str
    kind: Kind
    pid: int | None
    state: State
    started_at: float | None
    restarts: int
    last_exit: str | None = None
    last_words: str = ""


class BackOff:
    """0.1 s, doubled at each death up to 10 s; a life of 30 s starts again at 0.1 s."""

    def __init__(self, *, first_s: float = 0.1, max_s: float = 10.0, reset_after_s: float = 30.0) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._reset_after_s = reset_after_s
        self._next_s = first_s

    def after_death(self, *, lived_s: float) -> float:
        """Seconds to wait before the next start."""
        if lived_s >= self._reset_after_s:
            self._next_s = self._first_s
        delay_s = self._next_s
        self._next_s = min(delay_s * 2, self._max_s)
        return delay_s


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: `python -m MODULE ARGUMENTS`, through the launcher that ties its life to ours."""

    name: str
    kind: Kind
    module: str
    arguments: tuple[str, ...]
    log: Path
    pass_fds: tuple[int, ...] = ()


class Child:
    """Keeps one process alive from `start()` until `stop()`.

    `probe(pid)` says whether it answers for real; `on_change` is called after every change of the row.
    """

    def __init__(
        self, spec: ChildSpec, *, probe: Probe, on_change: Callable[[Child], None], back_off: BackOff | None = None
    ) -> None:
        self.spec = spec
        self._probe = probe
        self._on_change = on_change
        self._back_off = back_off or BackOff()
        self._log = BoundedLog(spec.log)
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._state = State.STOPPED
        self._started_at: float | None = None
        self._restarts = 0
        self._last_exit: str | None = None
        self.last_exit_code: int | None = None
        self.waits_s = 0.0  # from its last death to its next start
        self.was_ready = False
        self.was_cut = False  # killed while it still had something to do

    @property
    def row(self) -> ProcessRow:
        return ProcessRow(
            name=self.spec.name,
            kind=self.spec.kind,
            pid=self.pid,
            state=self._state,
            started_at=self._started_at,
            restarts=self._restarts,
            last_exit=self._last_exit,
            last_words=self._log.last_words() if self._last_exit is not None else "",
        )

    @property
    def state(self) -> State:
        return self._state

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.spec.name}")

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            # Dead, but not reaped yet: then there is nobody left to tell.
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, *, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when it is gone and reaped."""
        self._stopping.set()
        if self._keeper is None:
            return
        if self._process is not None:
            self._set(State.STOPPING)
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._keeper}, timeout=grace_s)
        if not done:
            await self.kill()

    async def kill(self) -> None:
        """End it now."""
        self._stopping.set()
        self.was_cut = self.was_cut or self._process is not None
        self.signal(signal.SIGKILL)
        if self._keeper is not None:
            await self._keeper

    def _set(self, state: State) -> None:
        self._state = state
        self._on_change(self)

    async def _keep(self) -> None:
        try:
            while not self._stopping.is_set():
                born = time.monotonic()
                await self._live()
                if self._stopping.is_set():
                    break
                self.waits_s = self._back_off.after_death(lived_s=time.monotonic() - born)
                self._set(State.WAITING)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self.waits_s)
                    break
                self._restarts += 1
        finally:
            self._log.close()
            self._set(State.STOPPED)

    async def _live(self) -> None:
        """One life, from fork to reaped."""
        spec = self.spec
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: a file named like a module in the current directory is never run
                *(sys.executable, "-P", "-m", "sekisho.assembly.launch", str(os.getpid()), spec.module),
                *spec.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=spec.pass_fds,
                # Ctrl-C in the terminal is for the supervisor alone: it decides who ends when.
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            self._log.write(f"sekisho: can't start {spec.name}: {error}\n".encode())
            self._last_exit = f"not started: {error.strerror}"
            return
        self._process = process
        self._started_at = time.time()
        self._set(State.STARTING)
        if self._stopping.is_set():  # stop() came while we forked, and had nobody to signal
            self.signal(signal.SIGTERM)
        prober = asyncio.create_task(self._until_ready(process.pid))
        reader = asyncio.create_task(self._copy_output(process))
        try:
            code = await process.wait()
        finally:
            prober.cancel()
        # A grandchild may hold the pipe open; what it says later is not worth waiting for.
        await asyncio.wait({reader, prober}, timeout=1.0)
        reader.cancel()
        self._process = None
        self.last_exit_code = code
        self._last_exit = exit_in_words(code)

    async def _until_ready(self, pid: int) -> None:
        await until(self._probe, pid)
        if self._state is State.STARTING:
            self.was_ready = True
            self._set(State.READY)

    async def _copy_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - PIPE above
        while data := await process.stdout.read(65536):
            self._log.write(data)
