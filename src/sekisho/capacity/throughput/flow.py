"""Whether demands on overlapping sets of endpoints can all be met at once, and where: a maximum flow.

Demands with the same set are one node, so the graph is as small as the number of different sets. Capacity is opened
in four steps, so that a demand is spread over its endpoints and not piled on the first one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from sekisho.capacity.throughput.model import Demand

_STEPS = 4
_Set = tuple[str, ...]


class Flow:
    """Groups of demands on one side, endpoints on the other."""

    def __init__(self, capacity: Mapping[str, int]) -> None:
        self._capacity = dict(capacity)
        self._sent: dict[_Set, dict[str, int]] = {}
        self._used = dict.fromkeys(capacity, 0)

    def add(self, endpoints: _Set, slots: int) -> int:
        """Meet as much of this demand as can be, moving what others have where that helps; how much it is. What
        others have in all never becomes less."""
        self._sent.setdefault(endpoints, dict.fromkeys(endpoints, 0))
        met = 0
        for step in range(1, _STEPS + 1):
            opened = {name: -(-slots_ * step // _STEPS) for name, slots_ in self._capacity.items()}
            while met < slots:
                found = self._augment(endpoints, slots - met, opened)
                if not found:
                    break
                met += found
        return met

    def sent(self, endpoints: _Set) -> dict[str, int]:
        """Endpoint → slots that this set's demands have there."""
        return self._sent[endpoints]

    def _augment(self, source: _Set, wanted: int, opened: Mapping[str, int]) -> int:
        """One shortest path from the group to an endpoint with room; an endpoint that is full passes the search on
        to every group that could leave it."""
        came: dict[str, tuple[_Set, str]] = {}
        groups: dict[_Set, str] = {source: ""}
        waiting = deque([source])
        while waiting:
            group = waiting.popleft()
            for endpoint in group:
                if endpoint in came or endpoint not in self._capacity:
                    continue
                came[endpoint] = (group, groups[group])
                if self._used[endpoint] < opened[endpoint]:
                    return self._push(endpoint, came, min(wanted, opened[endpoint] - self._used[endpoint]))
                for other, sent in self._sent.items():
                    if other not in groups and sent.get(endpoint, 0) > 0:
                        groups[other] = endpoint
                        waiting.append(other)
        return 0

    def _push(self, last: str, came: Mapping[str, tuple[_Set, str]], amount: int) -> int:
        endpoint = last
        while came[endpoint][1]:
            group, before = came[endpoint]
            amount = min(amount, self._sent[group][before])
            endpoint = before
        endpoint = last
        self._used[last] += amount
        while True:
            group, before = came[endpoint]
            self._sent[group][endpoint] += amount
            if not before:
                return amount
            self._sent[group][before] -= amount
            endpoint = before


def place(
    demands: Sequence[Demand], capacity: Mapping[str, int]
) -> tuple[dict[str, tuple[tuple[str, int], ...]], dict[str, int]]:
    """(id → its slots at each endpoint, id → how many are missing). Who comes first is met first."""
    flow = Flow(capacity)
    met = {demand.id: flow.add(demand.endpoints, demand.slots) for demand in demands}
    left = {demand.endpoints: dict(flow.sent(demand.endpoints)) for demand in demands}
    places: dict[str, tuple[tuple[str, int], ...]] = {}
    for demand in demands:
        mine: list[tuple[str, int]] = []
        need, stock = met[demand.id], left[demand.endpoints]
        # each takes its part of every endpoint, so that no owner stands and falls with one of them
        total = sum(stock.values())
        for endpoint, there in stock.items():
            part = min(need * there // total if total else 0, there)
            if part:
                mine.append((endpoint, part))
        taken = dict(mine)
        rest = need - sum(taken.values())
        for endpoint, there in stock.items():
            more = min(rest, there - taken.get(endpoint, 0))
            if more:
                taken[endpoint] = taken.get(endpoint, 0) + more
                rest -= more
        for endpoint, slots in taken.items():
            stock[endpoint] -= slots
        places[demand.id] = tuple(sorted(taken.items()))
    missing = {demand.id: demand.slots - met[demand.id] for demand in demands if demand.slots > met[demand.id]}
    return places, missing
