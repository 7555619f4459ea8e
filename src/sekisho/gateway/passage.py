"""One passage: from a request's head to the one decision that is written of it.

    read_head ─► read_body ─► route ─► admit ─► dispatch ─► on_answer … ─► finish
        │            │          │        │         │             │
        └────────────┴──────────┴────────┴─────────┴─────────────┴──► refuse / fail: the same finish

Whatever way it ends, `_record` runs once, before the last byte leaves for the client.
"""

from __future__ import annotations

import re
import zlib
from time import monotonic
from time import time as wall_time
from typing import TYPE_CHECKING, Final

from sekisho.gateway.answers import JSON_OK, REASONS, own_head
from sekisho.gateway.body import BodyRefused, read_body, splice_model, splice_usage
from sekisho.gateway.choose import all_out, choose
from sekisho.gateway.http1 import RequestHead, ResponseHead
from sekisho.gateway.live import Hash, LiveTable, Route, Tenant, TenantLimits
from sekisho.gateway.meter import StreamMeter, Tokens
from sekisho.gateway.records import Lane
from sekisho.gateway.refusals import Refusal, body_of, of
from sekisho.gateway.shares import Place, Share
from sekisho.gateway.upstream import Endpoint, EndpointUnusable, UpstreamConnection
from sekisho.kernel.classes import DataClass
from sekisho.ledger.model import Attempt, Decision, Outcome, encode_record
from sekisho.residency.table import Closed

if TYPE_CHECKING:
    from sekisho.gateway.gateway import Gateway
    from sekisho.gateway.listener import ClientConnection
    from sekisho.gateway.receipts import ReceiptAnswer

# An answer up to this size is gathered before it leaves: until then another endpoint can still take over.
_HOLD: Final = 64 << 10
_ABSORB: Final = 32  # chunks
# Paths of the OpenAI API that are relayed, and whether their streams take `stream_options`.
INFERENCE: Final[dict[bytes, bool]] = {
    b"/v1/chat/completions": True,
    b"/v1/completions": True,
    b"/v1/embeddings": False,
    b"/v1/responses": False,
}
_PASSED_ERRORS: Final = frozenset({400, 409, 413, 415, 422})
_RECEIPTS: Final = b"/v1/receipts/"
_DECISION_ID: Final = re.compile(rb"[0-9a-f]{32}")
_RECEIPT_FORMS: Final = {b"": "proof", b"format=proof": "proof", b"format=cose": "cose"}
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
# Of the endpoint's headers only these go on; what it says of itself (Server, cookies, X-Sekisho-…) stays behind.
_PASSED_HEADERS: Final = frozenset({b"content-type", b"retry-after", b"x-request-id", b"openai-processing-ms"})


_RESTRICTED: Final = int(DataClass.RESTRICTED)
_CONFIDENTIAL: Final = int(DataClass.CONFIDENTIAL)
# States, as plain integers: they are compared several times a request.
_READING: Final = 0  # the request
_WAITING: Final = 1  # for a slot, a connection or the answer
_HOLDING: Final = 2  # the answer's beginning
_RELAYING: Final = 3
_OVER: Final = 4


class KnownHead:
    """What was read in a head, and who it was under the current route table."""

    __slots__ = (
        "data_class", "expires_at", "guarded", "keep_alive", "key_id", "path", "tenant", "trace", "version",
    )  # fmt: skip

    def __init__(
        self,
        *,
        version: int,
        keep_alive: bool,
        path: bytes,
        tenant: Tenant,
        key_id: str,
        expires_at: float | None,
        data_class: DataClass,
        guarded: bool,
        trace: bytes | None,
    ) -> None:
        self.version = version
        self.keep_alive = keep_alive
        self.path = path
        self.tenant = tenant
        self.key_id = key_id
        self.expires_at = expires_at
        self.data_class = data_class
        self.guarded = guarded
        self.trace = trace


class _Hedge:
    """A second attempt that runs beside the first."""

    __slots__ = ("connection", "endpoint", "sent_at")

    def __init__(self, endpoint: Endpoint, sent_at: float) -> None:
        self.endpoint = endpoint
        self.connection: UpstreamConnection | None = None
        self.sent_at = sent_at


class Passage:
    """See the module's docstring. Times are monotonic seconds unless they say otherwise."""

    __slots__ = (
        "_aligned", "_answer", "_asked", "_attempts", "_body", "_busy_for_s", "_close_framed", "_commit_answer",
        "_connection", "_counted", "_endpoint", "_estimate", "_ever_dispatched", "_expires_at", "_first_byte",
        "_fresh", "_hashed", "_hedge", "_held", "_held_size", "_id", "_inject", "_keep_alive", "_lane", "_last",
        "_limits", "_meter", "_model", "_ok_after_s", "_parts", "_passed", "_path", "_place", "_prefix_hash",
        "_query", "_queue_s", "_queued_at", "_raw_ok", "_route", "_sent_at", "_slotted", "_started", "_state",
        "_tokens", "_trace", "_version", "at_ms", "bytes_in", "bytes_out", "client", "data_class", "dispatched",
        "gateway", "guarded", "id", "key_id", "queue_deadline", "share", "table", "tenant", "tried", "waiting",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, client: ClientConnection) -> None:
        self.gateway = gateway
        self.client = client
        self.at_ms = at_ms = int(wall_time() * 1000)
        self.id = gateway.next_id(at_ms)
        self._id = self.id.encode()
        self._started = monotonic()
        self._state = _READING
        self.table: LiveTable | None = gateway.live
        self.tenant: Tenant | None = None
        self.key_id = ""
        self._expires_at: float | None = None
        self.data_class: DataClass | None = None
        self.guarded = False
        self.dispatched = False
        self.waiting = False
        self.queue_deadline = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.tried: tuple[Endpoint, ...] = ()
        self._attempts: tuple[Attempt, ...] = ()
        self._path = b""
        self._query = b""
        self._version = 1
        self._keep_alive = True
        self._trace: bytes | None = None
        self._model = ""
        self._asked = ""
        self._body = b""
        self._inject = False
        self._prefix_hash: int | None = None
        self._route: Route | None = None
        self._limits: tuple[TenantLimits, ...] = ()
        self._estimate = 0
        self._lane: Lane | None = None
        self._endpoint: Endpoint | None = None
        self._slotted = False
        self._place: Place | None = None
        self.share: Share | None = None
        self._connection: UpstreamConnection | None = None
        self._hedge: _Hedge | None = None
        self._fresh = False
        self._sent_at = 0.0
        self._ok_after_s = 0.0
        self._queued_at = 0.0
        self._queue_s = 0.0
        self._answer: ResponseHead | None = None
        self._first_byte = 0.0
        self._held: list[bytes] | None = None
        self._parts: list[bytes] | None = None
        self._held_size = 0
        self._raw_ok = False
        self._aligned = True
        self._close_framed = False
        self._meter: StreamMeter | None = None
        self._hashed = ""
        self._tokens: Tokens | None = None
        self._commit_answer: Hash = gateway.no_hash
        self._counted = 0
        self._last = b""
        self._ever_dispatched = False
        self._busy_for_s = 1.0
        self._passed: list[bytes] = []

    # -- the request

    def read_head(self, head: RequestHead) -> Refusal | None:
        """Authenticate and classify. None: go on with the body."""
        self._version = head.version
        self._keep_alive = head.keep_alive
        path = head.target
        query = b""
        if b"?" in path:
            path, _, query = path.partition(b"?")
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
        tenant, self.key_id, self._expires_at = known
        self.tenant = tenant
        data_class = tenant.floor
        wanted = headers.get(b"x-sekisho-class")
        if wanted is not None:
            asked = DataClass.parse(wanted.decode("latin-1"))
            if asked is None:
                return of("class.invalid")
            data_class = max(data_class, asked)
        self.data_class = data_class
        self.guarded = data_class >= _CONFIDENTIAL
        if path not in INFERENCE:
            self._query = query
            if path != b"/v1/models" and not path.startswith(_RECEIPTS):
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
        if head.length > self.gateway.tuning.max_body_bytes:
            return of("http.body_too_large")
        self._trace = headers.get(b"traceparent")
        return None

    def recall(self, known: KnownHead) -> Refusal | None:
        """Take over what `read_head` found in an equal head under the same route table."""
        if known.expires_at is not None and known.expires_at <= self.at_ms / 1000:
            return of("auth.key_unknown")
        self._version = known.version
        self._keep_alive = known.keep_alive
        self._path = known.path
        self.tenant = known.tenant
        self.key_id = known.key_id
        self.data_class = known.data_class
        self.guarded = known.guarded
        self._trace = known.trace
        return None

    def known_head(self) -> KnownHead | None:
        """What `recall` needs; None when the head was not that of an inference request."""
        tenant, data_class = self.tenant, self.data_class
        if tenant is None or data_class is None or self._path not in INFERENCE:
            return None
        return KnownHead(
            version=self._version,
            keep_alive=self._keep_alive,
            path=self._path,
            tenant=tenant,
            key_id=self.key_id,
            expires_at=self._expires_at,
            data_class=data_class,
            guarded=self.guarded,
            trace=self._trace,
        )

    def hold(self, size: int) -> bool:
        """Count bytes of the body that are kept. False: this tenant, or the worker, holds too much."""
        gateway, tenant = self.gateway, self.tenant
        self._counted += size
        gateway.buffered += size
        most = gateway.tuning.max_buffered_bytes
        if tenant is None:
            return gateway.buffered <= most
        tenant.buffered += size
        return gateway.buffered <= most and tenant.buffered <= max(most // 4, gateway.tuning.max_body_bytes)

    def read_body(self, body: bytes) -> None:
        """The whole body is here: route, admit and send it on, or refuse."""
        self.bytes_in = size = len(body)
        self.hold(size - self._counted)  # until the answer is complete: another endpoint may need it
        tenant, table, data_class, path = self.tenant, self.table, self.data_class, self._path
        assert tenant is not None and table is not None and data_class is not None
        if self._expires_at is not None and self._expires_at <= wall_time():
            self.refuse(of("auth.key_unknown"))  # it ran out while the body was on its way
            return
        if path == b"/v1/models":
            self._list_models(tenant, table, data_class)
            return
        if path.startswith(_RECEIPTS):
            self._get_receipt(tenant)
            return
        tuning = self.gateway.tuning
        try:
            reading = read_body(body, prefix_bytes=tuning.affinity_prefix_bytes)
        except BodyRefused as refused:
            self.refuse(of(refused.code, en=_sentence(refused.what), way_out=refused.way_out))
            return
        self._asked = self._model = model = reading.model
        hasher = tenant.commitment(self._id)
        self._commit_answer = hasher.copy()
        hasher.update(body)
        self._hashed = hasher.hexdigest()
        alias = table.aliases.get(model)
        if alias is not None:
            body = splice_model(body, alias)
            self._model = alias
        if reading.stream and not reading.wants_usage and INFERENCE[path]:
            body = splice_usage(body)
            self._inject = True
        self._body = body
        if len(reading.prefix) >= tuning.affinity_min_bytes:
            self._prefix_hash = zlib.crc32(reading.prefix, zlib.crc32(tenant.entry.id.encode()))
        per_choice = reading.max_tokens if reading.max_tokens is not None else tuning.default_max_tokens
        self._estimate = size // 4 + (per_choice * reading.choices if path != b"/v1/embeddings" else 0)
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
        left = route.current()
        return of("residency.evidence_expired") if left is None else left

    def _admit(self) -> Refusal | None:
        """Residency, journal and the tenant's limits, in this order: a refusal takes nothing."""
        route = self._resolve()
        if isinstance(route, Refusal):
            return route
        self._route = route
        tenant, data_class = self.tenant, self.data_class
        assert tenant is not None and data_class is not None
        gateway = self.gateway
        if self.guarded and not gateway.journal.ready:
            return of("journal.unavailable")
        limits = gateway.limits_of(tenant, self._model)
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
        gateway, route, tenant, data_class = self.gateway, self._route, self.tenant, self.data_class
        assert route is not None and tenant is not None and data_class is not None
        self._state = _WAITING
        share = self.share = gateway.share_of(tenant, data_class, self._model)
        if share is not None:
            place = share.take(route, self._prefix_hash, self.tried)
            if place is not None:
                self.dispatch(place.endpoint, place)
                return
        if not route.waiting:
            endpoint = choose(route, self._prefix_hash, self.tried, load_bound=gateway.tuning.load_bound)
            if endpoint is not None:
                self.dispatch(endpoint)
                return
        if all_out(route, self.tried):
            self.fail(self._last_error())
            return
        now = gateway.now()
        owner = share is not None and share.room
        if not self._queued_at:
            self._queued_at = now
            # Within its share a request waits for the end of one that was lent its slot, and not in vain.
            wait_s = gateway.tuning.first_byte_timeout_s if owner else gateway.settings.queue_timeout_s
            self.queue_deadline = now + wait_s
        if not gateway.queue.push(
            self, route, tenant=tenant.entry.id, data_class=data_class, cost=self._estimate, owner=owner
        ):
            self.fail(of("limit.queue_full", retry_after_s=gateway.queue.retry_after_s()))
            return
        gateway.watch_queue()
        if share is not None:
            # Once more, now that all workers see that it waits: after this no borrower starts before it.
            share.wait(self)
            place = share.take(route, None, self.tried)
            if place is not None:
                gateway.serve(place)

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
            known = live.key_ids.get(self.key_id)
            if known is None or (known[2] is not None and known[2] <= wall_time()):
                return of("auth.key_unknown")
            self.tenant.buffered -= self._counted
            tenant = self.tenant = known[0]
            tenant.buffered += self._counted
            self._expires_at = known[2]
            if self.data_class is not None and tenant.floor > self.data_class:
                self.data_class = tenant.floor
                self.guarded = tenant.floor >= _CONFIDENTIAL
        route = self._resolve()
        if isinstance(route, Refusal):
            return route
        self._route = route
        return None

    def dispatch(self, endpoint: Endpoint, place: Place | None = None) -> None:
        """Send the request to `endpoint`, whose slot has been taken for it (at `place` of its share)."""
        gateway, share = self.gateway, self.share
        self._endpoint = endpoint
        self._slotted = True
        if place is None and share is not None:
            place = share.at(endpoint)
        self._place = place
        endpoint.in_flight += 1
        endpoint.requests += 1
        if self._queued_at:
            self._queue_s += gateway.now() - self._queued_at
            self._queued_at = 0.0
        self.dispatched = False
        if not self._may_go(endpoint):
            return
        self._sent_at = gateway.now()
        lane = self._lane = self._lane_to(endpoint)
        self.dispatched = self._ever_dispatched = True
        if (
            not gateway.journal.dispatch(self.id, lane.dispatch(self._id, self.at_ms), guarded=self.guarded)
            and self.guarded
        ):
            self._free_slot()
            self.fail(of("journal.unavailable"))
            return
        if gateway.tuning.hedge_after_s is not None and self.data_class != _RESTRICTED:
            gateway.loop.call_later(gateway.tuning.hedge_after_s, self._start_hedge, endpoint)
        if self.data_class == _RESTRICTED:
            gateway.journal.when_durable(self._relaunch)
        else:
            self._launch()

    def _may_go(self, endpoint: Endpoint) -> bool:
        """Whether the newest table still lets this request go to `endpoint`. False: it was refused, or goes
        elsewhere. Asked again after every wait: a change must hold within a second, not from the next request on."""
        route, gateway = self._route, self.gateway
        assert route is not None
        alive = self._expires_at is None or self._expires_at > wall_time()
        if gateway.live is self.table and alive and not route.expired:
            return True
        refusal = self._follow_table() if alive else of("auth.key_unknown")
        if refusal is None and not self.dispatched and endpoint in self._route_now().endpoints:
            return True
        # What was put on record for this attempt names the old table: the attempt starts anew by the new one.
        self._free_slot()
        if refusal is None:
            self._seek()
        else:
            self.fail(refusal)
        return False

    def _route_now(self) -> Route:
        route = self._route
        assert route is not None
        return route

    def _relaunch(self) -> None:
        """After a wait: if the client is still there and the newest table agrees, let the request go."""
        endpoint = self._endpoint
        if self._state == _WAITING and endpoint is not None and self._may_go(endpoint):
            self._launch()

    def _launch(self) -> None:
        """The dispatch is on record: let the request go."""
        endpoint = self._endpoint
        if endpoint is None:
            return
        connection = None if self._fresh else endpoint.idle()
        if connection is not None:
            self._send(connection)
        else:
            self.gateway.spawn(self._connect(endpoint))

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            connection = await endpoint.connect()
        except (OSError, TimeoutError, EndpointUnusable) as error:
            code = "upstream.connect_failed"
            if isinstance(error, EndpointUnusable):
                self.gateway.log_endpoint(endpoint, str(error))
                code = "upstream.unusable"
            if self._hedge is not None and self._hedge.endpoint is endpoint:
                self._drop_hedge(code)
            elif self._endpoint is endpoint and self._state == _WAITING:
                self._attempt_failed(code)
            return
        hedge = self._hedge
        if hedge is not None and hedge.endpoint is endpoint and self._state == _WAITING:
            if self.gateway.live is not self.table or self._route_now().expired:
                endpoint.keep(connection)
                self._drop_hedge("hedge.lost")
                return
            hedge.connection = connection
            self._transmit(connection)
        elif self._endpoint is endpoint and self._state == _WAITING and self._connection is None:
            if self._may_go(endpoint):
                self._send(connection)
            else:
                endpoint.keep(connection)
        else:
            endpoint.keep(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self._transmit(connection)

    def _transmit(self, connection: UpstreamConnection) -> None:
        gateway, body, lane = self.gateway, self._body, self._lane
        if lane is None or self._hedge is not None:
            lane = self._lane_to(connection.endpoint)
        trace = b"traceparent: %b\r\n" % self._trace if self._trace is not None else b""
        head = b"".join(
            (
                lane.request_head,
                trace,
                b"content-length: ",
                str(len(body)).encode(),
                b"\r\nx-sekisho-decision: ",
                self._id,
                b"\r\n\r\n",
                body if len(body) <= 16384 else b"",
            )
        )
        connection.send(
            self,
            head,
            b"" if len(body) <= 16384 else body,
            deadline=gateway.coarse + gateway.tuning.first_byte_timeout_s,
        )

    def _lane_to(self, endpoint: Endpoint) -> Lane:
        """The prepared records for this passage at `endpoint`."""
        tenant, data_class = self.tenant, self.data_class
        assert tenant is not None and data_class is not None
        key = (self.key_id, data_class, self._asked, self._path, endpoint.id)
        lanes = tenant.lanes
        if lanes is None:
            lanes = tenant.lanes = {}
        lane = lanes.get(key)
        route = self._route
        assert route is not None
        # Of the same table, but from before an endpoint's evidence ran out: what it has on record is over.
        if lane is None or lane.valid_until_ms != route.valid_until_ms:
            table, gateway = self.table, self.gateway
            assert table is not None
            lane = lanes[key] = Lane(
                gateway=gateway.name, metrics=gateway.metrics, table=table, tenant=tenant, key=self.key_id,
                data_class=data_class.label, asked=self._asked, model=self._model, path=self._path, route=route,
                endpoint=endpoint,
            )  # fmt: skip
        return lane

    # -- hedging: off unless `hedge_after` is set

    def _start_hedge(self, first: Endpoint) -> None:
        """No first byte yet: ask a second endpoint of the set too, and take whichever answers first."""
        gateway, route = self.gateway, self._route
        if self._state != _WAITING or self._endpoint is not first or self._hedge is not None or route is None:
            return
        if gateway.live is not self.table or route.expired:
            return  # the set may be smaller by now; the first attempt was allowed when it left
        endpoint = choose(route, None, (*self.tried, first), load_bound=gateway.tuning.load_bound)
        if endpoint is None:
            return
        record = self._lane_to(endpoint).dispatch(self._id, self.at_ms)
        if not gateway.may_retry() or (
            not gateway.journal.dispatch(self.id, record, guarded=self.guarded) and self.guarded
        ):
            endpoint.slots.release()
            return
        gateway.metrics.hedges += 1
        endpoint.in_flight += 1
        endpoint.requests += 1
        self._hedge = _Hedge(endpoint, gateway.now())
        connection = endpoint.idle()
        if connection is not None:
            self._hedge.connection = connection
            self._transmit(connection)
        else:
            gateway.spawn(self._connect(endpoint))

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

    def _drop_hedge(self, result: str) -> None:
        hedge, self._hedge = self._hedge, None
        if hedge is None:
            return
        if hedge.connection is not None and hedge.connection.exchange is self:
            hedge.connection.cancel()
        if result != "hedge.lost":
            hedge.endpoint.failed(result)
        elapsed_us = int((self.gateway.now() - hedge.sent_at) * 1e6)
        self._attempts += (Attempt(endpoint=hedge.endpoint.id, result=result, duration_us=elapsed_us),)
        self._give_back(hedge.endpoint)

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
        if state == _RELAYING:
            self._relay(connection, raw, payload, done)
            return
        if payload and not self._first_byte:
            self._first_byte = monotonic()
        self._answer = head
        ok = 200 <= head.status < 300
        if done and ok and state == _WAITING:  # the usual case: all of it at once
            self._whole_answer(head, payload)
            return
        self._state = _HOLDING
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
        if self._raw_ok and self._state == _RELAYING and connection is self._connection:
            meter = self._meter
            if (
                not self._inject
                or meter is None
                or (self._aligned and not meter.carry and b'"usage"' not in payload and payload[-2:] == b"\n\n")
            ):
                self._last = payload
                self._passed.append(payload)
                if len(self._passed) >= _ABSORB:
                    self._absorb()
                self.client.send(raw)
                return
        self.on_answer(connection, head, raw, [payload], False)

    def _absorb(self) -> None:
        """Count and commit to the chunks that were passed on."""
        if self._passed:
            count = len(self._passed)
            passed = b"".join(self._passed)
            self._passed = []
            self._commit_answer.update(passed)
            self.bytes_out += len(passed)
            meter = self._meter
            if meter is not None:
                if self._inject:
                    meter.events += count  # at least one whole event each, none with usage: `on_chunk` has looked
                else:
                    meter.feed(passed)

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
        if not self._complete(head.status):
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
        self.client.finished(keep_alive=self._keep_alive)

    def _start_relay(self, connection: UpstreamConnection, head: ResponseHead, raw: bytes, payload: bytes) -> None:
        """Something has to leave before the answer is complete: from here on no other endpoint can take over."""
        self._state = _RELAYING
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
        if self._state == _OVER:
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
        if self._state == _RELAYING:
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
        self._state = _WAITING
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

    # -- the client

    def pause(self) -> None:
        """The client does not keep up: stop reading from the endpoint."""
        if self._connection is not None and self._state == _RELAYING:
            self._connection.pause_reading()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def client_gone(self, *, status: int = 499) -> None:
        """The client left: the endpoint must stop working on it at once."""
        if self._state == _OVER:
            return
        if self._state == _RELAYING and b"data: [DONE]" in self._last:
            # OpenAI clients close at the stream's last event, without waiting for the end of the framing.
            self._finish("completed", self._answer.status if self._answer else 200)
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
        if self._state == _OVER:
            return
        body = body_of(refusal, self.id)
        self.bytes_out = len(body)
        self._finish(outcome, refusal.status, code=refusal.code, rules=refusal.rules)
        retry = b""
        if refusal.retry_after_s is not None:
            retry = b"retry-after: %d\r\n" % max(1, int(refusal.retry_after_s + 0.999))
        extra = b"www-authenticate: Bearer\r\n" if refusal.status == 401 else b""
        if refusal.status == 405:
            extra = b"allow: POST\r\n" if self._path in INFERENCE else b"allow: GET\r\n"
        head = own_head(
            refusal.status,
            len(body),
            date=self.gateway.date,
            extra=retry + extra,
            decision=self.id,
            keep_alive=self._keep_alive,
        )
        self.client.send(head + body)
        self._end()

    def close_after(self) -> None:
        """The connection can't be used after this answer."""
        self._keep_alive = False

    def _answer_head(self, head: ResponseHead, framing: bytes) -> bytes:
        """The head of the client's answer: ours, with what may pass of the endpoint's."""
        passed = b"".join([b"%b: %b\r\n" % item for item in head.headers.items() if item[0] in _PASSED_HEADERS])
        lane = self._lane
        assert lane is not None
        return b"HTTP/1.1 %d %b\r\n%b%b%b%b%b\r\n%b\r\n" % (
            head.status,
            REASONS.get(head.status, b"OK"),
            passed,
            framing,
            self.gateway.date,
            lane.answer_head,
            self._id,
            b"" if self._keep_alive else b"connection: close\r\n",
        )

    def _succeeded(self) -> None:
        """The attempt under way has brought an answer."""
        endpoint = self._endpoint
        assert endpoint is not None
        self._ok_after_s = after_s = (self._first_byte or monotonic()) - self._sent_at
        endpoint.succeeded(after_s)

    def _note_attempt(self, result: str) -> None:
        endpoint = self._endpoint
        if endpoint is not None:
            elapsed_us = int((monotonic() - self._sent_at) * 1e6)
            self._attempts += (Attempt(endpoint=endpoint.id, result=result, duration_us=elapsed_us),)

    def _free_slot(self) -> None:
        if self._slotted and self._endpoint is not None:
            self._slotted = False
            place, self._place = self._place, None
            self._give_back(self._endpoint, place)

    def _give_back(self, endpoint: Endpoint, place: Place | None = None) -> None:
        endpoint.in_flight -= 1
        if place is not None:
            place.release()
        else:
            endpoint.slots.release()
        if endpoint.hungry:
            self.gateway.slot_free(endpoint)

    def _end(self) -> None:
        self.client.finished(keep_alive=self._keep_alive)

    def _complete(self, status: int) -> bool:
        """Write the decision of an answered passage, just before its last byte leaves, and give everything back.

        False: a guarded answer could not be recorded; the client does not get the rest of it.
        """
        lane, gateway, tokens = self._lane, self.gateway, self._tokens
        if self._attempts or lane is None or tokens is None or gateway.on_decision is not None:
            return self._finish("completed", status)
        self._state = _OVER
        self._connection = None
        meter = self._meter
        if not tokens.exact and meter is not None:
            tokens.tokens_out = meter.events
        started, first_byte = self._started, self._first_byte
        duration = monotonic() - started
        record = lane.completed(
            self.id,
            self.at_ms,
            status,
            int(self._ok_after_s * 1e6),
            "true" if meter is not None else "false",
            tokens,
            int((first_byte - started) * 1e6) if first_byte else 0,
            int(self._queue_s * 1e6),
            int(duration * 1e6),
            self.bytes_in,
            self.bytes_out,
            self._hashed,
            self._commit_answer.hexdigest() if self.bytes_out else "",
        )
        recorded = gateway.journal.decide(self.id, record, guarded=self.guarded)
        metrics = lane.metrics
        metrics.completed[0] += 1
        metrics.duration.observe(duration)
        if first_byte:
            metrics.first_byte.observe(first_byte - started)
        if self._queue_s:
            gateway.metrics.queued.observe(self._queue_s)
        counts = metrics.tokens
        counts[0] += tokens.tokens_in
        counts[1] += tokens.tokens_out
        counts[2] += tokens.cached
        self._settle(tokens)
        self._free_slot()
        if not recorded:
            gateway.metrics.unrecorded += 1
            if self.guarded:
                self.client.cut()
                return False
        return True

    def _settle(self, tokens: Tokens | None) -> None:
        """Give the tenant's slots back, and what was reserved but not used (or charge what was used beyond it)."""
        self.gateway.buffered -= self._counted
        if self.tenant is not None:
            self.tenant.buffered -= self._counted
        self._counted = 0
        limits = self._limits
        if limits:
            self._limits = ()
            used = 0
            if tokens is not None:
                used = tokens.tokens_in + tokens.tokens_out
            if self._ever_dispatched and (tokens is None or not tokens.exact):
                used += self.bytes_in // 4  # the endpoint has read the prompt, whether it said so or not
            difference = self._estimate - used
            for scope in limits:
                if scope.slots is not None:
                    scope.slots.release()
                if scope.tokens is not None:
                    scope.tokens.settle(difference)

    def _finish(self, outcome: Outcome, status: int, *, code: str = "", rules: tuple[str, ...] = ()) -> bool:
        """The same for every other end."""
        self._absorb()
        self._state = _OVER
        gateway = self.gateway
        if self.waiting:
            gateway.queue.leave(self)
        if self._hedge is not None:
            self._drop_hedge("hedge.lost")
        if self._ok_after_s and outcome == "completed":
            self._attempts += (
                Attempt(
                    endpoint=self._endpoint.id if self._endpoint else "",
                    result="ok",
                    duration_us=int(self._ok_after_s * 1e6),
                ),
            )
        connection, self._connection = self._connection, None
        if connection is not None and connection.exchange is self:
            connection.cancel()
        recorded = self._record(outcome, status, code, rules)
        self._settle(self._tokens)
        self._free_slot()
        self._body = b""
        if not recorded:
            gateway.metrics.unrecorded += 1
            if self.guarded and outcome == "completed":
                self.client.cut()
                return False
        return True

    def _record(self, outcome: Outcome, status: int, code: str, rules: tuple[str, ...]) -> bool:
        gateway, tenant, table, route = self.gateway, self.tenant, self.table, self._route
        endpoint = self._endpoint if self._ever_dispatched else None
        tokens = self._tokens or Tokens()
        own = outcome in ("refused", "failed")  # the answer, if any, is the checkpoint's
        partial = endpoint is not None and not tokens.exact and not own
        if partial and self._meter is not None:
            tokens.tokens_out = self._meter.events
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
            data_class=self.data_class.label if self.data_class is not None else "",
            model=self._asked,
            served_model=self._model if endpoint and self._model != self._asked else "",
            code=code,
            rules=rules or (route.rules if route else ()),
            endpoint=endpoint.id if endpoint else "",
            site=endpoint.site if endpoint else "",
            operator=endpoint.operator if endpoint else "",
            country=endpoint.country if endpoint else "",
            attempts=self._attempts,
            table=table.version if table else 0,
            policy=table.policy if table else "",
            evidence=endpoint.entry.evidence if endpoint else (),
            valid_until_ms=route.valid_until_ms if route else 0,
            stream=self._meter is not None,
            tokens_in=tokens.tokens_in,
            tokens_out=tokens.tokens_out,
            tokens_cached=tokens.cached,
            partial=partial,
            first_byte_us=int((self._first_byte - self._started) * 1e6) if self._first_byte else 0,
            queue_us=int(self._queue_s * 1e6),
            duration_us=int((monotonic() - self._started) * 1e6),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            request_commitment=self._hashed,
            response_commitment=(
                self._commit_answer.hexdigest() if self.bytes_out and self._hashed and not own else ""
            ),
        )
        gateway.metrics.observe(decision)
        if gateway.on_decision is not None:
            gateway.on_decision(decision, self._trace)
        return gateway.journal.decide(self.id, encode_record(decision), guarded=self.guarded and outcome != "refused")

    def _list_models(self, tenant: Tenant, table: LiveTable, data_class: DataClass) -> None:
        """Only what the caller may use, at this class, now."""
        body = self.gateway.models_body(tenant, table, data_class)
        self.bytes_out = len(body)
        if self._finish("completed", 200):
            head = own_head(
                200, len(body), date=self.gateway.date, extra=b"", decision=self.id, keep_alive=self._keep_alive
            )
            self.client.send(head + body)
            self._end()

    def _get_receipt(self, tenant: Tenant) -> None:
        """The receipt of an earlier passage of the same tenant; whose it is, control decides."""
        decision = self._path[len(_RECEIPTS) :]
        form = _RECEIPT_FORMS.get(self._query)
        if form is None or _DECISION_ID.fullmatch(decision) is None:
            self.refuse(of("receipt.invalid"))
        elif self.gateway.receipts is None:
            self.refuse(of("receipt.unavailable"))
        else:
            self._state = _WAITING
            self.gateway.receipts.ask(
                tenant=tenant.entry.id, decision=decision.decode(), form=form, done=self._on_receipt
            )

    def _on_receipt(self, answer: ReceiptAnswer) -> None:
        if self._state == _OVER:
            return  # the client left
        status = answer.status
        if status == 404:
            self.refuse(of("receipt.not_found"))
        elif status == 429:
            self.refuse(of("receipt.busy"))
        elif status not in (200, 202):
            self.refuse(of("receipt.unavailable"))
        else:
            self.bytes_out = len(answer.body)
            if self._finish("completed", status):
                extra = b"retry-after: %b\r\n" % answer.retry_after if answer.retry_after else b""
                head = own_head(
                    status, len(answer.body), date=self.gateway.date, extra=extra, decision=self.id,
                    keep_alive=self._keep_alive, kind=answer.content_type or b"application/octet-stream",
                )  # fmt: skip
                self.client.send(head + answer.body)
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


def _is_stream(head: ResponseHead) -> bool:
    return head.headers.get(b"content-type", b"")[:17] == b"text/event-stream"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
