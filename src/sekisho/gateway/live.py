"""The route table as the hot path uses it: live endpoints with their state, and routes that point at them.

A new table is built in small steps beside the old one, so that no request waits for it; endpoints that stay the same
keep their connections, their measurements and their requests under way.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from bisect import bisect
from collections.abc import Callable
from typing import Any, Final, Protocol

from sekisho.gateway.limits import Board, Bucket, Slots
from sekisho.gateway.records import Lane
from sekisho.gateway.shares import Share
from sekisho.gateway.upstream import Endpoint, Target
from sekisho.kernel.classes import DataClass
from sekisho.residency.table import Closed, EndpointEntry, KeyEntry, RouteSet, RouteTable, ShareEntry, TenantEntry

_RING_POINTS: Final = 48  # an endpoint; enough for an even share among up to a hundred
_SLICE_S: Final = 0.0005


class Route:
    """The only endpoints that may serve; choice, retry and failover happen inside it.

    When evidence under it runs out it is over, and `current` says what is left.
    """

    __slots__ = (
        "_entry",
        "_left",
        "_ring",
        "_ring_owners",
        "closes_at",
        "endpoints",
        "rules",
        "valid_until",
        "valid_until_ms",
        "waiting",
    )

    def __init__(self, endpoints: tuple[Endpoint, ...], entry: RouteSet) -> None:
        self.endpoints = endpoints
        self.rules = entry.rules
        self.valid_until = entry.valid_until
        # The same moment on a clock that nobody can set back; whichever comes first closes the route.
        self.closes_at = (
            time.monotonic() + entry.valid_until - time.time() if entry.valid_until is not None else float("inf")
        )
        self.valid_until_ms = int(entry.valid_until * 1000) if entry.valid_until is not None else 0
        self._entry = entry
        self._left: Route | None = None
        self.waiting: list[tuple[float, int, Any]] = []  # the heap of queue.FairQueue
        self._ring: list[int] = []
        self._ring_owners: list[Endpoint] = []

    @property
    def expired(self) -> bool:
        """Whether evidence under this route has run out."""
        return self.valid_until is not None and (
            self.valid_until <= time.time() or self.closes_at <= time.monotonic()
        )

    def current(self) -> Route | None:
        """This route while it holds, then what is left of it: the endpoints whose own evidence still holds. None when
        there are none."""
        route = self
        while route.expired:
            after = route._after()
            if after is None:
                return None
            route = after
        return route

    def _after(self) -> Route | None:
        """What is left when `valid_until` has passed."""
        if self._left is not None or self.valid_until is None:
            return self._left
        ended = self.valid_until
        left = [
            (endpoint, index, until)
            for endpoint, index, until in zip(self.endpoints, self._entry.endpoints, self._entry.untils, strict=False)
            if until is None or until > ended
        ]
        if not left:
            return None
        entry = RouteSet(
            endpoints=tuple([index for _, index, _ in left]),
            rules=self.rules,
            valid_until=min([until for _, _, until in left if until is not None], default=None),
            untils=tuple([until for _, _, until in left]),
        )
        route = self._left = Route(tuple([endpoint for endpoint, _, _ in left]), entry)
        if entry.valid_until is not None:
            # on the clock that nobody can set back, from when the table came
            route.closes_at = self.closes_at + (entry.valid_until - ended)
        return route

    def owners(self, prefix_hash: int) -> list[Endpoint]:
        """The endpoints in the order in which they own this prefix: the same on every worker and gateway."""
        if not self._ring:
            points = sorted(
                (int.from_bytes(hashlib.blake2b(f"{e.entry.id}/{n}".encode(), digest_size=4).digest(), "big"), i)
                for i, e in enumerate(self.endpoints)
                for n in range(_RING_POINTS)
            )
            self._ring = [point for point, _ in points]
            self._ring_owners = [self.endpoints[i] for _, i in points]
        count = len(self._ring)
        start = bisect(self._ring, prefix_hash)
        found: list[Endpoint] = []
        for step in range(count):
            owner = self._ring_owners[(start + step) % count]
            if owner not in found:
                found.append(owner)
                if len(found) == len(self.endpoints):
                    break
        return found


class Hash(Protocol):
    """What hashlib returns."""

    def copy(self) -> Hash: ...

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class TenantLimits:
    """The buckets and slots of one scope: a tenant, or a tenant and a model."""

    __slots__ = ("requests", "slots", "tokens")

    def __init__(self, requests: Bucket | None, tokens: Bucket | None, slots: Slots | None) -> None:
        self.requests = requests
        self.tokens = tokens
        self.slots = slots

    def give_back(self, now: float) -> None:
        """Return what lies idle to the other workers."""
        if self.requests is not None:
            self.requests.give_back(now)
        if self.tokens is not None:
            self.tokens.give_back(now)
        if self.slots is not None:
            self.slots.give_back()


class Grant:
    """Slots at endpoints that a tenant may count on until then (Unix seconds)."""

    __slots__ = ("keep_warm_s", "places", "until")

    def __init__(self, places: tuple[tuple[Endpoint, int], ...], until: float, keep_warm_s: float) -> None:
        self.places = places
        self.until = until
        self.keep_warm_s = keep_warm_s


class Tenant:
    """A tenant's entry, with what its requests need prepared on first use."""

    __slots__ = ("_salted", "buffered", "entry", "floor", "grants", "lanes", "limits", "routes", "shares")

    def __init__(self, entry: TenantEntry, routes: tuple[dict[str, Route | Closed], ...]) -> None:
        self.entry = entry
        floor = DataClass.parse(entry.floor)
        self.floor = DataClass.RESTRICTED if floor is None else floor
        self.routes = routes
        self.limits: dict[str, tuple[TenantLimits, ...]] | None = None
        # (key id, class, model asked for, path, endpoint) -> lane; all from configuration, so bounded
        self.lanes: dict[tuple[str, int, str, bytes, str], Lane] | None = None
        # (class, model) -> what is granted, and the share that was made of it on first use
        self.grants: dict[tuple[int, str], list[Grant]] | None = None
        self.shares: dict[tuple[int, str], Share] | None = None
        self._salted: Hash | None = None
        self.buffered = 0  # bytes of this tenant's bodies that the worker holds

    def commitment(self, decision: bytes) -> Hash:
        """A hash that is ready for the body: SHA-256(salt ‖ decision id ‖ …)."""
        salted = self._salted
        if salted is None:
            salted = self._salted = hashlib.sha256(self.entry.salt)
        hasher = salted.copy()
        hasher.update(decision)
        return hasher


class LiveTable:
    """One version of the route table, ready for requests."""

    __slots__ = ("aliases", "endpoints", "issued_at", "key_ids", "keys", "policy", "shared", "tenants", "version")

    def __init__(self, table: RouteTable) -> None:
        # Not the table itself: its ten thousand entries would all be freed in the one moment in which it is.
        self.issued_at = table.issued_at
        self.version = table.version
        self.policy = table.policy
        self.aliases = table.aliases
        self.endpoints: dict[str, Endpoint] = {}
        self.tenants: list[Tenant] = []
        self.shared: set[str] = set()  # ids of endpoints with shares
        # By SHA-256 of the key, and by its id. The entries are the table's own: what is made for each of ten thousand
        # keys is walked over by the garbage collector, and requests wait meanwhile.
        self.keys: dict[bytes, KeyEntry] = {}
        self.key_ids: dict[str, KeyEntry] = {}


def limits_of(board: Board, tenant: Tenant, model: str) -> tuple[TenantLimits, ...]:
    """The scopes that a request of this tenant for this model is admitted by (made on first use)."""
    entry = tenant.entry
    found: list[TenantLimits] = []
    scopes = ((entry.id, entry.limits), (f"{entry.id}\n{model}", entry.model_limits.get(model)))
    for name, limits in scopes:
        if limits is None:
            continue
        requests, tokens, slots = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency
        if requests or tokens or slots:
            found.append(
                TenantLimits(
                    Bucket(board, f"r/{name}", requests) if requests else None,
                    Bucket(board, f"t/{name}", tokens) if tokens else None,
                    board.slots(f"c/{name}", slots) if slots else None,
                )
            )
    return tuple(found)


class _Paced:
    """Lets the event loop run whenever a slice of time is used up."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + _SLICE_S

    async def step(self) -> None:
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + _SLICE_S


async def build(
    table: RouteTable,
    previous: LiveTable | None,
    make_endpoint: Callable[[EndpointEntry], Endpoint],
) -> LiveTable:
    """Make a live table of `table`. Endpoints and tenants that did not change are taken over from `previous`."""
    live = LiveTable(table)
    paced = _Paced()
    old_endpoints = previous.endpoints if previous else {}
    endpoints: list[Endpoint] = []
    for entry in table.endpoints:
        old = old_endpoints.get(entry.id)
        if old is not None and old.target == Target.of(entry):
            old.update(entry)
            endpoint = old
        else:
            endpoint = make_endpoint(entry)
        live.endpoints[entry.id] = endpoint
        endpoints.append(endpoint)
        await paced.step()
    routes: list[Route | Closed] = []
    for item in table.routes:
        routes.append(item if isinstance(item, Closed) else Route(tuple(endpoints[i] for i in item.endpoints), item))
        await paced.step()
    profiles: list[tuple[dict[str, Route | Closed], ...]] = []
    for profile in table.profiles:
        by_class: list[dict[str, Route | Closed]] = []
        for data_class in DataClass:
            by_class.append({model: routes[i] for model, i in profile.routes.get(data_class.label, {}).items()})
            await paced.step()
        profiles.append(tuple(by_class))
    before = previous.tenants if previous else []
    by_id: dict[str, Tenant] | None = None
    for number, entry_ in enumerate(table.tenants):
        tenant = Tenant(entry_, profiles[entry_.profile])
        known: Tenant | None = before[number] if number < len(before) else None
        if previous is not None and (known is None or known.entry.id != entry_.id):  # tenants came or went
            if by_id is None:
                by_id = {}
                for each in before:
                    by_id[each.entry.id] = each
                    await paced.step()
            known = by_id.get(entry_.id)
        if (
            known is not None
            and known.entry.limits == entry_.limits
            and known.entry.model_limits == entry_.model_limits
        ):
            tenant.limits = known.limits  # leases and debts live on
        live.tenants.append(tenant)
        await paced.step()
    for share in table.shares:
        _grant(live, share, endpoints)
        await paced.step()
    for key in table.keys:
        live.keys[key.sha256] = key
        live.key_ids[key.id] = key
        await paced.step()
    return live


def _grant(live: LiveTable, share: ShareEntry, endpoints: list[Endpoint]) -> None:
    """A share counts at the endpoints of its own route and nowhere else."""
    tenant = live.tenants[share.tenant]
    data_class = DataClass.parse(share.data_class)
    route = tenant.routes[data_class].get(share.model) if data_class is not None else None
    if data_class is None or not isinstance(route, Route):
        return
    found = [(endpoints[index], slots) for index, slots in share.places if endpoints[index] in route.endpoints]
    if tenant.grants is None:
        tenant.grants = {}
    grants = tenant.grants.setdefault((int(data_class), share.model), [])
    grants.append(Grant(tuple(found), share.until, share.keep_warm_s))
    live.shared.update([endpoint.id for endpoint, _ in found])


async def dismantle(live: LiveTable) -> None:
    """Let go of a table that is no longer used, in small steps: freeing it at once would stop the loop too."""
    paced = _Paced()
    for keys in (live.keys, live.key_ids):
        while keys:
            keys.popitem()
            await paced.step()
    while live.tenants:
        live.tenants.pop()
        await paced.step()
