"""Which endpoint of a route set serves: pure choice, nothing is written.

Prompts long enough for a prefix cache to matter go to the endpoint that owns their prefix on a consistent-hash ring,
with bounded load (Mirrokni et al., 2018): the same choice on every worker and gateway, with no shared state and no
index that grows. All others take the better of two at random by predicted time to first token (power of two choices).
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final

from sekisho.gateway.live import Route
from sekisho.gateway.upstream import Endpoint

_below: Final = random.Random().random  # noqa: S311 - spreads load; nothing secret hangs on it


def predicted_s(endpoint: Endpoint) -> float:
    """Seconds until the first byte, as measured lately and stretched by what is under way on its slots."""
    return endpoint.ewma_s * (1.0 + endpoint.in_flight / endpoint.slots.limit)


def choose(
    route: Route, prefix_hash: int | None, tried: Collection[Endpoint], *, load_bound: float
) -> Endpoint | None:
    """Take a slot of an endpoint of the set and return it; None when no usable one has a slot free.

    `prefix_hash`: 32 bits, None for short prompts. `tried`: endpoints that failed this request before.
    """
    endpoints = route.endpoints
    if len(endpoints) == 1:
        only = endpoints[0]
        return only if not only.ejected and only not in tried and only.slots.take() else None
    usable = (
        [e for e in endpoints if not e.ejected and e not in tried] if tried or _any_ejected(endpoints) else endpoints
    )
    count = len(usable)
    if count == 0:
        return None
    if prefix_hash is not None:
        under_way = 1 + sum(e.in_flight for e in usable)
        slots = sum(e.slots.limit for e in usable)
        for owner in route.owners(prefix_hash):
            bound = load_bound * under_way * owner.slots.limit / slots
            if owner in usable and owner.in_flight < max(bound, 1.0) and owner.slots.take():
                return owner
    first = usable[int(_below() * count)]
    if count > 1:
        second = usable[int(_below() * (count - 1))]
        if second is first:
            second = usable[-1]
        if predicted_s(second) < predicted_s(first):
            first, second = second, first
        if first.slots.take():
            return first
        if second.slots.take():
            return second
    for endpoint in usable:
        if endpoint.slots.take():
            return endpoint
    return None


def _any_ejected(endpoints: Collection[Endpoint]) -> bool:
    return any(e.ejected for e in endpoints)


def all_out(route: Route, tried: Collection[Endpoint]) -> bool:
    """Whether nobody in the set is left to wait for."""
    return all(e.ejected or e in tried for e in route.endpoints)
