"""Does it answer for real? The questions that the supervisor asks its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from sekisho.gateway.settings import WorkerSnapshot

_ASK_TIMEOUT_S = 2.0
_ASK_AGAIN_S = 0.1
# A model that computes its first answer on a busy machine; it is asked again if it takes longer.
_MODEL_TIMEOUT_S = 30.0

Probe = Callable[[int], Awaitable[bool]]


async def until(probe: Probe, pid: int) -> None:
    """Ask until it answers."""
    while not await probe(pid):  # noqa: ASYNC110 - another process can't set an event of ours
        await asyncio.sleep(_ASK_AGAIN_S)


async def worker_snapshot(admin_socket: Path) -> WorkerSnapshot | None:
    """The worker's own account of itself, or None when it gives none."""
    with contextlib.suppress(OSError, TimeoutError, msgspec.DecodeError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(admin_socket))
            try:
                return msgspec.json.decode(await reader.read(-1), type=WorkerSnapshot)
            finally:
                writer.close()
    return None


def worker(admin_socket: Path) -> Probe:
    """It is this very process (not one that is going), it has a route table, and it takes connections."""

    async def ask(pid: int) -> bool:
        snapshot = await worker_snapshot(admin_socket)
        return snapshot is not None and snapshot.pid == pid and snapshot.table_version > 0 and not snapshot.draining

    return ask


def answers_with_pid(socket: Path) -> Probe:
    """It is this very process that answers on a Unix socket, with a JSON object that has its `pid`."""

    async def ask(pid: int) -> bool:
        with contextlib.suppress(OSError, TimeoutError, msgspec.DecodeError):
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(str(socket))
                try:
                    return msgspec.json.decode(await reader.read(-1), type=_Pid).pid == pid
                finally:
                    writer.close()
        return False

    return ask


class _Pid(msgspec.Struct):
    pid: int


# PROXY protocol 2.2 §2.2, LOCAL: the health check of the balancer itself.
_PROXY_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


def http(url: str, *, behind_proxy: bool = False) -> Probe:
    """GET answers 200. `behind_proxy`: the listener wants a PROXY protocol header first."""
    preface = _PROXY_LOCAL if behind_proxy else b""

    async def ask(_pid: int) -> bool:
        return await _status(url, "GET", b"", timeout_s=_ASK_TIMEOUT_S, preface=preface) == 200

    return ask


def table_everywhere(control_url: str, admin_sockets: Sequence[Path]) -> Probe:
    """Every worker obeys the table that control made last."""

    async def ask(_pid: int) -> bool:
        found = re.search(rb'"table":(\d+)', await _body(f"{control_url}/readyz"))
        if found is None:
            return False
        snapshots = await asyncio.gather(*map(worker_snapshot, admin_sockets))
        return all(each is not None and each.table_version >= int(found[1]) for each in snapshots)

    return ask


def all_of(*probes: Probe) -> Probe:
    """One after the other."""

    async def ask(pid: int) -> bool:
        for probe in probes:
            if not await probe(pid):
                return False
        return True

    return ask


async def always(_pid: int) -> bool:
    """A probe that has nothing to ask."""
    return True


def model(port: int, name: str) -> Probe:
    """The site's model computes a token."""
    body = json.dumps({"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"

    async def ask(_pid: int) -> bool:
        return await _status(url, "POST", body, timeout_s=_MODEL_TIMEOUT_S) == 200

    return ask


async def _body(url: str) -> bytes:
    """What GET answers on a connection of its own, head and all; empty when nothing does."""
    parts = urlsplit(url)
    head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(head.encode("ascii"))
                return await reader.read(65536)
            finally:
                writer.close()
    return b""


async def _status(url: str, method: str, body: bytes, *, timeout_s: float, preface: bytes = b"") -> int:
    """The status of one HTTP/1.1 exchange on a connection of its own; 0 when there is none.

    No client library: this runs in the supervisor, which stays small and starts fast.
    """
    parts = urlsplit(url)
    context = None
    if parts.scheme == "https":
        # Only asks our own listener whether it is up; nothing secret is sent, so its name is not checked.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    head = (
        f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
            try:
                writer.write(preface + head.encode("ascii") + body)
                return int((await reader.readline()).split()[1])
            finally:
                writer.close()
    return 0
