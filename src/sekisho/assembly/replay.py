"""A simulated federation under the load of a real trace: events in virtual time, admission by the gateway's own code
(board, shares, queue, choice). Only the endpoints are not there: a profile says how long they take.

SIMULATION: nothing is sent anywhere.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from sekisho.capacity.throughput.trace import Arrival, Profile
from sekisho.gateway.choose import choose
from sekisho.gateway.limits import Board
from sekisho.gateway.live import Grant, Route
from sekisho.gateway.queue import FairQueue
from sekisho.gateway.settings import GatewaySettings
from sekisho.gateway.shares import SETTLE_S, Place, Share, Shares
from sekisho.gateway.tuning import Tuning
from sekisho.gateway.upstream import Endpoint
from sekisho.kernel.classes import DataClass
from sekisho.residency.table import EndpointEntry, RouteSet

OWNER: Final = "owner"
_FOREVER: Final = 4e9
_SWEEP_S: Final = 0.5


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`endpoints` × `slots`; `greedy` tenants that together ask for `load` times that; an owner of `reserved` slots
    whose requests keep half of them busy. `slo_s`: the first token is due so long after the request."""

    endpoints: int = 2
    slots: int = 16
    greedy: int = 20
    load: float = 10.0
    reserved: int = 8
    keep_warm_s: float = 2.0
    slo_s: float = 2.0
    queue_max: int = 1000
    queue_timeout_s: float = 10.0
    seconds: float = 600.0  # of virtual time
    seed: int = 1


class Attained(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant got. `slo`: the part of its requests whose first token came in time; refusals are not."""

    tenant: str
    requests: int
    refused: int
    slo: float
    wait_p50_s: float
    wait_p99_s: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`busy`: the part of all slots' time that was used."""

    tenants: tuple[Attained, ...]
    busy: float


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """`speed`: how much faster than in the trace the greedy tenants' requests came."""

    plan: Plan
    profile: Profile
    speed: float
    without: Outcome
    with_share: Outcome


class _Job:
    """A request on its way. `waiting`, `queue_deadline` and `share` are what the queue asks of a waiter."""

    __slots__ = ("arrival", "at_s", "place", "queue_deadline", "share", "started_s", "tenant", "waiting")

    def __init__(self, tenant: str, arrival: Arrival, at_s: float) -> None:
        self.tenant = tenant
        self.arrival = arrival
        self.at_s = at_s
        self.waiting = False
        self.queue_deadline = 0.0
        self.share: Share | None = None
        self.place: Place | None = None
        self.started_s = -1.0


def replay(trace: Sequence[Arrival], plan: Plan, profile: Profile) -> Replayed:
    """The same load twice: with nothing reserved, and with the owner's reservation."""
    mean_s = sum(profile.service_s(each) for each in trace) / len(trace)
    rate = len(trace) / max(trace[-1].at_s, 1e-6)
    capacity = plan.endpoints * plan.slots
    speed = plan.load * capacity / (rate * mean_s)
    jobs = _greedy(trace, plan, speed) + _owners(trace, plan, speed, busy=plan.reserved / 2 / mean_s)
    with tempfile.TemporaryDirectory() as folder:
        without = _Federation(Path(folder) / "a", plan, profile, reserved=0).run(jobs)
        kept = _Federation(Path(folder) / "b", plan, profile, reserved=plan.reserved).run(jobs)
    return Replayed(plan=plan, profile=profile, speed=round(speed, 3), without=without, with_share=kept)


def _greedy(trace: Sequence[Arrival], plan: Plan, speed: float) -> list[tuple[float, str, Arrival]]:
    """The trace, again from its beginning when it is over, dealt out to the greedy tenants."""
    found: list[tuple[float, str, Arrival]] = []
    length_s = trace[-1].at_s / speed + 1e-3
    chance = random.Random(plan.seed)  # noqa: S311 - a simulation
    for turn in count():
        for each in trace:
            at_s = turn * length_s + each.at_s / speed
            if at_s >= plan.seconds:
                return found
            found.append((at_s, f"greedy-{chance.randrange(plan.greedy)}", each))
    return found


def _owners(trace: Sequence[Arrival], plan: Plan, speed: float, *, busy: float) -> list[tuple[float, str, Arrival]]:
    """Requests of the trace at `busy` a second, with its own sizes, at random moments (Poisson)."""
    chance = random.Random(plan.seed + 1)  # noqa: S311 - a simulation
    found: list[tuple[float, str, Arrival]] = []
    at_s = chance.expovariate(busy)
    while at_s < plan.seconds:
        found.append((at_s, OWNER, trace[int(at_s * speed * 97) % len(trace)]))
        at_s += chance.expovariate(busy)
    return found


class _Federation:
    def __init__(self, folder: Path, plan: Plan, profile: Profile, *, reserved: int) -> None:
        self._plan = plan
        self._profile = profile
        settings = GatewaySettings()
        self._loop = asyncio.new_event_loop()
        self._board = Board(folder / "limits.shm", worker=0, workers=1)
        self._shares = Shares(self._board, later=self._settle_later)
        self._settle_at = _FOREVER
        self._queue = FairQueue(plan.queue_max)
        self._endpoints = tuple(
            Endpoint(
                EndpointEntry(
                    id=f"simulated-{n}", site="simulated", operator="simulated", country="JP",
                    url="http://127.0.0.1:1/v1", slots=plan.slots,
                ),
                settings=settings,
                tuning=Tuning(settings),
                slots=self._shares.slots(f"simulated-{n}", plan.slots),
                loop=self._loop,
                on_usable=lambda _: None,
                write=lambda *_: None,
            )
            for n in range(plan.endpoints)
        )  # fmt: skip
        entry = RouteSet(endpoints=tuple(range(plan.endpoints)), rules=("simulated",))
        self._route = Route(self._endpoints, entry)
        self._share: Share | None = None
        if reserved:
            self._shares.adopt({each.id for each in self._endpoints})
            parts = [reserved // plan.endpoints + (n < reserved % plan.endpoints) for n in range(plan.endpoints)]
            places = tuple((each, part) for each, part in zip(self._endpoints, parts, strict=True) if part)
            self._share = self._shares.find(
                tenant=OWNER, data_class=0, model="m", grants=[Grant(places, _FOREVER, plan.keep_warm_s)]
            )
        self._now = 0.0
        self._events: list[tuple[float, int, _Job, Endpoint | None]] = []
        self._number = count()
        self._busy_s = 0.0

    def run(self, arrivals: Sequence[tuple[float, str, Arrival]]) -> Outcome:
        jobs = [_Job(tenant, arrival, at_s) for at_s, tenant, arrival in arrivals]
        for job in jobs:
            heapq.heappush(self._events, (job.at_s, next(self._number), job, None))
        swept = 0.0
        while self._events:
            self._now, _, job, endpoint = heapq.heappop(self._events)
            if self._now >= self._settle_at:
                self._settle_at = _FOREVER
                self._shares.settle()
            if self._now - swept >= _SWEEP_S:
                swept = self._now
                self._shares.sweep(self._now)
                self._queue.expired(self._now)
            if endpoint is None:
                self._seek(job)
            else:
                self._end(job, endpoint)
        self._board.close()
        self._loop.close()
        slots = self._plan.endpoints * self._plan.slots
        names = sorted({job.tenant for job in jobs}, key=lambda name: (name != OWNER, name))
        return Outcome(
            tenants=tuple(self._attained(name, [job for job in jobs if job.tenant == name]) for name in names),
            busy=round(self._busy_s / max(self._now, 1e-9) / slots, 4),
        )

    def _settle_later(self) -> None:
        self._settle_at = self._now + SETTLE_S

    def _seek(self, job: _Job) -> None:
        """As a passage does (`gateway.passage`)."""
        share = job.share = self._share if job.tenant == OWNER else None
        if share is not None and (place := share.take(self._route, None, ())) is not None:
            self._start(job, place.endpoint, place)
            return
        if not self._route.waiting:
            endpoint = choose(self._route, None, (), load_bound=1.25)
            if endpoint is not None:
                self._start(job, endpoint, None)
                return
        owner = share is not None and share.room
        job.queue_deadline = self._now + (120.0 if owner else self._plan.queue_timeout_s)
        cost = job.arrival.tokens_in + job.arrival.tokens_out
        if self._queue.push(
            job, self._route, tenant=job.tenant, data_class=DataClass.PUBLIC, cost=cost, owner=owner
        ) and (share is not None):
            share.wait(job)
            place = share.take(self._route, None, ())
            if place is not None:
                self._serve(place)

    def _serve(self, place: Place) -> None:
        waiter = place.share.pop()
        if isinstance(waiter, _Job):
            self._queue.leave(waiter)
            self._start(waiter, place.endpoint, place)
        else:
            place.release()

    def _start(self, job: _Job, endpoint: Endpoint, place: Place | None) -> None:
        job.place = place if place is not None or job.share is None else job.share.at(endpoint)
        job.started_s = self._now
        endpoint.in_flight += 1
        took_s = self._profile.service_s(job.arrival)
        self._busy_s += took_s
        endpoint.succeeded(self._profile.first_token_s(job.arrival), self._now)
        heapq.heappush(self._events, (self._now + took_s, next(self._number), job, endpoint))

    def _end(self, job: _Job, endpoint: Endpoint) -> None:
        endpoint.in_flight -= 1
        if job.place is not None:
            job.place.release()
        else:
            endpoint.slots.release()
        while (place := self._shares.next_owner(endpoint.id)) is not None:
            self._serve(place)
        while endpoint.hungry and endpoint.slots.take():
            waiter = self._queue.pop_for(endpoint, self._now)
            if not isinstance(waiter, _Job):
                endpoint.slots.release()
                return
            self._start(waiter, endpoint, None)

    def _attained(self, tenant: str, jobs: Sequence[_Job]) -> Attained:
        served = [job for job in jobs if job.started_s >= 0]
        waits = sorted(job.started_s - job.at_s for job in served)
        good = sum(
            job.started_s - job.at_s + self._profile.first_token_s(job.arrival) <= self._plan.slo_s for job in served
        )
        return Attained(
            tenant=tenant,
            requests=len(jobs),
            refused=len(jobs) - len(served),
            slo=round(good / len(jobs), 4),
            wait_p50_s=round(waits[len(waits) // 2], 4) if waits else 0.0,
            wait_p99_s=round(waits[min(int(len(waits) * 0.99), len(waits) - 1)], 4) if waits else 0.0,
        )
