"""One passage: from a request's head to the one decision that is written of it.

    read_head ─► read_body ─► route ─► admit ─► dispatch ─► on_answer … ─► finish
        │            │          │        │         │             │
        └────────────┴──────────┴────────┴─────────┴─────────────┴──► refuse / fail: the same finish

Whatever way it ends, `_record` runs once, before the last byte leaves. The class is written in four parts that build
on each other: `ending` (state and end), `answering` (from the endpoint), `reading` (from the client), and here what
lies between: route, admission, choice, dispatch.
"""

from __future__ import annotations

from time import time as wall_time
from typing import Final

from sekisho.gateway.choose import all_out, choose
from sekisho.gateway.ending import WAITING, Hedge
from sekisho.gateway.live import Route, TenantLimits
from sekisho.gateway.reading import CONFIDENTIAL, Reading
from sekisho.gateway.refusals import Refusal, of
from sekisho.gateway.shares import Place
from sekisho.gateway.upstream import Endpoint, EndpointUnusable, UpstreamConnection
from sekisho.kernel.classes import DataClass

_RESTRICTED: Final = int(DataClass.RESTRICTED)


class Passage(Reading):
    """A request on its way: the whole of it. See the module's docstring."""

    __slots__ = ()

    def _resolve(self) -> Route | Refusal:
        """The route set for this request in the current table, or why there is none."""
        tenant, table, data_class = self.tenant, self.table, self.data_class
        assert tenant is not None and table is not None and data_class is not None
        route = tenant.routes[data_class].get(self._model)
        if route is None:
            return of("model.not_found")
        if not isinstance(route, Route):
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
                way_out_ja="規則を満たすサイトの追加を依頼するか、より低い区分のデータを送ってください。"
                "サイトごとの理由は `sekisho why` で確認できます",
                rules=route.rules,
            )
        left = route.current()
        return of("residency.evidence_expired") if left is None else left

    def _admit(self) -> Refusal | None:
        """Residency, journal and the tenant's limits, in this order: a refusal takes nothing."""
        route = self._resolve()
        if not isinstance(route, Route):
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
        self._state = WAITING
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
            if known is None or (known.expires_at is not None and known.expires_at <= wall_time()):
                return of("auth.key_unknown")
            self.tenant.buffered -= self._counted
            tenant = self.tenant = live.tenants[known.tenant]
            tenant.buffered += self._counted
            self._expires_at = known.expires_at
            if self.data_class is not None and tenant.floor > self.data_class:
                self.data_class = tenant.floor
                self.guarded = tenant.floor >= CONFIDENTIAL
        route = self._resolve()
        if not isinstance(route, Route):
            return route
        self._route = route
        return None

    def dispatch(self, endpoint: Endpoint, place: Place | None = None) -> None:
        """Send the request to `endpoint`, whose slot has been taken for it (at `place` of its share)."""
        gateway, share = self.gateway, self.share
        if place is not None and endpoint not in self._route_now().endpoints:
            # The share's place was found for a request under another table.
            place.release()
            self._seek()
            return
        self._endpoint = endpoint
        self._slotted = True
        self._place = place if place is not None or share is None else share.at(endpoint)
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
        if self._asked_now:
            return True
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
        if self._state == WAITING and endpoint is not None and self._may_go(endpoint):
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
            elif self._endpoint is endpoint and self._state == WAITING:
                self._attempt_failed(code)
            return
        hedge = self._hedge
        if hedge is not None and hedge.endpoint is endpoint and self._state == WAITING:
            if self.gateway.live is not self.table or self._route_now().expired:
                endpoint.keep(connection)
                self._drop_hedge("hedge.lost")
                return
            hedge.connection = connection
            self._transmit(connection)
        elif self._endpoint is endpoint and self._state == WAITING and self._connection is None:
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

    # -- hedging: off unless `hedge_after` is set

    def _start_hedge(self, first: Endpoint) -> None:
        """No first byte yet: ask a second endpoint of the set too, and take whichever answers first."""
        gateway, route = self.gateway, self._route
        if self._state != WAITING or self._endpoint is not first or self._hedge is not None or route is None:
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
        self._hedge = Hedge(endpoint, gateway.now())
        connection = endpoint.idle()
        if connection is not None:
            self._hedge.connection = connection
            self._transmit(connection)
        else:
            gateway.spawn(self._connect(endpoint))


def _put_back(scope: TenantLimits, estimate: int) -> None:
    if scope.slots is not None:
        scope.slots.release()
    if scope.requests is not None:
        scope.requests.settle(1.0)
    if scope.tokens is not None:
        scope.tokens.settle(estimate)
