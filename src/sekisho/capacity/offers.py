"""What can be had: exactly as asked when that is free, and at least six ranked alternatives. Reads the index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from math import log2

import msgspec

from sekisho.capacity.decide import price_yen, split
from sekisho.capacity.grid import HORIZON_SLOTS, SLOTS_PER_DAY, current_slot
from sekisho.capacity.index import CapacityIndex
from sekisho.capacity.model import Offer, Part, Placement, Pool, Wanted
from sekisho.capacity.search import NEVER, earliest_of

OFFERS = 6
MOST_OFFERS = 12


def offers(
    index: CapacityIndex,
    wanted: Wanted,
    allowed: frozenset[str],
    *,
    may: Callable[[Placement], bool],
    now: float,
    new_id: Callable[[], str],
) -> list[Offer]:
    """Ranked: the smaller the difference from the wish, the earlier in the list. `allowed`: sites by residency; `may`
    says whether the tenant's limits have room for a placement."""
    found: dict[Placement, tuple[float, tuple[str, ...]]] = {}
    for placement, differs, score in _candidates(index, wanted, allowed, now=now):
        known = found.get(placement)
        if known is None or score < known[0]:
            found[placement] = (score, differs)
    ranked = sorted(found.items(), key=lambda each: (each[1][0], each[0].first, each[0].parts[0].pool))
    return [
        Offer(
            id=new_id(),
            placement=placement,
            price_yen=price_yen(index.pools, placement, wanted.priority),
            differs=differs,
            score=round(score, 3),
        )
        for placement, (score, differs) in islice((each for each in ranked if may(each[0])), MOST_OFFERS)
    ]


def exact(
    index: CapacityIndex, wanted: Wanted, allowed: frozenset[str], *, without: Collection[int] = ()
) -> Placement | None:
    """The earliest placement that is all that was asked, in none of the pools `without`."""
    pools = {number: pool for number, pool in _pools(index, wanted, allowed).items() if number not in without}
    numbers = list(pools)
    free = [index.free[number] for number in numbers]
    place, first = earliest_of(free, wanted.gpus, wanted.slots, wanted.first, wanted.latest + wanted.slots)
    alone = (
        None
        if place == NEVER
        else Placement(parts=(Part(pool=numbers[place], gpus=wanted.gpus),), first=first, until=first + wanted.slots)
    )
    if not wanted.spread or (alone is not None and alone.first == wanted.first):
        return alone
    return _spread(index, pools, wanted, wanted.gpus, before=alone.first if alone else None) or alone


def _candidates(
    index: CapacityIndex, wanted: Wanted, allowed: frozenset[str], *, now: float
) -> Iterator[tuple[Placement, tuple[str, ...], float]]:
    just = exact(index, wanted, allowed)
    if just is not None:
        yield just, (), 0.0
    horizon = current_slot(now) + HORIZON_SLOTS
    nearby = _pools(index, wanted, allowed)
    anywhere = _pools(index, msgspec.structs.replace(wanted, sites=()), allowed)
    any_gpu = {number: pool for number, pool in index.pools.items() if pool.site in allowed}
    half_slots = tuple(sorted({max(wanted.slots * part // 4, 1) for part in (3, 2, 1)}, reverse=True))
    fewer = [gpus for gpus in dict.fromkeys(wanted.gpus * part // 8 for part in (7, 6, 4, 2, 1)) if gpus > 0]
    for pools, differs, cost in ((nearby, (), 0.0), (anywhere, ("site",), 1.0), (any_gpu, ("gpu",), 3.0)):
        for number in pools:
            # later: the first time in each pool, and once more a day behind it
            yield from _at(index, wanted, number, wanted.gpus, wanted.slots, horizon, differs=differs, cost=cost)
            for slots in half_slots:
                if slots < wanted.slots:
                    yield from _at(
                        index, wanted, number, wanted.gpus, slots, horizon, differs=(*differs, "shorter"), cost=cost
                    )
            for gpus in fewer:
                yield from _at(
                    index, wanted, number, gpus, wanted.slots, horizon, differs=(*differs, "fewer"), cost=cost
                )


def _at(  # noqa: PLR0917 - one row of the table of alternatives
    index: CapacityIndex,
    wanted: Wanted,
    number: int,
    gpus: int,
    slots: int,
    horizon: int,
    *,
    differs: tuple[str, ...],
    cost: float,
) -> Iterator[tuple[Placement, tuple[str, ...], float]]:
    start = wanted.first
    for _ in range(2):
        found = index.free[number].earliest(gpus, slots, start, horizon, horizon)
        if found == NEVER:
            return
        late = max(found - wanted.latest, 0)
        pool = index.pools[number]
        changed = list(differs)
        if "gpu" in changed and pool.gpu in wanted.gpu_models:
            return  # an alternative of another kind covers it
        if "site" in changed and (not wanted.sites or pool.site in wanted.sites):
            return
        if late:
            changed.append("later")
        score = cost + log2(1 + late / SLOTS_PER_DAY) + 3 * (1 - slots / wanted.slots) + 4 * (1 - gpus / wanted.gpus)
        yield (
            Placement(parts=(Part(pool=number, gpus=gpus),), first=found, until=found + slots),
            tuple(changed),
            score,
        )
        start = found + SLOTS_PER_DAY


def _pools(index: CapacityIndex, wanted: Wanted, allowed: frozenset[str]) -> dict[int, Pool]:
    return {
        number: pool
        for number, pool in index.pools.items()
        if pool.site in allowed
        and (not wanted.sites or pool.site in wanted.sites)
        and (not wanted.gpu_models or pool.gpu in wanted.gpu_models)
    }


def _spread(
    index: CapacityIndex, pools: Mapping[int, Pool], wanted: Wanted, gpus: int, *, before: int | None
) -> Placement | None:
    """Several pools together. Tried at the times at which one of them has a window for a part: there something
    becomes free."""
    starts = {wanted.first}
    for number in pools:
        for part in (gpus, gpus // 2, gpus // 4, 1):
            if part:
                found = index.free[number].earliest(
                    part, wanted.slots, wanted.first, wanted.latest + wanted.slots, wanted.latest + 1
                )
                if found != NEVER:
                    starts.add(found)
    for start in sorted(starts):
        if before is not None and start >= before:
            return None
        free = {number: index.free[number].least_free(start, start + wanted.slots) for number in pools}
        parts = split(free, gpus, spread=True)
        if parts is not None:
            return Placement(parts=parts, first=start, until=start + wanted.slots)
    return None
