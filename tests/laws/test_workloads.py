"""Whatever crashes, is lost or jumps: never two sets of replicas, never alive after the end and its grace, and when
the noise stops, what should run runs.

Control and site are our own rules (`workloads.decide.plan`, `engines.runner.Runner`); the engine is a fake that keeps
what processes are to the real adapter: alive on its own, dead at the end of its lease, whatever happens to the rest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.capacity.grid import SLOT_S
from sekisho.capacity.model import Body as ReservationBody
from sekisho.capacity.model import Part, Pool, Rank, Reservation
from sekisho.capacity.workloads import decide
from sekisho.capacity.workloads.model import Body, Order, SiteOrders, Spec, Workload
from sekisho.engines.adapter import EngineFault, Status
from sekisho.engines.runner import Replica, Runner

FIRST = 1_000_000
START = FIRST * SLOT_S
GRACE_S = 60
POOL = Pool(number=1, id="here.H100", site="here", gpu="H100", gpus=4, tenant_limit=4, yen_per_gpu_hour=400)


class FakeEngine:
    """A fake: replicas are rows. `truth` is the time that really passes; the site's clock may say something else."""

    models = ("m",)

    def __init__(self) -> None:
        self.truth = 0.0
        self.alive: dict[str, tuple[float, float]] = {}  # replica → (started at, lease ends at), true time
        self.starts: list[str] = []
        self.fails = 0
        self.clock = 0.0

    def pass_time(self) -> None:
        self.alive = {name: life for name, life in self.alive.items() if self.truth < life[1]}

    def found(self) -> frozenset[str]:
        return frozenset(self.alive)

    def start(self, order: Order) -> None:
        if self.fails:
            self.fails -= 1
            raise EngineFault("it does not start")
        assert order.replica not in self.alive, "a double start"
        self.starts.append(order.replica)
        self.alive[order.replica] = (self.truth, self._lease(order))

    def status(self, replica: str) -> Status:
        if replica not in self.alive:
            return Status(alive=False)
        ready = self.truth - self.alive[replica][0] >= 3.0
        return Status(alive=True, ready=ready, port=1, busy=0 if ready else None)

    def renew(self, order: Order) -> None:
        self.alive[order.replica] = (self.alive[order.replica][0], self._lease(order))

    def stop(self, replica: str) -> None:
        self.alive.pop(replica, None)

    def forget(self, replica: str) -> None:
        assert replica not in self.alive

    def close(self) -> None: ...

    def _lease(self, order: Order) -> float:
        return self.truth + max(order.ends_at - self.clock, 0.0)


def reservation(name: str, first: int, slots: int, gpus: int) -> Reservation:
    body = ReservationBody(
        tenant="t",
        data_class="internal",
        priority="standard",
        state="booked",
        first=first,
        until=first + slots,
        parts=(Part(pool=1, gpus=gpus),),
        rank=int(Rank.FIRM),
        price_yen=10_000,
    )
    return Reservation(id=name, version=1, body=body)


class World:
    """Two windows, one after the other, that both need the whole pool."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engine = FakeEngine()
        self.now = START - 30.0
        self.skew = 0.0
        self.reservations = {"a": reservation("a", FIRST, 1, 4), "b": reservation("b", FIRST + 1, 1, 4)}
        spec = Spec(engine="e", model="m", name="mine", replicas=2, gpus_per_replica=2, grace_s=GRACE_S)
        self.workloads = [
            Workload(id=f"wl-{number:016x}", version=1, body=Body(reservation=name, tenant="t", spec=spec))
            for number, name in enumerate(self.reservations)
        ]
        self.heard_at: dict[str, float] = {}
        self.runner = Runner(root, {"e": self.engine})

    def advance(self, seconds: float) -> None:
        """True time passes, second by second, with nobody doing anything."""
        self.now += seconds
        self.engine.truth += seconds
        self.engine.pass_time()
        self.check()

    def site(self) -> None:
        self.engine.clock = self.now + self.skew
        self.runner.step(now=self.now + self.skew)
        self.check()

    def exchange(self, *, answer_lost: bool = False) -> None:
        report = self.runner.report(_url)
        said = {each.replica: each for each in report.replicas}
        self.heard_at["here"] = self.now
        self.workloads = [
            msgspec.structs.replace(each, body=decide.heard(each.body, "here", said)) for each in self.workloads
        ]
        self.look()
        if not answer_lost:
            told = SiteOrders(orders=decide.orders(self.workloads, "here"))
            self.runner.obey(told, now=self.now + self.skew)

    def look(self) -> None:
        steps = decide.plan(self.workloads, self.reservations, {1: POOL}, heard_at=self.heard_at, now=self.now)
        self.workloads = [Workload(id=step.held.id, version=step.held.version + 1, body=step.body) for step in steps]

    def restart_site(self, *, with_disk: bool) -> None:
        if not with_disk:
            (self.root / "replicas.json").unlink(missing_ok=True)
        self.runner = Runner(self.root, {"e": self.engine})

    def check(self) -> None:
        assert 2 * len(self.engine.alive) <= POOL.gpus, "more runs than there are GPUs"
        assert all(name.startswith("wl-") for name in self.engine.alive)
        for name in self.engine.alive:
            owner = next(each for each in self.workloads if name.startswith(each.id))
            end = self.reservations[owner.body.reservation].body.until * SLOT_S + GRACE_S
            assert self.now < end + abs(self.skew) + 1.0, f"{name} outlives its window"

    def quiet(self, seconds: int) -> None:
        """The noise stops: everybody does his part each second."""
        self.skew = 0.0
        self.engine.fails = 0
        for _ in range(seconds):
            self.advance(1.0)
            self.site()
            self.exchange()


def _url(replica: Replica) -> str:
    return f"http://127.0.0.1:{replica.port}/v1"


NOISE = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(1, 400)),
        st.tuples(
            st.sampled_from(("site", "exchange", "lost", "look", "restart", "wiped", "crash", "fail")), st.just(0)
        ),
        st.tuples(st.just("skew"), st.integers(-20, 20)),
        st.tuples(st.just("stop"), st.integers(0, 1)),
        st.tuples(st.just("start"), st.integers(0, 1)),
        st.tuples(st.just("cancel"), st.integers(0, 1)),
    ),
    max_size=40,
)


def disturb(world: World, what: str, number: int) -> None:
    match what:
        case "advance":
            world.advance(float(number))
        case "site":
            world.site()
        case "exchange" | "lost":
            world.exchange(answer_lost=what == "lost")
        case "look":
            world.look()
        case "restart" | "wiped":
            world.restart_site(with_disk=what == "restart")
        case "crash":
            if world.engine.alive:
                world.engine.alive.pop(min(world.engine.alive))
        case "fail":
            world.engine.fails += 1
        case "skew":
            world.skew = float(number)
        case "stop" | "start":
            held = world.workloads[number]
            body = msgspec.structs.replace(held.body, wanted=what == "start")
            world.workloads[number] = msgspec.structs.replace(held, body=body)
        case "cancel":
            name = ("a", "b")[number]
            held_body = world.reservations[name].body
            cancelled = msgspec.structs.replace(held_body, state="cancelled")
            world.reservations[name] = msgspec.structs.replace(world.reservations[name], body=cancelled)


@settings(max_examples=100)
@given(NOISE)
def test_any_order_of_crashes_and_clocks_keeps_the_laws_and_converges(noise: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for what, number in noise:
            disturb(world, what, number)
        # Long enough for the longest pause, a lease with its margin, and a start.
        world.quiet(200)
        for workload in world.workloads:
            held_now = world.reservations[workload.body.reservation].body
            inside = held_now.first * SLOT_S + 200 <= world.now < held_now.until * SLOT_S
            alive = [name for name in world.engine.alive if name.startswith(workload.id)]
            if inside and held_now.state == "booked" and workload.body.wanted:
                assert len(alive) == 2, (workload.body, world.now - START)
                assert workload.body.state == "serving"
            elif world.now >= held_now.until * SLOT_S + 200 or held_now.state != "booked":
                assert not alive
                assert workload.body.state == "ended"
        until_end = world.reservations["b"].body.until * SLOT_S + GRACE_S + 60 - world.now
        if until_end > 0:
            world.advance(max(until_end - 100.0, 0.0))
            world.quiet(200)
        assert not world.engine.alive
        assert [each.body.state for each in world.workloads] == ["ended", "ended"]


def test_time_that_was_lost_is_counted_once_and_never_more_than_the_window() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.quiet(60)
        assert world.workloads[0].body.state == "serving"
        world.engine.fails = 1_000_000
        world.engine.alive.clear()
        for _ in range(840):
            world.advance(1.0)
            world.site()
            world.exchange()
        held = world.workloads[0].body
        # The first five minutes of a window are for loading; two replicas of two GPUs each were down for the rest.
        lost_s = SLOT_S - decide.START_S
        assert 0.95 * lost_s * 4 <= held.down_gpu_s <= lost_s * 4
        assert held.refunded == int(held.down_gpu_s // SLOT_S)
        assert decide.refund_yen(world.reservations["a"], held.refunded) == 10_000 * held.refunded // 4
        world.now -= 3600.0  # the clock is set back an hour, and forward again
        world.look()
        world.now += 3600.0
        world.look()
        assert world.workloads[0].body.down_gpu_s <= SLOT_S * 4
