"""What operators do to pools, and the one decision on every way to a reservation; on both databases."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.assembly.reservations import declared_of
from sekisho.capacity import decide, store
from sekisho.capacity.admit import admit
from sekisho.capacity.audit import audit
from sekisho.capacity.authority import authority
from sekisho.capacity.faults import NameUnknown, NotFree, OverLimit
from sekisho.capacity.model import (
    Body,
    Booked,
    Booking,
    Declared,
    Maintained,
    Part,
    Placement,
    Quota,
    Rank,
    Refused,
)
from sekisho.federation.model import Maintenance, Pool
from sekisho.runtime.database import Database
from support.reservations import DAY, FIRST, NOW, World, wish


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    made = World(database)
    yield made
    made.capacity.close()
    assert audit(database).faults == ()


def divide(world: World, *, nominal: int = 8, lends: int = 0, borrows: int = 0) -> None:
    pool = world.number("ishikari.h100")
    for tenant in ("hospital", "bank"):
        quota = Quota(pool=pool, tenant=tenant, cohort="tokyo", nominal=nominal, lends=lends, borrows=borrows)
        world.capacity.set_quota(quota, who="admin")


AT = {"sites": ("ishikari",)}


# -- one decision on every way


def test_the_waitlist_does_not_fill_beyond_a_quota(world: World) -> None:
    held = world.capacity.book(wish(16, tenant="city", **AT), who="admin")
    divide(world)
    world.life.join_waitlist(wish(12, tenant="bank", **AT))
    world.life.cancel(held.id, version=None, who="admin")
    assert [each.wanted.tenant for each in world.life.waitlist()] == ["bank"]
    world.life.join_waitlist(wish(8, tenant="hospital", **AT))
    world.life.tick()
    assert [each.body.tenant for each in world.capacity.reservations(state="booked")] == ["hospital"]


def test_a_wish_on_the_waitlist_that_is_content_with_less_gets_less(world: World) -> None:
    divide(world)
    world.life.join_waitlist(wish(12, gpus_min=4, tenant="bank", **AT))
    world.life.tick()
    (made,) = world.capacity.reservations(tenant="bank")
    assert 4 <= made.body.gpus <= 8


def test_a_transfer_does_not_go_beyond_the_quota_of_who_gets_it(world: World) -> None:
    divide(world)
    mine = world.capacity.book(wish(8, **AT), who="admin")
    other = world.capacity.book(wish(6, tenant="bank", **AT), who="admin")
    with pytest.raises(OverLimit):
        world.life.transfer(mine.id, tenant="bank", version=None, who="admin")
    with pytest.raises(OverLimit):  # city has no part of this pool
        world.life.transfer(mine.id, tenant="city", version=None, who="admin")
    world.life.cancel(other.id, version=None, who="admin")
    assert world.life.transfer(mine.id, tenant="bank", version=None, who="admin").body.tenant == "bank"


def test_what_is_extended_into_a_lent_part_is_borrowed_from_then_on(world: World) -> None:
    divide(world, lends=6, borrows=6)
    world.capacity.book(wish(4, first=FIRST + DAY, latest=FIRST + DAY, **AT), who="admin")
    mine = world.capacity.book(wish(8, **AT), who="admin")
    assert mine.body.rank == Rank.FIRM
    assert world.life.extend(mine.id, until=FIRST + 2 * DAY, version=None, who="admin").body.rank == Rank.BORROWED
    with pytest.raises(OverLimit):
        world.capacity.book(wish(12, first=FIRST + 5 * DAY, latest=FIRST + 5 * DAY, tenant="city", **AT), who="admin")


def test_a_replan_obeys_limits_and_quotas(world: World) -> None:
    divide(world, nominal=2)
    plain = world.capacity.book(wish(8, sites=("osaka",), gpu_models=("h100",)), who="admin")
    world.life.fail_site("osaka", until=FIRST + 60 * DAY, who="admin")
    # ishikari is free, but hospital has 2 GPUs of it: it is paid back and waits
    assert world.capacity.get(plain.id).body.state == "displaced"
    assert world.notices("hospital") == ["displaced"]


def test_a_booking_goes_to_the_next_pool_when_limits_close_the_first(world: World) -> None:
    divide(world, nominal=2)
    made = world.capacity.book(wish(8), who="admin")
    assert [part.pool for part in made.body.parts] == [world.number("osaka.h100")]


def test_offers_obey_limits(world: World) -> None:
    divide(world, nominal=2)
    pool = world.number("ishikari.h100")
    offers = world.capacity.find(wish(8))
    assert offers
    assert all(part.gpus <= 2 for offer in offers for part in offer.placement.parts if part.pool == pool)


def test_a_quota_ends_and_the_pool_is_whole_again(world: World) -> None:
    divide(world)
    assert [each.tenant for each in world.capacity.quotas("ishikari.h100")] == ["bank", "hospital"]
    for tenant in ("bank", "hospital"):
        world.capacity.remove_quota("ishikari.h100", tenant, who="admin")
    with pytest.raises(NameUnknown):
        world.capacity.remove_quota("ishikari.h100", "bank", who="admin")
    assert world.capacity.book(wish(16, tenant="city", **AT), who="admin").body.gpus == 16


bookings = st.lists(
    st.tuples(
        st.sampled_from(("hospital", "bank")),
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=2, unique_by=lambda part: part[0]
        ),
        st.integers(0, 6),
        st.integers(1, 4),
        st.sampled_from(("", "", "k1", "k2")),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15)
@given(bookings, st.booleans())
def test_the_fast_ways_decide_as_the_one_decision_does(
    database: Database, asked: list[tuple[str, list[tuple[int, int]], int, int, str]], divided: bool
) -> None:
    """A batch on this database, and `admit` asked one by one beside it."""
    with database.write() as connection:
        for table in reversed(store.tables.metadata.sorted_tables):
            if table.name.startswith("capacity_") and table.name != "capacity_span":
                connection.execute(table.delete())
    world = World(database)
    world.capacity.set_pool(site="osaka", gpu="h100", gpus=8, tenant_limit=5, yen_per_gpu_hour=1, who="admin")
    numbers = {
        place: world.number(name) for place, name in enumerate(("ishikari.h100", "osaka.h100", "osaka.b200"), 1)
    }
    if divided:
        for tenant in ("hospital", "bank"):
            world.capacity.set_quota(
                Quota(pool=numbers[3], tenant=tenant, cohort="c", nominal=4, lends=2, borrows=2), who="admin"
            )
    batch = []
    for count, (tenant, parts, first, slots, key) in enumerate(asked):
        placement = Placement(
            parts=tuple(
                sorted((Part(pool=numbers[pool], gpus=gpus) for pool, gpus in parts), key=lambda each: each.pool)
            ),
            first=FIRST + first,
            until=FIRST + first + slots,
        )
        body = Body(
            tenant=tenant, data_class="internal", priority="standard", state="booked", first=placement.first,
            until=placement.until, parts=placement.parts, rank=0, price_yen=1,
        )  # fmt: skip
        batch.append(Booking(id=f"b{count}", placement=placement, body=body, key=key, digest=f"{parts}"[:64]))
    decider = authority(database, now=lambda: NOW)
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for start in range(0, len(batch), 5):
        some = batch[start : start + 5]
        expected = []
        # What the one decision says, in a transaction that is taken back.
        with database.engine.connect() as connection:
            for booking in some:
                name = (booking.body.tenant, booking.key)
                if booking.key and name in seen:
                    same = seen[name][0] == booking.digest
                    expected.append(Booked(id=seen[name][1], again=True) if same else Refused(reason="key"))
                    continue
                rank = admit(connection, booking.body.tenant, booking.placement, backfill=False)
                if isinstance(rank, Refused):
                    expected.append(rank)
                    continue
                store_one(connection, booking)
                seen[name] = (booking.digest, booking.id)
                expected.append(Booked(id=booking.id))
            connection.rollback()
        if database.engine.dialect.name == "postgresql" and divided:
            # Those of divided pools are decided after the rest of their batch: one at a time there is one order.
            decisions = [decider.decide([(booking, "test")])[0] for booking in some]
        else:
            decisions = decider.decide([(booking, "test") for booking in some])
        assert decisions == expected
    decider.close()
    world.capacity.close()
    assert audit(database).faults == ()


def store_one(connection: store.sa.Connection, booking: Booking) -> None:
    from sekisho.capacity.authority import take  # noqa: PLC0415 - next to its only use

    take(connection, booking)


# -- pools


def test_a_pool_that_shrinks_while_sold_is_planned_anew_and_tenants_are_told(world: World) -> None:
    critical = world.capacity.book(wish(8, priority="critical", **AT), who="admin")
    plain = world.capacity.book(wish(8, tenant="bank", **AT), who="admin")
    later = world.capacity.book(
        wish(8, tenant="bank", first=FIRST + 3 * DAY, latest=FIRST + 3 * DAY, **AT), who="admin"
    )
    with pytest.raises(NotFree):  # not by accident
        world.capacity.set_pool(
            site="ishikari", gpu="h100", gpus=8, tenant_limit=None, yen_per_gpu_hour=400, who="admin"
        )
    assert world.life.resize("ishikari.h100", gpus=8, who="admin") == [plain.id]
    assert world.capacity.get(critical.id) == critical
    assert world.capacity.get(later.id) == later
    moved = world.capacity.get(plain.id)
    assert [part.pool for part in moved.body.parts] == [world.number("osaka.h100")]
    assert moved.body.first == FIRST
    assert world.notices("bank") == ["re-planned"]
    assert world.capacity.history(plain.id)[-1].why == "re-planned: its pool has fewer GPUs"
    # The pool gets its GPUs back; nothing has to move for that.
    assert world.life.resize("ishikari.h100", gpus=16, who="admin") == []


def test_blocked_gpus_go_first_when_a_pool_shrinks(world: World) -> None:
    held = world.capacity.book(wish(8, **AT), who="admin")
    world.life.block("ishikari.h100", first=FIRST - 10, until=FIRST + 10, gpus=6, who="admin")
    assert world.life.resize("ishikari.h100", gpus=8, who="admin") == []
    assert world.capacity.get(held.id) == held
    assert [(each.first, each.until, each.gpus) for each in world.life.blocks()] == [(FIRST - 10, FIRST, 6)]


def test_a_failed_site_sells_nothing_although_a_part_of_it_was_maintained(world: World) -> None:
    world.life.block("ishikari.h100", first=FIRST, until=FIRST + DAY, gpus=8, who="admin")
    world.life.fail_site("ishikari", until=FIRST + 10 * DAY, who="admin")
    for start in (FIRST - DAY, FIRST, FIRST + 5 * DAY):
        with pytest.raises(NotFree):
            world.capacity.book(wish(1, slots=4, first=start, latest=start, **AT), who="admin")


def test_an_unblocked_pool_is_sold_again_and_the_waitlist_is_asked(world: World) -> None:
    world.life.block("ishikari.h100", first=FIRST, until=FIRST + 5 * DAY, gpus=16, who="admin")
    world.life.join_waitlist(wish(16, **AT))
    (block,) = world.life.blocks()
    world.life.unblock(block.id, who="admin")
    with pytest.raises(NameUnknown):
        world.life.unblock(block.id, who="admin")
    assert [each.body.gpus for each in world.capacity.reservations()] == [16]


def test_blocks_that_are_over_go(world: World) -> None:
    world.life.block("ishikari.h100", first=FIRST, until=FIRST + 4, gpus=16, who="admin")
    world.clock.advance(30 * 86_400)
    world.life.tick()
    assert world.life.blocks() == []


def test_pools_follow_what_is_declared_and_keep_what_an_administrator_set(world: World) -> None:
    def declare(gpus: int, **given: int) -> list[str]:
        return world.life.adopt([Declared(site="us-west", gpu="b200", gpus=gpus, **given)], who="system")

    def pool() -> tuple[int, int, int]:
        found = next(each for each in world.capacity.pools() if each.id == "us-west.b200")
        return found.gpus, found.tenant_limit, found.yen_per_gpu_hour

    declare(8, yen_per_gpu_hour=700)
    assert pool() == (8, 8, 700)
    world.capacity.set_pool(site="us-west", gpu="b200", gpus=6, tenant_limit=3, yen_per_gpu_hour=800, who="admin")
    declare(8, yen_per_gpu_hour=700)
    assert pool() == (6, 3, 800)  # nothing new was declared
    made = world.capacity.book(wish(3, data_class="internal", gpu_models=("b200",), sites=("us-west",)), who="admin")
    assert declare(2) == [made.id]
    assert pool() == (2, 3, 800)
    assert world.capacity.get(made.id).body.parts[0].pool == world.number("osaka.b200") or world.notices("hospital")
    declare(12, tenant_limit=5)
    assert pool() == (12, 5, 800)


def test_declared_maintenance_blocks_moves_who_is_in_the_way_and_goes_when_it_is_taken_back(world: World) -> None:
    def declare(gpus: int, *windows: Maintained) -> list[str]:
        return world.life.adopt(
            [Declared(site="us-west", gpu="b200", gpus=gpus, maintenance=tuple(windows))], who="system"
        )

    def blocked() -> list[tuple[int, int, int]]:
        return [(each.first, each.until, each.gpus) for each in world.life.blocks()]

    declare(8)
    by_hand = "us-west.b200"
    world.life.block(by_hand, first=FIRST + 900, until=FIRST + 904, gpus=1, who="admin")
    free = wish(6, data_class="internal", gpu_models=("b200",), sites=("us-west",))
    made = world.capacity.book(free, who="admin")
    first, until = made.body.first, made.body.until
    some, whole = Maintained(first=first, until=until, gpus=4), Maintained(first=until, until=until + 4)
    assert declare(8, some, whole) == [made.id], "6 of 8 are booked and 4 are maintained"
    assert blocked() == [(first, until, 4), (until, until + 4, 8), (FIRST + 900, FIRST + 904, 1)]
    assert declare(8, some, whole) == [], "nothing new was declared"
    assert len(blocked()) == 3
    declare(10, some, whole)  # `whole` means all of them, however many there are
    assert (until, until + 4, 10) in blocked()
    declare(10, whole)
    assert blocked() == [(until, until + 4, 10), (FIRST + 900, FIRST + 904, 1)]
    declare(10)
    assert blocked() == [(FIRST + 900, FIRST + 904, 1)], "what people blocked is theirs"


def test_maintenance_that_has_begun_blocks_the_rest_of_its_window(world: World) -> None:
    here = FIRST - 1
    window = Maintained(first=here - 40, until=here + 40)
    world.life.adopt([Declared(site="us-west", gpu="b200", gpus=8, maintenance=(window,))], who="system")
    (block,) = world.life.blocks()
    assert (block.first <= here, block.until) == (True, here + 40)


def test_declared_windows_add_up_and_come_back_when_what_people_blocked_is_gone(world: World) -> None:
    one = Maintained(first=FIRST + 10, until=FIRST + 20, gpus=6)
    other = Maintained(first=FIRST + 15, until=FIRST + 30, gpus=6)

    def declare(*windows: Maintained) -> None:
        world.life.adopt([Declared(site="us-west", gpu="b200", gpus=8, maintenance=tuple(windows))], who="system")

    def out_of_use(slot: int) -> int:
        return sum(each.gpus for each in world.life.blocks() if each.first <= slot < each.until)

    declare(one, other)
    assert [out_of_use(FIRST + slot) for slot in (9, 10, 15, 20, 30)] == [0, 6, 8, 6, 0]
    declare(other)
    assert [out_of_use(FIRST + slot) for slot in (10, 15, 20, 30)] == [0, 6, 6, 0]
    with pytest.raises(NotFree, match="configuration"):
        world.life.unblock(world.life.blocks()[0].id, who="admin")
    declare()
    by_hand = world.life.block("us-west.b200", first=FIRST + 10, until=FIRST + 40, gpus=8, who="admin")
    assert by_hand == []
    declare(one)
    assert out_of_use(FIRST + 12) == 8
    world.life.unblock(world.life.blocks()[0].id, who="admin")
    declare(one)  # the same words, a minute later
    assert [out_of_use(FIRST + slot) for slot in (12, 25)] == [6, 0]


def test_a_window_that_is_over_brings_back_nothing_that_an_administrator_has_changed(world: World) -> None:
    window = Maintained(first=FIRST + 10, until=FIRST + 20, gpus=1)
    with_it = Declared(
        site="us-west", gpu="b200", gpus=8, tenant_limit=8, yen_per_gpu_hour=700, maintenance=(window,)
    )
    without = msgspec.structs.replace(with_it, maintenance=())
    assert with_it.digest == without.digest
    world.life.adopt([with_it], who="system")
    world.life.resize("us-west.b200", gpus=6, who="admin")
    world.capacity.set_pool(site="us-west", gpu="b200", gpus=6, tenant_limit=3, yen_per_gpu_hour=800, who="admin")
    world.life.adopt([without], who="system")
    (pool,) = [each for each in world.capacity.pools() if each.id == "us-west.b200"]
    assert (pool.gpus, pool.tenant_limit, pool.yen_per_gpu_hour) == (6, 3, 800)
    assert world.life.blocks() == []


def test_the_digest_of_what_was_adopted_before_there_were_windows_is_the_same() -> None:
    """It lies in databases: another one would adopt every pool anew."""
    said = b'{"site":"s","gpu":"h100","gpus":8,"tenant_limit":null,"yen_per_gpu_hour":400}'
    digest = Declared(site="s", gpu="h100", gpus=8, yen_per_gpu_hour=400).digest
    assert digest == hashlib.sha256(said).hexdigest()[:16]


def test_all_of_one_pool_is_not_all_of_two() -> None:
    pools = [
        Pool(id="a", site="s", gpu="H100", count=8, maintenance=(Maintenance(start=0, end=1_000_000_800),)),
        Pool(id="b", site="s", gpu="H100", count=8),
        Pool(id="c", site="s", gpu="H100", count=8, maintenance=(Maintenance(start=0, end=1_000_000_800, gpus=2),)),
    ]
    (found,) = declared_of(pools, now=1_000_000_000.0)
    assert found.gpus == 24
    assert [each.gpus for each in found.maintenance] == [8, 2]


def test_a_pool_that_was_made_by_hand_is_not_touched_when_it_is_declared_for_the_first_time(world: World) -> None:
    held = world.capacity.book(wish(16, **AT), who="admin")
    assert world.life.adopt([Declared(site="ishikari", gpu="h100", gpus=4)], who="system") == []
    assert world.capacity.get(held.id) == held
    assert world.life.adopt([Declared(site="ishikari", gpu="h100", gpus=3)], who="system") == [held.id]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(1, 5)), max_size=8))
def test_levels_are_what_a_scan_says(rows: list[tuple[int, int, int]]) -> None:
    taken = [(first, first + length, gpus) for first, length, gpus in rows]
    found = decide.levels(taken, first=5, until=25)
    assert (found[0][0], found[-1][1]) == (5, 25)
    for first, until, used in found:
        for slot in range(first, until):
            assert used == sum(gpus for begins, ends, gpus in taken if begins <= slot < ends)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))


def test_the_feed_of_changes_is_pruned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sekisho.capacity.life.FEED_KEPT", 3)
    for day in range(8):
        world.capacity.book(wish(1, first=FIRST + day * DAY, latest=FIRST + day * DAY, slots=4, **AT), who="admin")
    world.life.tick()
    with world.database.read() as connection:
        assert len(connection.execute(store.tables.change.select()).all()) == 4
    # who is further behind starts anew
    assert world.capacity.book(wish(15, **AT), who="admin").body.gpus == 15
