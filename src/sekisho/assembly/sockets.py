"""Listening sockets that the supervisor binds and hands down, so that they outlive the processes that use them."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Collection
from pathlib import Path

from sekisho.kernel.errors import SekishoError


class ListenRefused(SekishoError):
    """An address that can't be listened on."""

    code = "listen.unusable"


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8080` → ("127.0.0.1", 8080); `[::1]:0` → ("::1", 0). ListenRefused for anything else."""
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not (separator and host and port.isascii() and port.isdigit() and int(port) < 65536) or (
        ":" in host and not bracketed
    ):
        raise ListenRefused(
            f"{text!r} is not an address to listen on",
            code="listen.address",
            hint='write host:port, as in "127.0.0.1:8080" or "[::1]:8080" (port 0: any free one)',
        )
    return host, int(port)


class Listeners:
    """The sockets of one supervisor, and its claim on their ports.

    SO_REUSEPORT lets two programs of one user share a port without a word, each getting a part of the connections.
    So a port is claimed first: among supervisors by an abstract Unix socket of its name (it lives in the same
    network namespace as the port and ends with its process), against others by looking at who listens.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self._open: list[socket.socket] = []

    def shared(self, address: str, *, count: int, backlog: int) -> list[socket.socket]:
        """`count` listening sockets on one address: the kernel deals connections out among them."""
        host, port = parse_address(address)
        self._claim(host, port)
        if port == 0:  # one that never listens chooses: a socket keeps a port through `rest` only when it was told it
            port = self._bind(host, 0, share=True).getsockname()[1]
        sockets: list[socket.socket] = []
        for _ in range(count):
            listener = self._bind(host, port, share=True)
            sockets.append(listener)
            listener.listen(backlog)
        return sockets

    def rest(self, fds: Collection[int]) -> None:
        """These sockets get no more connections: the kernel deals them out among the others on their address, and
        what waited on these is reset. They keep their address, and whoever calls listen() on them gets a share again.
        """
        for listener in self._open:
            if listener.fileno() in fds:
                with contextlib.suppress(OSError):  # it rests already
                    listener.shutdown(socket.SHUT_RD)

    def alone(self, address: str, *, backlog: int = 128) -> socket.socket:
        """One listening socket that nobody can share."""
        host, port = parse_address(address)
        listener = self._bind(host, port, share=False)
        listener.listen(backlog)
        return listener

    def reserve(self, host: str, port: int) -> int:
        """Hold a port (0: any free one) for a process that binds it itself with SO_REUSEPORT. The socket never
        listens, so it gets no connection; it only keeps others away while that process is being restarted."""
        self._claim(host, port)
        held: int = self._bind(host, port, share=True).getsockname()[1]
        return held

    def close(self, *sockets: socket.socket) -> None:
        """Close these, or all when none is named."""
        for item in sockets or (*self._open, *self._claims):
            item.close()

    def _claim(self, host: str, port: int) -> None:
        if port == 0:
            return
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._claims.append(claim)
        try:
            claim.bind(f"\0sekisho-port-{host}-{port}")
        except OSError as error:
            raise _refusal(host, port, error) from None
        if _someone_listens(port):
            raise _refusal(host, port, OSError(errno.EADDRINUSE, "in use"))

    def _bind(self, host: str, port: int, *, share: bool) -> socket.socket:
        try:
            family, kind, protocol, _, target = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, kind, protocol)
            self._open.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # `[::]` means IPv6 alone, whatever the machine's default is: what is written is what is open.
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(target)
        except OSError as error:
            raise _refusal(host, port, error) from None
        return bound


def _someone_listens(port: int) -> bool:
    """Whether any socket of this network namespace listens on the port, at whatever address (proc_net_tcp: the
    second field is the local address in hex, the fourth the state, and 0A is LISTEN)."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), Path(table).open(encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                    return True
    return False


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Where a program on this machine reaches the socket: `http://127.0.0.1:8080`. A wildcard becomes loopback."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compares, binds nothing
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _refusal(host: str, port: int, error: OSError) -> ListenRefused:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            return ListenRefused(
                f"{where} is in use by another program",
                code="listen.in_use",
                hint=f"see which with `ss -ltnp 'sport = :{port}'`, or choose another port in the configuration",
            )
        case errno.EACCES:
            return ListenRefused(
                f"this user may not listen on {where}",
                code="listen.forbidden",
                hint="choose a port above 1023, or give the right with `setcap cap_net_bind_service`",
            )
        case errno.EADDRNOTAVAIL:
            return ListenRefused(
                f"{host} is not an address of this machine",
                code="listen.not_local",
                hint='use one that `ip address` shows, or "0.0.0.0" for all',
            )
        case _:
            return ListenRefused(f"{where} can't be listened on: {error.strerror or error}", hint="check the address")
