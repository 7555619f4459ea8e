"""The site's side of a location proof: answers challenges with its enrolled key, over UDP and TCP on one port.

It keeps nothing of a question: whether an answer is fresh is known to whoever chose the nonce. What can't be read is
dropped without a word and counted; so is what comes too often from one network, or with a time far from ours (a
question collected long ago is not signed today).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, cast

import msgspec

from sekisho.federation.challenge import QUESTION_BYTES, Answering, PrivateKey, read_question, site_name
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError

Dropped = Literal["malformed", "stale", "other_site", "too_often"]


class ResponderRefused(SekishoError):
    """The responder can't listen where it should."""

    code = "location.listen"


class ResponderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`per_second` and `burst` for each network (IPv4 /24, IPv6 /48); `networks` are remembered at once, all others
    share one allowance. `time_window_s`: how far a question's time may be from ours. `connections`, `questions` (on
    one) and `idle_s` are of TCP."""

    per_second: float = 50.0
    burst: float = 100.0
    networks: int = 4096
    all_per_second: float = 2000.0
    time_window_s: float = 120.0
    connections: int = 256
    questions: int = 256
    idle_s: float = 10.0


class Counters(msgspec.Struct, kw_only=True):
    answered: int = 0
    malformed: int = 0
    stale: int = 0
    other_site: int = 0
    too_often: int = 0


class Allowance:
    """Token buckets of networks. Time comes in as seconds of a clock that never goes back."""

    def __init__(self, limits: ResponderLimits) -> None:
        self._limits = limits
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = (limits.all_per_second, 0.0)

    def take(self, network: str, *, now: float) -> bool:
        """Whether one more may be answered. A network that is not remembered starts with a full bucket only while
        there is room: nobody gets a fresh one by sending from many addresses."""
        limits = self._limits
        bucket = self._buckets.get(network)
        if bucket is None:
            if len(self._buckets) >= limits.networks and not self._forget_one(now):
                network, bucket = "", self._buckets.get("", (limits.burst, now))
            else:
                bucket = (limits.burst, now)
        mine = _after(bucket, limits.per_second, limits.burst, now)
        everybody = _after(self._all, limits.all_per_second, limits.all_per_second, now)
        go = mine >= 1 and everybody >= 1
        self._buckets[network] = (mine - go, now)
        self._buckets.move_to_end(network)
        self._all = (everybody - go, now)
        return go

    def _forget_one(self, now: float) -> bool:
        """Forgets the network that was quiet longest, if its bucket would be full again by now."""
        network, bucket = next(iter(self._buckets.items()))
        if _after(bucket, self._limits.per_second, self._limits.burst, now) < self._limits.burst:
            return False
        del self._buckets[network]
        return True


def _after(bucket: tuple[float, float], per_second: float, most: float, now: float) -> float:
    level, at = bucket
    return min(most, level + (now - at) * per_second)


def network_of(host: str) -> str:
    """The network that shares an allowance: /24 of IPv4 (also inside IPv6), /48 of IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return address.packed[:6].hex()
        address = address.ipv4_mapped
    return address.packed[:3].hex()


class Answerer:
    """Decides about one question at a time; knows no sockets."""

    def __init__(self, key: PrivateKey, *, site: str, limits: ResponderLimits) -> None:
        self._answering = Answering(key)
        self._site = site_name(site)
        self._window_ms = limits.time_window_s * 1000
        self._allowance = Allowance(limits)
        self.counters = Counters()

    def use(self, key: PrivateKey) -> None:
        """Answers with this key from now on."""
        self._answering = Answering(key)

    def answer(self, data: bytes, *, network: str, now: float, ticks: float) -> bytes | Dropped:
        """`now` in Unix seconds; `ticks` in seconds of a clock that never goes back."""
        question = read_question(data)
        if question is None:
            self.counters.malformed += 1
            return "malformed"
        if not self._allowance.take(network, now=ticks):
            self.counters.too_often += 1
            return "too_often"
        if question.site != self._site:
            self.counters.other_site += 1
            return "other_site"
        if abs(question.asked_ms - now * 1000) > self._window_ms:
            self.counters.stale += 1
            return "stale"
        self.counters.answered += 1
        return self._answering.answer(data)


class Responder:
    """Answers on `host:port`, UDP and TCP. Belongs to one event loop."""

    def __init__(
        self,
        key: PrivateKey,
        *,
        site: str,
        clock: Clock,
        ticks: Callable[[], float],
        limits: ResponderLimits | None = None,
    ) -> None:
        self._limits = ResponderLimits() if limits is None else limits
        self._answerer = Answerer(key, site=site, limits=self._limits)
        self._clock = clock
        self._ticks = ticks
        self._networks: dict[str, str] = {}
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    @property
    def counters(self) -> Counters:
        return self._answerer.counters

    async def start(self, host: str, port: int) -> int:
        """Listens; gives the port (0 takes a free one, the same for both). Raises ResponderRefused."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Stream(self), host, port, backlog=64)
            bound = int(self._server.sockets[0].getsockname()[1])
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(host, bound))
        except OSError as error:
            self.close()
            raise ResponderRefused(
                f"challenges can't be answered at {host}:{port}: {error.strerror or error}",
                hint="choose another address or port for location challenges",
            ) from error
        self._datagrams = transport
        return bound

    def use(self, key: PrivateKey) -> None:
        """Answers with this key from now on."""
        self._answerer.use(key)

    def close(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
        if self._server is not None:
            self._server.close()
        for transport in tuple(self._open):
            transport.abort()

    def reply(self, data: bytes, host: str) -> bytes | Dropped:
        network = self._networks.get(host)
        if network is None:
            if len(self._networks) >= 1024:
                self._networks.clear()
            network = self._networks[host] = network_of(host)
        return self._answerer.answer(data, network=network, now=self._clock.now(), ticks=self._ticks())

    def admits(self, transport: asyncio.Transport) -> bool:
        """Whether one more connection may stay."""
        if len(self._open) >= self._limits.connections:
            return False
        self._open.add(transport)
        return True

    def gone(self, transport: asyncio.Transport) -> None:
        self._open.discard(transport)

    @property
    def limits(self) -> ResponderLimits:
        return self._limits


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, responder: Responder) -> None:
        self._reply = responder.reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._reply(data, addr[0])
        if isinstance(reply, bytes):
            self._transport.sendto(reply, addr)


class _Stream(asyncio.Protocol):
    """Questions one after another, with the whole connection's time bounded from its start."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._buffer = b""
        self._questions = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        if not self._responder.admits(self._transport):
            self._transport.abort()
            return
        self._arm()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._responder.limits.idle_s, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_timer"):
            self._timer.cancel()
        self._responder.gone(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        # a landmark asks the next question when it has the answer; whoever sends ahead wants something else
        if len(self._buffer) > QUESTION_BYTES:
            self._responder.counters.malformed += 1
            self._transport.abort()
            return
        if len(self._buffer) < QUESTION_BYTES:
            return
        question, self._buffer = self._buffer, b""
        self._questions += 1
        reply = self._responder.reply(question, self._host)
        if not isinstance(reply, bytes) or self._questions > self._responder.limits.questions:
            self._transport.abort()
            return
        self._transport.write(reply)
        self._timer.cancel()
        self._arm()
