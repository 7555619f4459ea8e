"""Shares on the wire: two real workers, one endpoint with few slots, an owner and those who ask for too much."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from sekisho.kernel.classes import DataClass
from sekisho.residency.table import RouteTable, ShareEntry
from support.background import until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import Turn, Upstream, message, whole
from support.wire import chat, request

SLOTS = 4
OWNED = 2


async def slow(turn: Turn) -> None:
    await turn.pause(0.05)
    await turn.send(whole(message()))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream(slow).start()
    yield made
    made.stop()


def table(upstream: Upstream, *, version: int = 1, until: float = 4e9, keep_warm_s: float = 2.0) -> RouteTable:
    source = federation(
        (Place("narrow", upstream.url, slots=SLOTS),), (Who("owner"), *(Who(f"greedy-{n}") for n in range(4)))
    )
    share = ShareEntry(
        id="tp-1",
        tenant=0,
        data_class="public",
        model="m",
        places=((0, OWNED),),
        until=until,
        keep_warm_s=keep_warm_s,
    )
    return msgspec.structs.replace(compiled(source, version=version), shares=(share,))


def ask(gateway: Checkpoint, tenant: str, count: int) -> list[int]:
    """One after the other, on a connection of its own."""
    found = []
    with gateway.wire() as wire:
        for _ in range(count):
            wire.send(request(chat("m"), key=f"sk-{tenant}"))
            found.append(wire.answer().status)
    return found


def test_an_owner_is_never_refused_while_others_ask_for_ten_times_what_there_is(
    upstream: Upstream, tmp_path: Path
) -> None:
    settings = msgspec.structs.replace(QUIET, queue_max=10, queue_timeout_s=0.3)
    with (
        Checkpoint(tmp_path, table(upstream), workers=2, settings=settings) as gateway,
        ThreadPoolExecutor(50) as clients,
    ):
        greedy = [clients.submit(ask, gateway, f"greedy-{n % 4}", 12) for n in range(SLOTS * 10)]
        owners = [clients.submit(ask, gateway, "owner", 10) for _ in range(OWNED)]
        served = Counter(status for each in owners for status in each.result())
        others = Counter(status for each in greedy for status in each.result())
        assert served == {200: 10 * OWNED}
        assert others[429] > 0, "the overload was none"
        assert others[200] > 0, "nothing was lent"


def test_a_share_ends_by_itself_without_control(upstream: Upstream, tmp_path: Path) -> None:
    until = time.time() + 1.0
    settings = msgspec.structs.replace(QUIET, queue_max=2, queue_timeout_s=0.05)
    with (
        Checkpoint(tmp_path, table(upstream, until=until), settings=settings) as gateway,
        ThreadPoolExecutor(60) as clients,
    ):
        time.sleep(max(until - time.time(), 0.0) + 0.1)
        greedy = [clients.submit(ask, gateway, f"greedy-{n % 4}", 20) for n in range(SLOTS * 10)]

        def refused() -> bool:
            """No more than the share held, for as long as the others ask: they are all there sooner or later."""
            while not all(each.done() for each in greedy):
                if 429 in ask(gateway, "owner", 5):
                    return True
            return False

        owners = [clients.submit(refused) for _ in range(OWNED)]
        assert any(each.result() for each in owners), "the owner has more than others though its share has ended"
        for each in greedy:
            each.result()


def test_who_owns_nothing_uses_all_of_it_while_the_owner_is_away(upstream: Upstream, tmp_path: Path) -> None:
    most = [0, 0]

    async def counted(turn: Turn) -> None:
        most[0] += 1
        most[1] = max(most)
        await turn.pause(0.1)
        most[0] -= 1
        await turn.send(whole(message()))

    upstream.script = counted
    with Checkpoint(tmp_path, table(upstream), workers=2) as gateway, ThreadPoolExecutor(30) as clients:
        for each in [clients.submit(ask, gateway, "greedy-0", 3) for _ in range(20)]:
            assert set(each.result()) == {200}
    assert most[1] == SLOTS


def test_what_an_owner_asks_beyond_its_share_goes_to_other_endpoints_of_its_own_set_only(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Spill-over: the share is full, so more goes where its route allows, and nowhere else however idle that is."""
    beside, abroad = Upstream(slow).start(), Upstream(slow).start()
    source = federation(
        (
            Place("narrow", upstream.url, slots=OWNED),
            Place("beside", beside.url, slots=SLOTS),
            Place("abroad", abroad.url, country="US", law="US"),
        ),
        (Who("owner", floor=DataClass.CONFIDENTIAL),),
    )
    share = ShareEntry(
        id="tp-1", tenant=0, data_class="confidential", model="m", places=((0, OWNED),), until=4e9, keep_warm_s=2.0
    )
    both = msgspec.structs.replace(compiled(source), shares=(share,))
    with Checkpoint(tmp_path, both, workers=2) as gateway, ThreadPoolExecutor(20) as clients:
        asked = [clients.submit(ask, gateway, "owner", 10) for _ in range((OWNED + SLOTS) * 2)]
        assert {status for each in asked for status in each.result()} == {200}
    assert upstream.received, "the share was not used"
    assert beside.received, "nothing spilled over"
    assert not abroad.received, "confidential work left the set that its owner may use"
    for each in (beside, abroad):
        each.stop()


def test_of_owners_who_wait_the_higher_class_is_served_first(upstream: Upstream, tmp_path: Path) -> None:
    held = {b"borrower-0", b"borrower-1"}

    async def until_released(turn: Turn) -> None:
        while any(each in turn.request.body for each in held):
            await turn.pause(0.01)
        await turn.send(whole(message()))

    upstream.script = until_released
    source = federation(
        (Place("narrow", upstream.url, slots=2),),
        (Who("low"), Who("high", floor=DataClass.CONFIDENTIAL), Who("borrower")),
    )
    shares = tuple(
        ShareEntry(id=f"tp-{n}", tenant=n, data_class=name, model="m", places=((0, 1),), until=4e9, keep_warm_s=0.0)
        for n, name in enumerate(("public", "confidential"))
    )
    with (
        Checkpoint(tmp_path, msgspec.structs.replace(compiled(source), shares=shares)) as gateway,
        contextlib.ExitStack() as wires,
    ):
        borrowers = [wires.enter_context(gateway.wire()) for _ in range(2)]
        for number, wire in enumerate(borrowers):
            wire.send(request(chat("m", user=f"borrower-{number}"), key="sk-borrower"))
        until(lambda: len(upstream.received) == 2)
        owners = []
        for who in ("low", "low", "high"):  # the last to come is the first to be served
            owners.append(wires.enter_context(gateway.wire()))
            owners[-1].send(request(chat("m", user=who), key=f"sk-{who}"))
            time.sleep(0.1)
        assert len(upstream.received) == 2, "an owner started though every slot was in use"
        held.remove(b"borrower-0")
        until(lambda: len(upstream.received) == 5)
        held.clear()
        for wire in (*borrowers, *owners):
            assert wire.answer().status == 200
    assert b'"high"' in upstream.received[2].body
