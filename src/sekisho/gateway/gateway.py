"""What the passages of one worker share: table, journal, limits, queue, clocks and timers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import msgspec

from sekisho.gateway import live as live_tables
from sekisho.gateway.limits import Board
from sekisho.gateway.listener import ClientConnection
from sekisho.gateway.live import LiveTable, Route, Tenant, TenantLimits
from sekisho.gateway.metrics import BOUNDS, Metrics
from sekisho.gateway.passage import Passage
from sekisho.gateway.queue import FairQueue
from sekisho.gateway.reading import KnownHead
from sekisho.gateway.receipts import Receipts
from sekisho.gateway.settings import EndpointSnapshot, GatewaySettings, WorkerSnapshot
from sekisho.gateway.shares import SETTLE_S, Place, Share, Shares
from sekisho.gateway.tuning import Tuning
from sekisho.gateway.upstream import Endpoint
from sekisho.kernel.classes import DataClass
from sekisho.kernel.ids import DecisionIds
from sekisho.ledger.journal import Journal
from sekisho.ledger.model import Decision
from sekisho.residency.table import EndpointEntry, RouteTable

_SWEEP_S: Final = 0.25
_QUEUE_POLL_S: Final = 0.005
_OUTBOX: Final = 64
_HEADS: Final = 2048
_STRANGERS: Final = 5  # lines between two sweeps
_STRANGERS_PER_S: Final = 100.0
_STRANGER_BURST: Final = 5000.0
_log = logging.getLogger("sekisho.gateway")


class Gateway:
    """One worker. Everything here belongs to the event loop's thread."""

    def __init__(
        self,
        *,
        index: int,
        settings: GatewaySettings,
        journal: Journal,
        board: Board,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.index = index
        self.name = f"{settings.id}/w{index}"
        self.settings = settings
        self.tuning = Tuning(settings)
        self.journal = journal
        self.board = board
        self.loop = loop
        self._soon = loop.call_soon
        self.now = time.monotonic  # the clock of the event loop, but read anew each time
        self.coarse = self.now()  # as of the last sweep: near enough for deadlines of seconds
        self.ids = DecisionIds(os.urandom(5))
        self.sha256 = hashlib.sha256
        self.no_hash = hashlib.sha256()
        self.live: LiveTable | None = None
        self.metrics = Metrics()
        self.queue = FairQueue(settings.queue_max)
        self.shares = Shares(board, later=self._settle_later)
        self.clients: set[ClientConnection] = set()
        self.buffered = 0
        self.under_way = 0  # passages between their head and their decision
        self.draining = False
        self.started_at = time.time()
        self.date = b""
        self.receipts: Receipts | None = None
        self.on_decision: Callable[[Decision, bytes | None], None] | None = None
        self.heads: dict[bytes, KnownHead] = {}
        self.limited: list[Tenant] = []  # tenants whose limits are in use
        self._outbox: list[tuple[asyncio.Transport, bytes]] = []
        self._retired: list[Endpoint] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling = False
        self._retry_credit = 10.0
        self._retry_seen = 0
        self._retry_at = 0.0
        self._swept = 0
        self._stranger_lines = 0
        self._stranger_credit = _STRANGER_BURST
        self._stranger_at = self.now()
        self._sweeper: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None
        self._tick()

    # -- connections

    def enter(self, client: ClientConnection) -> bool:
        """Register a connection; False when the worker has as many as it may."""
        if len(self.clients) >= self.settings.max_connections:
            return False
        self.clients.add(client)
        self.metrics.connections += 1
        return True

    def leave(self, client: ClientConnection) -> None:
        self.clients.discard(client)
        if self._empty is not None and not self.clients:
            self._empty.set()

    def limits_of(self, tenant: Tenant, model: str) -> tuple[TenantLimits, ...]:
        """The limits that a request of this tenant for this model is admitted by."""
        known = tenant.limits
        if known is None:
            known = tenant.limits = {}
            self.limited.append(tenant)
        limits = known.get(model)
        if limits is None:
            limits = known[model] = live_tables.limits_of(self.board, tenant, model)
        return limits

    def share_of(self, tenant: Tenant, data_class: DataClass, model: str) -> Share | None:
        """What this tenant may count on for requests like this one; None for most."""
        if tenant.grants is None:
            return None
        key = (int(data_class), model)
        shares = tenant.shares
        if shares is None:
            shares = tenant.shares = {}
        share = shares.get(key)
        if share is None:
            grants = tenant.grants.get(key)
            if grants is None:
                return None
            share = self.shares.find(tenant=tenant.entry.id, data_class=key[0], model=model, grants=grants)
            if share is not None:
                shares[key] = share
        return share

    def remember(self, head: bytes, passage: Passage) -> None:
        """Keep what was read in this head (without its length), until the route table changes."""
        known = passage.known_head()
        if known is not None and passage.table is self.live:
            if len(self.heads) >= _HEADS:
                self.heads.clear()
            self.heads[head] = known

    # -- writing

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write at the end of this turn of the event loop, together with what else is due then; at once when there is
        nothing else.

        Each write may have to wake a sleeping processor on the other side; writes that follow each other find it
        awake (measured: half of the CPU time of a request at 32 connections).
        """
        outbox = self._outbox
        if self.under_way <= 1 and not outbox:
            _write(transport, data)
            return
        outbox.append((transport, data))
        count = len(outbox)
        if count == 1:
            self._soon(self.flush)
        elif count >= _OUTBOX:
            self.flush()

    def flush(self) -> None:
        outbox = self._outbox
        if outbox:
            self._outbox = []
            for transport, data in outbox:
                _write(transport, data)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the table

    async def adopt(self, table: RouteTable) -> None:
        """Make `table` the one that is obeyed; whoever waits asks again by it."""
        previous = self.live
        live = await live_tables.build(table, previous, self._make_endpoint)
        self.live = live
        self.shares.adopt(live.shared)
        self.heads.clear()
        for client in self.clients:
            client.known = None
        self.limited = [tenant for tenant in live.tenants if tenant.limits is not None]
        for waiter in self.queue.drain():
            if isinstance(waiter, Passage):
                waiter.reconsider()
        if previous is not None:
            for id, endpoint in previous.endpoints.items():
                if live.endpoints.get(id) is not endpoint:
                    endpoint.retire()
                    self._retired.append(endpoint)
            await live_tables.dismantle(previous)
        _log.info("route table %d adopted", table.version)

    def _make_endpoint(self, entry: EndpointEntry) -> Endpoint:
        slots = self.shares.slots(entry.id, entry.slots)
        endpoint = Endpoint(
            entry,
            settings=self.settings,
            tuning=self.tuning,
            slots=slots,
            loop=self.loop,
            on_usable=self.slot_free,
            write=self.write,
        )
        if endpoint.unusable:
            self.log_endpoint(endpoint, endpoint.unusable)
        return endpoint

    def models_body(self, tenant: Tenant, table: LiveTable, data_class: DataClass) -> bytes:
        """`GET /v1/models`: models with an open route at this class, and the aliases that lead to them."""
        routes = tenant.routes[data_class]
        usable = {
            model for model, route in routes.items() if isinstance(route, Route) and route.current() is not None
        }
        names = sorted(usable | {alias for alias, model in table.aliases.items() if model in usable})
        created = int(table.issued_at)
        return msgspec.json.encode(
            {
                "object": "list",
                "data": [{"id": n, "object": "model", "created": created, "owned_by": "sekisho"} for n in names],
            }
        )

    # -- the queue

    def slot_free(self, endpoint: Endpoint) -> None:
        """A slot of `endpoint` may be free: give it to an owner within its share, else to whose turn it is."""
        while not endpoint.ejected and (place := self.shares.next_owner(endpoint.id)) is not None:
            self.serve(place)
        while endpoint.hungry and not endpoint.ejected and endpoint.slots.take():
            waiter = self.queue.pop_for(endpoint, self.now())
            if waiter is None:
                endpoint.slots.release()
                return
            if isinstance(waiter, Passage):
                waiter.dispatch(endpoint)

    def serve(self, place: Place) -> None:
        """A slot was taken at `place` for the one of its owner that has waited longest."""
        waiter = place.share.pop()
        if isinstance(waiter, Passage):
            self.queue.leave(waiter)
            waiter.dispatch(place.endpoint, place)
        else:
            place.release()

    def _settle_later(self) -> None:
        self.loop.call_later(SETTLE_S, self.shares.settle)

    def watch_queue(self) -> None:
        """Slots that other workers give back, and deadlines, are looked at every few milliseconds."""
        if not self._polling:
            self._polling = True
            self.loop.call_later(_QUEUE_POLL_S, self._poll_queue)

    def _poll_queue(self) -> None:
        self._polling = False
        for waiter in self.queue.expired(self.now()):
            if isinstance(waiter, Passage):
                waiter.queue_expired()
        for endpoint in self.queue.hungry():
            self.slot_free(endpoint)
        if self.queue.count:
            self.watch_queue()

    # -- retries

    def may_retry(self) -> bool:
        """Spend from the retry budget: a share of the requests, and a floor for quiet times."""
        now, seen = self.now(), self.journal.appended
        settings = self.settings
        self._retry_credit += (seen - self._retry_seen) / 2 * settings.retry_budget  # two records a request
        self._retry_credit += (now - self._retry_at) * settings.retry_budget_floor_per_s
        self._retry_credit = min(self._retry_credit, 100.0)
        self._retry_seen, self._retry_at = seen, now
        if self._retry_credit < 1.0:
            return False
        self._retry_credit -= 1.0
        return True

    # -- timers

    def _tick(self) -> None:
        """Every quarter second: deadlines, idle connections, leases, the date."""
        self._sweeper = self.loop.call_later(_SWEEP_S, self._tick)
        now = self.coarse = self.now()
        self.date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
        for client in list(self.clients):
            if client.deadline <= now:
                client.expire()
            elif client.deaf:
                client.listen_for_close()
        live = self.live
        if live is None:
            return
        for endpoint in (*live.endpoints.values(), *self._retired):
            endpoint.sweep(now)
        self._retired = [endpoint for endpoint in self._retired if endpoint.connections]
        self._stranger_lines = 0
        self._swept += 1
        if self._swept % 2 == 0:
            self.shares.sweep(now)
            for endpoint in live.endpoints.values():
                endpoint.slots.give_back()
            for tenant in self.limited:
                for scopes in (tenant.limits or {}).values():
                    for scope in scopes:
                        scope.give_back(now)

    # -- state

    def readiness(self) -> tuple[bytes, bytes]:
        """Whether to send work here: a table is needed; without a journal public data still passes."""
        if self.draining:
            return b"503 Service Unavailable", b"draining"
        if self.live is None:
            return b"503 Service Unavailable", b"no route table yet"
        return (
            b"200 OK",
            b"ready" if self.journal.ready else b"ready for public and internal data; journal unavailable",
        )

    def log_endpoint(self, endpoint: Endpoint, message: str) -> None:
        _log.warning("endpoint %s: %s", endpoint.id, message)

    def may_answer_stranger(self) -> bool:
        """Whether to answer (and so to record) one more request that shows no key of ours: a flood of them must not
        fill the disk that confidential work needs."""
        now = self.now()
        self._stranger_credit = min(
            self._stranger_credit + (now - self._stranger_at) * _STRANGERS_PER_S, _STRANGER_BURST
        )
        self._stranger_at = now
        if self._stranger_credit < 1.0:
            self.metrics.strangers_cut += 1
            return False
        self._stranger_credit -= 1.0
        return True

    def log_stranger(self, code: str, peer: str, decision: str) -> None:
        """An unknown key, with the address it came from: at most a few lines a second, whatever the storm."""
        if self._stranger_lines < _STRANGERS:
            self._stranger_lines += 1
            _log.warning("%s from %s, decision %s", code, peer, decision)

    def snapshot(self) -> WorkerSnapshot:
        now = self.now()
        live = self.live
        endpoints = list(live.endpoints.values()) if live is not None else []
        rss_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return WorkerSnapshot(
            index=self.index,
            pid=os.getpid(),
            at=time.time(),
            started_at=self.started_at,
            table_version=live.version if live else 0,
            table_issued_at=live.issued_at if live else 0.0,
            policy=live.policy if live else "",
            connections=len(self.clients),
            in_flight=sum(endpoint.in_flight for endpoint in endpoints),
            queued=self.queue.count,
            draining=self.draining,
            journal_ok=self.journal.ready,
            journal_error=self.journal.error,
            rss_bytes=rss_pages * os.sysconf("SC_PAGE_SIZE"),
            endpoints=tuple(
                EndpointSnapshot(
                    id=endpoint.id,
                    site=endpoint.site,
                    operator=endpoint.operator,
                    country=endpoint.country,
                    in_flight=endpoint.in_flight,
                    slots=endpoint.slots.limit,
                    ewma_first_byte_ms=round(endpoint.ewma_s * 1000, 3),
                    ejected_for_s=max(endpoint.usable_from - now, 0.001) if endpoint.ejected else 0.0,
                    requests=endpoint.requests,
                    failures=endpoint.failures,
                )
                for endpoint in endpoints
            ),
            counters=self.metrics.counters(),
            histograms=self.metrics.histograms(),
            bounds=BOUNDS,
        )

    # -- the end

    async def drain(self, grace_s: float) -> None:
        """Let what is under way finish; idle connections close now, the rest when their answer is complete."""
        self.draining = True
        for client in list(self.clients):
            if client.idle and client.transport is not None:
                client.transport.close()
        self._empty = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s if self.clients else 0):
                await self._empty.wait()
        for client in list(self.clients):
            if client.passage is not None:
                client.passage.client_gone(status=503)
            if client.transport is not None:
                client.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self.live is not None:
            for endpoint in self.live.endpoints.values():
                endpoint.retire()
        await asyncio.sleep(0)
        self.shares.settle()  # a worker that ends holds nothing back from those that go on


def _write(transport: asyncio.Transport, data: bytes) -> None:
    try:
        transport.write(data)
    except (OSError, RuntimeError) as error:  # this one is gone; the others' answers must still leave
        _log.info("a write came too late: %s", error)
