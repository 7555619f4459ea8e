"""What becomes of a reservation: extended, shrunk, moved, passed on, cancelled, waited for, reclaimed, re-planned.

Every change looks and writes under the locks of all pools that it may touch, in one transaction; the guards of the
database look at each of them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec
import sqlalchemy as sa

from sekisho.capacity import decide, store, tables
from sekisho.capacity.authority import lock_pools, peak, release, take
from sekisho.capacity.displace import FAILED, MAINTENANCE, NO_SHOW, Why, displace, still_open, tell, wish_of
from sekisho.capacity.faults import NameUnknown, NotAllowed, NotFree, OverLimit, WindowInvalid
from sekisho.capacity.grid import SLOTS_PER_DAY, check_end, check_window, current_slot, span_of, unix_s
from sekisho.capacity.index import CapacityIndex, read_pools
from sekisho.capacity.model import Body, Booking, Part, Placement, Pool, Rank, Reservation, Waiting, Wanted
from sekisho.capacity.offers import exact
from sekisho.capacity.service import CapacityService
from sekisho.kernel.clock import Clock
from sekisho.runtime.changes import record_change

# How much later a re-plan may begin before the tenant is asked instead.
REPLAN_DAYS = 14


class LifeService:
    """Safe to share among threads. Shares the checks of `capacity` (tenants, residency)."""

    def __init__(self, capacity: CapacityService, *, clock: Clock, new_id: Callable[[], str]) -> None:
        self._capacity = capacity
        self._database = capacity.database
        self._clock = clock
        self._new_id = new_id
        self._index = CapacityIndex()
        self._lock = threading.Lock()

    # -- the tenant's own doing

    def extend(self, name: str, *, until: int, version: int | None, who: str) -> Reservation:
        """A later end at the same place. An earlier end is `shrink`."""
        with self._change() as (connection, now):
            held = store.find(connection, name)
            body = still_open(held, version=version)
            if until <= body.until:
                raise WindowInvalid(
                    "the new end is not later than the old one",
                    hint="`shrink` makes it shorter",
                    fact_ja="新しい終了が、今の終了より後ではありません",
                    hint_ja="短くするには縮小（`shrink`）を使います",
                )
            check_end(body.first, until, now=now)
            after = self._priced(connection, msgspec.structs.replace(body, until=until))
            return self._put(connection, held, after, now=now, who=who, why="extended")

    def shrink(self, name: str, *, until: int | None, gpus: int | None, version: int | None, who: str) -> Reservation:
        """Less: an earlier end, fewer GPUs (taken from the smallest parts first), or both. The refund curve holds for
        what is given back."""
        with self._change() as (connection, now):
            held = store.find(connection, name)
            body = still_open(held, version=version)
            end = body.until if until is None else until
            wanted = body.gpus if gpus is None else gpus
            if end > body.until or wanted > body.gpus or (end, wanted) == (body.until, body.gpus):
                raise WindowInvalid(
                    "this is not less than before",
                    hint="`extend` makes it longer; book for more GPUs",
                    fact_ja="今より少なくなっていません",
                    hint_ja="長くするには延長（`extend`）、GPU を増やすには新しい予約を使います",
                )
            if end <= max(body.first, current_slot(now)) or wanted < 1:
                raise WindowInvalid(
                    "nothing would be left of it",
                    hint="`cancel` gives it up",
                    fact_ja="縮小すると何も残りません",
                    hint_ja="手放すには取消（`cancel`）を使います",
                )
            after = self._priced(
                connection, msgspec.structs.replace(body, until=end, parts=_fewer(body.parts, wanted))
            )
            given_back = msgspec.structs.replace(body, price_yen=body.price_yen - after.price_yen)
            refund = decide.refund_yen(given_back, now=now)
            after = msgspec.structs.replace(after, refund_yen=body.refund_yen + refund)
            return self._put(connection, held, after, now=now, who=who, why="shrunk")

    def move(self, name: str, *, first: int, version: int | None, who: str) -> Reservation:
        """Another beginning, the same length, wherever its wish allows. Not once it has begun."""
        with self._change() as (connection, now):
            held = store.find(connection, name)
            body = still_open(held, version=version)
            if body.first <= current_slot(now):
                raise WindowInvalid(
                    "it has begun",
                    hint="shrink it and book the rest anew",
                    fact_ja="すでに開始しています",
                    hint_ja="縮小したうえで、残りを新しく予約してください",
                )
            check_window(first, first + body.until - body.first, now=now)
            release(connection, name)
            wish = msgspec.structs.replace(wish_of(body, now=now), first=first, latest=first)
            wish = msgspec.structs.replace(wish, slots=body.until - body.first)
            placed = self._fits(connection, wish, now=now)
            if placed is None:
                raise NotFree(
                    "it does not fit there",
                    hint="ask `sekisho reserve find` for times that are free",
                    fact_ja="その時期には収まりません",
                    hint_ja="`sekisho reserve find` で空いている時期を調べてください",
                )
            after = msgspec.structs.replace(body, first=placed.first, until=placed.until, parts=placed.parts)
            after = self._priced(connection, after)
            return self._put(connection, held, after, now=now, who=who, why="moved", released=True)

    def transfer(self, name: str, *, tenant: str, version: int | None, who: str) -> Reservation:
        """To another tenant, if residency lets it work there and its limits have room."""
        self._capacity.known_tenant(tenant)
        with self._change() as (connection, now):
            held = store.find(connection, name)
            body = still_open(held, version=version)
            allowed = self._capacity.allowed(tenant, body.data_class)
            pools = {pool.number: pool for pool in read_pools(connection)}
            if any(pools[part.pool].site not in allowed for part in body.parts):
                raise NotAllowed(
                    f"{tenant} may not use one of its sites for {body.data_class} work",
                    hint="`sekisho why` says which rule",
                    fact_ja=f"{tenant} は、{body.data_class} の処理にこの予約の拠点を使えません",
                    hint_ja="根拠のルールは `sekisho why` で確認できます",
                )
            after = msgspec.structs.replace(body, tenant=tenant, claimed=False, warned=False)
            made = self._put(connection, held, after, now=now, who=who, why=f"passed on by {body.tenant}")
            en, ja = f"Reservation {name} was passed on to {tenant}.", f"予約 {name} は {tenant} に譲渡されました。"
            tell(connection, held, now=now, kind="transferred", en=en, ja=ja)
            tell(connection, made, now=now, kind="transferred", en=en, ja=ja)
            return made

    def cancel(self, name: str, *, version: int | None, who: str) -> Reservation:
        """Gives it up. The refund follows `decide.REFUND_CURVE`; the waitlist is asked at once."""
        with self._change() as (connection, now):
            held = store.find(connection, name)
            body = still_open(held, version=version)
            release(connection, name)
            after = msgspec.structs.replace(
                body, state="cancelled", refund_yen=body.refund_yen + decide.refund_yen(body, now=now)
            )
            made = store.replace(connection, held, after, now=now, who=who, why="cancelled")
            self._fill(connection, now=now)
            return made

    def claim(self, name: str, *, who: str) -> Reservation:
        """The owner has come: it is not reclaimed as a no-show."""
        with self._change() as (connection, now):
            held = store.find(connection, name)
            body = still_open(held, version=None)
            if not body.first <= current_slot(now) < body.until:
                raise WindowInvalid(
                    "its window is not open now",
                    hint="claim it when it has begun",
                    fact_ja="予約の期間中ではありません",
                    hint_ja="開始後に申告してください",
                )
            after = msgspec.structs.replace(body, claimed=True)
            return store.replace(connection, held, after, now=now, who=who, why="claimed")

    def join_waitlist(self, wanted: Wanted) -> Waiting:
        """Booked by itself as soon as it fits, in fair order (`decide.fair_order`)."""
        now = self._clock.now()
        self._capacity.checked(wanted, now=now)
        waiting = Waiting(id=self._new_id(), at_ms=int(now * 1000), wanted=wanted)
        with self._database.write(alone=False) as connection:
            store.insert_waiting(connection, waiting)
        return waiting

    def leave_waitlist(self, waiting: str) -> None:
        with self._database.write(alone=False) as connection:
            if not store.remove_waiting(connection, waiting):
                raise NameUnknown(
                    f"{waiting!r} is not on the waitlist",
                    hint="`sekisho reserve waitlist` shows it",
                    fact_ja=f"{waiting} はキャンセル待ちにありません",
                    hint_ja="`sekisho reserve waitlist` で一覧を確認してください",
                )

    def waitlist(self) -> list[Waiting]:
        """In the order in which it will be served."""
        with self._database.read() as connection:
            return list(decide.fair_order(store.waitlist(connection), store.held_gpu_slots(connection)))

    # -- the operator's doing

    def block(self, pool: str, *, first: int, until: int, gpus: int, who: str, why: Why = MAINTENANCE) -> list[str]:
        """Takes GPUs out of a pool for maintenance or to hold them back; what no longer fits is re-planned. Answers
        with the reservations that were touched."""
        with self._change() as (connection, now):
            found = {each.id: each for each in read_pools(connection)}.get(pool)
            if found is None:
                raise NameUnknown(
                    f"there is no pool {pool!r}",
                    hint="`sekisho reserve pools` names them",
                    fact_ja=f"プール {pool} はありません",
                    hint_ja="`sekisho reserve pools` で一覧を確認してください",
                )
            check_window(first, until, now=now)
            if not 1 <= gpus <= found.gpus:
                raise WindowInvalid(
                    f"{pool} has {found.gpus} GPUs",
                    hint="block between 1 and all of them",
                    fact_ja=f"{pool} の GPU は {found.gpus} 基です",
                    hint_ja="1 基から全数までの範囲で指定してください",
                )
            record_change(connection, now=now, actor=who, action="pool.blocked", subject=f"pool/{pool}"[:160])
            return self._block(connection, [(found, gpus)], first, until, now=now, who=who, why=why)

    def fail_site(self, site: str, *, until: int, who: str) -> list[str]:
        """The site is gone until then. The rule of re-planning is `decide.replan_order`, then for each reservation:
        the same window at another allowed site; else up to 14 days later; else fewer GPUs down to its minimum; else
        it is paid back and goes to the waitlist. Its tenant is told in each case."""
        with self._change() as (connection, now):
            pools = [pool for pool in read_pools(connection) if pool.site == site]
            if not pools:
                raise NameUnknown(
                    f"no pool stands at {site!r}",
                    hint="`sekisho reserve pools` names them",
                    fact_ja=f"拠点 {site} にプールはありません",
                    hint_ja="`sekisho reserve pools` で一覧を確認してください",
                )
            first = current_slot(now)
            check_end(first, until, now=now)
            record_change(connection, now=now, actor=who, action="site.failed", subject=f"site/{site}")
            whole = [(pool, pool.gpus) for pool in pools if pool.gpus]
            return self._block(connection, whole, first, until, now=now, who=who, why=FAILED)

    def tick(self) -> int:
        """What time brings: windows that ended, owners that did not come, wishes that have become possible. Answers
        how many reservations were changed; assembly calls it every minute."""
        with self._change() as (connection, now):
            here = current_slot(now)
            changed = 0
            column = tables.reservation.c
            due = connection.scalars(
                sa.select(column.id).where(column.state == "booked", column.starts_ms <= unix_s(here) * 1000)
            ).all()
            for name in due:
                changed += self._pass_time(connection, store.find(connection, name), here, now=now)
            return changed + self._fill(connection, now=now)

    # -- inside

    @contextmanager
    def _change(self) -> Iterator[tuple[sa.Connection, float]]:
        """A transaction under the locks of all pools, in their order. One at a time in this process, because of the
        index; what a rollback takes back the index forgets."""
        now = self._clock.now()
        with self._lock:
            before = {number: pool.revision for number, pool in self._index.pools.items()}
            try:
                with self._database.write(alone=False) as connection:
                    lock_pools(connection, connection.scalars(sa.select(tables.pool.c.number)))
                    yield connection, now
            except BaseException:
                pools = self._index.pools.items()
                self._index.forget([number for number, pool in pools if before.get(number) != pool.revision])
                raise

    def _pass_time(self, connection: sa.Connection, held: Reservation, here: int, *, now: float) -> int:
        body = held.body
        if body.until <= here:
            release(connection, held.id)
            after = msgspec.structs.replace(body, state="ended")
            store.replace(connection, held, after, now=now, who="system", why="its window ended")
            return 1
        if body.claimed:
            return 0
        if here >= body.first + decide.NO_SHOW_SLOTS and body.warned:
            displace(connection, held, now=now, who="system", why=NO_SHOW, new_id=self._new_id, state="no-show")
            return 1
        if here >= body.first + decide.WARN_SLOTS and not body.warned:
            after = msgspec.structs.replace(body, warned=True)
            store.replace(connection, held, after, now=now, who="system", why="nobody has come yet: warned")
            en = f"Reservation {held.id} has begun and nobody came; claim it within an hour or it is reclaimed."
            ja = f"予約 {held.id} は開始済みですが、利用が始まっていません。1 時間以内に申告がなければ回収します。"
            tell(connection, held, now=now, kind="no-show-warning", en=en, ja=ja)
            return 1
        return 0

    def _block(
        self,
        connection: sa.Connection,
        taken: Iterable[tuple[Pool, int]],
        first: int,
        until: int,
        *,
        now: float,
        who: str,
        why: Why,
    ) -> list[str]:
        moved: dict[str, Reservation] = {}
        for pool, wanted in taken:
            gpus = wanted
            while peak(connection, pool.number, first, until) + gpus > pool.gpus:
                victim = self._least_urgent(connection, pool, first, until, now=now)
                if victim is None:  # only other blocks are left: what they hold back is out of use already
                    gpus = pool.gpus - peak(connection, pool.number, first, until)
                    break
                release(connection, victim.id)
                moved[victim.id] = victim
            if gpus > 0:
                name = f"block-{self._new_id()}"
                connection.execute(
                    tables.allocation.insert().values(
                        reservation=name,
                        tenant="",
                        pool=pool.number,
                        first=first,
                        until=until,
                        span=span_of(until - first),
                        gpus=gpus,
                        rank=int(Rank.FIRM),
                    )
                )
        for held in decide.replan_order(moved.values(), now_slot=current_slot(now)):
            self._replan(connection, held, now=now, who=who, why=why)
        return list(moved)

    def _least_urgent(
        self, connection: sa.Connection, pool: Pool, first: int, until: int, *, now: float
    ) -> Reservation | None:
        names = store.booked_at(connection, pool.number, first, until)
        held = [store.find(connection, name) for name in names if not name.startswith("block-")]
        order = decide.replan_order(held, now_slot=current_slot(now))
        return order[-1] if order else None

    def _replan(self, connection: sa.Connection, held: Reservation, *, now: float, who: str, why: Why) -> None:
        """`held` has been released already. The old place is tried too: the block may have left room."""
        body = held.body
        wish = wish_of(body, now=now)
        later = msgspec.structs.replace(wish, latest=wish.first + REPLAN_DAYS * SLOTS_PER_DAY)
        fewer = (
            msgspec.structs.replace(wish, gpus=gpus) for gpus in range(wish.gpus - 1, max(wish.gpus_min, 1) - 1, -1)
        )
        for attempt in (wish, msgspec.structs.replace(wish, sites=()), later, *fewer):
            try:
                placed = self._fits(connection, attempt, now=now)
            except NotAllowed:
                break
            if placed is None:
                continue
            after = msgspec.structs.replace(body, first=placed.first, until=placed.until, parts=placed.parts)
            after = self._priced(connection, after)
            price = min(after.price_yen, body.price_yen)  # the failure is not the tenant's to pay
            after = msgspec.structs.replace(
                after, price_yen=price, refund_yen=body.refund_yen + body.price_yen - price
            )
            made = self._put(connection, held, after, now=now, who=who, why=f"re-planned: {why[0]}", released=True)
            en = f"Reservation {held.id} was re-planned ({why[0]}): read where and when it is now."
            ja = f"予約 {held.id} は再計画されました（{why[1]}）。新しい拠点と時間帯を確認してください。"
            tell(connection, made, now=now, kind="re-planned", en=en, ja=ja)
            return
        displace(connection, held, now=now, who=who, why=why, new_id=self._new_id)

    def _fits(self, connection: sa.Connection, wish: Wanted, *, now: float) -> Placement | None:
        """Where a wish fits as this transaction sees it, its tenant's limits included."""
        allowed = self._capacity.allowed(wish.tenant, wish.data_class)
        self._index.sync(connection, now=now)
        placed = exact(self._index, wish, allowed)
        if placed is None:
            return None
        for part in placed.parts:
            limit = self._index.pools[part.pool].tenant_limit
            if peak(connection, part.pool, placed.first, placed.until, tenant=wish.tenant) + part.gpus > limit:
                return None
        return placed

    def _put(
        self,
        connection: sa.Connection,
        held: Reservation,
        after: Body,
        *,
        now: float,
        who: str,
        why: str,
        released: bool = False,
    ) -> Reservation:
        """The allocations go and come in one transaction; refused with what is free when they don't fit."""
        if not released:
            release(connection, held.id)
        for part in after.parts:
            pool = self._pool(connection, part.pool)
            free = pool.gpus - peak(connection, part.pool, after.first, after.until)
            if part.gpus > free:
                raise NotFree(
                    f"{pool.id} has {free} GPUs free in this window",
                    hint="choose less, or another time",
                    fact_ja=f"この期間に空いている {pool.id} の GPU は {free} 基です",
                    hint_ja="数を減らすか、別の時期を選んでください",
                )
            held_now = peak(connection, part.pool, after.first, after.until, tenant=after.tenant)
            if held_now + part.gpus > pool.tenant_limit:
                raise OverLimit(
                    f"{after.tenant} may hold {pool.tenant_limit} GPUs of {pool.id}",
                    hint="choose less, or another",
                    fact_ja=f"{after.tenant} が {pool.id} で予約できる GPU は {pool.tenant_limit} 基までです",
                    hint_ja="数を減らすか、別のプールを選んでください",
                )
        placed = Placement(parts=after.parts, first=after.first, until=after.until)
        take(connection, Booking(id=held.id, placement=placed, body=after))
        return store.replace(connection, held, after, now=now, who=who, why=why)

    def _priced(self, connection: sa.Connection, body: Body) -> Body:
        pools = {pool.number: pool for pool in read_pools(connection)}
        placed = Placement(parts=body.parts, first=body.first, until=body.until)
        return msgspec.structs.replace(body, price_yen=decide.price_yen(pools, placed, body.priority))

    def _pool(self, connection: sa.Connection, number: int) -> Pool:
        return next(pool for pool in read_pools(connection) if pool.number == number)

    def _fill(self, connection: sa.Connection, *, now: float) -> int:
        """Books from the waitlist what fits now, in fair order; wishes that have passed leave it."""
        filled = 0
        here = current_slot(now)
        waiting = store.waitlist(connection)
        for each in decide.fair_order(waiting, store.held_gpu_slots(connection)):
            wish = each.wanted
            if wish.latest < here:
                store.remove_waiting(connection, each.id)
                continue
            wish = msgspec.structs.replace(wish, first=max(wish.first, here))
            try:
                placed = self._fits(connection, wish, now=now)
            except NotAllowed:
                continue
            if placed is None:
                continue
            booking = self._capacity.booking(wish, placed, self._index.pools)
            take(connection, booking)
            made = Reservation(id=booking.id, version=1, body=booking.body)
            store.insert(connection, made, now=now, who="system", why="from the waitlist")
            store.remove_waiting(connection, each.id)
            en = f"A wish from the waitlist was booked: {made.id}."
            tell(connection, made, now=now, kind="filled", en=en, ja=f"キャンセル待ちから予約しました：{made.id}。")
            filled += 1
        return filled


class _Undone(Exception):
    """Takes a rehearsal back."""


class Rehearsal(LifeService):
    """Answers what a change would make of a reservation: the change itself, in a transaction that is taken back."""

    def __init__(self, life: LifeService) -> None:
        super().__init__(life._capacity, clock=life._clock, new_id=life._new_id)
        # the same index, under the same lock: it is large
        self._index, self._lock = life._index, life._lock

    @contextmanager
    def _change(self) -> Iterator[tuple[sa.Connection, float]]:
        with suppress(_Undone), super()._change() as made:
            yield made
            raise _Undone


def _fewer(parts: tuple[Part, ...], gpus: int) -> tuple[Part, ...]:
    """The largest parts are kept: what is left lies close together."""
    kept = []
    for part in sorted(parts, key=lambda each: (-each.gpus, each.pool)):
        take_here = min(part.gpus, gpus)
        if take_here:
            kept.append(Part(pool=part.pool, gpus=take_here))
        gpus -= take_here
    return tuple(sorted(kept, key=lambda each: each.pool))
