"""What a hostile tenant, endpoint or stranger tried in a review, each closed for good."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from sekisho.federation.model import SecretRef
from sekisho.gateway.body import BodyRefused, read_body
from sekisho.gateway.limits import Board, Bucket
from sekisho.kernel.classes import DataClass
from support.background import until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import Turn, Upstream, answers, message, says, whole
from support.wire import Wire, chat, request


def test_a_body_of_countless_keys_is_refused_before_it_is_looked_into() -> None:
    members = ",".join(f'"k{n}":1' for n in range(20_000))
    with pytest.raises(BodyRefused) as refused:
        read_body(f'{{"model":"m",{members},"k0":1}}'.encode(), prefix_bytes=16)
    assert refused.value.code == "request.too_many_keys"


@pytest.mark.parametrize("count", [-1, 10**25, 10**400])
def test_a_number_of_tokens_that_no_answer_can_have_is_not_believed(count: int, tmp_path: Path) -> None:
    body = json.loads(message())
    body["usage"] = {"prompt_tokens": count, "completion_tokens": 3}
    upstream = Upstream(says(whole(json.dumps(body).encode()))).start()
    source = federation([Place("a", upstream.url)], [Who("dev")])
    with Checkpoint(tmp_path, compiled(source)) as gateway, Wire(gateway.port) as wire:
        assert wire.ask(request(chat(), key="sk-dev")).status == 200
        upstream.script = answers()
        assert wire.ask(request(chat(), key="sk-dev")).status == 200
        first, second = gateway.decisions()
        assert (first.tokens_in, first.partial) == (0, True)
        assert (second.tokens_in, second.partial) == (7, False)
        assert gateway.snapshot().counters['sekisho_tokens_total{tenant="dev",site="site-a",type="input"}'] == 7
    upstream.stop()


def test_a_table_that_this_machine_can_not_use_in_full_does_not_stop_the_feed(tmp_path: Path) -> None:
    """Law 5: revocations arrive, whatever came before them."""
    upstream = Upstream(answers()).start()
    source = federation([Place("a", upstream.url)], [Who("dev")])
    (tmp_path / "secret").write_bytes(b"\xff\xfe\x00 not text")
    (endpoint,) = source.endpoints
    broken = msgspec.structs.replace(
        source,
        endpoints=(
            msgspec.structs.replace(endpoint, id="b", api_key=SecretRef(file=str(tmp_path / "secret"))),
            endpoint,
        ),
    )
    with Checkpoint(tmp_path / "g", compiled(source), control=True) as gateway, Wire(gateway.port) as wire:
        assert wire.ask(request(chat(), key="sk-dev")).status == 200
        gateway.publish(compiled(broken, version=2))
        gateway.publish(compiled(msgspec.structs.replace(source, keys=()), version=3))
        assert wire.ask(request(chat(), key="sk-dev")).status == 401
    upstream.stop()


def test_a_board_from_before_a_restart_of_the_machine_locks_nobody_out(tmp_path: Path) -> None:
    """The monotonic clock starts again at zero; what was written with the old one must not count as the future."""
    board = Board(tmp_path / "limits", worker=0, workers=1)
    assert Bucket(board, "t/one", 600).take(600, 864_000.0) == 0.0
    after = Bucket(board, "t/one", 600)
    after.take(1, 30.0)
    assert after.take(10, 40.0) == 0.0
    board.close()


def test_bodies_that_never_end_hold_only_their_tenants_share(tmp_path: Path) -> None:
    upstream = Upstream(answers()).start()
    settings = msgspec.structs.replace(QUIET, max_body_bytes=1 << 20, max_buffered_bytes=4 << 20)
    source = federation([Place("a", upstream.url)], [Who("evil"), Who("hospital", DataClass.CONFIDENTIAL)])
    with Checkpoint(tmp_path, compiled(source), settings=settings) as gateway:
        hoarders = [Wire(gateway.port) for _ in range(8)]
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer sk-evil\r\n"
        for wire in hoarders:
            wire.send(head + b"content-length: 1000000\r\n\r\n" + b"x" * 900_000)
        time.sleep(0.3)
        with Wire(gateway.port) as wire:
            data = request(chat(padding="y" * 4000), key="sk-hospital")
            wire.send(data[:-2000], data[-2000:], pause_s=0.1)
            assert wire.answer().status == 200
        codes = {decision.code for decision in gateway.decisions() if decision.tenant == "evil"}
        assert codes == {"gateway.memory"}
        for each in hoarders:
            each.close()
        until(lambda: gateway.snapshot().connections == 0, what="the hoarders' end")
    upstream.stop()


@pytest.mark.parametrize("known", [False, True], ids=["a new head", "a head that was seen before"])
def test_a_key_that_expires_while_its_body_is_on_the_way_is_refused(tmp_path: Path, known: bool) -> None:
    upstream = Upstream(answers()).start()
    source = federation([Place("a", upstream.url)], [Who("dev")])
    (key,) = source.keys
    short = msgspec.structs.replace(source, keys=(msgspec.structs.replace(key, expires_at=time.time() + 2),))
    with Checkpoint(tmp_path, compiled(short)) as gateway, Wire(gateway.port) as wire:
        data = request(chat(), key="sk-dev")
        for _ in range(2 if known else 0):
            wire.send(data)
            assert wire.answer().status == 200
        served = len(upstream.received)
        wire.send(data[:-5])
        until(lambda: time.time() > (short.keys[0].expires_at or 0), what="the key's end")
        wire.send(data[-5:])
        assert (wire.answer().status, len(upstream.received)) == (401, served)
    upstream.stop()


def test_a_hedge_is_not_sent_by_a_table_that_is_no_longer_in_force(tmp_path: Path) -> None:
    async def slow(turn: Turn) -> None:
        await turn.pause(2.0)
        await turn.send(whole(message()))

    first, second = Upstream(slow).start(), Upstream(slow).start()
    places = [Place("a", first.url), Place("b", second.url)]
    who = [Who("hospital", DataClass.CONFIDENTIAL)]
    settings = msgspec.structs.replace(QUIET, hedge_after_s=1.0)
    with (
        Checkpoint(tmp_path, compiled(federation(places, who)), settings=settings, control=True) as gateway,
        Wire(gateway.port) as wire,
    ):
        wire.send(request(chat(), key="sk-hospital"))
        until(lambda: first.received or second.received, what="the first attempt")
        chosen, other = ("a", second) if first.received else ("b", first)
        moved = [place if place.id == chosen else Place(place.id, place.url, country="US") for place in places]
        gateway.publish(compiled(federation(moved, who), version=2))
        assert wire.answer().status == 200
        assert other.received == []
    first.stop()
    second.stop()
