"""The agents of the demonstration's sites: one process, in which each site has its own agent with its own key.

Each is the agent of `sekisho site run`: it ends the gateways' mutual TLS on its site's port, sends heart-beats and
reports endpoints. SIMULATED is what it counts: `inventory.json` in its directory, written by the supervisor, says so.
One process, because five would cost five times the memory and the start of Python (ADR 0012). SIGTERM ends it at
once: nobody but the gateways is its client, and they have drained before.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from sekisho.assembly.demo_plan import INVENTORY_FILE
from sekisho.assembly.home import Home
from sekisho.assembly.site_agent import SiteAgent
from sekisho.assembly.site_home import SiteHome
from sekisho.assembly.site_tunnel import TunnelSettings
from sekisho.federation.report import Inventory
from sekisho.kernel.errors import SekishoError

_log = logging.getLogger("sekisho.demo_agents")
# The supervisor holds the port while this process is being restarted.
_TUNNELS = TunnelSettings(reuse_port=True)
_AGAIN_S = 1.0


class _Kept:
    """One site's agent, started again when a person would have to act: here that is the control plane, which enrols a
    site anew when its declaration changes."""

    def __init__(self, home: SiteHome) -> None:
        self._home = home
        self.heard = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                await self._live()
            except SekishoError as error:
                _log.error("the agent in %s ended: %s", self._home.root.name, error)
                await asyncio.sleep(_AGAIN_S)

    async def _live(self) -> None:
        agent = SiteAgent(self._home, count=lambda: simulated(self._home), tunnels=_TUNNELS, tied_to=os.getppid())

        async def tell() -> None:
            await agent.heard.wait()
            self.heard.set()

        telling = asyncio.create_task(tell())
        try:
            await agent.run(asyncio.Event())
        finally:
            telling.cancel()


def simulated(home: SiteHome) -> Inventory:
    """GPUs that nobody counted, as the configuration has them."""
    try:
        found = msgspec.json.decode((home.root / INVENTORY_FILE).read_bytes(), type=Inventory)
    except (OSError, msgspec.DecodeError):
        found = Inventory(simulated=True)
    return msgspec.structs.replace(found, simulated=True, note="made up by the demonstration")


async def serve(home: Home, sites: list[str]) -> None:
    """For ever. When each agent was heard by the control plane, `run/agents.sock` says so with this process's id."""
    kept = [_Kept(SiteHome(home.site(site))) for site in sites]

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.json.encode({"pid": os.getpid()}))
        writer.close()

    async def open_when_heard() -> None:
        await asyncio.gather(*(each.heard.wait() for each in kept))
        home.agents_socket.unlink(missing_ok=True)
        await asyncio.start_unix_server(answer, str(home.agents_socket))

    await asyncio.gather(open_when_heard(), *(each.run() for each in kept))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sekisho.assembly.demo_agents", description=__doc__)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--site", action="append", required=True, help="its id; may be repeated")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    uvloop.run(serve(Home.at(options.home), options.site))


if __name__ == "__main__":
    main()
