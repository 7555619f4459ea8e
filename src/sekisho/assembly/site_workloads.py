"""What a site's agent does for tenants' windows: a runner, and a tunnel in front of each replica."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from sekisho.assembly.site_home import Door, Engines, RawEngine
from sekisho.assembly.site_tunnel import Tunnel
from sekisho.capacity.workloads.model import Order, SiteOrders, SiteReport
from sekisho.engines.adapter import Adapter
from sekisho.engines.processes import PORT, Command, LocalProcesses
from sekisho.engines.ray import RayServe
from sekisho.engines.runner import Replica, Runner
from sekisho.kernel.errors import SekishoError

_log = logging.getLogger("sekisho.site.workloads")
_PASS_EVERY_S = 1.0

# None: control is not there yet.
Exchange = Callable[[SiteReport], Awaitable[SiteOrders | None]]


class SiteWorkloads:
    """One site's. `root`: a directory of its own. `tied_to`: a process with which local replicas end."""

    def __init__(self, root: Path, engines: Engines, door: Door, *, tied_to: int | None = None) -> None:
        self._runner = Runner(root, adapters(root, engines.engines, tied_to=tied_to))
        self._door = door
        self._context: ssl.SSLContext | None = None
        self._gateways: Sequence[str] = ()
        self._tunnels: dict[str, tuple[int, Tunnel]] = {}  # replica → (the engine's port, what stands before it)

    async def let_in(self, context: ssl.SSLContext | None, gateways: Sequence[str]) -> None:
        """These gateways from now on; connections of others end."""
        self._context, self._gateways = context, gateways
        for name in list(self._tunnels):
            await self._shut(name)

    async def run(self, exchange: Exchange) -> None:
        """For ever. Without control the last orders hold, until the windows that they name end."""
        asked_at, every_s = 0.0, 0.0
        while True:
            await asyncio.to_thread(self._runner.step, now=time.time())
            await self._open_doors()
            if not 0 <= time.monotonic() - asked_at < every_s:
                asked_at = time.monotonic()
                try:
                    told = await exchange(self._runner.report(self._url))
                    if told is not None:
                        await asyncio.to_thread(self._runner.obey, told, now=time.time())
                        every_s = told.every_s
                except SekishoError as error:
                    _log.warning("control did not say what shall run: %s", error)
            await asyncio.sleep(_PASS_EVERY_S)

    async def stop(self) -> None:
        """The agent goes; replicas stay, on their leashes."""
        await self.let_in(None, ())
        await asyncio.to_thread(self._runner.close)

    async def _open_doors(self) -> None:
        answering = {each.order.replica: each.port for each in self._runner.replicas if each.port}
        for name, (port, _) in list(self._tunnels.items()):
            gone = all(each.order.replica != name or each.state == "gone" for each in self._runner.replicas)
            if gone or answering.get(name, port) != port:
                await self._shut(name)
        for name, port in answering.items():
            if name not in self._tunnels and self._context is not None:
                await self._open(name, port, self._context)

    async def _open(self, name: str, port: int, context: ssl.SSLContext) -> None:
        host, first = self._door.listen
        taken = {tunnel.port for _, tunnel in self._tunnels.values()}
        for listen in [0] if first == 0 else range(first, first + self._door.ports):
            if listen and listen in taken:
                continue
            tunnel = Tunnel(
                listen=(host, listen), server=("127.0.0.1", port), context=context, gateways=self._gateways
            )
            try:
                await tunnel.start()
            except OSError as error:
                _log.error("%s:%d can't be listened on: %s", host, listen, error)
                continue
            self._tunnels[name] = (port, tunnel)
            return
        _log.error("there is no port left for %s: raise `ports` in agent.toml", name)

    async def _shut(self, name: str) -> None:
        _, tunnel = self._tunnels.pop(name)
        await tunnel.stop(grace_s=0.0)

    def _url(self, replica: Replica) -> str:
        found = self._tunnels.get(replica.order.replica)
        return "" if found is None else f"https://{self._door.host}:{found[1].port}{replica.path}/v1"


def adapters(root: Path, engines: Sequence[RawEngine], *, tied_to: int | None) -> dict[str, Adapter]:
    """By kind of engine: what starts and ends replicas."""
    made: dict[str, Adapter] = {}
    local = {each.model: llama_command(each) for each in engines if each.kind == "llama.cpp"}
    if local:
        made["llama.cpp"] = LocalProcesses(root / "llama.cpp", local, tied_to=tied_to)
    clustered = [each for each in engines if each.kind == "ray" and each.address is not None]
    if clustered:
        first = clustered[0]
        commands = {each.model: llama_command(each) for each in clustered}
        made["ray"] = RayServe(root / "ray", commands, address=first.address or "", http_port=first.http_port)
    return made


def llama_command(engine: RawEngine) -> Command:
    """llama.cpp with this engine's file, or with the model of the wheel."""

    def command(order: Order) -> Sequence[str]:
        return (
            *(sys.executable, "-P", "-m", "sekisho.assembly.demo_site", "--site", order.replica, "--metrics"),
            *("--port", PORT, "--model", order.name, "--threads", str(engine.threads)),
            *("--slots", str(order.parameters.slots), "--context", str(order.parameters.context_tokens)),
            *(("--file", engine.file) if engine.file is not None else ()),
        )

    return command
