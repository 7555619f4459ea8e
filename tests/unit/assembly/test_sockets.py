"""Ports: shared among our workers, and with nobody else."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sekisho.assembly.sockets import Listeners, ListenRefused, parse_address, url_of


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close()


@pytest.fixture
def others() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))],
)
def test_an_address_is_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "h:65536", "h:-1", "h:８０", "::1:80", "h:80:90"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ListenRefused) as refused:
        parse_address(text)
    assert refused.value.code == "listen.address"
    assert refused.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_workers_share_the_port_that_the_kernel_chose(listeners: Listeners, host: str) -> None:
    sockets = listeners.shared(f"{host}:0", count=3, backlog=8)
    ports = {item.getsockname()[1] for item in sockets}
    assert len(ports) == 1
    assert 0 not in ports
    assert url_of(sockets[0]) == f"http://{host}:{ports.pop()}"


def dealt(sockets: list[socket.socket], connections: int) -> list[int]:
    """How many of so many new connections each of the sockets gets."""
    clients = [socket.create_connection(sockets[0].getsockname(), timeout=30) for _ in range(connections)]
    counts = []
    for listener in sockets:
        listener.setblocking(False)
        count = 0
        while True:
            try:
                listener.accept()[0].close()
            except OSError:  # nobody waits, or the socket rests
                break
            count += 1
        counts.append(count)
    for client in clients:
        client.close()
    return counts


def test_connections_reach_every_worker(listeners: Listeners) -> None:
    counts = dealt(listeners.shared("127.0.0.1:0", count=2, backlog=128), 64)
    assert sum(counts) == 64
    assert min(counts) > 0


def test_a_socket_that_rests_leaves_its_connections_to_the_others_and_comes_back(listeners: Listeners) -> None:
    sockets = listeners.shared("127.0.0.1:0", count=2, backlog=128)
    listeners.rest((sockets[0].fileno(),))
    listeners.rest((sockets[0].fileno(),))  # once more changes nothing
    assert dealt(sockets[::-1], 32) == [32, 0]
    sockets[0].listen(128)
    assert min(dealt(sockets, 64)) > 0


def test_a_port_where_another_program_listens_is_refused_even_if_it_would_share(listeners: Listeners) -> None:
    program = (
        "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
        "s.bind(('127.0.0.1', 0)); s.listen(); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        for attempt in (
            lambda: listeners.shared(f"127.0.0.1:{port}", count=2, backlog=8),
            lambda: listeners.reserve("127.0.0.1", port),
            lambda: listeners.alone(f"127.0.0.1:{port}"),
        ):
            with pytest.raises(ListenRefused) as refused:
                attempt()
            assert refused.value.code == "listen.in_use"
            assert str(port) in refused.value.hint
        other.communicate("\n")


def test_two_supervisors_never_share_a_port(listeners: Listeners, others: Listeners) -> None:
    port = free_port()
    listeners.reserve("127.0.0.1", port)  # held, though nobody listens there yet
    with pytest.raises(ListenRefused) as refused:
        others.reserve("127.0.0.1", port)
    assert refused.value.code == "listen.in_use"
    listeners.close()
    others.close()
    third = Listeners()
    third.reserve("127.0.0.1", port)
    third.close()


def test_a_reserved_port_can_be_listened_on_by_a_sharing_process_and_the_reserve_gets_nothing(
    listeners: Listeners,
) -> None:
    port = free_port()
    listeners.reserve("127.0.0.1", port)
    with socket.socket() as site:
        site.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        site.bind(("127.0.0.1", port))
        site.listen(64)
        for _ in range(32):
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                site.accept()[0].close()


def test_a_restart_is_not_hindered_by_closed_connections(listeners: Listeners, others: Listeners) -> None:
    first = listeners.shared(f"127.0.0.1:{free_port()}", count=2, backlog=8)
    address = first[0].getsockname()
    client = socket.create_connection(address)
    for listener in first:
        listener.settimeout(0.2)
        try:
            accepted, _ = listener.accept()
        except TimeoutError:
            continue
        accepted.close()  # the server closes first: its side stays in TIME_WAIT
    client.close()
    listeners.close()
    assert others.shared(f"{address[0]}:{address[1]}", count=2, backlog=8)


@pytest.mark.parametrize(
    ("address", "code"), [("192.0.2.1:0", "listen.not_local"), ("no.such.host.invalid:80", "listen.unusable")]
)
def test_an_address_that_is_not_ours_is_refused(listeners: Listeners, address: str, code: str) -> None:
    with pytest.raises(ListenRefused) as refused:
        listeners.alone(address)
    assert refused.value.code == code


def test_a_wildcard_is_reached_over_loopback(listeners: Listeners) -> None:
    four = listeners.alone("0.0.0.0:0")
    six = listeners.alone("[::]:0")
    assert url_of(four, tls=True) == f"https://127.0.0.1:{four.getsockname()[1]}"
    assert url_of(six) == f"http://[::1]:{six.getsockname()[1]}"
