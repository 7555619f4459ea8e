"""Hedging: a second endpoint of the same set is asked when the first is slow; whoever answers first serves."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sekisho.kernel.classes import DataClass
from support.background import until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import Turn, Upstream, answers, message, whole
from support.wire import Wire, chat, request

HEDGED = msgspec.structs.replace(QUIET, hedge_after_s=0.1)


async def _slow(turn: Turn) -> None:
    await turn.pause(1.5)
    await turn.send(whole(message("late")))


def _three(tmp_path: Path, first: Upstream, second: Upstream, abroad: Upstream) -> Checkpoint:
    source = federation(
        [Place("a", first.url), Place("b", second.url), Place("us", abroad.url, country="US", law="US")],
        [Who("hospital", DataClass.CONFIDENTIAL)],
    )
    return Checkpoint(tmp_path, compiled(source), settings=HEDGED)


def test_the_faster_of_two_serves_the_slower_is_cancelled_and_both_are_on_record(tmp_path: Path) -> None:
    first, second, abroad = Upstream(_slow).start(), Upstream(_slow).start(), Upstream(answers()).start()
    with _three(tmp_path, first, second, abroad) as gateway, Wire(gateway.port) as wire:
        second.script = answers()
        for _ in range(6):  # whichever is chosen first
            answer = wire.ask(request(chat(), key="sk-hospital"))
            assert answer.status == 200
            assert answer.headers["x-sekisho-site"] == "site-b"
        until(lambda: first.open == 0, what="the slow attempts' end")
        decisions = gateway.decisions()
        assert len(decisions) == 6
        assert {d.endpoint for d in decisions} == {"b"}
        hedged = [d for d in decisions if len(d.attempts) == 2]
        assert hedged, "the slow endpoint was never chosen first"
        assert all([(a.endpoint, a.result) for a in d.attempts] == [("a", "hedge.lost"), ("b", "ok")] for d in hedged)
        assert gateway.snapshot().in_flight == 0
        assert abroad.received == []
    for upstream in (first, second, abroad):
        upstream.stop()


def test_the_second_attempt_takes_over_when_the_first_breaks(tmp_path: Path) -> None:
    async def breaks(turn: Turn) -> None:
        await turn.pause(0.4)
        turn.reset()

    first, second, abroad = Upstream(breaks).start(), Upstream(_slow).start(), Upstream(answers()).start()
    with _three(tmp_path, first, second, abroad) as gateway, Wire(gateway.port) as wire:
        answer = wire.ask(request(chat(), key="sk-hospital"))
        assert answer.status == 200
        assert answer.headers["x-sekisho-site"] == "site-b"
        assert len(gateway.decisions()) == 1
        assert gateway.snapshot().in_flight == 0
        assert abroad.received == []
    for upstream in (first, second, abroad):
        upstream.stop()
