"""What becomes of a reservation: extended, shrunk, moved, passed on, cancelled, waited for, reclaimed.

Every change looks and writes under the locks of all pools that it may touch, in one transaction; the guards of the
database look at each of them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import sqlalchemy as sa

from sekisho.capacity import decide, store, tables
from sekisho.capacity.admit import admit, lock_pools
from sekisho.capacity.authority import release, take, write_new
from sekisho.capacity.displace import NO_SHOW, displace, still_open, tell, wish_of
from sekisho.capacity.faults import NameUnknown, NotAllowed, NotFree, WindowInvalid
from sekisho.capacity.grid import check_end, check_window, current_slot, unix_s
from sekisho.capacity.index import CapacityIndex, read_pools
from sekisho.capacity.model import Body, Booking, Part, Placement, Refused, Reservation, Waiting, Wanted
from sekisho.capacity.placing import Placed, place, smaller
from sekisho.capacity.refusals import fault_of
from sekisho.capacity.service import CapacityService
from sekisho.kernel.clock import Clock

# How many changes of a pool an index may be behind before it is made anew.
FEED_KEPT = 10_000


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
            found = self._place(connection, wish, now=now)
            if isinstance(found, Refused):
                raise fault_of(found, self._index.pools)
            if found is None:
                raise NotFree(
                    "it does not fit there",
                    hint="ask `sekisho reserve find` for times that are free",
                    fact_ja="その時期には収まりません",
                    hint_ja="`sekisho reserve find` で空いている時期を調べてください",
                )
            placed = found.placement
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

    # -- the clock's doing

    def tick(self) -> int:
        """What time brings: windows that ended, owners that did not come, wishes that have become possible. Answers
        how many reservations were changed; assembly calls it every minute."""
        with self._change() as (connection, now):
            changed = self._pass_time(connection, now=now)
            for pool in read_pools(connection):
                store.prune_changes(connection, pool.number, before=pool.revision - FEED_KEPT)
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

    def _pass_time(self, connection: sa.Connection, *, now: float) -> int:
        here = current_slot(now)
        store.end_blocks(connection, here=here)
        column = tables.reservation.c
        due = connection.scalars(
            sa.select(column.id).where(column.state == "booked", column.starts_ms <= unix_s(here) * 1000)
        ).all()
        return sum(self._pass(connection, store.find(connection, name), here, now=now) for name in due)

    def _pass(self, connection: sa.Connection, held: Reservation, here: int, *, now: float) -> int:
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

    def _place(self, connection: sa.Connection, wish: Wanted, *, now: float) -> Placed | Refused | None:
        """Where a wish fits as this transaction sees it, by residency and by its tenant's limits."""
        allowed = self._capacity.allowed(wish.tenant, wish.data_class)
        return place(connection, self._index, wish, allowed, now=now)

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
        placed = Placement(parts=after.parts, first=after.first, until=after.until)
        rank = admit(connection, after.tenant, placed, backfill=after.priority == "backfill")
        if isinstance(rank, Refused):
            raise fault_of(rank, {pool.number: pool for pool in read_pools(connection)})
        after = msgspec.structs.replace(after, rank=int(rank))
        take(connection, Booking(id=held.id, placement=placed, body=after))
        return store.replace(connection, held, after, now=now, who=who, why=why)

    def _priced(self, connection: sa.Connection, body: Body) -> Body:
        pools = {pool.number: pool for pool in read_pools(connection)}
        placed = Placement(parts=body.parts, first=body.first, until=body.until)
        return msgspec.structs.replace(body, price_yen=decide.price_yen(pools, placed, body.priority))

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
            found = self._some_of(connection, wish, now=now)
            if found is None:
                continue
            booking = self._capacity.booking(wish, found.placement, self._index.pools)
            made = write_new(connection, booking, found.rank, who="system", why="from the waitlist", now=now)
            store.remove_waiting(connection, each.id)
            en = f"A wish from the waitlist was booked: {made.id}."
            tell(connection, made, now=now, kind="filled", en=en, ja=f"キャンセル待ちから予約しました：{made.id}。")
            filled += 1
        return filled

    def _some_of(self, connection: sa.Connection, wish: Wanted, *, now: float) -> Placed | None:
        """All of it, or as much as there is when the wish is content with less."""
        for attempt in smaller(wish):
            try:
                found = self._place(connection, attempt, now=now)
            except NotAllowed:
                return None
            if isinstance(found, Placed):
                return found
        return None


def _fewer(parts: tuple[Part, ...], gpus: int) -> tuple[Part, ...]:
    """The largest parts are kept: what is left lies close together."""
    kept = []
    for part in sorted(parts, key=lambda each: (-each.gpus, each.pool)):
        take_here = min(part.gpus, gpus)
        if take_here:
            kept.append(Part(pool=part.pool, gpus=take_here))
        gpus -= take_here
    return tuple(sorted(kept, key=lambda each: each.pool))
