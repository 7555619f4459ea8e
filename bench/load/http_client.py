"""A client connection for measuring: raw bytes out, httptools in, no work but what a check needs."""

from __future__ import annotations

import asyncio
import time

import httptools


def request_bytes(port: int, body: bytes, key: str) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One request at a time: `await send(data)` gives (status, body), and times of the first and last byte."""

    def __init__(self, *, keep_body: bool = True) -> None:
        self.keep_body = keep_body
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.transport: asyncio.Transport | None = None
        self._reset()

    @classmethod
    async def open(cls, port: int, *, keep_body: bool = True) -> Connection:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: cls(keep_body=keep_body), "127.0.0.1", port)
        return protocol

    def _reset(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.parts: list[bytes] = []
        self.first_byte_at = 0.0
        self.reads = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionError("closed by the peer"))

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_body(self, body: bytes) -> None:
        if not self.first_byte_at:
            self.first_byte_at = time.perf_counter()
        if self.keep_body:
            self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.answer and not self.answer.done():
            self.answer.set_result((self.parser.get_status_code(), b"".join(self.parts)))

    def _fail(self, error: Exception) -> None:
        if self.answer and not self.answer.done():
            self.answer.set_exception(error)

    def send(self, data: bytes) -> asyncio.Future[tuple[int, bytes]]:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionError("closed by the peer")
        self._reset()
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.answer

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
