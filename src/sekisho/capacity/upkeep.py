"""What an operator does to pools (maintenance, a failed site, fewer GPUs), and what becomes of reservations there.

Nothing is dropped in silence: what no longer fits is planned anew by one rule, and its tenant is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec
import sqlalchemy as sa

from sekisho.capacity import decide, store
from sekisho.capacity.admit import peak
from sekisho.capacity.authority import release
from sekisho.capacity.displace import FAILED, MAINTENANCE, SMALLER, Why, displace, tell, wish_of
from sekisho.capacity.faults import NameUnknown, NotAllowed, NotFree, WindowInvalid
from sekisho.capacity.grid import SLOTS_PER_DAY, check_end, check_window, current_slot
from sekisho.capacity.index import read_pools
from sekisho.capacity.life import LifeService
from sekisho.capacity.model import Block, Declared, Pool, Refused, Reservation, declared_block
from sekisho.capacity.placing import smaller
from sekisho.capacity.refusals import no_such_pool
from sekisho.runtime.changes import record_change

# How much later a re-plan may begin before the tenant is asked instead.
REPLAN_DAYS = 14


class Upkeep(LifeService):
    """The life of reservations, and the operator's hand on their pools; they share one index."""

    def block(self, pool: str, *, first: int, until: int, gpus: int, who: str, why: Why = MAINTENANCE) -> list[str]:
        """Takes GPUs out of a pool for maintenance or to hold them back; what no longer fits is re-planned. Answers
        with the reservations that were touched."""
        with self._change() as (connection, now):
            found = {each.id: each for each in read_pools(connection)}.get(pool)
            if found is None:
                raise no_such_pool(pool)
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

    def blocks(self) -> list[Block]:
        """What is maintained or held back now and later."""
        with self._database.read() as connection:
            return store.blocks(connection)

    def unblock(self, name: str, *, who: str) -> None:
        """The GPUs can be sold again; the waitlist is asked at once."""
        with self._change() as (connection, now):
            found = next((each for each in store.blocks(connection) if each.id == name), None)
            if found is None:
                raise NameUnknown(
                    f"nothing is blocked as {name!r}",
                    hint="`sekisho reserve blocks` names the blocks",
                    fact_ja=f"ブロック {name} はありません",
                    hint_ja="`sekisho reserve blocks` で一覧を確認してください",
                )
            if name == f"block-d{found.pool}":
                raise NotFree(
                    f"{name} stands in the configuration",
                    hint="take the window out of `[[pool.maintenance]]`; it is sold again within a minute",
                    fact_ja=f"{name} は設定ファイルで宣言された保守期間です",
                    hint_ja="`[[pool.maintenance]]` から該当の期間を削除してください。1 分以内に再び販売されます",
                )
            release(connection, name)
            record_change(connection, now=now, actor=who, action="pool.unblocked", subject=f"pool/{found.pool}"[:160])
            self._fill(connection, now=now)

    def resize(self, pool: str, *, gpus: int, who: str) -> list[str]:
        """The pool has so many GPUs from now on, also when more are sold: what no longer fits is planned anew. GPUs
        that are blocked go first: they are out of use anyway. Answers with the reservations that were touched."""
        with self._change() as (connection, now):
            found = {each.id: each for each in read_pools(connection)}.get(pool)
            if found is None:
                raise no_such_pool(pool)
            if gpus < 0:
                raise WindowInvalid(
                    "a pool has 0 GPUs or more",
                    hint="give how many there are",
                    fact_ja="プールの GPU 数は 0 以上です",
                    hint_ja="実際の数を指定してください",
                )
            touched = self._resize(connection, found, gpus, now=now, who=who)
            record_change(connection, now=now, actor=who, action="pool.resized", subject=f"pool/{pool}"[:160])
            return touched

    def adopt(self, declared: Iterable[Declared], *, who: str) -> list[str]:
        """Makes pools what the configuration and the agents' inventory say, where that has changed since it was last
        adopted; what an administrator set in between stays. Answers with the reservations that were touched."""
        touched: list[str] = []
        with self._change() as (connection, now):
            before = store.adopted(connection)
            laid = {each.id for each in store.blocks(connection)}
            changed = False
            for each in declared:
                known = {pool.id: pool for pool in read_pools(connection)}.get(each.id)
                if before.get(each.id) != each.digest:
                    changed = True
                    if known is None:
                        store.insert_pool(connection, each)
                    elif each.id not in before:  # made by hand before: it stays until the declaration changes
                        store.note_declared(connection, known.number, each)
                    else:
                        store.update_pool(connection, known.number, each)
                        touched += self._resize(connection, known, each.gpus, now=now, who=who, fill=False)
                    subject = f"pool/{each.id}"[:160]
                    record_change(connection, now=now, actor=who, action="pool.adopted", subject=subject)
                if each.maintenance or (known is not None and declared_block(known) in laid):
                    moved = self._maintain(connection, each, now=now, who=who)
                    changed = changed or moved is not None
                    touched += moved or ()
            if changed:  # only now: what is maintained is not for those who wait
                self._fill(connection, now=now)
        return touched

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

    # -- inside

    def _maintain(self, connection: sa.Connection, declared: Declared, *, now: float, who: str) -> list[str] | None:
        """What is blocked because it is declared becomes what is declared now; None when it was so before. Windows
        that overlap add up, and what people have blocked is out of use anyway."""
        pool = next(each for each in read_pools(connection) if each.id == declared.id)
        name, here = declared_block(pool), current_slot(now)
        blocked = [row for row in store.taken(connection, pool.number) if not row.tenant and row.until > here]
        by_hand = [(row.first, row.until, row.gpus) for row in blocked if row.reservation != name]
        windows = [
            (max(each.first, here), each.until, pool.gpus if each.gpus is None else each.gpus)
            for each in declared.maintenance
            if each.until > here
        ]
        wanted = [
            (first, until, min(gpus, pool.gpus - used))
            for begins, ends, gpus in decide.levels(windows)
            if gpus
            for first, until, used in decide.levels(by_hand, first=begins, until=ends)
        ]
        standing = [(max(row.first, here), row.until, row.gpus) for row in blocked if row.reservation == name]
        if _profile(standing) == _profile(wanted):
            return None
        release(connection, name)
        moved: dict[str, Reservation] = {}
        for row in _profile(wanted):
            moved |= self._make_room(connection, pool, row, now=now)
            self._fill_up(connection, pool, name, [row])
        record_change(connection, now=now, actor=who, action="pool.maintained", subject=f"pool/{pool.id}"[:160])
        self._replan_all(connection, moved.values(), now=now, who=who, why=MAINTENANCE)
        return list(moved)

    def _make_room(
        self, connection: sa.Connection, pool: Pool, wanted: tuple[int, int, int], *, now: float
    ) -> dict[str, Reservation]:
        """Takes reservations out, the least urgent first, until so many GPUs are free in the window; or none is left.
        `wanted`: (first, until, GPUs)."""
        first, until, gpus = wanted
        moved: dict[str, Reservation] = {}
        while peak(connection, pool.number, first, until) + gpus > pool.gpus:
            victim = self._least_urgent(connection, pool, first, until, now=now)
            if victim is None:  # only other blocks are left
                break
            release(connection, victim.id)
            moved[victim.id] = victim
        return moved

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
            moved |= self._make_room(connection, pool, (first, until, wanted), now=now)
            self._fill_up(connection, pool, f"block-{self._new_id()}", [(first, until, wanted)])
        self._replan_all(connection, moved.values(), now=now, who=who, why=why)
        return list(moved)

    def _resize(
        self, connection: sa.Connection, pool: Pool, gpus: int, *, now: float, who: str, fill: bool = True
    ) -> list[str]:
        self._pass_time(connection, now=now)
        blocks: dict[str, list[tuple[int, int, int]]] = {}
        moved: dict[str, Reservation] = {}
        while True:
            taken = store.taken(connection, pool.number)
            levels = decide.levels((row.first, row.until, row.gpus) for row in taken)
            full = next(((first, until) for first, until, used in levels if used > gpus), None)
            if full is None:
                break
            blocked = [row for row in taken if not row.tenant and row.first < full[1] and row.until > full[0]]
            if blocked:
                name = blocked[0].reservation
                blocks[name] = [(row.first, row.until, row.gpus) for row in taken if row.reservation == name]
                release(connection, name)
                continue
            victim = self._least_urgent(connection, pool, *full, now=now)
            if victim is None:
                raise NotFree(
                    f"{pool.id} is held by nobody that can be moved",
                    hint="run `sekisho reserve audit`",
                    fact_ja=f"{pool.id} には、移動できる予約がありません",
                    hint_ja="`sekisho reserve audit` を実行してください",
                )
            release(connection, victim.id)
            moved[victim.id] = victim
        store.set_gpus(connection, pool.number, gpus)
        smaller_pool = msgspec.structs.replace(pool, gpus=gpus)
        for name, rows in blocks.items():
            self._fill_up(connection, smaller_pool, name, rows)
        self._replan_all(connection, moved.values(), now=now, who=who, why=SMALLER)
        if fill:
            self._fill(connection, now=now)
        return list(moved)

    @staticmethod
    def _fill_up(connection: sa.Connection, pool: Pool, name: str, rows: Iterable[tuple[int, int, int]]) -> None:
        """Blocks in each (first, until, GPUs) what is still there: what is blocked already is out of use anyway."""
        for first, until, wanted in rows:
            taken = store.taken(connection, pool.number)
            held = [(row.first, row.until, row.gpus) for row in taken]
            for begins, ends, used in decide.levels(held, first=first, until=until):
                gpus = min(wanted, pool.gpus - used)
                if gpus > 0:
                    block = Block(id=name, pool=pool.number, first=begins, until=ends, gpus=gpus)
                    store.insert_block(connection, block)

    def _replan_all(
        self, connection: sa.Connection, moved: Iterable[Reservation], *, now: float, who: str, why: Why
    ) -> None:
        for held in decide.replan_order(moved, now_slot=current_slot(now)):
            self._replan(connection, held, now=now, who=who, why=why)

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
        attempts = (wish, msgspec.structs.replace(wish, sites=()), later, *itertools.islice(smaller(wish), 1, None))
        for attempt in attempts:
            try:
                found = self._place(connection, attempt, now=now)
            except NotAllowed:
                break
            if found is None or isinstance(found, Refused):
                continue
            placed = found.placement
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


def _profile(rows: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(first, until, GPUs) of each stretch in which so many are taken, and more than none."""
    found: list[tuple[int, int, int]] = []
    for first, until, gpus in decide.levels(rows):
        if not gpus:
            continue
        before = found.pop() if found and found[-1][1:] == (first, gpus) else (first, first, gpus)
        found.append((before[0], until, gpus))
    return found


class _Undone(Exception):
    """Takes a rehearsal back."""


class Rehearsal(Upkeep):
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
