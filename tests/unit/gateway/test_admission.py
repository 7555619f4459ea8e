"""Limits over two workers, the queue on the wire, and a journal whose disk is full."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sekisho.federation.model import Limits
from sekisho.kernel.classes import DataClass
from support.background import until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import Turn, Upstream, answers, message, whole
from support.wire import Answer, Wire, chat, request

TENANTS = (
    Who("requests", limits=Limits(requests_per_minute=30)),
    Who("tokens", limits=Limits(tokens_per_minute=2000)),
    Who("slots", limits=Limits(concurrency=3)),
    Who("loud"),
    Who("quiet"),
)


class Busy:
    """Counts what is under way at once."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.now = self.most = 0

    async def __call__(self, turn: Turn) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await turn.pause(self.takes_s)
        self.now -= 1
        await turn.send(whole(message()))


@pytest.fixture(scope="module")
def upstreams() -> Iterator[tuple[Upstream, Upstream]]:
    pair = Upstream(answers()).start(), Upstream(answers()).start()
    yield pair
    for each in pair:
        each.stop()


@pytest.fixture(scope="module")
def gateway(upstreams: tuple[Upstream, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Two workers; `wide` has room, `narrow` has two slots."""
    source = federation(
        (
            Place("wide", upstreams[0].url, models=("wide",), slots=500),
            Place("narrow", upstreams[1].url, models=("narrow",), slots=2),
        ),
        TENANTS,
    )
    settings = msgspec.structs.replace(QUIET, queue_timeout_s=2.0, queue_max=40)
    with Checkpoint(tmp_path_factory.mktemp("admission"), compiled(source), workers=2, settings=settings) as made:
        yield made


def at_once(gateway: Checkpoint, count: int, data: bytes) -> list[Answer]:
    """Ask on as many connections: the kernel spreads them over both workers."""
    wires = [gateway.wire() for _ in range(count)]
    for wire in wires:
        wire.send(data)
    found = [wire.answer() for wire in wires]
    for wire in wires:
        wire.close()
    return found


def test_requests_a_minute_hold_over_both_workers(gateway: Checkpoint, upstreams: tuple[Upstream, Upstream]) -> None:
    upstreams[0].received.clear()
    started = time.monotonic()
    found = at_once(gateway, 80, request(chat("wide"), key="sk-requests"))
    statuses = Counter(answer.status for answer in found)
    most = 30 + int((time.monotonic() - started) * 0.5) + 1
    assert set(statuses) == {200, 429}
    assert 15 <= statuses[200] <= most
    assert len(upstreams[0].received) == statuses[200]
    for answer in found:
        if answer.status == 429:
            assert answer.code == "limit.requests"
            assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_tokens_a_minute_hold_over_both_workers(gateway: Checkpoint, upstreams: tuple[Upstream, Upstream]) -> None:
    upstreams[0].script = answers(message(usage=(20, 180)))
    found = at_once(gateway, 60, request(chat("wide", max_tokens=180), key="sk-tokens"))
    passed = [answer for answer in found if answer.status == 200]
    assert 1 <= len(passed) * 200 <= 2000 + 200
    assert {answer.code for answer in found if answer.status != 200} == {"limit.tokens"}
    alone = gateway.ask(request(chat("wide", max_tokens=5000), key="sk-tokens"))
    assert (alone.status, alone.code) == (400, "limit.tokens_too_many")


def test_concurrency_holds_over_both_workers_and_comes_back(
    gateway: Checkpoint, upstreams: tuple[Upstream, Upstream]
) -> None:
    upstreams[0].script = busy = Busy(0.3)
    for _ in range(2):
        found = at_once(gateway, 20, request(chat("wide"), key="sk-slots"))
        statuses = Counter(answer.status for answer in found)
        assert statuses[200] >= 1
        assert statuses[200] + statuses[429] == 20
        assert busy.most <= 3
        time.sleep(1.2)  # idle leases are given back within a second
    gateway.kill(1)
    gateway.restart(1)
    gateway.wait_until_ready()
    assert 200 in {answer.status for answer in at_once(gateway, 6, request(chat("wide"), key="sk-slots"))}
    assert busy.most <= 3


def test_slots_of_an_endpoint_hold_over_both_workers_and_the_rest_waits_its_turn(
    gateway: Checkpoint, upstreams: tuple[Upstream, Upstream]
) -> None:
    upstreams[1].script = busy = Busy(0.02)
    found = at_once(gateway, 30, request(chat("narrow"), key="sk-loud"))
    assert {answer.status for answer in found} == {200}
    assert busy.most <= 2
    assert any(gateway.decision(answer.decision).queue_us for answer in found)


def test_a_quiet_tenant_does_not_wait_behind_a_loud_one(
    gateway: Checkpoint, upstreams: tuple[Upstream, Upstream]
) -> None:
    upstreams[1].script = Busy(0.04)
    order: list[str] = []
    loud = [gateway.wire() for _ in range(40)]
    for wire in loud:
        wire.send(request(chat("narrow"), key="sk-loud"))
    until(lambda: sum(gateway.snapshot(n).queued for n in range(2)) >= 25)
    quiet = gateway.wire()
    quiet.send(request(chat("narrow"), key="sk-quiet"))

    def read(name: str, wire: Wire) -> None:
        wire.answer()
        order.append(name)

    threads = [threading.Thread(target=read, args=("loud", wire)) for wire in loud]
    threads.append(threading.Thread(target=read, args=("quiet", quiet)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for wire in (*loud, quiet):
        wire.close()
    assert order.index("quiet") < 35


def test_who_waits_too_long_or_behind_too_many_is_told_when_to_come_back(
    gateway: Checkpoint, upstreams: tuple[Upstream, Upstream]
) -> None:
    upstreams[1].script = Busy(3.0)
    found = at_once(gateway, 130, request(chat("narrow"), key="sk-loud"))
    by_code = Counter("ok" if answer.status == 200 else answer.code for answer in found)
    assert set(by_code) == {"ok", "limit.queue_full", "limit.queue_timeout"}
    assert by_code["limit.queue_timeout"] <= 80
    for answer in found:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
        if answer.status == 429 and answer.code == "limit.queue_timeout":
            assert gateway.decision(answer.decision).outcome == "refused"


def test_hedging_asks_a_second_endpoint_of_the_set_and_decides_once(tmp_path: Path) -> None:
    slow, fast, abroad = (Upstream(answers(message(name))).start() for name in ("slow", "fast", "abroad"))
    slow.script = Busy(1.0)
    places = (Place("slow", slow.url), Place("fast", fast.url), Place("us", abroad.url, country="US"))
    settings = msgspec.structs.replace(QUIET, hedge_after_s=0.05)
    source = federation(places, (Who("hospital", DataClass.CONFIDENTIAL),))
    with Checkpoint(tmp_path, compiled(source), settings=settings) as gateway:
        found = [gateway.ask(request(chat(), key="sk-hospital")) for _ in range(6)]
        until(lambda: slow.open <= len(slow.received), what="the losers' end")
        counted = Counter(decision.id for decision in gateway.decisions())
    for each in (slow, fast, abroad):
        each.stop()
    assert {answer.status for answer in found} == {200}
    assert {answer.decision for answer in found} == set(counted)
    assert set(counted.values()) == {1}
    assert abroad.received == []
    assert set(slow.decisions()) | set(fast.decisions()) == set(counted)


# -- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_with_a_full_disk_guarded_work_stops_and_public_work_goes_on(small_disk: Path, tmp_path: Path) -> None:
    upstream = Upstream(answers()).start()
    source = federation(
        (Place("jp", upstream.url),),
        (Who("dev"), Who("hospital", DataClass.CONFIDENTIAL), Who("bureau", DataClass.RESTRICTED)),
    )
    settings = msgspec.structs.replace(QUIET, journal_segment_bytes=128 << 10)
    journal = small_disk / "journal"
    with Checkpoint(tmp_path / "g", compiled(source), settings=settings, journal_dir=journal) as gateway:
        keys = ("sk-dev", "sk-hospital", "sk-bureau")
        assert [gateway.ask(request(chat(), key=key)).status for key in keys] == [200, 200, 200]
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        promised: dict[str, int] = {}
        with gateway.wire() as wire:
            for _ in range(2000):
                answer = wire.ask(request(chat(), key="sk-hospital"))
                if answer.status != 200:
                    break
                promised[answer.decision] = answer.status
            assert (answer.status, answer.code) == (503, "journal.unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            reached = len(upstream.received)
            assert wire.ask(request(chat(), key="sk-bureau")).code == "journal.unavailable"
            assert len(upstream.received) == reached
            for _ in range(300):
                assert wire.ask(request(chat(), key="sk-dev")).status == 200
        snapshot = gateway.snapshot()
        assert not snapshot.journal_ok
        unrecorded = {name: count for name, count in snapshot.counters.items() if "unrecorded" in name}
        assert sum(unrecorded.values()) > 0
        assert gateway.ask(b"GET /readyz HTTP/1.1\r\nhost: h\r\n\r\n").status == 200
        (small_disk / "filler").unlink()
        until(lambda: gateway.snapshot().journal_ok, what="recovery once there is room")
        for key in keys:
            answer = gateway.ask(request(chat(), key=key))
            assert answer.status == 200
            promised[answer.decision] = 200
        counted = Counter(decision.id for decision in gateway.decisions())
    upstream.stop()
    assert {counted[id] for id in promised} == {1}, "every guarded answer is on record, once"
    assert max(counted.values()) == 1
    shutil.rmtree(journal)
