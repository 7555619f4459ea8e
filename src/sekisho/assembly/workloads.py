"""Joins workloads to the federation, and runs those of simulated sites, which have no agent of their own."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from sekisho.assembly.home import Home
from sekisho.capacity.workloads.model import Order
from sekisho.capacity.workloads.service import WorkloadService
from sekisho.engines.processes import LocalProcesses
from sekisho.engines.runner import Replica, Runner
from sekisho.federation.model import Endpoint, Federation
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.database import Database

_log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0
# While nothing runs anywhere, sites say so that often.
_IDLE_EVERY_S = 15.0
# The embedded default lives on one machine: what it started goes soon after it.
_ALONE_S = 30.0
_END_S = 8.0
DEMO_MODEL = "smollm2-135m"


class Workloads:
    """`federation` is the one in force; `hosted` the simulated sites; `changed` makes a new route table."""

    def __init__(
        self,
        home: Home,
        database: Database,
        *,
        federation: Callable[[], Federation],
        hosted: Callable[[], frozenset[str]],
        changed: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self.service = WorkloadService(database, names=self._names, clock=clock, new_id=_new_id)
        self._root = home.root / "workloads"
        self._federation = federation
        self._hosted = hosted
        self._changed = changed
        self._clock = clock
        self._runners: dict[str, Runner] = {}
        self._idle_since = 0.0

    def endpoints(self) -> Sequence[Endpoint]:
        """What serves in tenants' windows now, each for its owner and until its end."""
        return [
            Endpoint(
                id=each.replica,
                site=each.site,
                url=each.url,
                models=(each.name,),
                slots=each.slots,
                tenants=(each.tenant,),
                open_until=each.until,
            )
            for each in self.service.opened()
        ]

    async def run(self) -> None:
        """Windows begin and end, and the simulated sites do what they are told, once a second."""
        while True:
            try:
                if await asyncio.to_thread(self._look):
                    await self._changed()
            except SekishoError as error:
                _log.error("workloads were not looked after: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """The demonstration ends: what it started ends with it."""
        await asyncio.to_thread(self._end)

    def _look(self) -> bool:
        idle = self.service.idle() and not any(runner.replicas for runner in self._runners.values())
        if idle and 0 <= time.monotonic() - self._idle_since < _IDLE_EVERY_S:
            return False
        self._idle_since = time.monotonic()
        renew = self.service.look()
        for site in sorted(self._hosted()):
            runner = self._runners.get(site)
            if runner is None:
                runner = self._runners[site] = Runner(self._root / site, _demo_engines(self._root / site))
            runner.step(now=self._clock.now())
            told = self.service.exchange(site, runner.report(_loopback_url))
            renew = renew or told.renew
            runner.obey(told.orders, now=self._clock.now())
        return renew

    def _end(self) -> None:
        for runner in self._runners.values():
            runner.end_all()
        deadline = time.monotonic() + _END_S
        while any(runner.alive() for runner in self._runners.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
            for runner in self._runners.values():
                runner.end_all()
        for runner in self._runners.values():
            runner.close()

    def _names(self, tenant: str, name: str) -> tuple[str, str] | None:
        federation = self._federation()
        if name in federation.aliases:
            return f"`{name}` is an alias of the federation", "choose another name: an alias never hides a model"
        if any(endpoint.tenants is None and name in endpoint.models for endpoint in federation.endpoints):
            return (
                f"everybody's endpoints serve a model `{name}` already",
                f"choose a name of your own, like `{tenant}-{name}`: it goes to your window alone",
            )
        return None


def llama_command(file: Path | None = None, *, threads: int = 1) -> Callable[[Order, int], Sequence[str]]:
    """llama.cpp with this GGUF file, or with the model of the wheel."""

    def command(order: Order, port: int) -> Sequence[str]:
        return (
            *(sys.executable, "-P", "-m", "sekisho.assembly.demo_site", "--site", order.replica, "--metrics"),
            *("--port", str(port), "--model", order.name, "--threads", str(threads)),
            *("--slots", str(order.parameters.slots), "--context", str(order.parameters.context_tokens)),
            *(("--file", str(file)) if file is not None else ()),
        )

    return command


def _demo_engines(root: Path) -> dict[str, LocalProcesses]:
    if importlib.util.find_spec("xllamacpp") is None:
        return {}
    return {"llama.cpp": LocalProcesses(root / "llama.cpp", {DEMO_MODEL: llama_command()}, alone_s=_ALONE_S)}


def _loopback_url(replica: Replica) -> str:
    return f"http://127.0.0.1:{replica.port}{replica.path}/v1"


def _new_id() -> str:
    return f"wl-{secrets.token_hex(8)}"
