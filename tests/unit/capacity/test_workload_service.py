"""Workloads of a reservation, on both databases: who may define what, what is claimed, paid back and refused."""

from __future__ import annotations

import itertools

import pytest

from sekisho.capacity.faults import Finished
from sekisho.capacity.life import LifeService
from sekisho.capacity.model import Reservation, Wanted
from sekisho.capacity.service import CapacityService
from sekisho.capacity.workloads.faults import EngineUnknown, WorkloadRefused, WorkloadUnknown
from sekisho.capacity.workloads.model import Offered, Order, ReplicaReport, SiteReport, Spec
from sekisho.capacity.workloads.service import WorkloadService
from sekisho.kernel.clock import FixedClock
from sekisho.runtime.database import Database

START = 1_800_000_000.0
OFFERS = (Offered(engine="llama.cpp", model="m"),)


class House:
    """A pool of four GPUs at one site, and time that the test sets."""

    def __init__(self, database: Database) -> None:
        self.clock = clock = FixedClock(START + 60.0)
        ids = map("{:016x}".format, itertools.count(1))
        self.capacity = CapacityService(
            database,
            allowed_sites=lambda _tenant, _class: frozenset({"here"}),
            tenants=lambda: frozenset({"hospital", "other"}),
            sites=lambda: frozenset({"here"}),
            clock=clock,
            new_id=lambda: f"rv-{next(ids)}",
        )
        self.life = LifeService(self.capacity, clock=clock, new_id=lambda: f"rv-{next(ids)}")
        self.workloads = WorkloadService(
            database,
            names=lambda _tenant, name: ("it is taken", "choose another") if name == "taken" else None,
            clock=clock,
            new_id=lambda: f"wl-{next(ids)}",
        )
        self.capacity.set_pool(site="here", gpu="h100", gpus=4, tenant_limit=None, yen_per_gpu_hour=400, who="admin")
        self.workloads.exchange("here", SiteReport(offers=OFFERS))

    def book(self, *, gpus: int = 4, slots: int = 4) -> Reservation:
        wanted = Wanted(
            tenant="hospital",
            data_class="internal",
            gpu_models=(),
            gpus=gpus,
            gpus_min=gpus,
            first=int(START) // 900,
            latest=int(START) // 900,
            slots=slots,
        )
        return self.capacity.book(wanted, who="admin")

    def say(self, *replicas: ReplicaReport) -> tuple[Order, ...]:
        return self.workloads.exchange("here", SiteReport(offers=OFFERS, replicas=replicas)).orders.orders


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


def spec(**more: object) -> Spec:
    values: dict[str, object] = {"engine": "llama.cpp", "model": "m", "name": "mine", "replicas": 2} | more
    return Spec(**values)  # type: ignore[arg-type]


def ready(order: Order) -> ReplicaReport:
    return ReplicaReport(replica=order.replica, state="ready", url="https://here:9500/v1")


def test_what_does_not_fit_is_taken_or_is_not_offered_is_refused(house: House) -> None:
    held = house.book(gpus=2)
    with pytest.raises(WorkloadRefused):
        house.workloads.define(held.id, spec(replicas=3), who="admin")
    with pytest.raises(WorkloadRefused):
        house.workloads.define(held.id, spec(name="taken"), who="admin")
    with pytest.raises(EngineUnknown):
        house.workloads.define(held.id, spec(model="another"), who="admin")
    house.workloads.define(held.id, spec(replicas=1), who="admin")
    with pytest.raises(WorkloadRefused):  # the first one has a GPU of the two
        house.workloads.define(held.id, spec(replicas=2), who="admin")
    with pytest.raises(WorkloadUnknown):
        house.workloads.get("wl-none")
    house.life.cancel(held.id, version=None, who="admin")
    with pytest.raises(Finished):
        house.workloads.define(held.id, spec(replicas=1), who="admin")


def test_a_workload_serves_its_owner_until_the_window_ends_and_claims_the_reservation(house: House) -> None:
    held = house.book()
    made = house.workloads.define(held.id, spec(), who="admin")
    orders = house.say()
    assert [each.run for each in orders] == [True, True]
    assert orders == house.say(), "the same order may come any number of times"
    assert house.capacity.get(held.id).body.claimed
    assert house.workloads.exchange("here", SiteReport(offers=OFFERS, replicas=tuple(map(ready, orders)))).renew
    served = house.workloads.opened()
    assert {(each.tenant, each.name, each.until) for each in served} == {("hospital", "mine", START + 3600)}
    assert house.workloads.get(made.id).body.state == "serving"
    house.clock.at = START + 3600.0
    assert house.workloads.opened() == []
    assert [each.run for each in house.say(*map(ready, orders))] == [False, False]
    assert house.workloads.get(made.id).body.state == "draining"
    assert house.say(*(ReplicaReport(replica=each.replica, state="gone") for each in orders)) == ()
    assert house.workloads.get(made.id).body.state == "ended"
    assert [each.body.state for each in house.workloads.history(made.id)] == [
        "planned", "starting", "serving", "draining", "ended",
    ]  # fmt: skip
    with pytest.raises(Finished):
        house.workloads.set_wanted(made.id, True, who="admin")


def test_time_that_was_lost_is_paid_back_with_a_version_and_a_notice(house: House) -> None:
    held = house.book()
    house.workloads.define(held.id, spec(gpus_per_replica=2), who="admin")
    orders = house.say()
    for _ in range(45):  # nobody serves for 45 minutes, of which the first five are for loading
        house.clock.advance(60.0)
        house.say(*(ReplicaReport(replica=each.replica, state="waiting", last_exit="exit code 1") for each in orders))
    after = house.capacity.get(held.id)
    # 40 minutes of four GPUs at 400 yen an hour, in whole quarters of an hour of a GPU: ten of them.
    assert after.body.refund_yen == 10 * 100
    assert after.body.price_yen == held.body.price_yen
    whys = [each.why for each in house.capacity.history(held.id)]
    assert any("was down for" in why for why in whys)


def test_its_owner_stops_and_starts_it(house: House) -> None:
    held = house.book()
    made = house.workloads.define(held.id, spec(), who="admin")
    orders = house.say()
    house.say(*map(ready, orders))
    house.workloads.set_wanted(made.id, False, who="admin")
    assert [each.run for each in house.say(*map(ready, orders))] == [False, False]
    house.say(*(ReplicaReport(replica=each.replica, state="gone") for each in orders))
    assert house.workloads.get(made.id).body.state == "stopped"
    house.workloads.set_wanted(made.id, True, who="admin")
    assert [each.run for each in house.say()] == [True, True]


def test_a_reservation_that_is_passed_on_or_cancelled_ends_what_runs(house: House) -> None:
    held = house.book(gpus=2)
    other = house.book(gpus=2)
    for each in (held, other):
        house.workloads.define(each.id, spec(), who="admin")
    orders = house.say()
    assert len(orders) == 4
    house.say(*map(ready, orders))
    house.life.transfer(held.id, tenant="other", version=None, who="admin")
    house.life.cancel(other.id, version=None, who="admin")
    assert [each.run for each in house.say(*map(ready, orders))] == [False] * 4
    assert house.workloads.opened() == []
