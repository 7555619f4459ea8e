"""A client in bytes: what it sends is what was written, and what it reads is taken apart strictly."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from typing import Any


class Cut(Exception):
    """The connection ended before the answer was complete."""

    def __init__(self, so_far: bytes, *, reset: bool) -> None:
        super().__init__(f"{len(so_far)} bytes, {'reset' if reset else 'closed'}")
        self.so_far = so_far
        self.reset = reset


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    framed: str  # "length", "chunked" or "close"
    interim: tuple[int, ...] = ()

    @property
    def decision(self) -> str:
        return self.headers["x-sekisho-decision"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Wire:
    """One connection to the gateway."""

    def __init__(self, port: int, *, timeout_s: float = 20.0, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        for index, piece in enumerate(pieces):
            if index and pause_s:
                time.sleep(pause_s)
            self.socket.sendall(piece)

    def more(self) -> bytes:
        """Bytes that came, b"" at the end. Raises Cut on a reset."""
        try:
            return self.socket.recv(1 << 18)
        except ConnectionError:
            raise Cut(self.buffer, reset=True) from None

    def _fill(self) -> None:
        data = self.more()
        if not data:
            raise Cut(self.buffer, reset=False)
        self.buffer += data

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self._fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def head(self) -> tuple[int, dict[str, str]]:
        """The head of the next answer."""
        version, status, _ = self._line().decode("latin-1").split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            assert name == name.strip(), "no space around a header's name"
            assert name.lower() not in headers, f"{name} is given twice"
            headers[name.lower()] = value.strip()
        return int(status), headers

    def chunk(self) -> bytes:
        """One chunk; b"" is the last one."""
        size = int(self._line(), 16)
        payload = self._take(size)
        assert self._take(2) == b"\r\n"
        return payload

    def answer(self) -> Answer:
        """The next whole answer. Raises Cut."""
        interim: list[int] = []
        status, headers = self.head()
        while status < 200:
            interim.append(status)
            status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            body = b""
            while part := self.chunk():
                body += part
            framed = "chunked"
        elif "content-length" in headers:
            body, framed = self._take(int(headers["content-length"])), "length"
        else:
            while data := self.more():
                self.buffer += data
            body, self.buffer, framed = self.buffer, b"", "close"
        return Answer(status, headers, body, framed, tuple(interim))

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def closed(self) -> bool:
        """Whether the other side has ended the connection and sent nothing more (waits for it)."""
        if self.buffer:
            return False
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def request(
    body: bytes = b"",
    *,
    key: str | None = None,
    method: str = "POST",
    target: str = "/v1/chat/completions",
    headers: tuple[str, ...] = (),
    version: str = "1.1",
) -> bytes:
    """A well-formed request."""
    lines = [f"{method} {target} HTTP/{version}", "host: gateway"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


def chat(model: str = "m", **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}).encode()
