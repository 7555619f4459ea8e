"""The rules of reservations: prices, refunds, who is next, what is tried when a site fails. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sekisho.capacity.grid import SLOT_S, SLOTS_PER_DAY, SLOTS_PER_HOUR
from sekisho.capacity.model import (
    PRIORITY_RANK,
    Body,
    Part,
    Placement,
    Pool,
    Priority,
    Quota,
    Rank,
    Reservation,
    Waiting,
)

OFFER_S = 300.0
# Nobody came: warned after an hour, reclaimed after two.
WARN_SLOTS = 1 * SLOTS_PER_HOUR
NO_SHOW_SLOTS = 2 * SLOTS_PER_HOUR
# What was borrowed can be reclaimed by its lender until a week before it begins; then it holds.
LEAD_SLOTS = 7 * SLOTS_PER_DAY
# Who cancels gets this part of the price of what has not begun: (days ahead, per cent), linear in between.
REFUND_CURVE: tuple[tuple[int, int], ...] = ((0, 0), (1, 25), (7, 50), (30, 100))
PRICE_PERCENT: Mapping[Priority, int] = {"critical": 150, "standard": 100, "backfill": 40}


def price_yen(pools: Mapping[int, Pool], placement: Placement, priority: Priority) -> int:
    """Whole yen, rounded down at the end."""
    slots = placement.until - placement.first
    hourly = sum(pools[part.pool].yen_per_gpu_hour * part.gpus for part in placement.parts)
    return hourly * slots * PRICE_PERCENT[priority] // (SLOTS_PER_HOUR * 100)


def refund_yen(body: Body, *, now: float) -> int:
    """What a cancellation gives back. Backfill is refunded for every slot that was not used: it never held."""
    left = max(body.until * SLOT_S - max(now, body.first * SLOT_S), 0.0)
    share = left / ((body.until - body.first) * SLOT_S)
    if body.rank == Rank.BACKFILL:
        return int(body.price_yen * share)
    return int(body.price_yen * share * _refund_percent((body.first * SLOT_S - now) / 86_400) / 100)


def _refund_percent(days_ahead: float) -> float:
    lower = REFUND_CURVE[0]
    for upper in REFUND_CURVE[1:]:
        if days_ahead < upper[0]:
            if days_ahead <= lower[0]:
                return lower[1]
            return lower[1] + (upper[1] - lower[1]) * (days_ahead - lower[0]) / (upper[0] - lower[0])
        lower = upper
    return lower[1]


def fair_order(waiting: Iterable[Waiting], held: Mapping[str, int]) -> Iterator[Waiting]:
    """Priority first; then the tenant that holds least (GPU slots, what it gets on the way counted); then who came
    first. One tenant's wishes stay in the order of their coming."""
    left = list(waiting)
    share = dict(held)
    while left:
        best = min(
            left,
            key=lambda each: (
                PRIORITY_RANK[each.wanted.priority],
                share.get(each.wanted.tenant, 0),
                each.at_ms,
                each.id,
            ),
        )
        left.remove(best)
        yield best
        share[best.wanted.tenant] = share.get(best.wanted.tenant, 0) + best.wanted.gpus * best.wanted.slots


def replan_order(reservations: Iterable[Reservation], *, now_slot: int) -> list[Reservation]:
    """Who is placed first after a failure: critical before standard before backfill, running before future, earlier
    before later, smaller ids (older) before larger ones."""

    def urgency(each: Reservation) -> tuple[int, bool, int, str]:
        return PRIORITY_RANK[each.body.priority], each.body.first > now_slot, each.body.first, each.id

    return sorted(reservations, key=urgency)


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant with a quota may still take of a pool: firmly, and together with what its cohort lends."""

    firm: int
    borrowed: int


def quota_room(quota: Quota, cohort: Iterable[Quota], *, own_peak: int, cohort_peak: int) -> Room:
    """`own_peak`, `cohort_peak`: the most that the tenant, and all of its cohort, take in the window."""
    members = [member for member in cohort if member.cohort == quota.cohort]
    lent = sum(member.lends for member in members if member.tenant != quota.tenant)
    unused = sum(member.nominal for member in members) - cohort_peak
    return Room(
        firm=max(quota.nominal - own_peak, 0),
        borrowed=max(min(quota.nominal + min(quota.borrows, lent) - own_peak, unused), 0),
    )


def split(free: Mapping[int, int], gpus: int, *, spread: bool) -> tuple[Part, ...] | None:
    """Parts that make up `gpus` out of what pools have free: one pool when one has it (the fullest that does, so that
    large gaps stay), else, when spreading is wanted, as few pools as possible."""
    enough = [(left, pool) for pool, left in free.items() if left >= gpus]
    if enough:
        return (Part(pool=min(enough)[1], gpus=gpus),)
    if not spread:
        return None
    parts = []
    for left, pool in sorted(
        ((left, pool) for pool, left in free.items() if left > 0), key=lambda each: (-each[0], each[1])
    ):
        take = min(left, gpus)
        parts.append(Part(pool=pool, gpus=take))
        gpus -= take
        if not gpus:
            return tuple(sorted(parts, key=lambda part: part.pool))
    return None


def levels(
    taken: Iterable[tuple[int, int, int]], *, first: int | None = None, until: int | None = None
) -> list[tuple[int, int, int]]:
    """(first, until, GPUs in use) of each stretch in which that number stays the same, from rows of the same kind;
    inside [first, until) when they are given, with nothing in use where no row is."""
    steps: dict[int, int] = {}
    for begins, ends, gpus in taken:
        left = begins if first is None else max(begins, first)
        right = ends if until is None else min(ends, until)
        if left < right:
            steps[left] = steps.get(left, 0) + gpus
            steps[right] = steps.get(right, 0) - gpus
    for border in (first, until):
        if border is not None:
            steps.setdefault(border, 0)
    found = []
    used = 0
    for begins, ends in itertools.pairwise(sorted(steps)):
        used += steps[begins]
        found.append((begins, ends, used))
    return found
