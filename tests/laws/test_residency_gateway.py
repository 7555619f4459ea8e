"""Laws 1 and 2 at the gateway: whatever fails, whatever changes, guarded work never reaches an endpoint outside its
set, and without fresh evidence it reaches nobody."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.kernel.classes import DataClass
from support.background import SOAK, until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.shared import Lab
from support.upstream import Script, Turn, Upstream, answers, closes, resets, sends_then, stalls, whole
from support.wire import Wire, chat, request

PLACES = (("JP", "JP"), ("JP", "US"), ("US", "US"), ("US", "JP"), ("JP", "JP"), ("GB", "GB"))
TENANTS = tuple(Who(f"t{floor}", floor=DataClass(floor)) for floor in range(4))
KINDS: dict[str, Script] = {
    "well": answers(),
    "500": answers(b"{}", status="500 Oops"),
    "429": answers(b"{}", status="429 Busy"),
    "reset": resets,
    "close": closes,
    "too short": sends_then(closes, b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}"),
    "redirect": answers(b"", status="307 Go", headers=("location: http://127.0.0.1:1/",)),
}
SETTINGS = msgspec.structs.replace(QUIET, first_byte_timeout_s=1.0, connect_timeout_s=1.0, queue_timeout_s=1.0)


def may(data_class: DataClass, country: str, law: str) -> bool:
    """The rules, said once more and without the code under test."""
    return data_class < 2 or (country == "JP" and (data_class == 2 or law == "JP"))


class World:
    """Six endpoints and a gateway that follows a control plane."""

    def __init__(self, folder: Path) -> None:
        self.upstreams = [Upstream(answers()).start() for _ in PLACES]
        self.version = 1
        self.gateway = Checkpoint(folder, self.table(range(6), frozenset()), settings=SETTINGS, control=True)

    def table(self, members: range | list[int], suspended: frozenset[str], *, validity_s: float = 3600.0):
        places = (
            Place(f"e{n}", self.upstreams[n].url, country=PLACES[n][0], law=PLACES[n][1], slots=32) for n in members
        )
        table = compiled(
            federation(places, TENANTS), version=self.version, suspended=suspended, validity_s=validity_s
        )
        self.version += 1
        return table

    def stop(self) -> None:
        self.gateway.stop()
        for upstream in self.upstreams:
            upstream.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.stop()


ASKED = st.lists(st.tuples(st.sampled_from(DataClass), st.sampled_from([None, *DataClass])), min_size=1, max_size=8)


@settings(max_examples=400 if SOAK else 60)
@given(
    members=st.lists(st.integers(0, 5), unique=True, min_size=1),
    suspended=st.sets(st.integers(0, 5), max_size=3),
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=6, max_size=6),
    asked=ASKED,
)
def test_nothing_reaches_an_endpoint_outside_its_set(
    world: World,
    members: list[int],
    suspended: set[int],
    kinds: list[str],
    asked: list[tuple[DataClass, DataClass | None]],
) -> None:
    world.gateway.publish(world.table(members, frozenset(f"e{n}" for n in suspended)))
    for upstream, kind in zip(world.upstreams, kinds, strict=True):
        upstream.received.clear()
        upstream.script = KINDS[kind]
    wires = []
    for floor, wanted in asked:
        headers = () if wanted is None else (f"x-sekisho-class: {wanted.label}",)
        wires.append((max(floor, wanted or floor), Wire(world.gateway.port)))
        wires[-1][1].send(request(chat(), key=f"sk-t{floor.value}", headers=headers))
    for data_class, wire in wires:
        answer = wire.answer()
        wire.close()
        allowed = {n for n in members if n not in suspended and may(data_class, *PLACES[n])}
        decision = world.gateway.decision(answer.decision)
        reached = {n for n, upstream in enumerate(world.upstreams) if answer.decision in upstream.decisions()}
        assert reached <= allowed
        assert {attempt.endpoint for attempt in decision.attempts} <= {f"e{n}" for n in allowed}
        if not allowed:
            assert (answer.status, answer.code) == (403, "residency.no_eligible_endpoint")
            assert decision.rules
        elif all(kinds[n] == "well" for n in allowed):
            assert answer.status == 200
            assert answer.headers["x-sekisho-country"] == PLACES[int(decision.endpoint[1:])][0]


def test_while_tables_change_under_load_no_guarded_request_leaves_its_set(world: World) -> None:
    """Classes and rules stay; endpoints come, go and are suspended every few milliseconds."""

    async def now_and_then(turn: Turn) -> None:
        await turn.pause(random.random() * 0.01)
        if random.random() < 0.1:
            turn.reset()
        else:
            await turn.send(whole(b"{}"))

    for upstream in world.upstreams:
        upstream.received.clear()
        upstream.script = now_and_then
    stop = threading.Event()
    classes: dict[str, DataClass] = {}
    statuses: set[int] = set()

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        with Wire(world.gateway.port) as wire:
            while not stop.is_set():
                data_class = DataClass(rng.randrange(4))
                answer = wire.ask(request(chat(), key=f"sk-t{data_class.value}"))
                classes[answer.decision] = data_class
                statuses.add(answer.status)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    rng = random.Random(3)
    gone: dict[int, float] = {}
    late: list[str] = []
    for _ in range(300 if SOAK else 30):
        members = [n for n in range(6) if rng.random() < 0.7] or [0]
        suspended = frozenset(f"e{n}" for n in members if rng.random() < 0.2)
        world.gateway.publish(world.table(members, suspended))
        obeyed = time.time()
        out = set(range(6)) - {n for n in members if f"e{n}" not in suspended}
        gone = {n: gone.get(n, obeyed) for n in out}
        time.sleep(rng.random() * 0.1)
        for n, since in gone.items():
            late += [each.decision for each in list(world.upstreams[n].received) if each.at > since + 1.0]
    stop.set()
    for thread in threads:
        thread.join(30)
    for n, upstream in enumerate(world.upstreams):
        for id in upstream.decisions():
            assert may(classes[id], *PLACES[n]), (classes[id], PLACES[n])
    assert not late, "an endpoint that is out of the table gets nothing more within a second"
    assert 200 in statuses
    assert 500 not in statuses


def test_a_request_at_an_endpoint_that_left_the_table_still_ends_in_time(world: World) -> None:
    """The endpoint stalls, then the table drops it: the deadlines of what is under way stay."""
    world.gateway.publish(world.table([0], frozenset()))
    world.upstreams[0].script = stalls
    world.upstreams[0].received.clear()
    with Wire(world.gateway.port, timeout_s=10) as wire:
        wire.send(request(chat(), key="sk-t2"))
        until(lambda: world.upstreams[0].received)
        world.gateway.publish(world.table([1], frozenset()))
        world.upstreams[1].script = answers()
        answer = wire.answer()
    assert answer.status in (200, 504)


def test_connections_to_an_endpoint_that_left_the_table_are_closed(world: World) -> None:
    async def slowly(turn: Turn) -> None:
        await turn.pause(0.4)
        await turn.send(whole(b"{}"))

    world.gateway.publish(world.table([0], frozenset()))
    upstream = world.upstreams[0]
    upstream.script = slowly
    upstream.received.clear()
    with Wire(world.gateway.port) as wire:
        wire.send(request(chat(), key="sk-t2"))
        until(lambda: upstream.received)
        world.gateway.publish(world.table([1], frozenset()))
        assert wire.answer().status == 200
    number = upstream.received[0].connection
    until(lambda: number in upstream.closed, within_s=5, what="the end of a connection that nobody will use again")


def test_evidence_that_runs_out_closes_the_route_without_any_control_plane(tmp_path: Path) -> None:
    upstream = Upstream(answers()).start()
    abroad = Upstream(answers()).start()
    source = federation(
        (Place("jp", upstream.url, slots=1), Place("us", abroad.url, country="US", law="US", models=("m", "x"))),
        TENANTS,
    )
    validity_s = 4.0
    table = compiled(source, validity_s=validity_s)
    ends = table.issued_at + validity_s
    stop = threading.Event()
    answered: list[tuple[float, int, str]] = []

    with Checkpoint(tmp_path, table, settings=SETTINGS) as gateway:

        def ask() -> None:
            with gateway.wire() as wire:
                while not stop.is_set():
                    sent = time.time()
                    answer = wire.ask(request(chat(), key="sk-t2"))
                    answered.append((sent, answer.status, "" if answer.status == 200 else answer.code))

        threads = [threading.Thread(target=ask) for _ in range(4)]  # more than slots: some wait in the queue
        for thread in threads:
            thread.start()
        until(lambda: time.time() > ends + 0.5)
        stop.set()
        for thread in threads:
            thread.join(20)
        assert gateway.ask(request(chat(), key="sk-t0")).status == 200, "public work needs no evidence"
        names = gateway.ask(request(key="sk-t2", method="GET", target="/v1/models")).json["data"]
        assert names == []
        gateway.kill()
        gateway.restart()  # the copy on disk is as old as it is
        gateway.wait_until_ready()
        assert gateway.ask(request(chat(), key="sk-t3")).code == "residency.evidence_expired"
    assert 200 in {status for sent, status, _ in answered if sent < ends}
    assert {(status, code) for sent, status, code in answered if sent >= ends} == {
        (403, "residency.evidence_expired")
    }
    guarded = {each.id: each.at_ms / 1000 for each in gateway.decisions() if each.data_class == "confidential"}
    for each in upstream.received:
        if each.decision in guarded:
            assert guarded[each.decision] < ends, "a request that came after the expiry was sent on"
            assert each.at < ends + 1.0
    assert set(guarded).isdisjoint(abroad.decisions())
    for each in (upstream, abroad):
        each.stop()


def test_a_site_whose_evidence_runs_out_leaves_and_the_others_go_on_without_any_control_plane(tmp_path: Path) -> None:
    """One table, never a new one: the route that two sites share is not closed for an instant."""
    silent, steady = Upstream(answers()).start(), Upstream(answers()).start()
    source = federation((Place("silent", silent.url), Place("steady", steady.url)), TENANTS)
    ends = time.time() + 4.0
    source = msgspec.structs.replace(
        source,
        sites=tuple(
            msgspec.structs.replace(site, valid_until=ends if site.id == "site-silent" else ends + 3600)
            for site in source.sites
        ),
    )
    statuses: list[int] = []
    with Checkpoint(tmp_path, compiled(source, validity_s=7200.0), settings=SETTINGS) as gateway:
        with gateway.wire() as wire:
            while time.time() < ends + 1.0:
                statuses.append(wire.ask(request(chat(), key="sk-t2")).status)
        assert len(gateway.ask(request(key="sk-t2", method="GET", target="/v1/models")).json["data"]) == 1
    assert set(statuses) == {200}
    decided = [each for each in gateway.decisions() if each.path == "/v1/chat/completions"]
    assert len(decided) == len(statuses)
    after = [each for each in decided if each.at_ms / 1000 >= ends]
    assert {each.endpoint for each in decided if each.at_ms / 1000 < ends} == {"silent", "steady"}
    assert {each.endpoint for each in after} == {"steady"}
    # both are cut to whole milliseconds: in the last one of the evidence they are equal
    assert all(each.valid_until_ms >= each.at_ms for each in decided), "a decision names evidence that held"
    assert all(each.at < ends + 1.0 for each in silent.received)
    for each in (silent, steady):
        each.stop()


def test_evidence_that_runs_out_while_connecting_stops_the_request(tmp_path: Path) -> None:
    """What is checked when the endpoint is chosen holds when the first byte leaves, too."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    port = full.getsockname()[1]
    fillers = []
    for _ in range(3):  # the backlog is full: the next connection waits for the kernel's second try
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        fillers.append(filler)
    validity_s = 2.5
    table = compiled(federation((Place("jp", f"http://127.0.0.1:{port}/v1"),), TENANTS), validity_s=validity_s)
    ends = table.issued_at + validity_s
    patient = msgspec.structs.replace(SETTINGS, connect_timeout_s=10.0, first_byte_timeout_s=1.0)
    with Checkpoint(tmp_path, table, settings=patient) as gateway, gateway.wire() as wire:
        time.sleep(max(ends - 0.3 - time.time(), 0))
        wire.send(request(chat(), key="sk-t2"))
        until(lambda: time.time() > ends + 0.1)
        full.settimeout(5)
        got = b""
        try:
            while b"POST" not in got:
                accepted, _ = full.accept()
                accepted.settimeout(0.3)
                try:
                    got += accepted.recv(4096)
                except TimeoutError:
                    continue
        except TimeoutError:
            pass
        answer = wire.answer()
    for each in (*fillers, full):
        each.close()
    assert b"POST" not in got, "a confidential prompt left after the evidence had run out"
    assert answer.status in (403, 503, 504)


def test_many_classes_at_once_are_never_mixed_up(lab: Lab) -> None:
    """Many at once, each class with its own colour of answer: none gets another's."""
    for name, upstream in zip(("jp", "az", "us"), lab.upstreams, strict=True):
        upstream.script = answers(b'{"from":"%b"}' % name.encode())
    allowed = {"sk-bureau": {"jp"}, "sk-hospital": {"jp", "az"}, "sk-dev": {"jp", "az", "us"}}
    wires = [(key, lab.gateway.wire()) for key in allowed for _ in range(20)]
    for key, wire in wires:
        wire.send(request(chat(), key=key))
    for key, wire in wires:
        answer = wire.answer()
        assert answer.json["from"] in allowed[key]
        assert answer.headers["x-sekisho-site"] == f"site-{answer.json['from']}"
        wire.close()
