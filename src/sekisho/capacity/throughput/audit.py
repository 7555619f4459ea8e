"""Proves from the rows that all promises can be met: reservation by reservation, with none of `flow`'s shortcuts.

At each moment at which something begins, every slot of every commitment is matched with a slot of an endpoint by
augmenting paths (Kuhn's algorithm with capacities). It knows nothing of groups and of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sekisho.capacity.grid import unix_s
from sekisho.capacity.throughput.model import Commitment


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """`peak`: the most slots that are promised at a time. `faults`: moments at which promises can't all be met."""

    commitments: int
    moments: int
    peak: int
    faults: tuple[str, ...]


def audit(held: Sequence[Commitment], sets: Mapping[str, tuple[str, ...]], capacity: Mapping[str, int]) -> Audit:
    moments = sorted({each.body.terms.first for each in held})
    faults = []
    peak = 0
    for at in moments:
        now = [each for each in held if each.body.terms.first <= at < each.body.terms.until]
        promised = sum(each.body.held for each in now)
        peak = max(peak, promised)
        met = _matched(now, sets, capacity)
        if met < promised:
            faults.append(f"at {unix_s(at)} only {met} of {promised} promised slots can be met")
    return Audit(commitments=len(held), moments=len(moments), peak=peak, faults=tuple(faults))


def _matched(held: Sequence[Commitment], sets: Mapping[str, tuple[str, ...]], capacity: Mapping[str, int]) -> int:
    users: dict[str, list[str]] = {name: [] for name in capacity}

    def seat(who: str, seen: set[str]) -> bool:
        for endpoint in sets[who]:
            if endpoint in seen or endpoint not in users:
                continue
            seen.add(endpoint)
            if len(users[endpoint]) < capacity[endpoint]:
                users[endpoint].append(who)
                return True
            for index, other in enumerate(users[endpoint]):
                if other != who and seat(other, seen):
                    users[endpoint][index] = who
                    return True
        return False

    return sum(seat(each.id, set()) for each in held for _ in range(each.body.held))
