"""Waiting fairly: the queue alone, with waiters that only know their deadline."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from sekisho.gateway.queue import FairQueue
from sekisho.kernel.classes import DataClass


@dataclass(eq=False)
class Waits:
    tenant: str = ""
    waiting: bool = False
    queue_deadline: float = 10.0


@dataclass(eq=False)
class Place:
    """FAKE: an endpoint, as far as the queue looks at it."""

    hungry: dict[object, None] = field(default_factory=dict)


@dataclass(eq=False)
class Way:
    """FAKE: a route, as far as the queue looks at it."""

    endpoints: tuple[Place, ...]
    waiting: list[tuple[float, int, Waits]] = field(default_factory=list)


def push(
    queue: FairQueue, way: Way, tenant: str, data_class: DataClass = DataClass.PUBLIC, cost: float = 100
) -> Waits:
    waiter = Waits(tenant)
    assert queue.push(waiter, way, tenant=tenant, data_class=data_class, cost=cost)  # type: ignore[arg-type]
    return waiter


def pop(queue: FairQueue, place: Place) -> Waits | None:
    return queue.pop_for(place, 0.0)  # type: ignore[arg-type,return-value]


def test_a_tenant_that_floods_the_queue_does_not_hold_up_another() -> None:
    queue, place = FairQueue(1000), Place()
    way = Way((place,))
    for _ in range(200):
        push(queue, way, "loud")
    quiet = [push(queue, way, "quiet") for _ in range(5)]
    first = [pop(queue, place) for _ in range(12)]
    assert set(quiet) <= set(first)


def test_nobody_starves_whatever_the_class() -> None:
    queue, place = FairQueue(1000), Place()
    way = Way((place,))
    low = push(queue, way, "low")
    low_next = push(queue, way, "low")
    for index in range(100):
        push(queue, way, f"high-{index % 3}", DataClass.RESTRICTED)
    order = [pop(queue, place) for _ in range(102)]
    assert order.index(low) < 10
    assert order.index(low_next) < 100


@given(
    st.lists(st.sampled_from(["push", "push", "pop", "leave", "expire", "drain"]), max_size=80), st.integers(1, 10)
)
def test_everybody_who_waits_is_served_once_or_leaves_once(steps: list[str], limit: int) -> None:
    queue, places = FairQueue(limit), (Place(), Place())
    ways = (Way(places), Way(places[1:]))
    inside: list[Waits] = []
    for index, step in enumerate(steps):
        match step:
            case "push":
                waiter = Waits(f"t{index % 3}", queue_deadline=float(index))
                way = ways[index % 2]
                took = queue.push(waiter, way, tenant=waiter.tenant, data_class=DataClass(index % 4), cost=index)  # type: ignore[arg-type]
                assert took is (len(inside) < limit)
                inside += [waiter] if took else []
            case "pop":
                found = pop(queue, places[1])
                assert (found is None) is (not inside)
                if found is not None:
                    inside.remove(found)
            case "leave" if inside:
                queue.leave(inside.pop(index % len(inside)))
            case "expire":
                for late in queue.expired(index / 2):
                    assert late.queue_deadline <= index / 2
                    inside.remove(late)  # type: ignore[arg-type]
            case "drain":
                assert set(queue.drain()) == set(inside)
                inside.clear()
            case _:
                pass
        assert queue.count == len(inside)
        assert all(waiter.waiting for waiter in inside)


def test_those_whose_deadline_passed_are_not_kept() -> None:
    """An endpoint that is stuck for an hour must not gather everybody who ever waited for it."""
    queue, place = FairQueue(1000), Place()
    way = Way((place,))
    for round_ in range(50):
        for _ in range(100):
            push(queue, way, "t").queue_deadline = round_
        assert len(queue.expired(round_)) == 100
    assert len(way.waiting) <= 1000
