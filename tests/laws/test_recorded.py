"""Law 3: for every answer a client received there is exactly one decision, whenever workers are killed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.kernel.classes import DataClass
from support.background import SOAK, until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import DONE, STREAM_HEAD, Turn, Upstream, chunk, event, message, usage_event, whole
from support.wire import Cut, Wire, chat, request

STORM_S = 120.0 if SOAK else 8.0
CLIENTS = 64 if SOAK else 16


async def answer_somehow(turn: Turn) -> None:
    """Streams to those who want one; each answer takes a little while, so that kills fall into all of its phases."""
    await turn.pause(random.random() * 0.02)
    if b'"stream": true' not in turn.request.body:
        await turn.send(whole(message()))
        return
    await turn.send(STREAM_HEAD)
    for word in "abcd":
        await turn.send(chunk(event(word)))
        await turn.pause(0.003)
    await turn.send(chunk(usage_event()) + chunk(DONE) + b"0\r\n\r\n")


@dataclass
class Seen:
    """What the clients saw. `whole`: decision → status of a complete answer; `begun`: of any head at all."""

    whole: dict[str, int] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    cut: int = 0


REQUESTS = (
    request(chat(), key="sk-dev"),
    request(chat(stream=True), key="sk-hospital"),
    request(chat(), key="sk-bureau"),
    request(chat("nobody"), key="sk-dev"),
    request(chat(), key="sk-wrong"),
    request(b'{"model":"m","model":"m"}', key="sk-dev"),
    request(key="sk-dev", method="GET", target="/v1/models"),
)


def client(port: int, seen: Seen, stop: threading.Event, seed: int) -> None:
    rng = random.Random(seed)
    while not stop.is_set():
        try:
            with Wire(port, timeout_s=20) as wire:
                for _ in range(rng.randint(1, 6)):
                    sent = [rng.choice(REQUESTS) for _ in range(rng.randint(1, 3))]  # pipelined
                    wire.send(b"".join(sent))
                    for _ in sent:
                        one_answer(wire, seen)
        except (Cut, OSError):
            seen.cut += 1
            time.sleep(0.02)


def one_answer(wire: Wire, seen: Seen) -> None:
    status, headers = wire.head()
    id = headers["x-sekisho-decision"]
    assert id not in seen.begun
    seen.begun.add(id)
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(iter(wire.chunk, b""))
        assert body.endswith(DONE)
    else:
        wire._take(int(headers["content-length"]))
    seen.whole[id] = status


def test_every_answer_has_exactly_one_decision_though_workers_are_killed(tmp_path: Path) -> None:
    upstreams = [Upstream(answer_somehow).start() for _ in range(2)]
    source = federation(
        (Place("a", upstreams[0].url), Place("b", upstreams[1].url)),
        (Who("dev"), Who("hospital", DataClass.CONFIDENTIAL), Who("bureau", DataClass.RESTRICTED)),
    )
    stop = threading.Event()
    seen = [Seen() for _ in range(CLIENTS)]
    with Checkpoint(tmp_path, compiled(source), workers=2, settings=QUIET) as gateway:
        threads = [threading.Thread(target=client, args=(gateway.port, seen[n], stop, n)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + STORM_S
        kills = 0
        rng = random.Random(1)
        while time.monotonic() < ends:
            time.sleep(rng.uniform(0.2, 0.8))
            index = rng.randrange(2)
            gateway.kill(index)
            kills += 1
            gateway.restart(index)
            gateway.wait_until_ready()
        stop.set()
        for thread in threads:
            thread.join(60)
        until(lambda: sum(gateway.snapshot(n).in_flight for n in range(2)) == 0)
        for index in range(2):  # what the last lives left open is decided when the journals are opened again
            gateway.kill(index)
            gateway.restart(index)
        gateway.wait_until_ready()
        decisions = gateway.decisions()
        dispatches = {record.id for record in gateway.dispatches()}
    for upstream in upstreams:
        upstream.stop()
    counted = Counter(decision.id for decision in decisions)
    by_id = {decision.id: decision for decision in decisions}
    whole_ = {id: status for each in seen for id, status in each.whole.items()}
    begun = {id for each in seen for id in each.begun}
    assert kills >= 3
    assert len(whole_) > 100
    assert [id for id, count in counted.items() if count > 1] == [], "no passage is decided twice"
    assert begun <= set(by_id), "whoever saw even the head of an answer finds its decision"
    assert sum(len(each.begun) for each in seen) == len(begun), "no id is given twice"
    wrong = {id: (status, by_id[id]) for id, status in whole_.items() if by_id[id].status != status}
    lost = {id for id, (_, decision) in wrong.items() if decision.outcome == "worker_lost"}
    assert not lost, "an answer that arrived whole was decided before"
    assert not wrong
    reached = {id for upstream in upstreams for id in upstream.decisions()}
    assert reached <= dispatches, "nothing reaches an endpoint before it is written down"
    assert reached <= set(by_id), "and each of them is decided in the end"
    outcomes = Counter(decision.outcome for decision in decisions)
    assert outcomes["worker_lost"] > 0, "the storm hit passages under way"
    assert outcomes["completed"] > 0
    assert outcomes["refused"] > 0
