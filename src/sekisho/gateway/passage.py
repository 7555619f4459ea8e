"""One passage: from a request's head to the one decision that is written of it.

    read_head ─► read_body ─► route ─► admit ─► dispatch ─► on_answer … ─► finish
        │            │          │        │         │             │
        └────────────┴──────────┴────────┴─────────┴─────────────┴──► refuse / fail: the same finish

Whatever way it ends, `_record` runs once, before the last byte leaves for the client.
"""

from __future__ import annotations

import time
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from sekisho.gateway.body import BodyRefused, read_body, splice_model, splice_usage
from sekisho.gateway.choose import all_out, choose
from sekisho.gateway.http1 import RequestHead, ResponseHead
from sekisho.gateway.live import LiveTable, Route, Tenant, TenantLimits, limits_of
from sekisho.gateway.meter import StreamMeter, Tokens
from sekisho.gateway.refusals import Refusal, body_of, of
from sekisho.gateway.upstream import Endpoint, EndpointUnusable, UpstreamConnection
from sekisho.kernel.classes import DataClass
from sekisho.ledger.model import Attempt, Decision, Dispatch, Outcome, encode_record
from sekisho.residency.table import Closed

if TYPE_CHECKING:
    from sekisho.gateway.gateway import Gateway

# An answer up to this size is gathered before it leaves: until then another endpoint can still take over.
_HOLD = 64 << 10
# Paths of the OpenAI API that are relayed, and whether their streams take `stream_options`.
INFERENCE: dict[bytes, bool] = {
    b"/v1/chat/completions": True,
    b"/v1/completions": True,
    b"/v1/embeddings": False,
    b"/v1/responses": False,
}
_PASSED_ERRORS = frozenset({400, 409, 413, 415, 422})
_RETRIED = frozenset({429, 500, 502, 503, 504})
# Of the endpoint's headers only these go on; what it says of itself (Server, cookies, X-Sekisho-…) stays behind.
_PASSED_HEADERS = frozenset({b"content-type", b"retry-after", b"x-request-id", b"openai-processing-ms"})
_REASONS = {
    200: b"OK", 201: b"Created", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict", 413: b"Content Too Large",
    414: b"URI Too Long", 415: b"Unsupported Media Type", 417: b"Expectation Failed", 422: b"Unprocessable Content",
    429: b"Too Many Requests", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}  # fmt: skip


class Client(Protocol):
    """The client's side of a passage."""

    def send(self, data: bytes) -> None: ...

    def finished(self, *, keep_alive: bool) -> None:
        """The answer is complete."""

    def cut(self) -> None:
        """Close at once: the answer is visibly unfinished."""


class _State(IntEnum):
    READING = 0  # the request
    WAITING = 1  # for a slot, a connection or the answer
    HOLDING = 2  # the answer's beginning
    RELAYING = 3
    OVER = 4


class Passage:
    """See the module's docstring. Times are event-loop seconds unless they say otherwise."""

    __slots__ = (
        "_aligned", "_answer", "_attempts", "_body", "_close_framed", "_commit_answer", "_connection", "_endpoint", "_estimate",
        "_first_byte", "_fresh", "_hashed", "_held", "_held_size", "_inject", "_keep_alive", "_limits", "_meter",
        "_model", "_parts", "_path", "_prefix_hash", "_queued_at", "_raw_ok", "_route", "_seen_model",
        "_sent_at", "_slotted", "_started", "_state", "_tokens", "_version", "_wants_class", "at_ms", "bytes_in",
        "bytes_out", "client", "data_class", "dispatched", "gateway", "id", "key_id", "queue_deadline", "queue_s",
        "table", "tenant", "tried", "waiting",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, client: Client) -> None:
        self.gateway = gateway
        self.client = client
        self.id = gateway.next_id()
        self.at_ms = int(time.time() * 1000)
        self._started = gateway.now()
        self._state = _State.READING
        self.table: LiveTable | None = gateway.live
        self.tenant: Tenant | None = None
        self.key_id = ""
        self.data_class: DataClass | None = None
        self._path = b""
        self._version = 1
        self._keep_alive = True
        self._model = ""
        self._seen_model = ""
        self._body = b""
        self._inject = False
        self._prefix_hash: int | None = None
        self._route: Route | None = None
        self._limits: tuple[TenantLimits, ...] = ()
        self._estimate = 0
        self._endpoint: Endpoint | None = None
        self._slotted = False
        self._connection: UpstreamConnection | None = None
        self._fresh = False
        self._sent_at = 0.0
        self._attempts: list[Attempt] = []
        self.tried: list[Endpoint] = []
        self.dispatched = False
        self.waiting = False
        self.queue_deadline = 0.0
        self._queued_at = 0.0
        self.queue_s = 0.0
        self._answer: ResponseHead | None = None
        self._first_byte = 0.0
        self._held: list[bytes] = []
        self._held_size = 0
        self._parts: list[bytes] = []
        self._raw_ok = False
        self._aligned = True
        self._close_framed = False
        self._meter: StreamMeter | None = None
        self._tokens = Tokens()
        self._hashed = ""
        self._commit_answer = gateway.no_hash
        self.bytes_in = 0
        self.bytes_out = 0

    # -- the request

    def read_head(self, head: RequestHead) -> Refusal | None:
        """Authenticate and classify. None: go on with the body (or `local` answers without one)."""
        self._version = head.version
        self._keep_alive = head.keep_alive
        target = head.target
        path, query, _ = target.partition(b"?") if b"?" in target else (target, b"", b"")
        self._path = path if len(path) <= 64 else path[:64]
        table = self.table
        if table is None:
            return of("gateway.no_table")
        headers = head.headers
        bearer = headers.get(b"authorization")
        if bearer is None:
            return of("auth.key_missing")
        if bearer[:7].lower() != b"bearer ":
            return of("auth.key_unknown")
        known = table.keys.get(self.gateway.sha256(bearer[7:].strip(b" ")).digest())
        if known is None or (known[2] is not None and known[2] <= self.at_ms / 1000):
            return of("auth.key_unknown")
        self.tenant, self.key_id, _ = known
        wanted = headers.get(b"x-sekisho-class")
        floor = self.tenant.floor
        if wanted is None:
            self.data_class = floor
        else:
            asked = DataClass.parse(wanted.decode("latin-1"))
            if asked is None:
                return of("class.invalid")
            self.data_class = max(floor, asked)
        if path not in INFERENCE:
            if path != b"/v1/models":
                return of("http.not_found")
            return None if head.method == b"GET" else of("http.method_not_allowed")
        if head.method != b"POST":
            return of("http.method_not_allowed")
        if query:
            return of("http.not_found", en="The inference paths take no query.", ja="推論パスにクエリは使えません。")
        kind = headers.get(b"content-type")
        if kind is not None and kind != b"application/json" and not _is_json(kind):
            return of("http.unsupported_media_type")
        if b"content-encoding" in headers:
            return of("http.unsupported_media_type", en="The body is compressed.", ja="本文が圧縮されています。")
        if head.length > self.gateway.settings.max_body_bytes:
            return of("http.body_too_large")
        return None

    def read_body(self, body: bytes) -> None:
        """The whole body is here: route, admit and send it on, or refuse."""
        self.bytes_in = len(body)
        tenant, table, data_class = self.tenant, self.table, self.data_class
        assert tenant is not None and table is not None and data_class is not None
        gateway = self.gateway
        if self._path == b"/v1/models":
            self._list_models(tenant, table, data_class)
            return
        settings = gateway.settings
        try:
            reading = read_body(body, prefix_bytes=settings.affinity_prefix_bytes)
        except BodyRefused as refused:
            self.refuse(of(refused.code, en=_sentence(refused.what), way_out=refused.way_out))
            return
        model = reading.model
        self._seen_model = model
        alias = table.aliases.get(model)
        if alias is not None:
            body = splice_model(body, alias)
            model = alias
        self._model = model
        hasher = tenant.salted.copy()
        hasher.update(self.id.encode())
        self._commit_answer = hasher.copy()
        hasher.update(body)
        self._hashed = hasher.hexdigest()
        if reading.stream and not reading.wants_usage and INFERENCE[self._path]:
            body = splice_usage(body)
            self._inject = True
        self._body = body
        if len(reading.prefix) >= settings.affinity_min_bytes:
            self._prefix_hash = zlib.crc32(reading.prefix, zlib.crc32(tenant.entry.id.encode()))
        per_choice = reading.max_tokens if reading.max_tokens is not None else settings.default_max_tokens
        if self._path == b"/v1/embeddings":
            per_choice = 0
        self._estimate = self.bytes_in // 4 + per_choice * reading.choices
        refusal = self._admit()
        if refusal is not None:
            self.refuse(refusal)
            return
        self._seek()

    def _resolve(self) -> Route | Refusal:
        """The route set for this request in the current table, or why there is none."""
        tenant, table, data_class = self.tenant, self.table, self.data_class
        assert tenant is not None and table is not None and data_class is not None
        route = tenant.routes[data_class].get(self._model)
        if route is None:
            return of("model.not_found")
        if isinstance(route, Closed):
            reasons = route.reasons[:5]
            return Refusal(
                status=403,
                code="residency.no_eligible_endpoint",
                en=f"No endpoint may serve {data_class.label} data with this model. "
                + " ".join(r.en for r in reasons),
                ja=f"区分 {data_class.label} のデータをこのモデルで処理できるエンドポイントがありません。"
                + "".join(r.ja for r in reasons),
                way_out="ask for a site that satisfies the rules, or send data of a lower class;"
                " `sekisho why` explains every site",
                rules=route.rules,
            )
        if route.valid_until is not None and route.valid_until <= time.time():
            return of("residency.evidence_expired")
        return route

    def _admit(self) -> Refusal | None:
        """Residency, journal and the tenant's limits, in this order: a refusal takes nothing."""
        route = self._resolve()
        if isinstance(route, Refusal):
            return route
        self._route = route
        tenant, data_class = self.tenant, self.data_class
        assert tenant is not None and data_class is not None
        gateway = self.gateway
        if data_class.guarded and not gateway.journal.ready:
            return of("journal.unavailable")
        limits = tenant.limits.get(self._model)
        if limits is None:
            limits = tenant.limits[self._model] = limits_of(gateway.board, tenant, self._model)
        if not limits:
            return None
        now = gateway.now()
        taken: list[TenantLimits] = []
        refusal = None
        for scope in limits:
            refusal = self._take(scope, now)
            if refusal is not None:
                break
            taken.append(scope)
        if refusal is not None:
            for scope in taken:
                _put_back(scope, self._estimate)
            return refusal
        self._limits = limits
        return None

    def _take(self, scope: TenantLimits, now: float) -> Refusal | None:
        if scope.tokens is not None and self._estimate > scope.tokens.per_minute:
            return of("limit.tokens_too_many")
        if scope.slots is not None and not scope.slots.take():
            return of("limit.concurrency", retry_after_s=1.0)
        if scope.requests is not None and (wait := scope.requests.take(1.0, now)):
            if scope.slots is not None:
                scope.slots.release()
            return of("limit.requests", retry_after_s=wait)
        if scope.tokens is not None and (wait := scope.tokens.take(self._estimate, now)):
            if scope.slots is not None:
                scope.slots.release()
            if scope.requests is not None:
                scope.requests.settle(1.0)
            return of("limit.tokens", retry_after_s=wait)
        return None

    # -- choice, queue and dispatch

    def _seek(self) -> None:
        """Find an endpoint of the set with a free slot, or wait for one."""
        gateway, route = self.gateway, self._route
        assert route is not None
        self._state = _State.WAITING
        if not route.waiting:
            endpoint = choose(route, self._prefix_hash, self.tried, load_bound=gateway.settings.load_bound)
            if endpoint is not None:
                self.dispatch(endpoint)
                return
        if all_out(route, self.tried):
            self.fail(self._last_error())
            return
        assert self.tenant is not None and self.data_class is not None
        now = gateway.now()
        if not self._queued_at:
            self._queued_at = now
            self.queue_deadline = now + gateway.settings.queue_timeout_s
        if not gateway.queue.push(
            self, route, tenant=self.tenant.entry.id, data_class=self.data_class, cost=self._estimate
        ):
            self.fail(of("limit.queue_full", retry_after_s=gateway.queue.retry_after_s()))
            return
        gateway.watch_queue()

    def queue_expired(self) -> None:
        """The queue's deadline has passed (the queue has let go of this passage)."""
        self.fail(of("limit.queue_timeout", retry_after_s=self.gateway.queue.retry_after_s()))

    def reconsider(self) -> None:
        """A new route table is there while this passage waits: ask again, by the new one."""
        refusal = self._follow_table()
        if refusal is not None:
            self.fail(refusal)
        else:
            self._seek()

    def _follow_table(self) -> Refusal | None:
        """Obey the newest table before anything (more) is sent: the key may be gone, the set may be smaller."""
        gateway = self.gateway
        live = gateway.live
        if live is not self.table and live is not None and self.tenant is not None:
            self.table = live
            tenant = next((t for t, key, _ in live.keys.values() if key == self.key_id), None)
            if tenant is None:
                return of("auth.key_unknown")
            self.tenant = tenant
            if self.data_class is not None and tenant.floor > self.data_class:
                self.data_class = tenant.floor
        route = self._resolve()
        if isinstance(route, Refusal):
            return route
        self._route = route
        return None

    def dispatch(self, endpoint: Endpoint) -> None:
        """Send the request to `endpoint`, whose slot has been taken for it."""
        gateway = self.gateway
        self._endpoint = endpoint
        self._slotted = True
        endpoint.in_flight += 1
        endpoint.requests += 1
        if self._queued_at:
            self.queue_s += gateway.now() - self._queued_at
            self._queued_at = 0.0
        route = self._route
        assert route is not None and self.data_class is not None
        if gateway.live is not self.table or (route.valid_until is not None and route.valid_until <= time.time()):
            refusal = self._follow_table()
            if refusal is None and endpoint not in self._route.endpoints:  # type: ignore[union-attr] # just set
                self._free_slot()
                self._seek()
                return
            if refusal is not None:
                self._free_slot()
                self.fail(refusal)
                return
        self._sent_at = gateway.now()
        if not self._write_dispatch(endpoint) and self.data_class.guarded:
            self._free_slot()
            self.fail(of("journal.unavailable"))
            return
        if self.data_class is DataClass.RESTRICTED:
            gateway.journal.when_durable(self._launch)
        else:
            self._launch()

    def _launch(self) -> None:
        """The dispatch is on record: let the request go."""
        endpoint = self._endpoint
        if self._state is not _State.WAITING or endpoint is None:
            return  # the client left in the meantime
        connection = None if self._fresh else endpoint.idle()
        if connection is not None:
            self._send(connection)
        else:
            self.gateway.spawn(self._connect(endpoint))

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            connection = await endpoint.connect()
        except EndpointUnusable as error:
            self.gateway.log_endpoint(endpoint, str(error))
            if self._endpoint is endpoint and self._state is _State.WAITING:
                self._attempt_failed("upstream.unusable")
            return
        except (OSError, TimeoutError):
            if self._endpoint is endpoint and self._state is _State.WAITING:
                self._attempt_failed("upstream.connect_failed")
            return
        if self._endpoint is endpoint and self._state is _State.WAITING:
            self._send(connection)
        else:
            endpoint.keep(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        gateway = self.gateway
        self._connection = connection
        body = self._body
        head = b"%bcontent-length: %d\r\nx-sekisho-decision: %b\r\n\r\n" % (
            gateway.request_head(connection.endpoint, self._path),
            len(body),
            self.id.encode(),
        )
        connection.send(self, head, body, deadline=gateway.now() + gateway.settings.first_byte_timeout_s)

    # -- the answer

    def on_answer(
        self, connection: UpstreamConnection, head: ResponseHead, raw: bytes, parts: list[bytes], done: bool
    ) -> None:
        if connection is not self._connection:
            return
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._state is _State.RELAYING:
            self._relay(connection, raw, payload, done)
            return
        if self._answer is None:
            self._answer = head
            self._state = _State.HOLDING
        if payload and not self._first_byte:
            self._first_byte = self.gateway.now()
        if payload:
            self._held.append(raw)
            self._parts.append(payload)
            self._held_size += len(payload)
        if not 200 <= head.status < 300:
            if done or self._held_size > _HOLD:
                self._error_answer(connection, head)
            return
        if done:
            self._whole_answer(head)
        elif payload and (
            self._held_size > _HOLD or head.headers.get(b"content-type", b"")[:17] == b"text/event-stream"
        ):
            self._start_relay(connection, head)

    def _whole_answer(self, head: ResponseHead) -> None:
        """The answer came before anything was sent: one write for all of it."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if head.headers.get(b"content-type", b"")[:17] == b"text/event-stream":
            meter = StreamMeter(self._tokens, strip=self._inject)
            visible = meter.feed(body)
            if visible is not None:
                body = visible + meter.rest()
            self._meter = meter
        else:
            self._tokens.read_json(body)
        self._commit_answer.update(body)
        self.bytes_out = len(body)
        self._succeeded()
        if self._finish("completed", head.status):
            self.client.send(self._answer_head(head, b"content-length: %d\r\n" % len(body)) + body)
            self._end()

    def _start_relay(self, connection: UpstreamConnection, head: ResponseHead) -> None:
        """Something has to leave before the answer is complete: from here on no other endpoint can take over."""
        self._state = _State.RELAYING
        self._succeeded()
        kind = head.headers.get(b"content-type", b"")
        if kind[:17] == b"text/event-stream":
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
        self.client.send(self._answer_head(head, framing))
        raws, parts = b"".join(self._held), b"".join(self._parts)
        self._held, self._parts = [], []
        self._relay(connection, raws, parts, False)

    def _relay(self, connection: UpstreamConnection, raw: bytes, payload: bytes, done: bool) -> None:
        """Pass on what came; with its framing as it came wherever that is possible.

        When the usage chunk has to be taken out, the endpoint's framing is kept only for bytes that begin and end
        at a chunk's boundary; all else is framed anew, so that the client always stands at a boundary.
        """
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
            self._commit_answer.update(shown)
            self.bytes_out += len(shown)
        if not done:
            if out:
                self.client.send(out)
            return
        if self._finish("completed", self._answer.status if self._answer else 200):
            if out:
                self.client.send(out)
            self._end()

    def _error_answer(self, connection: UpstreamConnection, head: ResponseHead) -> None:
        """The endpoint answered with an error: what concerns the client's request goes on, all else stays here."""
        status = head.status
        if status in _RETRIED:
            if connection.exchange is self:
                connection.cancel()
            self._attempt_failed("upstream.busy" if status == 429 else "upstream.error")
            return
        if connection.exchange is self:
            connection.cancel()
        assert self._endpoint is not None
        if status in _PASSED_ERRORS and self._held_size <= _HOLD:
            body = b"".join(self._parts)
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
        if connection is not self._connection or self._state is _State.OVER:
            return
        self._connection = None
        if self._state is _State.RELAYING:
            self._cut_off(connection, code)
        elif stale and not self._fresh:
            # The endpoint closed a kept connection just as we used it: not its failure, try on a new one.
            self._fresh = True
            self._launch()
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
        if self._meter is not None and chunked and at_boundary:
            # OpenAI clients raise on an error event; others see that the last chunk is missing.
            event = b"data: " + body_of(of("upstream.error"), self.id) + b"\n\n"
            self.client.send(b"%x\r\n%b\r\n" % (len(event), event))
        self.client.cut()

    def _attempt_failed(self, code: str) -> None:
        """Nothing has reached the client yet: another endpoint of the set may take over, within the retry budget."""
        gateway, endpoint = self.gateway, self._endpoint
        assert endpoint is not None
        self._connection = None
        endpoint.failed(code)
        self._note_attempt(code)
        self.tried.append(endpoint)
        self._free_slot()
        self._answer = None
        self._first_byte = 0.0
        self._fresh = False
        self._held, self._parts, self._held_size = [], [], 0
        self._state = _State.WAITING
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
        return of(code)

    # -- the client

    def pause(self) -> None:
        """The client does not keep up: stop reading from the endpoint."""
        if self._connection is not None and self._state is _State.RELAYING:
            self._connection.pause_reading()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def client_gone(self, *, status: int = 499) -> None:
        """The client left: the endpoint must stop working on it at once."""
        if self._state is _State.OVER:
            return
        if self._endpoint is not None and self._slotted:
            self._note_attempt("client.gone")
        self._finish("client_gone", status, code="client.gone")

    # -- the end

    def refuse(self, refusal: Refusal) -> None:
        """Say no before anything was sent to an endpoint."""
        self._answer_refusal("refused", refusal)

    def fail(self, refusal: Refusal) -> None:
        """Say no after a wait or an attempt."""
        self._answer_refusal("failed" if self._attempts else "refused", refusal)

    def _answer_refusal(self, outcome: Outcome, refusal: Refusal) -> None:
        if self._state is _State.OVER:
            return
        body = body_of(refusal, self.id)
        self.bytes_out = len(body)
        guarded = self.data_class is not None and self.data_class.guarded
        if not self._finish(outcome, refusal.status, code=refusal.code, rules=refusal.rules) and guarded:
            return
        retry = b""
        if refusal.retry_after_s is not None:
            retry = b"retry-after: %d\r\n" % max(1, int(refusal.retry_after_s + 0.999))
        extra = b"www-authenticate: Bearer\r\n" if refusal.status == 401 else b""
        if refusal.status == 405:
            extra = b"allow: GET\r\n" if self._path == b"/v1/models" else b"allow: POST\r\n"
        head = (
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b%b%bx-sekisho-decision: %b\r\n%b\r\n"
            % (
                refusal.status,
                _REASONS.get(refusal.status, b"Error"),
                len(body),
                self.gateway.date,
                retry,
                extra,
                self.id.encode(),
                b"" if self._keep_alive else b"connection: close\r\n",
            )
        )
        self.client.send(head + body)
        self._end()

    def close_after(self) -> None:
        """The connection can't be used after this answer."""
        self._keep_alive = False

    def _own_head(self, status: int, length: int, extra: bytes) -> bytes:
        """The head of an answer that the checkpoint gives itself."""
        return (
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"%b%bx-sekisho-decision: %b\r\n%b\r\n"
        ) % (
            status,
            _REASONS.get(status, b"Error"),
            length,
            self.gateway.date,
            extra,
            self.id.encode(),
            b"" if self._keep_alive else b"connection: close\r\n",
        )

    def _answer_head(self, head: ResponseHead, framing: bytes) -> bytes:
        """The head of the client's answer: ours, with what may pass of the endpoint's."""
        passed = b"".join([b"%b: %b\r\n" % item for item in head.headers.items() if item[0] in _PASSED_HEADERS])
        return b"HTTP/1.1 %d %b\r\n%b%b%b%bx-sekisho-class: %b\r\nx-sekisho-decision: %b\r\n%b\r\n" % (
            head.status,
            _REASONS.get(head.status, b"OK"),
            passed,
            framing,
            self.gateway.date,
            self._endpoint.answer_head if self._endpoint is not None else b"",
            self.data_class.label.encode() if self.data_class is not None else b"",
            self.id.encode(),
            b"" if self._keep_alive else b"connection: close\r\n",
        )

    def _succeeded(self) -> None:
        endpoint = self._endpoint
        if endpoint is not None:
            endpoint.succeeded((self._first_byte or self.gateway.now()) - self._sent_at)
            self._note_attempt("ok")

    def _note_attempt(self, result: str) -> None:
        endpoint = self._endpoint
        if endpoint is None or (self._attempts and self._attempts[-1].result == "ok"):
            return
        elapsed = self.gateway.now() - self._sent_at
        self._attempts.append(Attempt(endpoint=endpoint.id, result=result, duration_us=int(elapsed * 1e6)))

    def _free_slot(self) -> None:
        endpoint = self._endpoint
        if self._slotted and endpoint is not None:
            self._slotted = False
            endpoint.in_flight -= 1
            endpoint.slots.release()
            if endpoint.hungry:
                self.gateway.slot_free(endpoint)

    def _end(self) -> None:
        self.client.finished(keep_alive=self._keep_alive)

    def _finish(self, outcome: Outcome, status: int, *, code: str = "", rules: tuple[str, ...] = ()) -> bool:
        """Write the decision and give everything back. False: a guarded answer could not be recorded and must not
        be completed."""
        self._state = _State.OVER
        gateway = self.gateway
        if self.waiting:
            gateway.queue.leave(self)
        connection, self._connection = self._connection, None
        if connection is not None and connection.exchange is self:
            connection.cancel()
        recorded = self._record(outcome, status, code, rules)
        for scope in self._limits:
            if scope.slots is not None:
                scope.slots.release()
            if scope.tokens is not None:
                scope.tokens.settle(self._estimate - self._tokens.tokens_in - self._tokens.tokens_out)
        self._limits = ()
        self._free_slot()
        self._body = b""
        guarded = self.data_class is not None and self.data_class.guarded
        if not recorded:
            gateway.metrics.unrecorded += 1
            if guarded and outcome == "completed":
                self.client.cut()
                return False
        return True

    def _write_dispatch(self, endpoint: Endpoint) -> bool:
        tenant, table, data_class = self.tenant, self.table, self.data_class
        assert tenant is not None and table is not None and data_class is not None
        record = Dispatch(
            id=self.id,
            at_ms=self.at_ms,
            tenant=tenant.entry.id,
            key=self.key_id,
            data_class=data_class.label,
            model=self._model,
            path=self._path.decode("latin-1"),
            endpoint=endpoint.id,
            site=endpoint.site,
            operator=endpoint.operator,
            country=endpoint.country,
            table=table.version,
            policy=table.policy,
        )
        self.dispatched = True
        return self.gateway.journal.dispatch(self.id, encode_record(record), guarded=data_class.guarded)

    def _record(self, outcome: Outcome, status: int, code: str, rules: tuple[str, ...]) -> bool:
        gateway, tenant, table, route = self.gateway, self.tenant, self.table, self._route
        endpoint = self._endpoint if self.dispatched else None
        tokens, data_class = self._tokens, self.data_class
        partial = bool(endpoint) and not tokens.exact and outcome not in ("refused", "failed")
        if partial and self._meter is not None:
            tokens.tokens_out = self._meter.events
        now = gateway.now()
        decision = Decision(
            id=self.id,
            at_ms=self.at_ms,
            gateway=gateway.name,
            outcome=outcome,
            status=status,
            path=self._path.decode("latin-1"),
            tenant=tenant.entry.id if tenant else "",
            key=self.key_id,
            floor=tenant.floor.label if tenant else "",
            data_class=data_class.label if data_class is not None else "",
            model=self._seen_model,
            served_model=self._model if endpoint and self._model != self._seen_model else "",
            code=code,
            rules=rules or (route.rules if route else ()),
            endpoint=endpoint.id if endpoint else "",
            site=endpoint.site if endpoint else "",
            operator=endpoint.operator if endpoint else "",
            country=endpoint.country if endpoint else "",
            attempts=tuple(self._attempts),
            table=table.version if table else 0,
            policy=table.policy if table else "",
            valid_until_ms=route.valid_until_ms if route else 0,
            stream=self._meter is not None,
            tokens_in=tokens.tokens_in,
            tokens_out=tokens.tokens_out,
            tokens_cached=tokens.cached,
            partial=partial,
            first_byte_us=int((self._first_byte - self._started) * 1e6) if self._first_byte else 0,
            queue_us=int(self.queue_s * 1e6),
            duration_us=int((now - self._started) * 1e6),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            request_commitment=self._hashed,
            response_commitment=self._commit_answer.hexdigest() if self.bytes_out and self._hashed else "",
        )
        gateway.metrics.observe(decision)
        if gateway.on_decision is not None:
            gateway.on_decision(decision)
        guarded = data_class is not None and data_class.guarded and outcome != "refused"
        return gateway.journal.decide(self.id, encode_record(decision), guarded=guarded)

    def _list_models(self, tenant: Tenant, table: LiveTable, data_class: DataClass) -> None:
        """Only what the caller may use, at this class, now."""
        body = self.gateway.models_body(tenant, table, data_class)
        self.bytes_out = len(body)
        if self._finish("completed", 200):
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bx-sekisho-decision: %b\r\n%b\r\n"
                % (
                    len(body),
                    self.gateway.date,
                    self.id.encode(),
                    b"" if self._keep_alive else b"connection: close\r\n",
                )
            )
            self.client.send(head + body)
            self._end()


def _put_back(scope: TenantLimits, estimate: int) -> None:
    if scope.slots is not None:
        scope.slots.release()
    if scope.requests is not None:
        scope.requests.settle(1.0)
    if scope.tokens is not None:
        scope.tokens.settle(estimate)


def _is_json(kind: bytes) -> bool:
    """`application/json`, in any case, with no parameter but charset=utf-8."""
    essence, _, parameter = kind.lower().partition(b";")
    return essence.strip() == b"application/json" and parameter.strip().replace(b'"', b"") in (b"", b"charset=utf-8")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
