"""How a passage ends, whatever way it took: what it holds is given back, and its one decision is written.

`Ending` has the state of a passage and what every way out does; `Answering`, `Reading` and `Passage` build on it.
"""

from __future__ import annotations

from time import monotonic
from time import time as wall_time
from typing import TYPE_CHECKING, Final

from sekisho.gateway.answers import REASONS, own_head
from sekisho.gateway.http1 import ResponseHead
from sekisho.gateway.live import Hash, LiveTable, Route, Tenant, TenantLimits
from sekisho.gateway.meter import StreamMeter, Tokens
from sekisho.gateway.records import Lane
from sekisho.gateway.refusals import Refusal, body_of
from sekisho.gateway.shares import Place, Share
from sekisho.gateway.upstream import Endpoint, UpstreamConnection
from sekisho.kernel.classes import DataClass
from sekisho.ledger.model import Attempt, Decision, Outcome, encode_record

if TYPE_CHECKING:
    from sekisho.gateway.gateway import Gateway
    from sekisho.gateway.listener import ClientConnection

# Paths of the OpenAI API that are relayed, and whether their streams take `stream_options`.
INFERENCE: Final[dict[bytes, bool]] = {
    b"/v1/chat/completions": True,
    b"/v1/completions": True,
    b"/v1/embeddings": False,
    b"/v1/responses": False,
}
# Of the endpoint's headers only these go on; what it says of itself (Server, cookies, X-Sekisho-…) stays behind.
_PASSED_HEADERS: Final = frozenset({b"content-type", b"retry-after", b"x-request-id", b"openai-processing-ms"})

# States, as plain integers: they are compared several times a request.
READING: Final = 0  # the request
WAITING: Final = 1  # for a slot, a connection or the answer
HOLDING: Final = 2  # the answer's beginning
RELAYING: Final = 3
OVER: Final = 4

# What became of the decision of an answer.
DECIDED: Final = 0
FINISHED: Final = 1
LOST: Final = 2


class Hedge:
    """A second attempt that runs beside the first."""

    __slots__ = ("connection", "endpoint", "sent_at")

    def __init__(self, endpoint: Endpoint, sent_at: float) -> None:
        self.endpoint = endpoint
        self.connection: UpstreamConnection | None = None
        self.sent_at = sent_at


class Ending:
    """The state of a passage, and its end. Times are monotonic seconds unless they say otherwise."""

    __slots__ = (
        "_aligned", "_answer", "_asked", "_asked_now", "_attempts", "_body", "_busy_for_s", "_close_framed",
        "_commit_answer", "_connection", "_counted", "_duration", "_endpoint", "_estimate", "_ever_dispatched",
        "_expires_at", "_first_byte", "_fresh", "_hashed", "_hasher", "_hedge", "_held", "_held_size", "_id",
        "_inject", "_keep_alive", "_lane", "_last", "_limits", "_meter", "_model", "_ok_after_s", "_parts",
        "_passed", "_path", "_place", "_prefix_hash", "_query", "_queue_s", "_queued_at", "_raw_ok", "_route",
        "_sent_at", "_slotted", "_started", "_state", "_tokens", "_trace", "_unhashed", "_version", "at_ms",
        "bytes_in", "bytes_out", "client", "data_class", "dispatched", "gateway", "guarded", "id", "key_id",
        "queue_deadline", "share", "table", "tenant", "tried", "waiting",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, client: ClientConnection) -> None:
        self.gateway = gateway
        gateway.under_way += 1
        self.client = client
        self.at_ms = at_ms = int(wall_time() * 1000)
        self.id = gateway.ids.next(at_ms)
        self._id = self.id.encode()
        self._started = monotonic()
        self._state = READING
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
        self._asked_now = False
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
        self._hedge: Hedge | None = None
        self._fresh = False
        self._sent_at = 0.0
        self._ok_after_s = 0.0
        self._queued_at = 0.0
        self._queue_s = 0.0
        self._duration = 0.0
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
        self._hasher: Hash = gateway.no_hash
        self._unhashed = b""  # the request as it came, until `_hasher` has seen it
        self._tokens: Tokens | None = None
        self._commit_answer: Hash = gateway.no_hash
        self._counted = 0
        self._last = b""
        self._ever_dispatched = False
        self._busy_for_s = 1.0
        self._passed: list[bytes] = []

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

    # -- the end

    def refuse(self, refusal: Refusal) -> None:
        """Say no before anything was sent to an endpoint."""
        self._answer_refusal("refused", refusal)

    def fail(self, refusal: Refusal) -> None:
        """Say no after a wait or an attempt."""
        self._answer_refusal("failed" if self._attempts else "refused", refusal)

    def _answer_refusal(self, outcome: Outcome, refusal: Refusal) -> None:
        if self._state == OVER:
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
        now = self._first_byte or monotonic()
        self._ok_after_s = after_s = now - self._sent_at
        endpoint.succeeded(after_s, now)

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
        how = self._decide(status)
        if how == DECIDED:
            self._account()
        return how != LOST

    def _decide(self, status: int) -> int:
        """Write the decision of an answered passage and give back what it held. DECIDED: `_account` is still to be
        called, after the answer has left; FINISHED: it is not; LOST: the client does not get the rest of a guarded
        answer."""
        lane, gateway, tokens = self._lane, self.gateway, self._tokens
        if self._attempts or lane is None or tokens is None or gateway.on_decision is not None:
            return FINISHED if self._finish("completed", status) else LOST
        self._state = OVER
        gateway.under_way -= 1
        self._connection = None
        meter = self._meter
        if not tokens.exact and meter is not None:
            tokens.tokens_out = meter.events
        started, first_byte = self._started, self._first_byte
        duration = self._duration = monotonic() - started
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
        # Before the answer leaves: its client may ask again at once, and another worker may hear it.
        self._settle(tokens)
        self._free_slot()
        if not recorded:
            gateway.metrics.unrecorded += 1
            if self.guarded:
                self._account()
                self.client.cut()
                return LOST
        return DECIDED

    def _account(self) -> None:
        """What nobody waits for: the numbers of a passage that was decided."""
        lane, gateway, tokens = self._lane, self.gateway, self._tokens
        assert lane is not None and tokens is not None
        first_byte = self._first_byte
        metrics = lane.metrics
        metrics.completed[0] += 1
        metrics.duration.observe(self._duration)
        if first_byte:
            metrics.first_byte.observe(first_byte - self._started)
        if self._queue_s:
            gateway.metrics.queued.observe(self._queue_s)
        counts = metrics.tokens
        counts[0] += tokens.tokens_in
        counts[1] += tokens.tokens_out
        counts[2] += tokens.cached

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
        self._state = OVER
        gateway = self.gateway
        gateway.under_way -= 1
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

    def _commit_request(self) -> None:
        """The commitment to the request, which is made after it has left: while the endpoint works, nobody waits."""
        body = self._unhashed
        if body:
            self._unhashed = b""
            self._hasher.update(body)
            self._hashed = self._hasher.hexdigest()

    def _record(self, outcome: Outcome, status: int, code: str, rules: tuple[str, ...]) -> bool:
        self._commit_request()
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
