"""Pools and reservations change here: one transaction a call, the version in the same transaction.

`allowed_sites` is residency's answer, passed in by assembly; nothing of its rules is repeated here. A reservation
that can't be made raises a fault with its code; `find` then says what could be had.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, assert_never

import msgspec
import sqlalchemy as sa

from sekisho.capacity import decide, store, tables
from sekisho.capacity.admit import admit, lock_key, lock_pools, peak
from sekisho.capacity.authority import write_new
from sekisho.capacity.displace import NEEDED, displace
from sekisho.capacity.faults import NameUnknown, NotAllowed, NotFree, OfferGone, WindowInvalid
from sekisho.capacity.grid import check_end, check_window, current_slot
from sekisho.capacity.index import CapacityIndex, read_pools
from sekisho.capacity.model import (
    Body,
    Booked,
    Booking,
    Decision,
    Offer,
    Part,
    Placement,
    Pool,
    Quota,
    Rank,
    Refused,
    Reservation,
    StoredOffer,
    Version,
    Wanted,
)
from sekisho.capacity.offers import exact, offers
from sekisho.capacity.placing import smaller
from sekisho.capacity.refusals import fault_of, key_reused, no_such_pool
from sekisho.capacity.writer import GroupWriter
from sekisho.kernel.clock import Clock
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

MAX_GPUS = 1_000_000
MAX_FASTER = 8


class Residency(Protocol):
    """Which sites may serve this class of this tenant's data, by the policy in force."""

    def __call__(self, tenant: str, data_class: str) -> frozenset[str]: ...


class CapacityService:
    """Safe to share among threads. `tenants` and `sites` give the names that the federation has now."""

    def __init__(
        self,
        database: Database,
        *,
        allowed_sites: Residency,
        tenants: Callable[[], frozenset[str]],
        sites: Callable[[], frozenset[str]],
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self.database = database
        self.allowed = allowed_sites
        self._tenants = tenants
        self._sites = sites
        self._clock = clock
        self._new_id = new_id
        self._index = CapacityIndex()
        self._lock = threading.Lock()
        self._writer: GroupWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # -- pools

    def pools(self) -> list[Pool]:
        with self.database.read() as connection:
            return read_pools(connection)

    def set_pool(
        self, *, site: str, gpu: str, gpus: int, tenant_limit: int | None, yen_per_gpu_hour: int, who: str
    ) -> Pool:
        """Makes the pool or changes it. A pool never becomes smaller than what is sold of it."""
        if site not in self._sites():
            raise NameUnknown(
                f"there is no site {site!r}",
                hint="`sekisho status` names the sites",
                fact_ja=f"拠点 {site} はありません",
                hint_ja="`sekisho status` で拠点を確認してください",
            )
        if not 0 <= gpus <= MAX_GPUS or yen_per_gpu_hour < 0 or (tenant_limit is not None and tenant_limit < 1):
            raise WindowInvalid(
                "a pool has 0 to 1,000,000 GPUs, a limit of 1 or more and a price of 0 or more",
                hint="mend it",
                fact_ja="プールの GPU は 0～1,000,000 基、上限は 1 以上、料金は 0 以上です",
                hint_ja="値を直してください",
            )
        values = {
            "gpus": gpus,
            "tenant_limit": gpus if tenant_limit is None else tenant_limit,
            "yen_per_gpu_hour": yen_per_gpu_hour,
        }
        name = f"{site}.{gpu}"
        now = self._clock.now()
        with self.database.write() as connection:
            number = connection.scalar(sa.select(tables.pool.c.number).where(tables.pool.c.id == name))
            if number is None:
                connection.execute(tables.pool.insert().values(id=name, site=site, gpu=gpu, revision=0, **values))
            else:
                lock_pools(connection, [number])
                try:
                    connection.execute(
                        tables.pool.update()
                        .where(tables.pool.c.number == number)
                        .values(revision=tables.pool.c.revision + 1, **values)
                    )
                except (sa.exc.IntegrityError, sa.exc.ProgrammingError) as error:
                    raise _smaller_than_sold(error, name) from error
            record_change(connection, now=now, actor=who, action="pool.set", subject=f"pool/{name}"[:160])
            return next(pool for pool in read_pools(connection) if pool.id == name)

    def set_quota(self, quota: Quota, *, pool: str = "", who: str) -> None:
        """A tenant's part of a pool (`pool` names it, or its number in `quota`), and what it lends and borrows."""
        self.known_tenant(quota.tenant)
        if min(quota.nominal, quota.lends, quota.borrows) < 0 or quota.lends > quota.nominal:
            raise WindowInvalid(
                "a quota is 0 or more, and lends at most what it has",
                hint="lower `lends`",
                fact_ja="割当枠は 0 以上で、貸出は割当枠までです",
                hint_ja="貸出の上限（`lends`）を下げてください",
            )
        with self.database.write(alone=False) as connection:
            found = next(
                (each for each in read_pools(connection) if pool == each.id or quota.pool == each.number), None
            )
            if found is None:
                raise NameUnknown(
                    f"there is no pool {pool or quota.pool!r}",
                    hint="`sekisho reserve pools` names them",
                    fact_ja=f"プール {pool or quota.pool} はありません",
                    hint_ja="`sekisho reserve pools` で一覧を確認してください",
                )
            lock_pools(connection, [found.number])
            store.set_quota(connection, msgspec.structs.replace(quota, pool=found.number))
            record_change(
                connection, now=self._clock.now(), actor=who, action="quota.set", subject=f"pool/{found.id}"[:160]
            )

    def quotas(self, pool: str) -> list[Quota]:
        with self.database.read() as connection:
            return store.quotas(connection, self._pool(connection, pool).number)

    def remove_quota(self, pool: str, tenant: str, *, who: str) -> None:
        """Without any quota the pool is no longer divided."""
        with self.database.write() as connection:
            found = self._pool(connection, pool)
            lock_pools(connection, [found.number])
            if not store.remove_quota(connection, found.number, tenant):
                raise NameUnknown(
                    f"{tenant!r} has no quota of {pool}",
                    hint="`sekisho reserve quotas` shows them",
                    fact_ja=f"{tenant} には {pool} の割り当てがありません",
                    hint_ja="`sekisho reserve quotas` で一覧を確認してください",
                )
            record_change(
                connection, now=self._clock.now(), actor=who, action="quota.removed", subject=f"pool/{pool}"[:160]
            )

    @staticmethod
    def _pool(connection: sa.Connection, pool: str) -> Pool:
        found = next((each for each in read_pools(connection) if each.id == pool), None)
        if found is None:
            raise no_such_pool(pool)
        return found

    # -- search

    def find(self, wanted: Wanted) -> list[Offer]:
        """Ranked offers, each bookable by its id for five minutes. Offers hold nothing: two tenants may see the same
        one, and the first to book has it."""
        now = self._clock.now()
        allowed = self.checked(wanted, now=now)
        with self._lock, self.database.read() as connection:
            self._index.sync(connection, now=now)
            backfill = wanted.priority == "backfill"

            def may(placement: Placement) -> bool:
                return not isinstance(admit(connection, wanted.tenant, placement, backfill=backfill), Refused)

            found = offers(self._index, wanted, allowed, may=may, now=now, new_id=self._new_id)
        with self.database.write(alone=False) as connection:
            stored = [StoredOffer(offer=offer, wanted=wanted) for offer in found]
            store.insert_offers(connection, stored, now=now, expires_s=decide.OFFER_S)
        return found

    @contextmanager
    def index(self) -> Iterator[CapacityIndex]:
        """The index as the database is now, to look at; nobody else uses it meanwhile."""
        with self._lock:
            with self.database.read() as connection:
                self._index.sync(connection, now=self._clock.now())
            yield self._index

    # -- booking

    def book(self, wanted: Wanted, *, who: str, key: str = "") -> Reservation:
        """The earliest placement that is all that was asked (or, with `gpus_min`, as much of it as there is)."""
        now = self._clock.now()
        allowed = self.checked(wanted, now=now)
        digest = hashlib.sha256(msgspec.json.encode(wanted)).hexdigest()
        # How many GPUs of a pool the tenant's limits refused it: so many are not asked for again.
        closed: dict[int, int] = {}
        refused: Refused | None = None
        faster = 0
        while faster < MAX_FASTER:  # somebody may take what was found; each time there is less to find
            with self._lock:
                with self.database.read() as connection:
                    self._index.sync(connection, now=now)
                placement = self._place(wanted, allowed, closed)
                pools = dict(self._index.pools)
            if placement is None:
                if key and (earlier := self._earlier(wanted.tenant, key, digest)) is not None:
                    return earlier
                made = self._push_aside(wanted, allowed, who=who, key=key, digest=digest, now=now)
                if made is not None:
                    return made
                if refused is not None:
                    raise fault_of(refused, pools)
                raise NotFree(
                    "no allowed pool has so many GPUs free for so long in that time",
                    hint="ask `sekisho reserve find` for what can be had, or join the waitlist",
                    fact_ja="許可された拠点に、この数の GPU がこの期間そろって空いているプールはありません",
                    hint_ja="`sekisho reserve find` で予約できる枠を調べるか、キャンセル待ちに登録してください",
                )
            decision = self._decide(self.booking(wanted, placement, pools, key=key, digest=digest), who=who)
            match decision:
                case Booked():
                    return self.get(decision.id)
                case Refused(reason="taken"):
                    faster += 1
                case Refused(reason="limit"):
                    refused = decision
                    closed[decision.pool] = next(part.gpus for part in placement.parts if part.pool == decision.pool)
                case _:
                    raise fault_of(decision, pools)
        raise NotFree(
            "others were faster each time",
            hint="try again",
            fact_ja="他の予約が先に成立しました",
            hint_ja="もう一度試してください",
        )

    def book_offer(self, offer_id: str, *, tenant: str, who: str, key: str = "") -> Reservation:
        """What was offered, at the price that was offered."""
        now = self._clock.now()
        digest = hashlib.sha256(offer_id.encode()).hexdigest()
        if key and (earlier := self._earlier(tenant, key, digest)) is not None:
            return earlier
        with self.database.read() as connection:
            stored = store.find_offer(connection, offer_id, now=now)
            pools = {pool.number: pool for pool in read_pools(connection)}
        if stored is None or stored.wanted.tenant != tenant:
            raise OfferGone(
                f"there is no offer {offer_id!r} any more",
                hint="ask `sekisho reserve find` again",
                fact_ja=f"提案 {offer_id} はもう有効ではありません",
                hint_ja="`sekisho reserve find` でもう一度調べてください",
            )
        # The policy may have changed since the offer was made.
        allowed = self.allowed(tenant, stored.wanted.data_class)
        if any(pools[part.pool].site not in allowed for part in stored.offer.placement.parts):
            raise NotAllowed(
                "the policy no longer allows this site",
                hint="ask `sekisho reserve find` again",
                fact_ja="この拠点は、現在のポリシーでは許可されていません",
                hint_ja="`sekisho reserve find` でもう一度調べてください",
            )
        check_window(stored.offer.placement.first, stored.offer.placement.until, now=now)
        booking = self.booking(stored.wanted, stored.offer.placement, pools, key=key, digest=digest)
        booking = msgspec.structs.replace(
            booking, body=msgspec.structs.replace(booking.body, price_yen=stored.offer.price_yen)
        )
        decision = self._decide(booking, who=who)
        match decision:
            case Booked():
                with self.database.write(alone=False) as connection:
                    store.remove_offer(connection, offer_id)
                return self.get(decision.id)
            case Refused():
                raise fault_of(decision, pools)
            case _:
                assert_never(decision)

    def get(self, reservation: str) -> Reservation:
        with self.database.read() as connection:
            return store.find(connection, reservation)

    def history(self, reservation: str) -> list[Version]:
        with self.database.read() as connection:
            store.find(connection, reservation)
            return store.versions(connection, reservation)

    def reservations(
        self, *, tenant: str = "", state: str = "", after: str = "", limit: int = 500
    ) -> list[Reservation]:
        with self.database.read() as connection:
            return store.find_all(connection, tenant=tenant, state=state, after=after, limit=limit)

    # -- inside

    def _place(self, wanted: Wanted, allowed: frozenset[str], closed: Mapping[int, int]) -> Placement | None:
        for wish in smaller(wanted):
            without = {pool for pool, gpus in closed.items() if wish.gpus >= gpus}
            placement = exact(self._index, wish, allowed, without=without)
            if placement is not None:
                return placement
        return None

    def booking(
        self, wanted: Wanted, placement: Placement, pools: dict[int, Pool], *, key: str = "", digest: str = ""
    ) -> Booking:
        """What the authority is asked: a new id, the terms and the price."""
        rank = Rank.BACKFILL if wanted.priority == "backfill" else Rank.FIRM
        body = Body(
            tenant=wanted.tenant,
            data_class=wanted.data_class,
            priority=wanted.priority,
            state="booked",
            first=placement.first,
            until=placement.until,
            parts=placement.parts,
            rank=int(rank),
            price_yen=decide.price_yen(pools, placement, wanted.priority),
            gpus_min=wanted.gpus_min,
            note=wanted.note,
            gpu_models=wanted.gpu_models,
            sites=wanted.sites,
            spread=wanted.spread,
        )
        return Booking(id=self._new_id(), placement=placement, body=body, key=key, digest=digest)

    def _decide(self, booking: Booking, *, who: str) -> Decision:
        with self._lock:
            if self._writer is None:
                self._writer = GroupWriter(self.database, now=self._clock.now)
            writer = self._writer
        return writer.submit(booking, who=who).result()

    def _push_aside(
        self, wanted: Wanted, allowed: frozenset[str], *, who: str, key: str, digest: str, now: float
    ) -> Reservation | None:
        """Firm work takes the place of backfill, and of what was borrowed and begins later than the lead time."""
        if wanted.priority == "backfill":
            return None
        with self.database.write(alone=False) as connection:
            lock_key(connection, wanted.tenant, key)
            pools = {pool.number: pool for pool in read_pools(connection)}
            chosen = [
                pool
                for pool in pools.values()
                if pool.site in allowed
                and (not wanted.sites or pool.site in wanted.sites)
                and (not wanted.gpu_models or pool.gpu in wanted.gpu_models)
            ]
            lock_pools(connection, (pool.number for pool in chosen))
            if key and store.find_key(connection, wanted.tenant, key) is not None:
                return None  # the same request came twice at once, and the other one was first
            placed_at, until = wanted.first, wanted.first + wanted.slots
            for pool in chosen:
                placement = Placement(parts=(Part(pool=pool.number, gpus=wanted.gpus),), first=placed_at, until=until)
                # In a transaction of its own inside: what was pushed aside in vain comes back.
                with connection.begin_nested() as attempt:
                    self._make_room(connection, pool, placement, now=now, who=who)
                    # Only what the tenant may hold firmly is worth it: who borrows pushes nobody.
                    if admit(connection, wanted.tenant, placement, backfill=False) is not Rank.FIRM:
                        attempt.rollback()
                        continue
                booking = self.booking(wanted, placement, pools, key=key, digest=digest)
                return write_new(connection, booking, Rank.FIRM, who=who, why="booked", now=now)
        return None

    def _make_room(
        self, connection: sa.Connection, pool: Pool, placement: Placement, *, now: float, who: str
    ) -> None:
        wanted = placement.gpus
        lead = current_slot(now) + decide.LEAD_SLOTS
        others = store.overlapping(
            connection, pool.number, placement.first, placement.until, above_rank=int(Rank.FIRM)
        )
        for name, rank, first, _ in others:
            if peak(connection, pool.number, placement.first, placement.until) + wanted <= pool.gpus:
                break
            if rank == Rank.BACKFILL or first >= lead:
                displace(
                    connection,
                    store.find(connection, name),
                    now=now,
                    who=who,
                    why=NEEDED,
                    new_id=self._new_id,
                )

    def _earlier(self, tenant: str, key: str, digest: str) -> Reservation | None:
        with self.database.read() as connection:
            earlier = store.find_key(connection, tenant, key)
            if earlier is None:
                return None
            if earlier.digest != digest:
                raise key_reused()
            return store.find(connection, earlier.reservation)

    def known_tenant(self, tenant: str) -> None:
        """NameUnknown when the federation has no such tenant."""
        if tenant not in self._tenants():
            raise NameUnknown(
                f"there is no tenant {tenant!r}",
                hint="`sekisho status` names the tenants",
                fact_ja=f"テナント {tenant} はありません",
                hint_ja="`sekisho status` でテナントを確認してください",
            )

    def checked(self, wanted: Wanted, *, now: float) -> frozenset[str]:
        """The sites that residency allows; a fault when the wish can't be one."""
        self.known_tenant(wanted.tenant)
        if not 1 <= wanted.gpus_min <= wanted.gpus <= MAX_GPUS:
            raise WindowInvalid(
                "the number of GPUs is not between 1 and 1,000,000",
                hint="give 1 or more GPUs",
                fact_ja="GPU の数は 1～1,000,000 の範囲で指定してください",
                hint_ja="1 以上の数を指定してください",
            )
        if wanted.latest < wanted.first:
            raise WindowInvalid(
                "the latest start is before the earliest",
                hint="exchange them",
                fact_ja="最も遅い開始が、最も早い開始より前です",
                hint_ja="二つを入れ替えてください",
            )
        check_window(wanted.first, wanted.first + wanted.slots, now=now)
        check_end(wanted.latest, wanted.latest + wanted.slots, now=now)
        pools = self.pools()
        known = {pool.gpu for pool in pools}
        for gpu in wanted.gpu_models:
            if gpu not in known:
                raise NameUnknown(
                    f"no pool has GPUs of the model {gpu!r}",
                    hint=f"there are: {', '.join(sorted(known)) or 'none'}",
                    fact_ja=f"機種 {gpu} の GPU があるプールはありません",
                    hint_ja=f"利用できる機種：{'、'.join(sorted(known)) or 'なし'}",
                )
        for site in wanted.sites:
            if site not in {pool.site for pool in pools}:
                raise NameUnknown(
                    f"no pool stands at {site!r}",
                    hint="`sekisho reserve pools` names them",
                    fact_ja=f"拠点 {site} にプールはありません",
                    hint_ja="`sekisho reserve pools` で一覧を確認してください",
                )
        allowed = self.allowed(wanted.tenant, wanted.data_class)
        if not allowed & {pool.site for pool in pools}:
            raise NotAllowed(
                f"no site with GPUs may serve {wanted.data_class} work of {wanted.tenant}",
                hint="`sekisho why` says which rule closes which site",
                fact_ja=f"{wanted.tenant} の {wanted.data_class} の処理を許可された、GPU のある拠点はありません",
                hint_ja="拠点ごとの根拠は `sekisho why` で確認できます",
            )
        return allowed


def _smaller_than_sold(error: Exception, name: str) -> Exception:
    if "capacity_oversold" in str(error):
        return NotFree(
            f"more GPUs of {name} are sold than would be left",
            hint="cancel or move reservations first",
            fact_ja=f"{name} には、変更後の数を超える予約があります",
            hint_ja="先に予約を取り消すか、移動してください",
        )
    return error
