"""An upstream that answers chat completions with a paced SSE stream: each event is a write of its own.

A long timeline is cut into ticks of 1 ms; the streams that are due in a tick are written one after the other, each
to its own socket. So a proxy sees what a busy inference server sends: many sockets with one small chunk each.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import httptools
import uvloop

from bench import content
from bench.upstream import MODELS

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
TICK_S = 0.001


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Wheel:
    """Streams by the tick at which their next chunk is due."""

    def __init__(self, pace_ms: float) -> None:
        self.set_pace(pace_ms)
        self.due: dict[int, list[Stream]] = {}
        self.start = time.monotonic()
        self.tick = 0
        self.added = 0

    def set_pace(self, pace_ms: float) -> None:
        """Of chunks that are written from now on."""
        self.pace = max(1, round(pace_ms))

    def add(self, stream: Stream) -> None:
        """Streams that begin together are spread over the pace, or they would all be due in the same tick."""
        self.added += 1
        self.due.setdefault(self.tick + 1 + self.added % self.pace, []).append(stream)

    async def run(self) -> None:
        while True:
            late = self.start + (self.tick + 1) * TICK_S - time.monotonic()
            if late > 0:
                await asyncio.sleep(late)
            self.tick += 1
            for stream in self.due.pop(self.tick, ()):
                if stream.step():
                    self.due.setdefault(self.tick + self.pace, []).append(stream)


class Stream(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, wheel: Wheel, frames: list[bytes], last: bytes, last_with_usage: bytes) -> None:
        self.wheel = wheel
        self.frames = frames
        self.last = last
        self.last_with_usage = last_with_usage
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.path = b""
        self.position = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, _error: Exception | None) -> None:
        self.position = -1

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""
        self.path = b""

    def on_url(self, path: bytes) -> None:
        self.path += path

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.path.startswith(b"/pace/"):  # from the measurement itself, never through a proxy
            self.wheel.set_pace(float(self.path[6:]))
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        if self.parser.get_method() == b"GET":
            reply = MODELS.encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(reply), reply)
            )
            return
        if self.path != b"/v1/chat/completions":
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        self.position = 0
        self.end = self.last_with_usage if b'"include_usage":true' in self.body.replace(b" ", b"") else self.last
        self.transport.write(_HEAD)
        self.wheel.add(self)

    def step(self) -> bool:
        """Writes the next chunk; whether there are more."""
        if self.position < 0:
            return False
        if self.position < len(self.frames):
            self.transport.write(self.frames[self.position])
            self.position += 1
            return True
        self.transport.write(self.end)
        return False


async def serve(port: int, pace_ms: float, chunks: int) -> None:
    events = content.stream_events(chunks)
    done = b"data: [DONE]\n\n"
    frames = [_chunked(event) for event in events[:-1]]
    # the event that ends the text, [DONE] and the end of the body leave together, as servers send them
    last = _chunked(events[-1]) + _chunked(done) + b"0\r\n\r\n"
    last_with_usage = _chunked(events[-1]) + _chunked(content.usage_event(chunks)) + _chunked(done) + b"0\r\n\r\n"
    wheel = Wheel(pace_ms)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Stream(wheel, frames, last, last_with_usage), "127.0.0.1", port, backlog=4096
    )
    async with server:
        await wheel.run()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace-ms", type=float, required=True)
    parser.add_argument("--chunks", type=int, default=content.CHUNKS)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.pace_ms, options.chunks))


if __name__ == "__main__":
    main()
