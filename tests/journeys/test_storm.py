"""Crowds: ten thousand clients that drip, readers that do not read, bodies in crumbs. Memory stays bounded and
everybody else is served."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.background import SOAK, until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import STREAM_HEAD, Turn, Upstream, answers, chunk, event, whole
from support.wire import Cut, chat, request

pytestmark = [pytest.mark.journey, pytest.mark.alone]
MIB = 1 << 20
OK = request(chat(), key="sk-dev")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream(answers()).start()
    yield made
    made.stop()


def checkpoint(folder: Path, upstream: Upstream, **settings: float) -> Checkpoint:
    source = federation((Place("jp", upstream.url, slots=4096),), (Who("dev"),))
    return Checkpoint(folder, compiled(source), settings=msgspec.structs.replace(QUIET, **settings))


@pytest.fixture
def crowd() -> Iterator[int]:
    """As many clients as the limit on open files allows, up to 10,000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, soft), max(hard, soft)))
    yield min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_clients_that_drip_hold_up_nobody(tmp_path: Path, upstream: Upstream, crowd: int) -> None:
    with checkpoint(tmp_path, upstream, head_timeout_s=4.0) as gateway:
        gateway.ask(OK)
        before = gateway.rss()
        drip = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n"
        selector = selectors.DefaultSelector()
        clients: list[socket.socket] = []
        worst = 0.0
        for index in range(crowd):
            client = socket.socket()
            client.settimeout(20)
            # Addresses of the loopback net as sources: one address has not enough ports for a long day.
            client.bind((f"127.0.0.{2 + index % 8}", 0))
            client.connect(("127.0.0.1", gateway.port))
            client.send(drip[: 1 + index % len(drip)])
            selector.register(client, selectors.EVENT_READ)
            clients.append(client)
            if index % 1000 == 999:
                started = time.monotonic()
                assert gateway.ask(OK).status == 200
                worst = max(worst, time.monotonic() - started)
        assert worst < 4.0, "generous: the point is that it does not wait for the crowd's deadline"
        assert gateway.rss() - before < crowd * 16 * 1024 + 32 * MIB
        got: dict[socket.socket, bytes] = {}
        waiting = len(clients)
        ends = time.monotonic() + 60
        while waiting and time.monotonic() < ends:
            for key, _ in selector.select(1.0):
                client = key.fileobj  # type: ignore[assignment]
                try:
                    data = client.recv(4096)
                except ConnectionError:
                    data = b""
                got[client] = got.get(client, b"") + data
                if not data:
                    selector.unregister(client)
                    waiting -= 1
        assert waiting == 0, "each of them is closed at its deadline"
        # Strangers beyond a burst of some thousands are closed without a word, and so without a record.
        answered = sum(data.startswith(b"HTTP/1.1 408") for data in got.values())
        assert answered + sum(data == b"" for data in got.values()) == len(got)
        assert answered >= min(crowd, 1000)
        for client in clients:
            client.close()
        until(lambda: gateway.snapshot().connections == 0)
        assert gateway.ask(OK).status == 200
        decided = [decision.id for decision in gateway.decisions() if decision.code == "http.timeout"]
        assert len(decided) == len(set(decided)) == answered


BIG = (2000 if SOAK else 200) * MIB
PIECE = chunk(event("x" * 65_000))


async def floods(turn: Turn) -> None:
    """A stream of BIG bytes, as fast as it is taken."""
    await turn.send(STREAM_HEAD)
    for _ in range(BIG // len(PIECE)):
        turn.writer.write(PIECE)
        await turn.writer.drain()
    await turn.send(b"0\r\n\r\n")


@pytest.mark.parametrize("stream", [True, False])
def test_a_reader_that_does_not_read_costs_no_memory(tmp_path: Path, upstream: Upstream, stream: bool) -> None:
    upstream.script = floods
    with checkpoint(tmp_path, upstream, write_timeout_s=2.0) as gateway:
        before = gateway.rss()
        with gateway.wire(receive_buffer=65536) as wire:
            wire.send(request(chat(stream=stream), key="sk-dev"))
            _, headers = wire.head()
            most = 0
            for _ in range(20):
                wire.more()
                time.sleep(0.03)
                most = max(most, gateway.rss() - before)
            assert most < 48 * MIB
            decision = gateway.decision(headers["x-sekisho-decision"])
            assert decision.outcome == "client_gone", "who does not read for `write_timeout` is let go"
            assert decision.bytes_out < BIG


def test_a_slow_reader_gets_every_byte(tmp_path: Path, upstream: Upstream) -> None:
    size = (400 if SOAK else 40) * MIB

    async def long(turn: Turn) -> None:
        await turn.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // MIB):
            await turn.send(bytes(MIB))

    upstream.script = long
    with checkpoint(tmp_path, upstream) as gateway, gateway.wire(receive_buffer=262144) as wire:
        before = gateway.rss()
        wire.send(OK)
        _, headers = wire.head()
        got = len(wire.buffer)
        while got < size:
            got += len(wire.more())
        assert int(headers["content-length"]) == got == size
        assert gateway.rss() - before < 48 * MIB
        assert gateway.decision(headers["x-sekisho-decision"]).bytes_out == size


def pushes(gateway: Checkpoint, data: bytes, most: int) -> int:
    """Send without reading until it is not taken any more, or `most` bytes went; how far the worker grew."""
    before = highest = gateway.rss()
    with gateway.wire(receive_buffer=65536) as wire:
        wire.socket.settimeout(1.0)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < most:
                sent += wire.socket.send(data)
        for _ in range(20):
            time.sleep(0.1)
            highest = max(highest, gateway.rss())
    return highest - before


def test_requests_in_the_pipe_are_not_answered_faster_than_the_answers_are_read(
    tmp_path: Path, upstream: Upstream
) -> None:
    """27 bytes of request make 600 bytes of refusal: whoever does not read must not be answered without end."""
    refused = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
    with checkpoint(tmp_path, upstream) as gateway:
        assert pushes(gateway, refused, 4 * MIB) < 32 * MIB
        assert gateway.answers_still()
        health = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
        assert pushes(gateway, health, 16 * MIB) < 32 * MIB
        assert gateway.answers_still()


def test_a_flood_after_unread_answers_is_held_back_too(tmp_path: Path, upstream: Upstream) -> None:
    """The transport says only once that it is full: the passage that starts after that must know it as well."""
    upstream.script = answers(b'"%b"' % (b"x" * 60_000))
    with checkpoint(tmp_path, upstream) as gateway, gateway.wire(receive_buffer=65536) as wire:
        before = gateway.rss()
        wire.send(OK * 120)
        for _ in range(100):
            if len(upstream.received) >= 120:
                break
            time.sleep(0.05)
        upstream.script = floods
        wire.send(request(chat(stream=True), key="sk-dev"))
        time.sleep(2.0)
        assert gateway.rss() - before < 48 * MIB


def test_a_body_in_crumbs_costs_no_more_than_one_in_a_piece(tmp_path: Path, upstream: Upstream) -> None:
    """Chunks of two bytes: what a crumb costs besides its bytes must not add up."""
    with checkpoint(tmp_path, upstream) as gateway:
        before = gateway.rss()
        with gateway.wire() as wire:
            wire.send(request(key="sk-dev", headers=("transfer-encoding: chunked",)))
            crumbs = b"2\r\nab\r\n" * 16_384
            for _ in range(4 * MIB // 32_768):
                wire.send(crumbs)
            time.sleep(0.5)
            grown = gateway.rss() - before
            with contextlib.suppress(Cut):
                wire.send(b"0\r\n\r\n")
                wire.answer()
        assert grown < 48 * MIB, "for a body of 4 MiB"


def test_idle_connections_are_cheap(tmp_path: Path, upstream: Upstream) -> None:
    with checkpoint(tmp_path, upstream) as gateway:
        upstream.script = answers(whole(b"{}"))
        wires = [gateway.wire() for _ in range(400)]
        for wire in wires:
            assert wire.ask(OK).status == 200
        before = gateway.rss()
        for _ in range(3):
            for wire in wires:
                assert wire.ask(OK).status == 200
        assert gateway.rss() - before < 8 * MIB
        for wire in wires:
            wire.close()
        until(lambda: gateway.snapshot().connections == 0)
