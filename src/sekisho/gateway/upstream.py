"""Endpoints as the gateway sees them: connections, health, and one connection's side of a passage."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sekisho.federation.address import forbidden_address
from sekisho.federation.model import SecretRef, UpstreamTls
from sekisho.gateway.http1 import Dechunker, Form, Malformed, ResponseHead, parse_response, payload_of, without_length
from sekisho.gateway.limits import Slots
from sekisho.gateway.settings import GatewaySettings
from sekisho.gateway.tuning import Tuning
from sekisho.kernel.errors import SekishoError
from sekisho.residency.table import EndpointEntry

if TYPE_CHECKING:
    from sekisho.gateway.passage import Passage

_MAX_HEAD: Final = 64 << 10
_HEADS: Final = 64
# A measurement older than this fades, by half in less than a second (a sweep is a quarter of a second): an endpoint
# that was a hundred times slower than the others gets one more request about every six seconds.
_FRESH_S: Final = 1.0
_AGEING: Final = 0.8
_NEVER: Final = float("inf")


class EndpointUnusable(SekishoError):
    """An endpoint's key or TLS material can't be read on this machine."""

    code = "endpoint.unusable"


class Target:
    """Where an endpoint is and what it takes to talk to it: when this changes, connections can't be kept."""

    __slots__ = ("_key", "base", "host", "port", "secure")

    def __init__(self, entry: EndpointEntry) -> None:
        url = urlsplit(entry.url)
        self.secure = url.scheme == "https"
        self.host = url.hostname or ""
        self.port = url.port or (443 if self.secure else 80)
        # The path that stands before the call's own: `/v1/chat/completions` is sent to `<base>/chat/completions`.
        self.base = url.path.rstrip("/")
        self._key = (entry.url, entry.site, entry.operator, entry.country, entry.api_key, entry.tls)

    @classmethod
    def of(cls, entry: EndpointEntry) -> Target:
        return cls(entry)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key[0])


def read_secret(reference: SecretRef) -> str:
    """The secret that `reference` points at. Raises EndpointUnusable; the secret is never part of a message."""
    if reference.env is not None:
        value = os.environ.get(reference.env)
        if value is None:
            raise EndpointUnusable(f"the environment variable {reference.env} is not set", hint="set it and reload")
        return value.strip()
    try:
        return Path(reference.file or "").read_text().strip()
    except OSError as error:
        raise EndpointUnusable(
            f"the secret file {reference.file} can't be read: {error.strerror}", hint="check its path and rights"
        ) from None


def client_context(tls: UpstreamTls | None) -> ssl.SSLContext:
    """TLS ≥ 1.2 towards an endpoint. With pins and no CA the pin alone says who it is."""
    try:
        context = ssl.create_default_context(cafile=tls.ca if tls else None)
        if tls is not None and tls.client_cert:
            context.load_cert_chain(tls.client_cert, tls.client_key)
    except (OSError, ssl.SSLError) as error:
        raise EndpointUnusable(f"TLS material can't be read: {error}", hint="check the paths under `tls`") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls is not None and tls.pins and not tls.ca:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def pin_of(certificate: bytes) -> str:
    """`sha256:<hex>` of a DER certificate's SubjectPublicKeyInfo (RFC 7469 §2.4)."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


class UpstreamConnection:
    """One HTTP/1.1 connection to an endpoint (an asyncio protocol). Serves one passage at a time."""

    __slots__ = (
        "_buffer", "_dechunker", "_head", "_left", "_long", "active", "deadline", "endpoint", "exchange", "paused",
        "transport", "used",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.transport: asyncio.Transport | None = None
        self.exchange: Passage | None = None
        self.used = 0
        self.paused = False
        self.deadline = _NEVER
        self.active = False  # bytes came since the last sweep
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._left = 0
        self._long = False
        self._dechunker: Dechunker | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.endpoint.connections.add(self)

    @property
    def aligned(self) -> bool:
        """Whether the answer so far ends where a chunk ends."""
        return self._dechunker is None or self._dechunker.aligned

    def send(self, exchange: Passage, head: bytes, body: bytes, *, deadline: float) -> None:
        """Send a request. `body`: what is too long to stand in one piece with the head."""
        transport = self.transport
        assert transport is not None
        self.exchange = exchange
        self._head = None
        self._dechunker = None
        self.used += 1
        self.deadline = deadline
        self._long = bool(body)
        if body:
            transport.writelines((head, body))
        else:
            self.endpoint.write(transport, head)

    def _keep_once_sent(self) -> None:
        """After a long request: the loop has had a turn to note what was sent. An answer that came before its
        request was through leaves a connection on which the rest would be read as the next request."""
        transport = self.transport
        if transport is not None and not transport.is_closing() and transport.get_write_buffer_size() == 0:
            self.endpoint.keep(self)
        else:
            self.drop()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # an answer nobody asked for: what else would it answer with?
            self.drop()
            return
        self.active = True
        head = self._head
        try:
            if head is not None:
                dechunker = self._dechunker
                if dechunker is not None and not dechunker.left and not dechunker.buffer:
                    # The usual case of a stream: one whole chunk, and nothing else.
                    begins = payload_of(data)
                    if begins:
                        exchange.on_chunk(self, head, data, data[begins:-2])
                        return
            else:
                endpoint = self.endpoint
                if self._buffer:
                    data = self._buffer + data
                    self._buffer = b""
                form = endpoint.form
                while True:
                    if form is not None:
                        end, length = form.match(data)
                        if end > 0 and endpoint.formed is not None:
                            head = endpoint.formed.with_length(length)
                            data = data[end:]
                            break
                    end = data.find(b"\r\n\r\n")
                    if end < 0 or end > _MAX_HEAD:
                        if len(data) > _MAX_HEAD:
                            raise Malformed("the endpoint's answer has too large a head")
                        self._buffer = data
                        return
                    head = endpoint.read_head(data[: end + 4])
                    data = data[end + 4 :]
                    if head.status >= 200:
                        break
                    if head.status == 101:
                        raise Malformed("the endpoint wants to switch protocols")
                self._head = head
                self._left = head.length
                if head.length == -1:
                    self._dechunker = Dechunker()
            dechunker = self._dechunker
            if dechunker is not None:
                parts = dechunker.feed(data)
                done = dechunker.done
                surplus = bool(dechunker.rest)
                if surplus:
                    data = data[: len(data) - len(dechunker.rest)]
            elif self._left >= 0:
                surplus = len(data) > self._left
                if surplus:
                    data = data[: self._left]
                self._left -= len(data)
                parts = [data] if data else []
                done = not self._left
            else:
                parts = [data] if data else []
                done = surplus = False
        except Malformed:
            self._fail("upstream.malformed")
            return
        if done:
            self.exchange = None
            self.deadline = _NEVER
            # Bytes after the end, or a body where none is due: nothing on this connection can be believed any more.
            if surplus or not head.keep_alive:
                self.drop()
            elif self._long:
                self.endpoint.loop.call_soon(self._keep_once_sent)
            else:
                self.endpoint.keep(self)
        exchange.on_answer(self, head, data, parts, done)

    def eof_received(self) -> bool:
        exchange, head = self.exchange, self._head
        if exchange is not None and head is not None and head.length == -2:
            self.exchange = None  # the close is the end of this answer
            self.deadline = _NEVER
            exchange.on_answer(self, head, b"", [], True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.connections.discard(self)
        self.endpoint.forget(self)
        if self.exchange is not None:
            self._fail("upstream.closed")

    def _fail(self, code: str) -> None:
        exchange, self.exchange = self.exchange, None
        stale = code == "upstream.closed" and self.used > 1 and self._head is None and not self._buffer
        self.drop()
        if exchange is not None:
            exchange.on_failure(self, code, stale=stale)

    def sweep(self, now: float) -> None:
        """Put the deadline off if bytes came since the last sweep, or act on it."""
        if self.exchange is None or self.paused:
            self.active = False
        elif self.active:
            self.active = False
            self.deadline = now + self.endpoint.tuning.read_idle_timeout_s
        elif self.deadline <= now:
            self._fail("upstream.timeout")

    def cancel(self) -> None:
        """The passage is over; close at once so that the endpoint stops working on it."""
        self.exchange = None
        self.drop()

    def drop(self) -> None:
        self.deadline = _NEVER
        self.endpoint.forget(self)
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        """The endpoint does not keep up with a long prompt; all of it is in memory already."""

    def resume_writing(self) -> None:
        """Nothing waits for this."""

    def pause_reading(self) -> None:
        if self.transport is not None and not self.paused and not self.transport.is_closing():
            self.paused = True
            self.deadline = _NEVER  # a slow client is not the endpoint's fault
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and self.paused and not self.transport.is_closing():
            self.paused = False
            self.deadline = self.endpoint.now() + self.endpoint.tuning.read_idle_timeout_s
            self.transport.resume_reading()


class Endpoint:
    """An endpoint's live state in this worker: connections, slots, measurements and health."""

    __slots__ = (
        "_credential", "_eject_for_s", "_heads", "_idle", "_probe", "_ssl", "_swept_at", "answer_head",
        "connections", "country", "ejected", "entry", "ewma_s", "failures", "form", "formed", "hungry", "id",
        "in_flight", "loop", "measured_at", "now", "on_usable", "operator", "requests", "retired", "settings",
        "site", "slots", "strikes", "target", "tuning", "unusable", "usable_from", "write",
    )  # fmt: skip

    def __init__(
        self,
        entry: EndpointEntry,
        *,
        settings: GatewaySettings,
        tuning: Tuning,
        slots: Slots,
        loop: asyncio.AbstractEventLoop,
        on_usable: Callable[[Endpoint], None],
        write: Callable[[asyncio.Transport, bytes], None],
    ) -> None:
        self.entry = entry
        self.id, self.site, self.operator, self.country = entry.id, entry.site, entry.operator, entry.country
        self.settings = settings
        self.tuning = tuning
        self.slots = slots
        slots.resize(entry.slots)
        self.loop = loop
        self.now = time.monotonic
        self.on_usable = on_usable
        self.write = write
        self.target = Target.of(entry)
        self.in_flight = 0
        self.requests = 0
        self.failures = 0
        self.strikes = 0  # failures in a row
        self.ewma_s = 0.0  # time to the first byte; 0: never measured
        self.ejected = False
        self.retired = False
        self.usable_from = 0.0
        self.measured_at = 0.0
        self._swept_at = self.now()  # near enough for what lies idle for seconds
        self.connections: set[UpstreamConnection] = set()
        self.hungry: dict[Any, None] = {}  # routes whose queue waits for a slot here
        self._heads: dict[bytes, ResponseHead] = {}
        self.form: Form | None = None  # of the last answer whose head had come before, and what was read in it
        self.formed: ResponseHead | None = None
        self._idle: list[tuple[float, UpstreamConnection]] = []
        self._eject_for_s = settings.eject_base_s
        self._probe: asyncio.Task[None] | None = None
        self.unusable = ""
        self._credential = b""
        self._ssl: ssl.SSLContext | None = None
        try:
            if entry.api_key is not None:
                self._credential = b"authorization: Bearer %b\r\n" % read_secret(entry.api_key).encode("ascii")
            if self.target.secure:
                self._ssl = client_context(entry.tls)
        except (EndpointUnusable, ValueError) as error:
            self.unusable = str(error)
        self.answer_head = (
            f"x-sekisho-site: {entry.site}\r\nx-sekisho-operator: {entry.operator}\r\n"
            f"x-sekisho-country: {entry.country}\r\n"
        ).encode("ascii")

    def read_head(self, raw: bytes) -> ResponseHead:
        """Read the head of an answer (with its empty line); one that differs from an earlier one in its length alone
        is looked up."""
        short = without_length(raw)
        if short is None:
            return parse_response(raw[:-2])
        known = self._heads.get(short[0])
        if known is not None:
            if known.status >= 200:
                self.form, self.formed = Form(raw), known
            return known.with_length(short[1])
        head = parse_response(raw[:-2])
        if head.length == short[1]:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[short[0]] = head
        return head

    def update(self, entry: EndpointEntry) -> None:
        """Take over what may change without new connections."""
        self.entry = entry
        self.slots.resize(entry.slots)

    def request_head(self, path: bytes) -> bytes:
        """The fixed beginning of a request for `path` (`/v1/chat/completions`)."""
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        return b"POST %b%b HTTP/1.1\r\nhost: %b:%d\r\n%bcontent-type: application/json\r\n" % (
            self.target.base.encode(),
            path.removeprefix(b"/v1"),
            host.encode("idna" if host.isascii() else "utf-8"),
            self.target.port,
            self._credential,
        )

    # -- connections

    def idle(self) -> UpstreamConnection | None:
        """A kept connection, the most recently used first."""
        while self._idle:
            _, connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def keep(self, connection: UpstreamConnection) -> None:
        if self.retired or len(self._idle) >= self.tuning.max_idle_upstream:
            connection.drop()
        else:
            if connection.paused:
                connection.resume_reading()
                connection.deadline = _NEVER
            self._idle.append((self._swept_at, connection))

    def forget(self, connection: UpstreamConnection) -> None:
        if self._idle:
            self._idle = [pair for pair in self._idle if pair[1] is not connection]

    async def connect(self) -> UpstreamConnection:
        """A new connection, its peer checked. Raises OSError, TimeoutError or EndpointUnusable."""
        if self.unusable:
            raise EndpointUnusable(self.unusable)
        target, tls = self.target, self.entry.tls
        name = None
        if self._ssl is not None:
            name = (tls.server_name if tls else None) or target.host
        async with asyncio.timeout(self.settings.connect_timeout_s):
            transport, connection = await self.loop.create_connection(
                lambda: cast(Any, UpstreamConnection(self)),
                target.host,
                target.port,
                ssl=self._ssl,
                server_hostname=name,
            )
        peer = transport.get_extra_info("peername")
        why = forbidden_address(ipaddress.ip_address(peer[0].partition("%")[0])) if peer else None
        if why is not None:  # a name can lead anywhere by now; nothing has been sent yet
            transport.abort()
            raise EndpointUnusable(f"endpoint {self.id} resolves to {peer[0]}, which {why}", code="endpoint.address")
        if tls is not None and tls.pins:
            certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            if certificate is None or pin_of(certificate) not in tls.pins:
                transport.abort()
                raise EndpointUnusable(
                    f"endpoint {self.id} presents a key that is not pinned", code="upstream.pin_mismatch"
                )
        return cast(UpstreamConnection, connection)

    def close_idle(self, now: float, older_than_s: float) -> None:
        """Close kept connections that lie unused; the oldest stand first."""
        while self._idle and now - self._idle[0][0] >= older_than_s:
            self._idle.pop(0)[1].drop()

    # -- health

    def succeeded(self, first_byte_s: float, now: float) -> None:
        self.strikes = 0
        self._eject_for_s = self.settings.eject_base_s
        self.ejected = False
        self.measured_at = now
        self.ewma_s = first_byte_s if self.ewma_s == 0.0 else self.ewma_s * 0.8 + first_byte_s * 0.2

    def sweep(self, now: float) -> None:
        """Deadlines of connections, idle ones, and the measurement's age: what was slow once is tried again."""
        self._swept_at = now
        for connection in list(self.connections):
            connection.sweep(now)
        self.close_idle(now, self.settings.upstream_idle_timeout_s)
        if now - self.measured_at > _FRESH_S:
            self.ewma_s *= _AGEING

    def failed(self, code: str) -> None:
        """Count a failure; a run of them takes the endpoint out until a probe answers."""
        self.failures += 1
        self.strikes += 1
        if self.ejected or self.strikes < self.settings.eject_after_failures:
            return
        self.ejected = True
        self.usable_from = self.now() + self._eject_for_s
        self._eject_for_s = min(self._eject_for_s * 2, self.settings.eject_max_s)
        if self._probe is None or self._probe.done():
            self._probe = self.loop.create_task(self._recover(code))

    async def _recover(self, code: str) -> None:
        """Bring an ejected endpoint back. One that could not be reached comes back as soon as a connection is
        made; one that answered wrongly comes back when its time is over, and one more failure ejects it again."""
        unreachable = code in ("upstream.connect_failed", "upstream.closed")
        while self.ejected:
            if self.now() >= self.usable_from:
                break
            await asyncio.sleep(0.25)
            if unreachable:
                try:
                    connection = await self.connect()
                except (OSError, TimeoutError, EndpointUnusable):
                    continue
                self.keep(connection)
                break
        self.strikes = self.settings.eject_after_failures - 1
        self.ejected = False
        self.on_usable(self)

    def retire(self) -> None:
        """This endpoint is no longer in the table: keep nothing but what is under way."""
        self.retired = True
        self.close_idle(_NEVER, 0.0)
        if self._probe is not None:
            self._probe.cancel()
