"""The supervisor: starts the fleet, watches it, keeps `ready.json` true, and ends it in order.

The life of a fleet: (1) everything starts at once; (2) when each process answers for real, and the gateway from
outside, `ready.json` is written; (3) what dies comes back with back-off, on the same sockets; (4) SIGHUP has control
read the configuration again; (5) SIGTERM drains the workers first, and control and sites end after the last stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import msgspec

from sekisho.assembly.fleet import (
    BecameReady,
    DrainEnded,
    DrainStarted,
    Event,
    Fleet,
    Phase,
    Pids,
    Planned,
    Planning,
    ProcessChanged,
    Ready,
    Reloaded,
    ReloadResult,
    Reporter,
    SupervisorTable,
    Warned,
)
from sekisho.assembly.home import Home, write_atomic
from sekisho.assembly.logs import BoundedLog
from sekisho.assembly.processes import EXIT_REFUSED, Child, Kind, ProcessRow, State
from sekisho.assembly.ready import until
from sekisho.kernel.errors import SekishoError

# `make` and `timeout` pass a signal on that the terminal sent to us as well: twice within this time is once.
_SAME_SIGNAL_S = 1.0
# A worker ends by itself when its grace is over; only one that is stuck is killed, this much later.
_STUCK_AFTER_GRACE_S = 2.0
_OTHERS_GRACE_S = 5.0
# A worker that comes back sooner finds its connections waiting; those of one that dies again and again go elsewhere.
_SOCKETS_WAIT_S = 1.0

Reload = Callable[[], str]


class StartRefused(SekishoError):
    """A process refused its part of the configuration before the fleet was ever ready."""

    code = "start.refused"


class Supervisor:
    """Runs one fleet. `reload()` reads the configuration again and returns what only a restart would change; it
    raises SekishoError when the configuration is wrong, and then nothing changes."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        home: Home,
        config: Path | None,
        ready_file: Path | None,
        reload: Reload,
        close_listeners: Callable[[], None],
        rest_listeners: Callable[[tuple[int, ...]], None],
        reporter: Reporter,
    ) -> None:
        self._fleet = fleet
        self._home = home
        self._config = config
        self._ready_files = (home.ready_file, *((ready_file,) if ready_file else ()))
        self._reload = reload
        self._close_listeners = close_listeners
        self._rest_listeners = rest_listeners
        self._reporter = reporter
        self._log = BoundedLog(home.log("supervisor"))
        self._control = self._child(fleet.control)
        self._workers = [self._child(planned) for planned in fleet.workers]
        self._sites = [self._child(planned) for planned in fleet.sites]
        self._services = [self._child(planned) for planned in fleet.services]
        self._phase = Phase.STARTING
        self._started_at = time.time()
        self._last_reload: ReloadResult | None = None
        self._refused: ProcessRow | None = None
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop_asked_at: float | None = None
        self._had_terminal = _has_terminal()

    @property
    def table(self) -> SupervisorTable:
        return SupervisorTable(
            pid=os.getpid(),
            phase=self._phase,
            started_at=self._started_at,
            home=str(self._home.root),
            config=str(self._config) if self._config else None,
            gateway_url=self._fleet.gateway_url,
            console_url=self._fleet.console_url,
            drain_grace_s=self._fleet.drain_grace_s,
            processes=tuple(child.row for child in self._children),
            last_reload=self._last_reload,
        )

    async def run(self) -> int:
        """Until a signal ends it. 0: all ended in order; 1: something had to be cut. StartRefused when a process
        refuses its configuration at the start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._forget_ready()  # nobody must read the promise of an earlier life
        server = await asyncio.start_unix_server(self._answer, str(self._home.supervisor_socket))
        self._write(self._home.supervisor_file, msgspec.json.encode(self.table))
        self._tell(Planning(processes=len(self._children)))
        for child in self._children:
            child.start()
        readiness = asyncio.create_task(self._become_ready())
        try:
            await self._stop.wait()
            readiness.cancel()
            cut = await self._drain()
        finally:
            server.close()
            self._forget_ready()
            for path in (self._home.supervisor_socket, self._home.supervisor_file):
                path.unlink(missing_ok=True)
            self._log.close()
        if self._refused is not None:
            raise StartRefused(
                f"{self._refused.name} refused to start: {self._refused.last_words}",
                hint=f"the whole story is in {self._home.log(self._refused.name)}",
            )
        return 1 if cut else 0

    @property
    def _children(self) -> list[Child]:
        return [self._control, *self._workers, *self._services, *self._sites]

    def _child(self, planned: Planned) -> Child:
        return Child(planned.spec, probe=planned.probe, on_change=self._on_change)

    def _on_change(self, child: Child) -> None:
        row = child.row
        self._changed.set()
        self._tell(ProcessChanged(row=row))
        if row.kind is Kind.WORKER and row.state is State.WAITING and child.waits_s >= _SOCKETS_WAIT_S:
            self._rest_listeners(child.spec.pass_fds)  # it listens again by itself, when it serves
        if self._phase is Phase.READY:
            self._write_ready()
        elif (
            self._phase is Phase.STARTING
            and row.state is State.WAITING
            and child.last_exit_code == EXIT_REFUSED
            and not child.was_ready
        ):
            # It would refuse again for ever: tell the person who is waiting instead.
            self._refused = row
            self._stop.set()

    async def _become_ready(self) -> None:
        began = time.monotonic()
        while not all(child.was_ready for child in self._children):
            self._changed.clear()
            await self._changed.wait()
        await until(self._fleet.gateway_probe, os.getpid())
        self._phase = Phase.READY
        self._write_ready()
        self._tell(
            BecameReady(ready=self._ready(), after_s=time.monotonic() - began, demonstration=bool(self._sites))
        )

    async def _drain(self) -> list[str]:
        """Workers first: what they still do needs sites, and control reads their journals to the end."""
        self._phase = Phase.DRAINING
        grace_s = self._fleet.drain_grace_s
        self._tell(DrainStarted(grace_s=grace_s))
        self._forget_ready()
        ends = [asyncio.create_task(worker.stop(grace_s=grace_s + _STUCK_AFTER_GRACE_S)) for worker in self._workers]
        # From here on nobody but the draining workers holds their sockets: new clients are turned away at once.
        self._close_listeners()
        await self._unless_hurried(ends)
        others = [*self._sites, *self._services, self._control]
        await self._unless_hurried([asyncio.create_task(child.stop(grace_s=_OTHERS_GRACE_S)) for child in others])
        cut = [worker.spec.name for worker in self._workers if worker.was_cut]
        self._tell(DrainEnded(cut=tuple(cut)))
        return cut

    async def _unless_hurried(self, ends: list[asyncio.Task[None]]) -> None:
        """Wait for these; a second signal kills what is left."""
        hurry = asyncio.create_task(self._hurry.wait())
        left = set(ends)
        while left and not self._hurry.is_set():
            await asyncio.wait({hurry, *left}, return_when=asyncio.FIRST_COMPLETED)
            left = {end for end in left if not end.done()}
        if self._hurry.is_set():
            await asyncio.gather(*(child.kill() for child in self._children))
        hurry.cancel()
        await asyncio.gather(*ends)

    def _ask_to_stop(self) -> None:
        now = time.monotonic()
        if self._stop_asked_at is None:
            self._stop_asked_at = now
            self._stop.set()
        elif now - self._stop_asked_at > _SAME_SIGNAL_S:
            self._hurry.set()

    def _on_hangup(self) -> None:
        """SIGHUP means two things: read the configuration again, and your terminal was closed."""
        if self._had_terminal and not _has_terminal():
            self._ask_to_stop()
            return
        try:
            needs_restart = self._reload()
        except SekishoError as error:
            result = ReloadResult(at=time.time(), ok=False, detail=str(error))
        else:
            self._control.signal(signal.SIGHUP)
            result = ReloadResult(at=time.time(), ok=True, detail=needs_restart)
        self._last_reload = result
        self._tell(Reloaded(result=result))

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # whoever asked may be gone
            writer.write(msgspec.json.encode(self.table))
            await writer.drain()
        writer.close()

    def _ready(self) -> Ready:
        fleet = self._fleet
        pids = Pids(
            supervisor=os.getpid(),
            control=self._control.pid,
            workers=tuple(child.pid for child in self._workers if child.pid is not None),
            sites={
                site: child.pid
                for site, child in zip(fleet.site_ids, self._sites, strict=True)
                if child.pid is not None
            },
        )
        return Ready(
            gateway_url=fleet.gateway_url,
            console_url=fleet.console_url,
            admin_token=fleet.admin_token,
            api_keys=fleet.api_keys,
            models=fleet.models,
            pids=pids,
        )

    def _write_ready(self) -> None:
        data = msgspec.json.format(msgspec.json.encode(self._ready()), indent=1)
        for path in self._ready_files:
            self._write(path, data)

    def _write(self, path: Path, data: bytes) -> None:
        """A disk that fills up later must not end what runs: it is logged, and the next change tries again."""
        try:
            write_atomic(path, data)
        except OSError as error:
            self._note(f"can't write {path}: {error.strerror}")

    def _forget_ready(self) -> None:
        for path in self._ready_files:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _tell(self, event: Event) -> None:
        self._note(_in_words(event))
        self._reporter.tell(event)

    def _note(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._log.write(f"{stamp} {text}\n".encode())


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal now (tty(4): opening /dev/tty fails with ENXIO otherwise)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _in_words(event: Event) -> str:
    """One line of supervisor.log; never a secret."""
    line = ""
    match event:
        case Planning(processes=processes):
            line = f"start processes={processes}"
        case Warned(text=text):
            line = f"warning {text}"
        case ProcessChanged(row=row):
            died = f" last_exit={row.last_exit!r} last_words={row.last_words!r}" if row.state is State.WAITING else ""
            line = f"process={row.name} state={row.state.value} pid={row.pid} restarts={row.restarts}{died}"
        case BecameReady(after_s=after_s):
            line = f"ready after_s={after_s:.2f}"
        case DrainStarted(grace_s=grace_s):
            line = f"drain grace_s={grace_s:g}"
        case DrainEnded(cut=cut):
            line = f"stopped cut={','.join(cut) or 'nobody'}"
        case Reloaded(result=result):
            line = f"reload ok={result.ok} {result.detail}"
        case _:
            assert_never(event)
    return line
