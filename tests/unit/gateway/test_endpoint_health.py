"""Endpoints that fall ill: ejected, tried again, brought back; and retries that never become a storm."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from sekisho.gateway.settings import GatewaySettings
from sekisho.kernel.classes import DataClass
from support.background import until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import Upstream, answers
from support.wire import chat, request

OK = request(chat(), key="sk-hospital")
SETTINGS = msgspec.structs.replace(QUIET, eject_after_failures=2, eject_base_s=0.5, eject_max_s=1.0)


def ejected(gateway: Checkpoint) -> set[str]:
    return {each.id for each in gateway.snapshot().endpoints if each.ejected_for_s}


def three() -> tuple[Upstream, Upstream, Upstream]:
    return Upstream(answers()).start(), Upstream(answers()).start(), Upstream(answers()).start()


def start(
    folder: Path, a: Upstream, b: Upstream, abroad: Upstream, settings: GatewaySettings = SETTINGS
) -> Checkpoint:
    places = (Place("a", a.url), Place("b", b.url), Place("us", abroad.url, country="US"))
    source = federation(places, (Who("hospital", DataClass.CONFIDENTIAL),))
    return Checkpoint(folder, compiled(source), settings=settings)


def test_an_endpoint_that_is_gone_is_left_out_and_comes_back_when_it_does(tmp_path: Path) -> None:
    a, b, abroad = three()
    with start(tmp_path, a, b, abroad) as gateway:
        port = a.port
        a.stop()
        ends = time.monotonic() + 20
        while "a" not in ejected(gateway):
            assert time.monotonic() < ends
            assert gateway.ask(OK).status == 200, "the other one takes over"
        before = len(gateway.decisions())
        for _ in range(10):
            assert gateway.ask(OK).status == 200
        assert all(decision.endpoint == "b" for decision in gateway.decisions()[before:])
        a.start(port)
        until(lambda: "a" not in ejected(gateway), what="its return")
        b.stop()
        assert gateway.ask(OK).status == 200
        assert gateway.decisions()[-1].endpoint == "a"
    assert abroad.received == []
    for each in (a, abroad):
        each.stop()


def test_when_all_are_out_the_refusal_is_quick_and_they_are_tried_again(tmp_path: Path) -> None:
    a, b, abroad = three()
    a.script = b.script = answers(b"{}", status="500 Oops")
    with start(tmp_path, a, b, abroad) as gateway:
        for _ in range(8):
            answer = gateway.ask(OK)
            assert answer.status in (502, 503)
        until(lambda: gateway.ask(OK).status == 503, what="no panic mode: nobody is left, nobody is asked")
        assert abroad.received == []
        a.script = b.script = answers()
        until(lambda: gateway.ask(OK).status == 200, what="recovery")
    for each in (a, b, abroad):
        each.stop()


def test_retries_stay_within_their_budget(tmp_path: Path) -> None:
    a, b, abroad = three()
    a.script = b.script = answers(b"{}", status="500 Oops")
    settings = msgspec.structs.replace(QUIET, retry_budget=0.2, retry_budget_floor_per_s=0.0)
    with start(tmp_path, a, b, abroad, settings) as gateway, gateway.wire() as wire:
        count = 200
        for _ in range(count):
            assert wire.ask(OK).status == 502
        sent = len(a.received) + len(b.received)
    assert count <= sent <= count * 1.3 + 12
    assert abroad.received == []
    for each in (a, b, abroad):
        each.stop()
