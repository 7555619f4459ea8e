"""The answer's side of a passage: what an endpoint sends is relayed and metered, or gives way to another attempt."""

from __future__ import annotations

from time import monotonic
from typing import Final

from sekisho.gateway.answers import JSON_OK
from sekisho.gateway.choose import all_out
from sekisho.gateway.ending import DECIDED, HOLDING, LOST, OVER, RELAYING, WAITING, Ending
from sekisho.gateway.http1 import ResponseHead
from sekisho.gateway.meter import StreamMeter, Tokens
from sekisho.gateway.refusals import Refusal, body_of, of
from sekisho.gateway.upstream import UpstreamConnection

# An answer up to this size is gathered before it leaves: until then another endpoint can still take over.
_HOLD: Final = 64 << 10
_ABSORB: Final = 32  # chunks
_PASSED_ERRORS: Final = frozenset({400, 409, 413, 415, 422})
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})


def _whole_events(payload: bytes) -> bool:
    size = len(payload)
    return size > 1 and payload[size - 1] == 10 and payload[size - 2] == 10  # an empty line at the end


class Answering(Ending):
    """What an endpoint's connection calls."""

    __slots__ = ()

    def _seek(self) -> None:
        """Another attempt (the request's side has it)."""
        raise NotImplementedError

    def _relaunch(self) -> None:
        """The same attempt on a new connection (the request's side has it)."""
        raise NotImplementedError

    # -- the answer

    def on_answer(
        self, connection: UpstreamConnection, head: ResponseHead, raw: bytes, parts: list[bytes], done: bool
    ) -> None:
        if self._hedge is not None:
            if connection is self._hedge.connection:
                self._promote_hedge("hedge.lost")
            else:
                self._drop_hedge("hedge.lost")
        if connection is not self._connection:
            return
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        state = self._state
        if state == RELAYING:
            self._relay(connection, raw, payload, done)
            return
        if payload and not self._first_byte:
            self._first_byte = monotonic()
        self._answer = head
        ok = 200 <= head.status < 300
        if done and ok and state == WAITING:  # the usual case: all of it at once
            self._whole_answer(head, payload)
            return
        self._state = HOLDING
        if self._held is None or self._parts is None:
            self._held, self._parts = [], []
        self._held.append(raw)
        if payload:
            self._parts.append(payload)
            self._held_size += len(payload)
        if not ok:
            if done or self._held_size > _HOLD:
                self._error_answer(connection, head, b"".join(self._parts))
        elif done:
            self._whole_answer(head, b"".join(self._parts))
        elif payload and (self._held_size > _HOLD or _is_stream(head)):
            self._start_relay(connection, head, b"".join(self._held), b"".join(self._parts))

    def on_chunk(self, connection: UpstreamConnection, head: ResponseHead, raw: bytes, payload: bytes) -> None:
        """One whole chunk of a stream: pass it on as it came, and look into it later where that is enough."""
        if self._raw_ok and self._state == RELAYING and connection is self._connection:
            meter = self._meter
            if (
                not self._inject
                or meter is None
                or (self._aligned and not meter.carry and _whole_events(payload) and b'"usage"' not in payload)
            ):
                self._last = payload
                self._passed.append(payload)
                if len(self._passed) >= _ABSORB:
                    self._absorb()
                self.client.send(raw)
                return
        self.on_answer(connection, head, raw, [payload], False)

    def _whole_answer(self, head: ResponseHead, body: bytes) -> None:
        """The answer is here before anything was sent: one write for all of it."""
        tokens = self._tokens = Tokens()
        kind = head.headers.get(b"content-type")
        if kind is not None and kind[:17] == b"text/event-stream":
            meter = self._meter = StreamMeter(tokens, strip=self._inject)
            visible = meter.feed(body)
            if visible is not None:
                body = visible + meter.rest()
        else:
            tokens.read_json(body)
        if body:
            self._commit_answer.update(body)
        self.bytes_out = size = len(body)
        self._succeeded()
        how = self._decide(head.status)
        if how == LOST:
            return
        if head.plain and self._keep_alive:
            lane = self._lane
            assert lane is not None
            answer = b"".join(
                (
                    JSON_OK,
                    b"content-length: ",
                    str(size).encode(),
                    b"\r\n",
                    self.gateway.date,
                    lane.answer_head,
                    self._id,
                    b"\r\n\r\n",
                    body,
                )
            )
        else:
            framing = b"content-length: %d\r\n" % size if head.status != 204 else b""  # RFC 9110 §8.6
            answer = self._answer_head(head, framing) + body
        self.client.send(answer)
        if how == DECIDED:
            self._account()
        self.client.finished(keep_alive=self._keep_alive)

    def _start_relay(self, connection: UpstreamConnection, head: ResponseHead, raw: bytes, payload: bytes) -> None:
        """Something has to leave before the answer is complete: from here on no other endpoint can take over."""
        self._state = RELAYING
        self._tokens = Tokens()
        self._succeeded()
        if _is_stream(head):
            self._meter = StreamMeter(self._tokens, strip=self._inject)
        if head.length >= 0 and not (self._meter is not None and self._inject):
            framing = b"content-length: %d\r\n" % head.length
            self._raw_ok = True
        elif self._version:
            framing = b"transfer-encoding: chunked\r\n"
            self._raw_ok = head.length == -1
        else:
            framing = b""
            self._close_framed = True
            self._keep_alive = False
        self._held = self._parts = None
        self.client.send(self._answer_head(head, framing))
        self._relay(connection, raw, payload, False)
        if self.client.blocked:  # an earlier answer on this connection has not been read yet
            self.pause()

    def _relay(self, connection: UpstreamConnection, raw: bytes, payload: bytes, done: bool) -> None:
        """Pass on what came; with its framing as it came wherever that is possible.

        When the usage chunk has to be taken out, the endpoint's framing is kept only for bytes that begin and end
        at a chunk's boundary; all else is framed anew, so that the client always stands at a boundary.
        """
        self._absorb()
        meter = self._meter
        visible = meter.feed(payload) if meter is not None and payload else None
        whole = True
        if self._inject and meter is not None:
            began = self._aligned
            self._aligned = connection.aligned
            whole = began and self._aligned and visible is None
        if self._raw_ok and whole:
            out = raw
            shown = payload
        else:
            shown = payload if visible is None else visible
            if done and meter is not None:
                shown += meter.rest()
            out = shown if self._close_framed or not shown else b"%x\r\n%b\r\n" % (len(shown), shown)
            if done and not self._close_framed:
                out += b"0\r\n\r\n"
        if shown:
            self._last = shown
            self._commit_answer.update(shown)
            self.bytes_out += len(shown)
        if not done:
            if out:
                self.client.send(out)
            return
        if self._complete(self._answer.status if self._answer else 200):
            if out:
                self.client.send(out)
            self.client.finished(keep_alive=self._keep_alive)

    def _error_answer(self, connection: UpstreamConnection, head: ResponseHead, body: bytes) -> None:
        """The endpoint answered with an error: what concerns the client's request goes on, all else stays here."""
        status = head.status
        if status in _RETRIED:
            if connection.exchange is self:
                connection.cancel()
            if status == 429:
                text = head.headers.get(b"retry-after", b"")
                self._busy_for_s = float(text) if text.isdigit() and len(text) < 6 else 1.0
            self._attempt_failed("upstream.busy" if status == 429 else "upstream.error")
            return
        if connection.exchange is self:
            connection.cancel()
        assert self._endpoint is not None
        if status in _PASSED_ERRORS and self._held_size <= _HOLD:
            self._commit_answer.update(body)
            self.bytes_out = len(body)
            self._succeeded()
            if self._finish("completed", status, code="upstream.refused"):
                self.client.send(self._answer_head(head, b"content-length: %d\r\n" % len(body)) + body)
                self._end()
            return
        # 401/403 concern our own credential, 3xx would lead out of the set, 404/405/501 a path it does not have
        code = "upstream.unsupported" if status in (404, 405, 501) else "upstream.error"
        self._note_attempt(code)
        self.fail(of(code))

    def on_failure(self, connection: UpstreamConnection, code: str, *, stale: bool) -> None:
        if self._state == OVER:
            return
        if self._hedge is not None and connection is self._hedge.connection:
            self._drop_hedge(code)
            return
        if connection is not self._connection:
            return
        self._connection = None
        if self._hedge is not None:
            if self._endpoint is not None:
                self._endpoint.failed(code)
            self._promote_hedge(code)
            return
        if self._state == RELAYING:
            self._cut_off(connection, code)
        elif stale and not self._fresh:
            # The endpoint closed a kept connection just as we used it: not its failure, try on a new one.
            self._fresh = True
            self._relaunch()
        else:
            self._attempt_failed(code)

    def _cut_off(self, connection: UpstreamConnection, code: str) -> None:
        """The endpoint broke off in the middle: the client must see that the answer is not whole."""
        assert self._endpoint is not None
        self._endpoint.failed(code)
        self._note_attempt(code)
        chunked = self._version and self._answer is not None and (self._answer.length < 0 or self._inject)
        at_boundary = connection.aligned if self._raw_ok and not self._inject else True
        self._finish("upstream_cut", self._answer.status if self._answer else 0, code=code)
        if self._meter is not None and self._close_framed:
            self.client.send(b"data: " + body_of(of("upstream.error"), self.id) + b"\n\n")
        elif self._meter is not None and chunked and at_boundary:
            # OpenAI clients raise on an error event; others see that the last chunk is missing.
            event = b"data: " + body_of(of("upstream.error"), self.id) + b"\n\n"
            self.client.send(b"%x\r\n%b\r\n" % (len(event), event))
        self.client.cut(reset=self._close_framed)

    def _attempt_failed(self, code: str) -> None:
        """Nothing has reached the client yet: another endpoint of the set may take over, within the retry budget."""
        gateway, endpoint = self.gateway, self._endpoint
        assert endpoint is not None
        self._connection = None
        endpoint.failed(code)
        self._note_attempt(code)
        self.tried += (endpoint,)
        self._free_slot()
        self._answer = None
        self._first_byte = 0.0
        self._fresh = False
        self._held = self._parts = None
        self._held_size = 0
        self._state = WAITING
        route = self._route
        if (
            len(self._attempts) < gateway.settings.max_attempts
            and route is not None
            and not all_out(route, self.tried)
            and gateway.may_retry()
        ):
            gateway.metrics.retries += 1
            self._seek()
        else:
            self.fail(self._last_error())

    def _last_error(self) -> Refusal:
        code = self._attempts[-1].result if self._attempts else "upstream.unavailable"
        if code in ("upstream.connect_failed", "upstream.unusable", "upstream.unavailable", "upstream.closed"):
            code = "upstream.unavailable"
        elif code == "upstream.malformed":
            code = "upstream.error"
        return of(code, retry_after_s=self._busy_for_s if code == "upstream.busy" else None)

    def _promote_hedge(self, result: str) -> None:
        """The second attempt takes the first one's place; the first is over with `result`."""
        hedge, self._hedge = self._hedge, None
        assert hedge is not None and self._endpoint is not None
        self._note_attempt(result)
        connection, self._connection = self._connection, None
        if connection is not None and connection.exchange is self:
            connection.cancel()
        self._free_slot()
        self._endpoint, self._connection, self._sent_at = hedge.endpoint, hedge.connection, hedge.sent_at
        self._lane = self._lane_to(hedge.endpoint)
        self._slotted = True

    # -- the client

    def pause(self) -> None:
        """The client does not keep up: stop reading from the endpoint."""
        if self._connection is not None and self._state == RELAYING:
            self._connection.pause_reading()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def client_gone(self, *, status: int = 499) -> None:
        """The client left: the endpoint must stop working on it at once."""
        if self._state == OVER:
            return
        if self._state == RELAYING and b"data: [DONE]" in self._last:
            # OpenAI clients close at the stream's last event, without waiting for the end of the framing.
            self._finish("completed", self._answer.status if self._answer else 200)
            return
        if self._endpoint is not None and self._slotted:
            self._note_attempt("client.gone")
        self._finish("client_gone", status, code="client.gone")


def _is_stream(head: ResponseHead) -> bool:
    return head.headers.get(b"content-type", b"")[:17] == b"text/event-stream"
