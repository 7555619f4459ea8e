"""Pure rules: how many slots a promise needs, whether it fits beside the others, and what can be had instead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sekisho.capacity.grid import SLOT_S
from sekisho.capacity.throughput.flow import Flow
from sekisho.capacity.throughput.model import Alternative, Answer, Body, Commitment, Demand, Measured, Terms
from sekisho.kernel.classes import DataClass

MAX_SLOTS = 100_000
_LATER = 64  # moments at which something ends that are looked at for a later beginning


def slots_needed(terms: Terms, endpoints: Iterable[Measured]) -> int | None:
    """Slots that give what was asked, even if the slowest of the endpoints serves all of it (Little's law: tokens a
    second = busy slots × tokens a second of one). None: nothing was metered there, so nobody can say."""
    if terms.slots:
        return terms.slots
    rates = [each.tokens_per_s for each in endpoints]
    if not rates or min(rates) <= 0:
        return None
    return max(math.ceil(terms.tokens_per_s / min(rates)), 1)


def overlapping(held: Iterable[Commitment], first: int, until: int) -> list[Commitment]:
    return [
        each
        for each in held
        if each.body.state == "booked" and each.body.terms.first < until and each.body.terms.until > first
    ]


def most(
    held: Sequence[Commitment],
    sets: Mapping[str, tuple[str, ...]],
    capacity: Mapping[str, int],
    wanted: tuple[str, ...],
    *,
    first: int,
    until: int,
    enough: int = MAX_SLOTS,
) -> int:
    """The slots that can be added on these endpoints at every moment of [first, until), and nobody loses any.

    `sets`: id of each commitment → the endpoints it may use. Between two beginnings nothing grows, so only the
    beginnings are looked at.
    """
    near = overlapping(held, first, until)
    moments = sorted({first, *(each.body.terms.first for each in near if each.body.terms.first > first)})
    found = enough
    seen: set[tuple[tuple[tuple[str, ...], int], ...]] = set()
    for at in moments:
        sums: dict[tuple[str, ...], int] = {}
        for each in near:
            if each.body.terms.first <= at < each.body.terms.until:
                sums[sets[each.id]] = sums.get(sets[each.id], 0) + each.body.held
        key = tuple(sorted(sums.items()))
        if key in seen:
            continue
        seen.add(key)
        flow = Flow(capacity)
        for endpoints, slots in key:
            flow.add(endpoints, slots)
        found = min(found, flow.add(wanted, found))
        if not found:
            break
    return found


def answer(
    terms: Terms,
    needed: int,
    *,
    held: Sequence[Commitment],
    sets: Mapping[str, tuple[str, ...]],
    capacity: Mapping[str, int],
    wanted: tuple[str, ...],
    horizon: int,
) -> Answer:
    """Yes, or no with what can be had: fewer, later, shorter. `horizon`: the last slot that may be booked."""

    def room(first: int, until: int) -> int:
        return most(held, sets, capacity, wanted, first=first, until=until, enough=needed)

    free = room(terms.first, terms.until)
    if free >= needed:
        return Answer(fits=True, asked=needed, most=free, endpoints=wanted)
    length = terms.until - terms.first
    found: list[Alternative] = []
    if free:
        found.append(_alternative("fewer", terms.first, terms.until, free))
    ends = sorted({each.body.terms.until for each in held if each.body.terms.until > terms.first})
    later = next(
        (at for at in ends[:_LATER] if at + length <= horizon and room(at, at + length) >= needed),
        None,
    )
    if later is not None:
        found.append(_alternative("later", later, later + length, needed))
    begins = sorted({each.body.terms.first for each in held if terms.first < each.body.terms.first < terms.until})
    shorter = next((at for at in reversed(begins[-_LATER:]) if room(terms.first, at) >= needed), None)
    if shorter is not None:
        found.append(_alternative("shorter", terms.first, shorter, needed))
    return Answer(fits=False, asked=needed, most=free, endpoints=wanted, alternatives=tuple(found))


def _alternative(kind: str, first: int, until: int, slots: int) -> Alternative:
    hours = (until - first) * SLOT_S / 3600
    match kind:
        case "fewer":
            return Alternative(
                kind="fewer", first=first, until=until, slots=slots,
                en=f"{slots} at a time in the same window",
                ja=f"同じ期間で同時 {slots} 件",
            )  # fmt: skip
        case "later":
            return Alternative(
                kind="later", first=first, until=until, slots=slots,
                en=f"all {slots}, beginning later for {hours:g} hours",
                ja=f"{slots} 件すべて（開始を遅らせて {hours:g} 時間）",
            )  # fmt: skip
        case _:
            return Alternative(
                kind="shorter", first=first, until=until, slots=slots,
                en=f"all {slots}, for {hours:g} hours only",
                ja=f"{slots} 件すべて（{hours:g} 時間のみ）",
            )  # fmt: skip


def demands(held: Iterable[Commitment], sets: Mapping[str, tuple[str, ...]]) -> list[Demand]:
    """In the order in which they are met when capacity was lost: higher classes first, then who began first."""
    rank = {each.label: int(each) for each in DataClass}
    order = sorted(held, key=lambda each: (-rank[each.body.terms.data_class], each.body.terms.first, each.id))
    return [Demand(id=each.id, slots=each.body.held, endpoints=sets[each.id]) for each in order]


def changed(body: Body, *, slots: int | None, tokens_per_s: float | None, until: int | None) -> Terms:
    """The terms with what a change names."""
    terms = body.terms
    return Terms(
        tenant=terms.tenant,
        data_class=terms.data_class,
        model=terms.model,
        first=terms.first,
        until=terms.until if until is None else until,
        slots=(0 if tokens_per_s is not None else terms.slots) if slots is None else slots,
        tokens_per_s=(0.0 if slots is not None else terms.tokens_per_s) if tokens_per_s is None else tokens_per_s,
        keep_warm_s=terms.keep_warm_s,
        note=terms.note,
    )
