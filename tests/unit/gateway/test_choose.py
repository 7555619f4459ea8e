"""Which endpoint serves: inside the set, free, in order, and the same everywhere for a long prompt."""

from __future__ import annotations

import zlib
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.gateway.choose import all_out, choose
from sekisho.gateway.upstream import Endpoint
from support.routes import route


def begin(endpoint: Endpoint) -> None:
    endpoint.in_flight += 1


@settings(max_examples=60)
@given(
    slots=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    ejected=st.sets(st.integers(0, 4)),
    tried=st.sets(st.integers(0, 4)),
    prefix=st.none() | st.integers(0, 2**32 - 1),
    busy=st.integers(0, 12),
)
def test_the_choice_is_a_usable_one_with_a_free_slot_and_there_is_one_whenever_one_is_free(
    slots: list[int], ejected: set[int], tried: set[int], prefix: int | None, busy: int
) -> None:
    with route(slots) as way:
        for index, endpoint in enumerate(way.endpoints):
            endpoint.ejected = index in ejected
        failed = [endpoint for index, endpoint in enumerate(way.endpoints) if index in tried]
        usable = [endpoint for endpoint in way.endpoints if not endpoint.ejected and endpoint not in failed]
        assert all_out(way, failed) is (not usable)
        for _ in range(busy):
            free = [endpoint for endpoint in usable if endpoint.slots.in_use < endpoint.slots.limit]
            found = choose(way, prefix, failed, load_bound=1.25)
            assert (found is None) is (not free)
            if found is None:
                break
            assert found in free
            begin(found)
            assert found.slots.in_use <= found.slots.limit


def test_a_long_prompt_goes_to_the_same_endpoint_on_every_worker() -> None:
    prompts = [zlib.crc32(b"%d" % n) for n in range(300)]
    homes = []
    for _ in range(2):
        with route([1000] * 5) as way:
            home = []
            for prompt in prompts:
                found = choose(way, prompt, (), load_bound=1.25)
                assert found is not None
                found.slots.release()
                home.append(found.id)
            homes.append(home)
    assert homes[0] == homes[1]
    share = Counter(homes[0])
    assert len(share) == 5
    assert max(share.values()) < 3 * 300 / 5


def test_an_endpoint_more_moves_only_its_own_prompts() -> None:
    homes = []
    for count in (5, 6):
        with route([1000] * count) as way:
            homes.append([way.owners(zlib.crc32(b"%d" % n))[0].id for n in range(500)])
    moved = [after for before, after in zip(*homes, strict=True) if before != after]
    assert set(moved) == {"e5"}
    assert len(moved) < 500 / 3


def test_one_prompt_that_everybody_sends_does_not_drown_its_endpoint() -> None:
    """Bounded load: nobody has more than 1.25 of an even share, so far as slots allow."""
    with route([1000] * 4) as way:
        for _ in range(400):
            found = choose(way, 7, (), load_bound=1.25)
            assert found is not None
            begin(found)
        assert max(endpoint.in_flight for endpoint in way.endpoints) <= 400 * 1.25 / 4 + 2


def test_short_prompts_spread_by_what_was_measured() -> None:
    with route([1000] * 3) as way:
        for endpoint, seconds in zip(way.endpoints, (0.1, 0.1, 1.0), strict=True):
            endpoint.succeeded(seconds, endpoint.now())
        for _ in range(600):
            found = choose(way, None, (), load_bound=1.25)
            assert found is not None
            begin(found)
        load = [endpoint.in_flight for endpoint in way.endpoints]
        assert load[2] < min(load[:2])
