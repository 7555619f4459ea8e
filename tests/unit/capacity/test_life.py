"""Reservations from wish to end, on both databases. Residency is a stand-in that says so."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from sekisho.capacity import decide
from sekisho.capacity.audit import audit
from sekisho.capacity.faults import (
    Changed,
    Finished,
    KeyReused,
    NameUnknown,
    NotAllowed,
    NotFree,
    OfferGone,
    OverLimit,
    WindowInvalid,
)
from sekisho.capacity.grid import SLOT_S, slot_of
from sekisho.capacity.model import Body, Quota
from sekisho.runtime.database import Database
from support.reservations import DAY, FIRST, HERE, HOME, World, wish


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    made = World(database)
    yield made
    made.capacity.close()
    assert audit(database).faults == ()


def test_a_booking_is_what_was_asked_and_at_an_allowed_site(world: World) -> None:
    made = world.capacity.book(wish(16), who="admin")
    assert [part.pool for part in made.body.parts] == [world.number("ishikari.h100")]
    assert made.body.price_yen == 16 * 24 * 400
    assert [(version.version, version.who, version.why) for version in world.capacity.history(made.id)] == [
        (1, "admin", "booked")
    ]
    with pytest.raises(NotFree):  # 64 are free overseas, where this class may not go
        world.capacity.book(wish(16), who="admin")


def test_what_cannot_be_had_is_answered_with_six_offers_that_can_be_booked(world: World) -> None:
    world.capacity.book(wish(16), who="admin")
    offers = world.capacity.find(wish(16, sites=("ishikari",)))
    assert len(offers) >= 6
    assert all(offer.differs for offer in offers)
    assert [offer.score for offer in offers] == sorted(offer.score for offer in offers)
    assert {kind for offer in offers for kind in offer.differs} >= {"later", "fewer"}
    pools = {pool.number: pool for pool in world.capacity.pools()}
    assert {pools[part.pool].site for offer in offers for part in offer.placement.parts} <= HOME
    made = world.capacity.book_offer(offers[0].id, tenant="hospital", who="admin")
    assert made.body.parts == offers[0].placement.parts
    assert made.body.price_yen == offers[0].price_yen
    for offer, tenant in ((offers[0], "hospital"), (offers[1], "bank")):  # booked; somebody else's
        with pytest.raises(OfferGone):
            world.capacity.book_offer(offer.id, tenant=tenant, who="admin")
    world.clock.advance(decide.OFFER_S + 1)
    with pytest.raises(OfferGone):
        world.capacity.book_offer(offers[1].id, tenant="hospital", who="admin")


def test_spread_and_partial_wishes_take_what_there_is(world: World) -> None:
    both = world.capacity.book(wish(20, spread=True), who="admin")
    assert sorted(part.gpus for part in both.body.parts) == [4, 16]
    some = world.capacity.book(wish(8, gpus_min=2), who="admin")
    assert some.body.gpus == 4


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"tenant": "forged"}, NameUnknown),
        ({"gpu_models": ("h900",)}, NameUnknown),
        ({"sites": ("atlantis",)}, NameUnknown),
        ({"gpus": 0, "gpus_min": 0}, WindowInvalid),
        ({"gpus": -3}, WindowInvalid),
        ({"slots": 0}, WindowInvalid),
        ({"slots": -5}, WindowInvalid),
        ({"slots": 10**9}, WindowInvalid),
        ({"first": HERE - 1, "latest": HERE}, WindowInvalid),
        ({"latest": FIRST - 1}, WindowInvalid),
        ({"latest": FIRST + 10**7}, WindowInvalid),
    ],
)
def test_bad_wishes_are_refused_with_a_code_and_a_next_step(
    world: World, given: dict[str, object], fault: type[WindowInvalid]
) -> None:
    for ask in (
        world.capacity.find,
        lambda wanted: world.capacity.book(wanted, who="admin"),
        world.life.join_waitlist,
    ):
        with pytest.raises(fault) as raised:
            ask(wish(**given))
        assert raised.value.code.startswith("reserve.")
        assert raised.value.hint


def test_times_off_the_grid_are_refused() -> None:
    for bad in (1.0, 900.5, float("nan"), float("inf"), 1e300):
        with pytest.raises(WindowInvalid):
            slot_of(bad, what="start")
    assert slot_of(1800.0, what="start") == 2


def test_no_allowed_site_is_said_as_such(world: World) -> None:
    world.capacity.allowed = lambda _tenant, _data_class: frozenset()
    with pytest.raises(NotAllowed):
        world.capacity.book(wish(), who="admin")


def test_an_idempotency_key_books_once(world: World) -> None:
    first = world.capacity.book(wish(8), who="admin", key="k1")
    again = world.capacity.book(wish(8), who="admin", key="k1")
    assert again.id == first.id
    with pytest.raises(KeyReused):
        world.capacity.book(wish(4), who="admin", key="k1")
    assert len(world.capacity.reservations()) == 1
    # also when nothing would be free any more
    world.capacity.book(wish(16, tenant="bank", spread=True), who="admin")
    assert world.capacity.book(wish(8), who="admin", key="k1").id == first.id


def test_every_change_is_a_version_and_a_stale_one_is_refused(world: World) -> None:
    life = world.life
    made = world.capacity.book(wish(8), who="admin")
    longer = life.extend(made.id, until=FIRST + 2 * DAY, version=1, who="ana")
    assert longer.body.price_yen == 2 * made.body.price_yen
    with pytest.raises(Changed):
        life.extend(made.id, until=FIRST + 3 * DAY, version=1, who="ben")
    smaller = life.shrink(made.id, until=None, gpus=4, version=2, who="ana")
    assert (smaller.body.gpus, smaller.body.price_yen) == (4, made.body.price_yen)
    assert smaller.body.refund_yen > 0
    moved = life.move(made.id, first=FIRST + 20 * DAY, version=3, who="ana")
    assert moved.body.until == FIRST + 22 * DAY
    passed = life.transfer(made.id, tenant="bank", version=4, who="ana")
    assert passed.body.tenant == "bank"
    gone = life.cancel(made.id, version=5, who="ben")
    assert gone.body.state == "cancelled"
    with pytest.raises(Finished):
        life.extend(made.id, until=FIRST + 30 * DAY, version=None, who="ana")
    history = world.capacity.history(made.id)
    assert [version.why for version in history] == [
        "booked", "extended", "shrunk", "moved", "passed on by hospital", "cancelled",
    ]  # fmt: skip
    assert [version.who for version in history] == ["admin", "ana", "ana", "ana", "ana", "ben"]
    assert world.notices("bank") == ["transferred"]


def test_changes_that_do_not_fit_leave_everything_as_it_was(world: World) -> None:
    life = world.life
    mine = world.capacity.book(wish(16), who="admin")
    world.capacity.book(wish(16, tenant="bank", first=FIRST + DAY, latest=FIRST + DAY), who="admin")
    world.capacity.book(wish(8, tenant="bank", first=FIRST + DAY, latest=FIRST + DAY), who="admin")
    with pytest.raises(NotFree):
        life.extend(mine.id, until=FIRST + 2 * DAY, version=1, who="ana")
    with pytest.raises(NotFree):
        life.move(mine.id, first=FIRST + DAY, version=1, who="ana")
    for bad in (
        lambda: life.extend(mine.id, until=FIRST, version=1, who="ana"),
        lambda: life.extend(mine.id, until=10**9, version=1, who="ana"),
        lambda: life.shrink(mine.id, until=None, gpus=0, version=1, who="ana"),
        lambda: life.shrink(mine.id, until=None, gpus=17, version=1, who="ana"),
        lambda: life.shrink(mine.id, until=FIRST - 1, gpus=None, version=1, who="ana"),
        lambda: life.move(mine.id, first=HERE - 5, version=1, who="ana"),
        lambda: life.claim(mine.id, who="ana"),
    ):
        with pytest.raises(WindowInvalid):
            bad()
    assert world.capacity.get(mine.id) == mine
    # the index, too, has forgotten what was rolled back
    assert life.move(mine.id, first=FIRST + 3 * DAY, version=1, who="ana").version == 2


def test_nobody_corners_a_pool(world: World) -> None:
    world.capacity.set_pool(site="osaka", gpu="b200", gpus=8, tenant_limit=4, yen_per_gpu_hour=900, who="admin")
    world.capacity.book(wish(3, gpu_models=("b200",)), who="admin")
    with pytest.raises(OverLimit):
        world.capacity.book(wish(2, gpu_models=("b200",)), who="admin")
    second = world.capacity.book(wish(3, gpu_models=("b200",), tenant="bank"), who="admin")
    with pytest.raises(OverLimit):
        world.life.transfer(second.id, tenant="hospital", version=None, who="admin")


def test_cancelled_gpus_go_to_the_waitlist_in_fair_order(world: World) -> None:
    held = world.capacity.book(wish(16, sites=("ishikari",)), who="admin")
    world.capacity.book(wish(8, tenant="bank", sites=("osaka",)), who="admin")
    world.life.join_waitlist(wish(16, tenant="bank", sites=("ishikari",)))
    city = world.life.join_waitlist(wish(16, tenant="city", sites=("ishikari",)))
    # bank came first, but it holds GPUs and city holds none
    assert [waiting.wanted.tenant for waiting in world.life.waitlist()] == ["city", "bank"]
    world.life.cancel(held.id, version=None, who="admin")
    assert [each.body.tenant for each in world.capacity.reservations(state="booked")].count("city") == 1
    assert [waiting.wanted.tenant for waiting in world.life.waitlist()] == ["bank"]
    assert world.notices("city") == ["filled"]
    with pytest.raises(NameUnknown):
        world.life.leave_waitlist(city.id)


def test_who_does_not_come_is_warned_and_then_loses_the_gpus(world: World) -> None:
    first = HERE + 1
    absent = world.capacity.book(wish(4, first=first, latest=first), who="admin")
    there = world.capacity.book(wish(4, first=first, latest=first, tenant="bank"), who="admin")
    world.clock.at = (first + decide.WARN_SLOTS) * SLOT_S
    world.life.claim(there.id, who="bank")
    assert world.life.tick() == 1
    assert world.notices("hospital") == ["no-show-warning"]
    world.clock.at = (first + decide.NO_SHOW_SLOTS) * SLOT_S
    assert world.life.tick() == 1
    assert world.capacity.get(absent.id).body.state == "no-show"
    assert world.capacity.get(there.id).body.state == "booked"
    world.clock.at = (first + DAY) * SLOT_S
    assert world.life.tick() == 1
    assert world.capacity.get(there.id).body.state == "ended"


def test_backfill_gives_way_to_firm_work_and_is_told(world: World) -> None:
    filler = world.capacity.book(wish(16, priority="backfill", tenant="city", sites=("ishikari",)), who="admin")
    firm = world.capacity.book(wish(12, sites=("ishikari",)), who="admin", key="once")
    assert firm.body.gpus == 12
    assert world.capacity.book(wish(12, sites=("ishikari",)), who="admin", key="once").id == firm.id
    after = world.capacity.get(filler.id)
    assert (after.body.state, after.body.refund_yen) == ("displaced", filler.body.price_yen)
    assert world.notices("city") == ["displaced"]
    assert [waiting.wanted.tenant for waiting in world.life.waitlist()] == ["city"]
    with pytest.raises(NotFree):  # backfill never pushes
        world.capacity.book(wish(8, priority="backfill", tenant="bank", sites=("ishikari",)), who="admin")


def test_quotas_lend_within_a_cohort_and_the_lender_reclaims_ahead_of_time(world: World) -> None:
    pool = world.number("ishikari.h100")
    for tenant in ("hospital", "bank"):
        quota = Quota(pool=pool, tenant=tenant, cohort="tokyo", nominal=8, lends=6, borrows=8)
        world.capacity.set_quota(quota, who="admin")
    at = {"sites": ("ishikari",)}
    with pytest.raises((OverLimit, NotFree)):
        world.capacity.book(wish(1, tenant="city", **at), who="admin")  # has no part of this pool
    own = world.capacity.book(wish(8, **at), who="admin")
    borrowed = world.capacity.book(wish(6, **at), who="admin")
    assert (own.body.rank, borrowed.body.rank) == (0, 1)
    with pytest.raises(OverLimit):
        world.capacity.book(wish(1, **at), who="admin")  # bank lends 6 of its 8
    lender = world.capacity.book(wish(8, tenant="bank", **at), who="admin")
    assert lender.body.gpus == 8
    assert world.capacity.get(borrowed.id).body.state == "displaced"
    assert world.capacity.get(own.id).body.state == "booked"


def test_a_failed_site_is_planned_anew_and_nothing_is_dropped(world: World) -> None:
    critical = world.capacity.book(wish(8, priority="critical", sites=("ishikari",)), who="admin")
    plain = world.capacity.book(wish(8, tenant="bank", sites=("ishikari",)), who="admin")
    touched = world.life.fail_site("ishikari", until=FIRST + 60 * DAY, who="admin")
    assert sorted(touched) == sorted([critical.id, plain.id])
    after = world.capacity.get(critical.id)
    assert [part.pool for part in after.body.parts] == [world.number("osaka.h100")]
    assert after.body.first == FIRST
    other = world.capacity.get(plain.id)  # osaka is full then: it waits a day, or is paid back
    assert other.body.state in ("booked", "displaced")
    assert world.notices("hospital") == ["re-planned"]
    assert len(world.notices("bank")) == 1
    with pytest.raises(NotFree):
        world.capacity.book(wish(16, sites=("ishikari",)), who="admin")


def test_maintenance_moves_only_as_much_as_it_needs(world: World) -> None:
    small = [world.capacity.book(wish(4, sites=("ishikari",)), who="admin") for _ in range(4)]
    touched = world.life.block("ishikari.h100", first=FIRST, until=FIRST + DAY, gpus=5, who="admin")
    assert len(touched) == 2
    assert small[0].id not in touched
    with pytest.raises(WindowInvalid):
        world.life.block("ishikari.h100", first=FIRST, until=FIRST + DAY, gpus=17, who="admin")


def test_the_refund_curve_falls_to_the_beginning() -> None:
    body = Body(
        tenant="t", data_class="public", priority="standard", state="booked", first=FIRST, until=FIRST + DAY,
        parts=(), rank=0, price_yen=100_000,
    )  # fmt: skip
    start = FIRST * SLOT_S
    days = [40, 30, 18, 7, 4, 1, 0.5, 0, -0.5, -2]
    back = [decide.refund_yen(body, now=start - ahead * 86_400) for ahead in days]
    assert back == sorted(back, reverse=True)
    assert back[:2] == [100_000, 100_000]
    assert (back[3], back[5], back[7], back[9]) == (50_000, 25_000, 0, 0)
    assert decide.refund_yen(msgspec.structs.replace(body, rank=2), now=start + 43_200) == 50_000
