"""A scripted endpoint: a raw socket server that answers as it is told, wrongly if need be, and remembers everything.

FAKE: nothing behind it infers anything. What a script sends goes out byte by byte as written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from support import background


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    connection: int
    at: float  # Unix seconds
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def decision(self) -> str:
        return self.headers["x-sekisho-decision"]


class Turn:
    """What a script does with one request."""

    def __init__(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send the pieces as writes of their own, `pause_s` apart."""
        for index, piece in enumerate(pieces):
            if index and pause_s >= 0:
                await asyncio.sleep(pause_s)
            self.writer.write(piece)
            await self.writer.drain()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def gone(self) -> None:
        """Wait until the other side has closed."""
        while await self.reader.read(1 << 16):
            pass

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


Script = Callable[[Turn], Awaitable[None]]


@dataclass
class Upstream:
    """One endpoint. `script` may be replaced at any time; it holds for the requests that come after."""

    script: Script
    read_bodies: bool = True
    port: int = 0
    received: list[Received] = field(default_factory=list)
    opened: int = 0
    closed: dict[int, float] = field(default_factory=dict)  # connection → when it was seen closed (monotonic)
    _server: asyncio.AbstractServer | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def start(self, port: int = 0) -> Upstream:
        background.run(self._start(port))
        return self

    def stop(self) -> None:
        """Stop listening and cut what is open."""
        background.run(self._stop())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def open(self) -> int:
        return self.opened - len(self.closed)

    def decisions(self) -> list[str]:
        return [request.decision for request in list(self.received)]

    async def _start(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        number = self.opened
        self._writers.add(writer)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    request = await self._read(number, reader)
                    self.received.append(request)
                    await self.script(Turn(request, reader, writer))
        finally:
            self.closed[number] = time.monotonic()
            self._writers.discard(writer)
            writer.close()

    async def _read(self, number: int, reader: asyncio.StreamReader) -> Received:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines if each)}
        length = int(headers.get("content-length", "0")) if self.read_bodies else 0
        body = await reader.readexactly(length)
        return Received(number, time.time(), line.split(" ")[1], headers, body)


# -- scripts


def message(text: str = "Tokyo", *, usage: tuple[int, int] | None = (7, 3)) -> bytes:
    """A chat completion."""
    answer: dict[str, object] = {
        "id": "c1", "object": "chat.completion", "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }  # fmt: skip
    if usage is not None:
        answer["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return json.dumps(answer).encode()


def whole(
    body: bytes, *, status: str = "200 OK", headers: Sequence[str] = (), kind: str = "application/json"
) -> bytes:
    """A complete answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def says(*pieces: bytes, pause_s: float = 0.002, close: bool = False) -> Script:
    """Send these bytes, whatever was asked."""

    async def script(turn: Turn) -> None:
        await turn.send(*pieces, pause_s=pause_s)
        if close:
            turn.close()

    return script


def answers(body: bytes | None = None, *, status: str = "200 OK", headers: Sequence[str] = ()) -> Script:
    return says(whole(message() if body is None else body, status=status, headers=headers))


def event(text: str) -> bytes:
    """One piece of a streamed chat completion."""
    delta = {"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(delta).encode() + b"\n\n"


def usage_event(tokens_in: int = 7, tokens_out: int = 3) -> bytes:
    """The chunk without choices that `stream_options.include_usage` asks for."""
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return b"data: " + json.dumps({"id": "c1", "choices": [], "usage": usage}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def streams(events: Iterable[bytes], *, pause_s: float = 0.001) -> Script:
    """A chunked stream, one chunk an event."""
    pieces = [STREAM_HEAD, *map(chunk, events), LAST_CHUNK]
    return says(*pieces, pause_s=pause_s)


async def stalls(turn: Turn) -> None:
    """Never answer; end when the other side gives up."""
    await turn.gone()


async def resets(turn: Turn) -> None:
    turn.reset()


async def closes(turn: Turn) -> None:
    turn.close()


def then(first: Script, *others: Script) -> Script:
    """`first` for the first request, the next for the second, …; the last one stays."""
    left = [first, *others]

    async def script(turn: Turn) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(turn)

    return script


def sends_then(script: Script, *pieces: bytes, pause_s: float = 0.01) -> Script:
    """Send some bytes, then do the rest."""

    async def both(turn: Turn) -> None:
        await turn.send(*pieces, pause_s=pause_s)
        await turn.pause(pause_s)
        await script(turn)

    return both
