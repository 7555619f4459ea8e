"""The smallest proxy that uvloop and httptools allow: message boundaries are parsed, bytes are passed on.

It is no gateway (no keys, no limits, no back-pressure, no record): it shows what pure Python costs at least.
"""

from __future__ import annotations

import argparse
import asyncio

import httptools
import uvloop


class Upstream(asyncio.Protocol):
    """A kept connection; `client` is the one that is being served."""

    def __init__(self, pool: list[Upstream]) -> None:
        self.pool = pool
        self.client: Client | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.whole = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        client = self.client
        if client is not None:
            client.write(data)
            if self.whole:
                self.whole = False
                self.client = None
                self.parser = httptools.HttpResponseParser(self)
                self.pool.append(self)
                client.finish()

    def on_message_complete(self) -> None:
        self.whole = True

    def connection_lost(self, _error: Exception | None) -> None:
        if self in self.pool:
            self.pool.remove(self)
        if self.client is not None:
            self.client.transport.close()


class Client(asyncio.Protocol):
    def __init__(self, pool: list[Upstream], port: int) -> None:
        self.pool = pool
        self.port = port
        self.parser = httptools.HttpRequestParser(self)
        self.parts: list[bytes] = []
        self.whole = False
        self.serving: Upstream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        self.parser.feed_data(data)
        if self.whole:
            self.whole = False
            request = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
            self.parts = []
            if self.pool:
                self.send(self.pool.pop(), request)
            else:
                asyncio.get_running_loop().create_task(self.connect(request))

    def on_message_complete(self) -> None:
        self.whole = True

    async def connect(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: Upstream(self.pool), "127.0.0.1", self.port)
        self.send(upstream, request)

    def send(self, upstream: Upstream, request: bytes) -> None:
        upstream.client = self
        self.serving = upstream
        upstream.write(request)

    def finish(self) -> None:
        self.serving = None

    def connection_lost(self, _error: Exception | None) -> None:
        if self.serving is not None:
            self.serving.client = None
            self.serving.transport.close()


async def serve(port: int, upstream: int) -> None:
    pool: list[Upstream] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(pool, upstream), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.upstream))


if __name__ == "__main__":
    main()
