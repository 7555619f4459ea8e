"""Waiting for a slot, fairly: start-time fair queueing over tenants, weighted by data class, with deadlines."""

from __future__ import annotations

import heapq
from typing import Final, Protocol

from sekisho.gateway.live import Route
from sekisho.gateway.shares import Share
from sekisho.gateway.upstream import Endpoint
from sekisho.kernel.classes import DataClass

# A higher class has fewer places to go, so it waits less; weights, not strict priority: nobody starves.
WEIGHTS: Final = {
    DataClass.PUBLIC: 1.0,
    DataClass.INTERNAL: 2.0,
    DataClass.CONFIDENTIAL: 4.0,
    DataClass.RESTRICTED: 8.0,
}


class Waiter(Protocol):
    """What waits: it may have left by itself (`waiting` False)."""

    waiting: bool
    queue_deadline: float
    share: Share | None


class FairQueue:
    """All requests of this worker that wait. A tenant's next turn comes after its share of work, however much it
    sends."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self._virtual = 0.0
        self._sequence = 0
        self._finish: dict[str, float] = {}
        self._routes: dict[Route, None] = {}
        self._rate = 0.0  # served a second, smoothed
        self._served_at = 0.0

    def push(
        self, waiter: Waiter, route: Route, *, tenant: str, data_class: DataClass, cost: float, owner: bool = False
    ) -> bool:
        """False when the queue is full. `cost`: estimated tokens. `owner`: within its share, so always let in."""
        if self.count >= self.limit and not owner:
            return False
        start = max(self._virtual, self._finish.get(tenant, 0.0))
        self._finish[tenant] = start + max(cost, 1.0) / WEIGHTS[data_class]
        self._sequence += 1
        heapq.heappush(route.waiting, (start, self._sequence, waiter))
        self.count += 1
        waiter.waiting = True
        self._routes[route] = None
        for endpoint in route.endpoints:
            endpoint.hungry[route] = None
        return True

    def pop_for(self, endpoint: Endpoint, now: float) -> Waiter | None:
        """The waiter whose turn it is among those that may use this endpoint."""
        best: Route | None = None
        for route in list(endpoint.hungry):
            head = self._head(route)
            if head is not None and (best is None or head < best.waiting[0][:2]):
                best = route
        if best is None:
            return None
        start, _, waiter = heapq.heappop(best.waiting)
        self._virtual = max(self._virtual, start)
        found: Waiter = waiter
        self._left(found)
        gap = now - self._served_at
        self._served_at = now
        if 0 < gap < 10:
            self._rate = self._rate * 0.9 + 0.1 / gap
        return found

    def leave(self, waiter: Waiter) -> None:
        """The waiter goes away by itself; its place in the heap is skipped later."""
        if waiter.waiting:
            self._left(waiter)

    def expired(self, now: float) -> list[Waiter]:
        """Waiters whose deadline has passed, already taken out."""
        late: list[Waiter] = []
        for route in list(self._routes):
            alive = []
            for row in route.waiting:
                if not row[2].waiting:
                    continue  # left by itself
                if row[2].queue_deadline <= now:
                    late.append(row[2])
                else:
                    alive.append(row)
            if len(alive) != len(route.waiting):
                heapq.heapify(alive)
                route.waiting = alive
                if not alive:
                    self._forget(route)
        for waiter in late:
            self._left(waiter)
        return late

    def drain(self) -> list[Waiter]:
        """Take everybody out, in order of their turn (a new table is there: each asks again)."""
        rows = sorted(row for route in list(self._routes) for row in route.waiting if row[2].waiting)
        for route in list(self._routes):
            self._forget(route)
            route.waiting.clear()
        for _, _, waiter in rows:
            self._left(waiter)
        return [waiter for _, _, waiter in rows]

    def hungry(self) -> list[Endpoint]:
        """Endpoints that somebody waits for."""
        return list({endpoint: None for route in self._routes for endpoint in route.endpoints})

    def retry_after_s(self) -> float:
        """When a newcomer could be served, by the rate of late: between 1 and 60 seconds."""
        return min(max(self.count / self._rate if self._rate else 1.0, 1.0), 60.0)

    def _left(self, waiter: Waiter) -> None:
        waiter.waiting = False
        self.count -= 1
        share = waiter.share
        if share is not None:
            share.left()
        if not self.count:
            self._finish.clear()
            self._virtual = 0.0

    def _head(self, route: Route) -> tuple[float, int] | None:
        waiting = route.waiting
        while waiting and not waiting[0][2].waiting:
            heapq.heappop(waiting)
        if waiting:
            return waiting[0][:2]
        self._forget(route)
        return None

    def _forget(self, route: Route) -> None:
        self._routes.pop(route, None)
        for endpoint in route.endpoints:
            endpoint.hungry.pop(route, None)
