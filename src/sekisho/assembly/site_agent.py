"""The agent of a site: heart-beats to the control plane, TLS in front of the model servers, evidence when it is
asked.

The life of an agent: (1) it starts with its key and what it was told last; (2) each heart-beat reports endpoints,
load and GPUs; (3) the answer names the gateways that may come in, and the tunnels let in no one else; (4) beside
that, when evidence is wanted, it asks for a nonce and lets the hardware sign; all the while it answers landmarks, and
measures others where the site is one (`site_location`); (5) SIGTERM ends the listening first and the connections
after.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import importlib.metadata
import logging
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec

from sekisho.assembly.site_control import ControlAway, ControlClient
from sekisho.assembly.site_home import (
    Served,
    SiteHome,
    SiteRefused,
    load_answers,
    load_engines,
    load_enrolment,
    load_gateways,
    load_key,
    load_served,
    prepare,
    save_gateways,
    take_next_key,
)
from sekisho.assembly.site_inventory import inventory
from sekisho.assembly.site_location import SiteLocation
from sekisho.assembly.site_tunnel import USUAL, Tunnel, TunnelSettings, server_context
from sekisho.assembly.site_workloads import SiteWorkloads
from sekisho.capacity.workloads.model import SiteOrders, SiteReport
from sekisho.federation.attester import Attester
from sekisho.federation.errors import AgentRefused
from sekisho.federation.report import (
    Challenged,
    EndpointReport,
    Heartbeat,
    HeartbeatAnswer,
    Inventory,
    Submission,
    Taken,
)
from sekisho.federation.signing import pin_of_spki, spki_of
from sekisho.kernel.errors import SekishoError

_log = logging.getLogger("sekisho.site")
WAITING_S = 2.0
FIRST_RETRY_S = 0.1
MAX_RETRY_S = 5.0
GRACE_S = 10.0
_MODELS_TIMEOUT_S = 2.0
_MODELS_BYTES = 1 << 20
# After these nothing gets better by trying again: a person has to act.
_FINAL = frozenset({"agent.rejected", "agent.unknown"})


class _Models(msgspec.Struct):
    class Model(msgspec.Struct):
        id: str

    data: list[Model] = []


class _Nothing(msgspec.Struct):
    """An empty body."""


class SiteAgent:
    """One site's. `attester`: how this machine attests; None: it does not. `count`: its GPUs. `tied_to`: a process
    with which what runs in tenants' windows ends."""

    def __init__(
        self,
        home: SiteHome,
        *,
        attester: Attester | None = None,
        count: Callable[[], Inventory] = inventory,
        tunnels: TunnelSettings = USUAL,
        tied_to: int | None = None,
    ) -> None:
        self._home = home
        self._enrolment = load_enrolment(home)
        self._served = load_served(home)
        self._attester = attester
        self._attesting: asyncio.Task[None] | None = None
        self._count = count
        self._tunnel_settings = tunnels
        self._control = ControlClient(self._enrolment)
        self._key = load_key(home.key)
        self._key_seen = _stamp(home.key)
        self._location = SiteLocation(self._enrolment, load_answers(home), self._key)
        engines = load_engines(home)
        self._workloads = (
            None if engines.door is None else SiteWorkloads(home.workloads, engines, engines.door, tied_to=tied_to)
        )
        self._gateways: tuple[str, ...] = ()
        self._tunnels: dict[str, Tunnel] = {}
        self._models: dict[str, tuple[str, ...]] = {}
        self._every_s = MAX_RETRY_S
        self._failures = 0
        self._version = importlib.metadata.version("sekisho")
        self.answer: HeartbeatAnswer | None = None
        self.heard = asyncio.Event()  # the control plane has answered a heart-beat

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`. Raises SiteRefused or AgentRefused when a person has to act."""
        working = None if self._workloads is None else asyncio.create_task(self._workloads.run(self._exchange))
        try:
            await self._location.start()
            await self._let_in(load_gateways(self._home))
            while not stopping.is_set():
                pause_s = await self._beat()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause_s)
        finally:
            await self._location.stop()
            if self._attesting is not None:
                self._attesting.cancel()
            await asyncio.gather(*(tunnel.stop(grace_s=GRACE_S) for tunnel in self._tunnels.values()))
            if working is not None and self._workloads is not None:
                working.cancel()
                await asyncio.wait({working})
                await self._workloads.stop()

    async def _beat(self) -> float:
        """One heart-beat; seconds until the next."""
        await self._reload_key()
        try:
            answer = await asyncio.to_thread(
                self._control.call, self._key, "/agent/v1/heartbeat", await self._report(), HeartbeatAnswer
            )
        except AgentRefused as error:
            if error.code in _FINAL:
                raise
            if error.code == "agent.waiting":
                _log.info("%s", error)
                return WAITING_S
            if error.code == "agent.signature" and self._home.next_key.exists():
                take_next_key(self._home)  # the answer to a rotation was lost on its way
                return 0.0
            _log.error("the control plane refuses: %s", error)
            return max(self._every_s, FIRST_RETRY_S)
        except ControlAway as error:
            self._failures += 1
            _log.warning("%s", error)
            return min(FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10), self._every_s / 2, MAX_RETRY_S)
        self.answer, self._every_s, self._failures = answer, max(answer.every_s, 0.1), 0
        if answer.gateways != self._gateways:
            await self._let_in(answer.gateways)
            await asyncio.to_thread(save_gateways, self._home, answer.gateways)
        if answer.landmark is not None and answer.measure:
            self._location.work(answer.landmark, answer.measure, self._key)
        self.heard.set()
        if answer.attest and self._attester is not None and (self._attesting is None or self._attesting.done()):
            # Beside the heart-beats: hardware may take longer to sign than a heart-beat holds.
            self._attesting = asyncio.create_task(self._attest(self._attester, self._key))
        return self._every_s

    async def _reload_key(self) -> None:
        """`sekisho site rotate` has put another key into the directory."""
        stamp = _stamp(self._home.key)
        if stamp != self._key_seen:
            self._key, self._key_seen = await asyncio.to_thread(prepare, self._home), stamp
            self._location.use(self._key)
            _log.info("goes on with the key %s", pin_of_spki(spki_of(self._key.public_key())))
            await self._let_in(self._gateways)

    async def _let_in(self, gateways: tuple[str, ...]) -> None:
        """Listens for these gateways and no others; connections of others end now."""
        self._gateways = gateways
        for tunnel in self._tunnels.values():
            await tunnel.stop(grace_s=0.0)
        self._tunnels.clear()
        if self._workloads is not None:
            await self._workloads.let_in(None, ())
        if not gateways:
            return
        try:
            context = server_context(self._home.certificate, self._home.key, gateways)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise SiteRefused(f"TLS can't be set up: {error}", hint="look at the files in the directory") from None
        if self._workloads is not None:
            await self._workloads.let_in(context, gateways)
        for served in self._served:
            tunnel = Tunnel(
                listen=served.listen,
                server=served.server,
                context=context,
                gateways=gateways,
                settings=self._tunnel_settings,
            )
            try:
                await tunnel.start()
            except OSError as error:
                host, port = served.listen
                raise SiteRefused(
                    f"the agent can't listen on {host}:{port}: {error.strerror or error}",
                    code="site.listen",
                    hint="change `listen` in agent.toml, or stop what listens there",
                ) from None
            self._tunnels[served.id] = tunnel
        _log.info("listens for %d gateway certificate(s)", len(gateways))

    async def _exchange(self, report: SiteReport) -> SiteOrders | None:
        if not self.heard.is_set():
            return None  # requests go one by one: the first heart-beat shall not wait for this one
        return await asyncio.to_thread(self._control.call, self._key, "/agent/v1/workloads", report, SiteOrders)

    async def _report(self) -> Heartbeat:
        counted, asked = await asyncio.gather(
            asyncio.to_thread(self._count), asyncio.gather(*map(self._ask, self._served))
        )
        endpoints = tuple(each for each in asked if each is not None)
        return Heartbeat(
            version=self._version, endpoints=endpoints, inventory=counted, location=self._location.address
        )

    async def _ask(self, served: Served) -> EndpointReport | None:
        """What a model server is; None while nobody knows its models."""
        answers = False
        try:
            answers, found = await asyncio.to_thread(_models_of, *served.server)
            if found:
                self._models[served.id] = found[:200]
        except (OSError, http.client.HTTPException, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("the model server of %s does not answer: %s", served.id, str(error) or type(error).__name__)
        models = served.models or self._models.get(served.id, ())
        if not models:
            return None
        tunnel = self._tunnels.get(served.id)
        return EndpointReport(
            id=served.id,
            url=served.url,
            models=models,
            slots=served.slots,
            connections=tunnel.connections if tunnel is not None else 0,
            answers=answers,
        )

    async def _attest(self, attester: Attester, key: ec.EllipticCurvePrivateKey) -> None:
        try:
            challenge = await asyncio.to_thread(
                self._control.call, key, "/agent/v1/challenge", _Nothing(), Challenged
            )
            public_key = _der(key)
            evidence = await asyncio.to_thread(attester.collect, challenge.nonce, public_key)
            body = Submission(nonce=challenge.nonce, evidence=evidence)
            taken = await asyncio.to_thread(self._control.call, key, "/agent/v1/evidence", body, Taken)
        except (SekishoError, OSError) as error:
            _log.error("no evidence was handed in: %s", error)
            return
        if taken.accepted:
            _log.info("evidence (%s) was taken: %s", attester.kind, taken.level)
        else:
            _log.error("evidence (%s) was refused: %s [%s]", attester.kind, taken.fact, taken.code)


def run(root: Path, *, attester: Callable[[str], Attester] | None = None) -> None:
    """Until SIGTERM or SIGINT. `attester` is made for the site's name."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    home = SiteHome(root)
    site = load_enrolment(home).site
    agent = SiteAgent(home, attester=None if attester is None else attester(site))

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await agent.run(stopping)

    uvloop.run(main())


def _models_of(host: str, port: int) -> tuple[bool, tuple[str, ...]]:
    """Whether the server answers /v1/models as it should, and the names in its answer."""
    connection = http.client.HTTPConnection(host, port, timeout=_MODELS_TIMEOUT_S)
    try:
        connection.request("GET", "/v1/models", headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status != 200:
            return False, ()
        data = response.read(_MODELS_BYTES)
    finally:
        connection.close()
    return True, tuple(model.id for model in msgspec.json.decode(data, type=_Models).data)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return base64.b64decode(spki_of(key.public_key()))
