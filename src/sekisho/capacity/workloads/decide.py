"""The rules of workloads: which replicas should run now, what state that is, what is owed for time that was lost.

Pure. `plan` can be asked at any moment, any number of times, after any crash: it compares what should be with what
is known, and never needs to have been asked before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import msgspec

from sekisho.capacity.grid import SLOT_S, unix_s
from sekisho.capacity.model import Part, Pool, Reservation
from sekisho.capacity.workloads.model import (
    Body,
    Opened,
    Order,
    ReplicaReport,
    ReplicaState,
    Seen,
    Spec,
    State,
    Workload,
)

# After the end that a site was told, its own clock and its last second of killing may lag by so much.
LEASH_MARGIN_S = 30.0
# A model has to be loaded: so long after its start a replica that does not serve yet costs nobody anything.
START_S = 300.0
# A site that says nothing for longer serves nothing that anybody could vouch for.
HEARD_S = 60.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica belongs. Its name holds the pool: moved to another pool, it is another replica."""

    replica: str
    pool: int
    site: str
    gpus: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A workload after a look at it. `why` empty: nothing that its history should have. `refund`: GPU slots."""

    held: Workload
    body: Body
    why: str = ""
    refund: int = 0


def room(spec: Spec, parts: Iterable[Part]) -> int:
    """How many replicas of this kind fit into the parts of a reservation. A replica lies in one pool."""
    return sum(part.gpus // spec.gpus_per_replica for part in parts)


def places(
    workloads: Iterable[Workload], parts: Sequence[Part], pools: Mapping[int, Pool]
) -> dict[str, tuple[Place, ...]]:
    """The replicas of a reservation's workloads, in the order of the workloads' ids, as far as its GPUs go."""
    left = {part.pool: part.gpus for part in parts if part.pool in pools}
    found: dict[str, tuple[Place, ...]] = {}
    for workload in sorted(workloads, key=lambda each: each.id):
        spec = workload.body.spec
        mine: list[Place] = []
        for pool in sorted(left):
            here = min(left[pool] // spec.gpus_per_replica, spec.replicas - len(mine))
            left[pool] -= here * spec.gpus_per_replica
            mine += (
                Place(
                    replica=f"{workload.id}.{pool}.{number}",
                    pool=pool,
                    site=pools[pool].site,
                    gpus=spec.gpus_per_replica,
                )
                for number in range(here)
            )
        found[workload.id] = tuple(mine)
    return found


def plan(
    workloads: Sequence[Workload],
    reservations: Mapping[str, Reservation],
    pools: Mapping[int, Pool],
    *,
    heard_at: Mapping[str, float],
    now: float,
) -> list[Step]:
    """What becomes of each workload now. `workloads` are all that have not ended, whatever their site: GPUs that one
    has not given back yet are not given to the next.
    """
    wanted: dict[str, tuple[Place, ...]] = {}
    for name, reservation in reservations.items():
        mine = [
            each for each in workloads if each.body.reservation == name and _open(each.body, reservation, now=now)
        ]
        wanted |= places(mine, reservation.body.parts, pools)
    kept = {each.id: _kept(each, reservations[each.body.reservation], wanted, now=now) for each in workloads}
    used: dict[int, int] = {}
    for alive in kept.values():
        for seen in alive:
            used[seen.pool] = used.get(seen.pool, 0) + seen.gpus
    steps: list[Step] = []
    for workload in workloads:
        held = reservations[workload.body.reservation]
        replicas = list(kept[workload.id])
        known = {seen.replica for seen in replicas}
        for place in wanted.get(workload.id, ()):
            free = pools[place.pool].gpus - used.get(place.pool, 0)
            if place.replica in known or place.gpus > free:
                continue
            used[place.pool] = used.get(place.pool, 0) + place.gpus
            replicas.append(_new(place, workload.body.spec, until=unix_s(held.body.until)))
        steps.append(
            _step(workload, held, tuple(replicas), len(wanted.get(workload.id, ())), heard_at=heard_at, now=now)
        )
    return steps


def heard(body: Body, site: str, reports: Mapping[str, ReplicaReport]) -> Body:
    """The workload with what a site says of its replicas."""
    return msgspec.structs.replace(
        body,
        replicas=tuple(
            _heard(seen, reports.get(seen.replica)) if seen.site == site else seen for seen in body.replicas
        ),
    )


def orders(workloads: Iterable[Workload], site: str) -> tuple[Order, ...]:
    """What a site is told: every replica that may be alive there."""
    return tuple(
        Order(
            replica=seen.replica,
            engine=each.body.spec.engine,
            model=each.body.spec.model,
            name=each.body.spec.name,
            gpus=seen.gpus,
            parameters=each.body.spec.parameters,
            run=seen.run,
            until=seen.until,
            grace_s=float(each.body.spec.grace_s),
        )
        for each in workloads
        for seen in each.body.replicas
        if seen.site == site
    )


def opened(workloads: Iterable[Workload], *, now: float) -> list[Opened]:
    """The replicas that serve their owners now."""
    return [
        Opened(
            replica=seen.replica,
            site=seen.site,
            url=seen.url,
            name=each.body.spec.name,
            slots=each.body.spec.parameters.slots,
            tenant=each.body.tenant,
            until=seen.until,
        )
        for each in workloads
        for seen in each.body.replicas
        if seen.ready and seen.url and now < seen.until
    ]


def refund_yen(reservation: Reservation, gpu_slots: int) -> int:
    """What so many GPU slots cost, at the price of the reservation; never more than is left of it."""
    body = reservation.body
    total = body.gpus * (body.until - body.first)
    return min(body.price_yen * gpu_slots // total, max(body.price_yen - body.refund_yen, 0))


def _open(body: Body, reservation: Reservation, *, now: float) -> bool:
    """Whether it should run now."""
    held = reservation.body
    inside = unix_s(held.first) <= now < unix_s(held.until)
    return body.wanted and inside and held.state == "booked" and held.tenant == body.tenant


def _over(body: Body, reservation: Reservation, *, now: float) -> bool:
    """Whether it will never run again."""
    held = reservation.body
    return held.state != "booked" or held.tenant != body.tenant or now >= unix_s(held.until)


def _kept(
    workload: Workload, reservation: Reservation, wanted: Mapping[str, tuple[Place, ...]], *, now: float
) -> tuple[Seen, ...]:
    """The replicas that may be alive, each told what it should do now."""
    names = {place.replica for place in wanted.get(workload.id, ())}
    window_end = unix_s(reservation.body.until)
    grace_s = workload.body.spec.grace_s
    kept = []
    for seen in workload.body.replicas:
        if seen.replica in names:
            leash = max(seen.leash_until, window_end + grace_s)
            kept.append(msgspec.structs.replace(seen, run=True, until=window_end, leash_until=leash))
        elif seen.state != "gone" and now < seen.leash_until + LEASH_MARGIN_S:
            until = min(seen.until, now, window_end) if seen.run else seen.until
            kept.append(msgspec.structs.replace(seen, run=False, until=until))
    return tuple(kept)


def _new(place: Place, spec: Spec, *, until: float) -> Seen:
    return Seen(
        replica=place.replica,
        pool=place.pool,
        site=place.site,
        gpus=place.gpus,
        run=True,
        until=until,
        leash_until=until + spec.grace_s,
    )


def _heard(seen: Seen, report: ReplicaReport | None) -> Seen:
    if report is None:
        # It may have been ordered after this report was made; or the site has lost it, and starts it again.
        return msgspec.structs.replace(seen, state="starting", url="") if seen.state != "gone" else seen
    # An end that was reported before it was wanted again is no end.
    state: ReplicaState = "starting" if seen.run and report.state == "gone" else report.state
    return msgspec.structs.replace(
        seen, state=state, url=report.url, restarts=report.restarts, last_exit=report.last_exit
    )


def _step(
    workload: Workload,
    reservation: Reservation,
    replicas: tuple[Seen, ...],
    wanted: int,
    *,
    heard_at: Mapping[str, float],
    now: float,
) -> Step:
    before = workload.body
    should = _open(before, reservation, now=now)
    after = msgspec.structs.replace(before, replicas=replicas)
    after = msgspec.structs.replace(after, state=_state(after, reservation, should=should, now=now))
    after = _counted(before, after, reservation, wanted, should=should, heard_at=heard_at, now=now)
    refund = int(after.down_gpu_s // SLOT_S) - after.refunded
    if refund > 0:
        after = msgspec.structs.replace(after, refunded=after.refunded + refund)
    why = "" if after.state == before.state else _why(after, reservation)
    return Step(held=workload, body=after, why=why, refund=max(refund, 0))


def _state(body: Body, reservation: Reservation, *, should: bool, now: float) -> State:
    if should:
        if body.ready:
            return "serving"
        return "down" if body.state in ("serving", "down") else "starting"
    if body.replicas:
        return "draining"
    if _over(body, reservation, now=now):
        return "ended"
    return "planned" if body.wanted else "stopped"


def _counted(
    before: Body,
    after: Body,
    reservation: Reservation,
    wanted: int,
    *,
    should: bool,
    heard_at: Mapping[str, float],
    now: float,
) -> Body:
    """The time since the last look, if a replica that should have served did not. A clock that was set back, and a
    look that came late, can't make it more than the time that the window has been open."""
    opened_at = (before.opened_at or now) if should else 0.0
    after = msgspec.structs.replace(after, opened_at=opened_at, counted_at=now)
    if not before.opened_at:
        return after
    start = unix_s(reservation.body.first)
    since = max(before.counted_at, before.opened_at + START_S, start)
    end = min(now, unix_s(reservation.body.until))
    serving = sum(seen.ready and now - heard_at.get(seen.site, 0.0) <= HEARD_S for seen in before.replicas)
    missing = max(wanted - serving, 0) * before.spec.gpus_per_replica if should else 0
    whole = max(end - start, 0.0) * wanted * before.spec.gpus_per_replica
    down = min(before.down_gpu_s + max(end - since, 0.0) * missing, max(whole, before.down_gpu_s))
    return msgspec.structs.replace(after, down_gpu_s=down)


def _why(body: Body, reservation: Reservation) -> str:
    match body.state:
        case "planned":
            return "its window has not begun"
        case "starting":
            return "its window is open"
        case "serving":
            return f"{body.ready} of {body.spec.replicas} replicas serve"
        case "down":
            last = next((seen.last_exit for seen in body.replicas if seen.last_exit), "")
            return f"no replica serves{f': {last}' if last else ''}"[:200]
        case "stopped":
            return "its owner stopped it"
        case "draining" | "ended":
            return _end_reason(body, reservation)
        case _:
            assert_never(body.state)


def _end_reason(body: Body, reservation: Reservation) -> str:
    if reservation.body.state != "booked":
        return f"its reservation is {reservation.body.state}"
    if reservation.body.tenant != body.tenant:
        return "its reservation was passed on"
    return "its window ended" if body.wanted else "its owner stopped it"
