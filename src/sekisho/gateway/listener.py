"""The client's side: framing, pipelining in order, time and size limits, back-pressure."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from sekisho.gateway.http1 import Dechunker, Form, Malformed, RequestHead, parse_request, without_length
from sekisho.gateway.passage import Passage
from sekisho.gateway.reading import KnownHead
from sekisho.gateway.refusals import Refusal, of

if TYPE_CHECKING:
    from sekisho.gateway.gateway import Gateway

_NEVER: Final = float("inf")
_PIPELINE_BYTES: Final = 64 << 10
_LINGER_S: Final = 2.0
_SLOWEST_BYTES_PER_S: Final = 32768
_CRUMB: Final = 4096
_LINGER_BYTES: Final = 4 << 20
_HIGH_WATER: Final = 64 << 10
_PROXY_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # PROXY protocol 2.2 §2.2
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST
_TCP_ESTABLISHED: Final = 1  # include/net/tcp_states.h
_PROXY_HEAD: Final = struct.Struct("!12sBBH")


# States, as plain integers: they are compared several times a request.
_PROXY: Final = 0  # the PROXY protocol's header comes first
_HEAD: Final = 1
_BODY: Final = 2
_BUSY: Final = 3  # a passage is under way; further requests wait their turn
_LINGER: Final = 4  # answered and closing: read and forget, so that the answer is not lost to a reset (RFC 9112 §9.6)
_CLOSED: Final = 5


class ClientConnection:
    """One connection from a client (an asyncio protocol, without its base class: native classes have none)."""

    __slots__ = (
        "_body", "_body_size", "_body_until", "_buffer", "_crumbs", "_dechunker", "_left", "_looping", "_state",
        "blocked", "deadline", "deaf", "gateway", "known", "passage", "peer", "transport",
    )  # fmt: skip

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.transport: asyncio.Transport | None = None
        self.passage: Passage | None = None
        self.known: KnownHead | None = None  # of the last request, under the current route table
        self.peer = ""
        self.deadline = _NEVER
        self._state = _PROXY if gateway.settings.proxy_protocol else _HEAD
        self._buffer = b""
        self._body: list[bytes] = []
        self._crumbs = bytearray()
        self._body_size = 0
        self._body_until = _NEVER
        self._left = 0
        self._dechunker: Dechunker | None = None
        self._looping = False
        self.blocked = False  # the client does not read what was sent: nothing new is answered until it does
        self.deaf = False  # we do not read what the client sends ahead

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        gateway = self.gateway
        if not gateway.enter(self):
            self._state = _CLOSED
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(_HIGH_WATER)
        self.deadline = gateway.coarse + gateway.settings.head_timeout_s

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing of the next one here."""
        return self._state in (_HEAD, _PROXY) and not self._buffer

    # -- reading

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD and not self.blocked:
            if self._buffer:
                data = self._buffer + data
            self._buffer = data
            self._process()
        elif state == _BODY:
            self._read_body(data)
        elif state in (_BUSY, _HEAD):
            self._buffer += data
            if len(self._buffer) > _PIPELINE_BYTES and not self.deaf and self.transport is not None:
                self.deaf = True
                self.transport.pause_reading()
        elif state == _LINGER:
            self._left -= len(data)
            if self._left < 0:
                self.cut()
        elif state == _PROXY:
            self._buffer += data
            self._read_proxy()

    def _process(self) -> None:
        """Read requests from the buffer, one after the other, as long as none is under way."""
        if self._looping:
            return
        self._looping = True
        try:
            while self._state == _HEAD and self._buffer and not self.blocked:
                if not self._read_head():
                    break
        finally:
            self._looping = False

    def _read_head(self) -> bool:
        """Read one head if it is complete. False: more bytes are needed."""
        data = self._buffer
        gateway = self.gateway
        tuning = gateway.tuning
        if data[0] == 13:  # RFC 9112 §2.2: an empty line or two before the request line are ignored
            data = self._buffer = data.removeprefix(b"\r\n").removeprefix(b"\r\n")
            if data in (b"", b"\r"):
                return False
            if data[0] == 13:
                self._refuse_unread(of("http.malformed", en="Empty lines in place of a request."))
                return False
        known = self.known
        if known is not None and known.form is not None:
            after, length = known.form.match(data)
            if after > 0 and self._recall(known, length, after):
                return True
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > tuning.max_head_bytes:
            if len(data) > tuning.max_head_bytes:
                self._refuse_unread(of("http.head_too_large"))
            elif b"\n\n" in data or b"\n\r\n" in data or b"\0" in data:
                self._refuse_unread(of("http.malformed", en="A bare LF or a NUL byte in the head."))
            elif self.passage is None and self.deadline > gateway.coarse + gateway.settings.head_timeout_s:
                self.deadline = gateway.coarse + gateway.settings.head_timeout_s  # the first byte starts the clock
            return False
        raw = data[: end + 2]
        short = without_length(raw)
        if short is not None:
            known = gateway.heads.get(short[0])
            if known is not None:
                if known.form is None:
                    known.form = Form(data[: end + 4])
                self.known = known
                if self._recall(known, short[1], end + 4):
                    return True
        try:
            head = parse_request(raw)
        except Malformed as malformed:
            refusal = of("http.malformed", en=malformed.what[0].upper() + malformed.what[1:] + ".")
            self._refuse_unread(refusal, status=malformed.status)
            return False
        self._buffer = data[end + 4 :]
        target = head.target
        if target in (b"/healthz", b"/readyz") and head.method in (b"GET", b"HEAD") and head.length == 0:
            self._answer_health(head)
            return True
        passage = self.passage = Passage(gateway, self)
        refusal_ = passage.read_head(head)
        if refusal_ is None and b"expect" in head.headers:
            if head.headers[b"expect"].lower() != b"100-continue":
                refusal_ = of("http.expectation_failed")
            elif head.version and head.length and len(self._buffer) == 0:
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = head.length
        if refusal_ is not None:
            if length < 0 or length > len(self._buffer):
                passage.close_after()  # its body is not read
                self._buffer = b""
            else:
                self._buffer = self._buffer[length:]
            self._state = _BUSY
            self.deadline = _NEVER
            if passage.tenant is None and not gateway.may_answer_stranger():
                gateway.under_way -= 1  # nothing is written of it
                self.cut()
                return False
            if refusal_.status == 401:
                self.gateway.log_stranger(refusal_.code, self._peer(), passage.id)
            passage.refuse(refusal_)
            return True
        if length == 0:
            self._begin(b"")
            return True
        if short is not None and b"expect" not in head.headers:
            gateway.remember(short[0], passage)
        self._dechunker = Dechunker() if length < 0 else None
        self._left = length
        self._state = _BODY
        self._expect_body(length if length >= 0 else tuning.max_body_bytes)
        data, self._buffer = self._buffer, b""
        if data:
            self._read_body(data)
        return True

    def _recall(self, known: KnownHead, length: int, after: int) -> bool:
        """Go on with a head that was read before; its body begins at `after`. False: it has to be read again."""
        if not 0 < length <= self.gateway.tuning.max_body_bytes:
            return False
        data, self._buffer = self._buffer, b""
        passage = self.passage = Passage(self.gateway, self)
        if passage.recall(known) is not None:
            self.passage = None
            self.gateway.under_way -= 1  # it never began
            self._buffer = data
            return False
        self._left = length
        self._state = _BODY
        self._expect_body(length)
        if len(data) > after:
            self._read_body(data[after:])
        return True

    def _expect_body(self, length: int) -> None:
        """Set the clock for a body: a pause may be short, and all of it may not take longer than at a slow modem's
        pace; else bodies that never end would hold memory that others need."""
        now, timeout_s = self.gateway.coarse, self.gateway.tuning.body_timeout_s
        self._body_until = now + timeout_s + length / _SLOWEST_BYTES_PER_S
        self.deadline = now + timeout_s

    def _read_body(self, data: bytes) -> None:
        gateway = self.gateway
        dechunker = self._dechunker
        if dechunker is None:
            left = self._left
            if not self._body_size and len(data) >= left:  # the usual case: it is all here
                self._buffer = data[left:]
                self._begin(data[:left] if len(data) > left else data)
                return
            part = data[:left] if len(data) > left else data
            self._left = left - len(part)
            done = self._left == 0
            if done:
                self._buffer = data[len(part) :]
            added = len(part)
        else:
            try:
                parts = dechunker.feed(data)
            except Malformed as malformed:
                self._refuse_body(of("http.malformed", en=malformed.what[0].upper() + malformed.what[1:] + "."))
                return
            part = b"".join(parts)
            added = len(part)
            done = dechunker.done
            if done:
                self._buffer = dechunker.rest
        self._gather(part)
        assert self.passage is not None
        fits = self.passage.hold(added)
        if self._body_size > gateway.tuning.max_body_bytes:
            self._refuse_body(of("http.body_too_large"))
        elif not fits:
            self._refuse_body(of("gateway.memory"))
        elif done:
            self._gather(b"")
            body = b"".join(self._body)
            self._forget_body()
            self._begin(body)
        else:
            self.deadline = min(gateway.coarse + gateway.tuning.body_timeout_s, self._body_until)

    def _gather(self, part: bytes) -> None:
        """Keep a part of the body: large ones as they came, small ones together (a byte object costs 33 more).
        An empty one ends the crumbs."""
        self._body_size += len(part)
        if 0 < len(part) < _CRUMB:
            self._crumbs += part
            if len(self._crumbs) < 16 * _CRUMB:
                return
            part = b""
        if self._crumbs:
            self._body.append(bytes(self._crumbs))
            self._crumbs = bytearray()
        if part:
            self._body.append(part)

    def _begin(self, body: bytes) -> None:
        passage = self.passage
        assert passage is not None
        self._state = _BUSY
        self.deadline = _NEVER
        self._dechunker = None
        passage.read_body(body)
        self._process()

    def _forget_body(self) -> None:
        if self._body_size:
            self._body = []
            self._crumbs = bytearray()
            self._body_size = 0

    def _peer(self) -> str:
        """Who connected: what the load balancer says, or the address of the connection itself."""
        if self.peer or self.transport is None:
            return self.peer
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if name else "unknown"

    def _read_proxy(self) -> None:
        """PROXY protocol version 2, §2.2: the load balancer says who the client is."""
        data = self._buffer
        if not data.startswith(_PROXY_SIGNATURE[: len(data)]):
            self.cut()  # whoever speaks without it is not our load balancer
            return
        if len(data) < _PROXY_HEAD.size:
            return
        _, version_command, family, length = _PROXY_HEAD.unpack_from(data)
        if version_command not in (0x20, 0x21) or length > 4096:
            self.cut()
            return
        if len(data) < _PROXY_HEAD.size + length:
            return
        addresses = data[_PROXY_HEAD.size : _PROXY_HEAD.size + length]
        if version_command == 0x21:  # PROXY; 0x20 is LOCAL: the balancer's own health check
            if family == 0x11 and length >= 12:
                self.peer = socket.inet_ntop(socket.AF_INET, addresses[:4])
            elif family == 0x21 and length >= 36:
                self.peer = socket.inet_ntop(socket.AF_INET6, addresses[:16])
        self._buffer = data[_PROXY_HEAD.size + length :]
        self._state = _HEAD
        if self._buffer:
            self._process()

    # -- refusals that need no passage of their own yet

    def _refuse_unread(self, refusal: Refusal, *, status: int | None = None) -> None:
        """Refuse what could not be read as a request; nothing after it can be trusted."""
        if status is not None and status != refusal.status:
            refusal = Refusal(
                status=status, code=refusal.code, en=refusal.en, ja=refusal.ja, way_out=refusal.way_out,
                way_out_ja=refusal.way_out_ja,
                rules=refusal.rules,
            )  # fmt: skip
        self._buffer = b""
        if not self.gateway.may_answer_stranger():
            self.cut()
            return
        self._state = _BUSY
        self.deadline = _NEVER
        passage = self.passage = Passage(self.gateway, self)
        passage.close_after()
        passage.refuse(refusal)

    def _refuse_body(self, refusal: Refusal) -> None:
        """Refuse in the middle of a body: the rest of it is not read."""
        passage = self.passage
        assert passage is not None
        self._forget_body()
        self._buffer = b""
        self._dechunker = None
        self._state = _BUSY
        self.deadline = _NEVER
        passage.close_after()
        passage.refuse(refusal)

    def _answer_health(self, head: RequestHead) -> None:
        """Not a passage: no key, no data, no decision."""
        status, word = (b"200 OK", b"ok") if head.target == b"/healthz" else self.gateway.readiness()
        keep = head.keep_alive and not self.gateway.draining
        self.send(
            b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                status,
                len(word) + 1,
                b"" if keep else b"connection: close\r\n",
                word + b"\n" if head.method == b"GET" else b"",
            )
        )
        if not keep:
            self._linger()
        elif not self.blocked:
            self.deadline = self.gateway.coarse + self.gateway.tuning.idle_timeout_s

    # -- what a passage does with its client

    def send(self, data: bytes) -> None:
        if self.transport is not None and data:
            self.gateway.write(self.transport, data)

    def finished(self, *, keep_alive: bool) -> None:
        self.passage = None
        if self._state == _CLOSED:
            return
        if not keep_alive or self.gateway.draining:
            self._linger()
            return
        self._state = _HEAD
        if not self.blocked:
            self.deadline = self.gateway.coarse + self.gateway.tuning.idle_timeout_s
        if self.deaf and self.transport is not None:
            self.deaf = False
            self.transport.resume_reading()
        if self._buffer:
            self._process()

    def cut(self, *, reset: bool = False) -> None:
        """Close at once: the answer is visibly unfinished. `reset`: where only a reset shows that (HTTP/1.0)."""
        self.passage = None
        self._state = _CLOSED
        if self.transport is not None:
            self.gateway.flush()
            raw = self.transport.get_extra_info("socket") if reset else None
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self.transport.abort()
                return
            # Not abort(): what was sent before must still go out; the missing end shows that it was cut.
            self.transport.close()

    def _linger(self) -> None:
        """Close for writing now and for reading a little later."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._state = _LINGER
        self._left = _LINGER_BYTES
        self._buffer = b""
        self.deadline = self.gateway.coarse + _LINGER_S
        if self.deaf:
            self.deaf = False
            transport.resume_reading()
        self.gateway.flush()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    # -- the transport's calls

    def listen_for_close(self) -> None:
        """While we do not read, a client that leaves is seen by the state of its connection only."""
        raw = self.transport.get_extra_info("socket") if self.transport is not None else None
        if raw is None or self.transport is None:
            return
        try:
            state = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return
        if state != _TCP_ESTABLISHED:
            self.transport.abort()

    def pause_writing(self) -> None:
        self.blocked = True
        self.deadline = self.gateway.coarse + self.gateway.settings.write_timeout_s
        if self.passage is not None:
            self.passage.pause()

    def resume_writing(self) -> None:
        self.blocked = False
        if self._state == _BUSY:
            self.deadline = _NEVER
            if self.passage is not None:
                self.passage.resume()
        elif self._state == _HEAD:
            self.deadline = self.gateway.coarse + self.gateway.tuning.idle_timeout_s
            if self.deaf and self.transport is not None:
                self.deaf = False
                self.transport.resume_reading()
            self._process()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _CLOSED
        self._forget_body()
        self._buffer = b""
        self.gateway.leave(self)
        passage, self.passage = self.passage, None
        if passage is not None:
            passage.client_gone()

    def expire(self) -> None:
        """The deadline has passed: idle connections close, half a request gets 408, a client that does not read or
        that lingers is cut off."""
        self.deadline = _NEVER
        if self._state == _HEAD and self._buffer:
            self._refuse_unread(of("http.timeout"))
        elif self._state == _BODY:
            self._refuse_body(of("http.timeout"))
        elif self.transport is not None:
            self._state = _CLOSED
            self.transport.abort()
