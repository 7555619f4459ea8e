"""Waiting fairly: the queue alone, with waiters that only know their deadline."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from sekisho.gateway.live import Route
from sekisho.gateway.queue import FairQueue
from sekisho.gateway.shares import Share
from sekisho.gateway.upstream import Endpoint
from sekisho.kernel.classes import DataClass
from support.routes import endpoints, over


@dataclass(eq=False)
class Waits:
    tenant: str = ""
    waiting: bool = False
    queue_deadline: float = 10.0
    share: Share | None = None


def push(
    queue: FairQueue, way: Route, tenant: str, data_class: DataClass = DataClass.PUBLIC, cost: float = 100
) -> Waits:
    waiter = Waits(tenant)
    assert queue.push(waiter, way, tenant=tenant, data_class=data_class, cost=cost)
    return waiter


def pop(queue: FairQueue, place: Endpoint) -> Waits | None:
    return queue.pop_for(place, 0.0)  # type: ignore[return-value]


def test_a_tenant_that_floods_the_queue_does_not_hold_up_another() -> None:
    with endpoints((1,)) as (place,):
        queue = FairQueue(1000)
        way = over(place)
        for _ in range(200):
            push(queue, way, "loud")
        quiet = [push(queue, way, "quiet") for _ in range(5)]
        first = [pop(queue, place) for _ in range(12)]
        assert set(quiet) <= set(first)


def test_nobody_starves_whatever_the_class() -> None:
    with endpoints((1,)) as (place,):
        queue = FairQueue(1000)
        way = over(place)
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
    with endpoints((1, 1)) as places:
        queue = FairQueue(limit)
        ways = (over(*places), over(*places[1:]))
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
    with endpoints((1,)) as (place,):
        queue = FairQueue(1000)
        way = over(place)
        for round_ in range(50):
            for _ in range(100):
                push(queue, way, "t").queue_deadline = round_
            assert len(queue.expired(round_)) == 100
        assert len(way.waiting) <= 1000
