"""The little HTTP that a worker speaks with its control plane: one GET, one answer of known length."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from sekisho.gateway.http1 import ResponseHead, parse_response
from sekisho.kernel.errors import SekishoError


class ControlFailed(SekishoError):
    """The control plane did not answer as it should."""

    code = "control.unreachable"


class ControlAddress:
    """Where control is, and the token for it (read anew for each request: it may have been rotated)."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self.url = url
        self._token_file = token_file

    async def get(self, path: str, *, max_bytes: int, timeout_s: float) -> tuple[ResponseHead, bytes]:
        """Raises ControlFailed, OSError, TimeoutError, Malformed or asyncio.IncompleteReadError."""
        url = urlsplit(self.url)
        token = self._token_file.read_text().strip() if self._token_file is not None else ""
        context = ssl.create_default_context() if url.scheme == "https" else None
        port = url.port or (443 if context else 80)
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(url.hostname, port, ssl=context)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nhost: {url.netloc}\r\nauthorization: Bearer {token}\r\n"
                    "connection: close\r\n\r\n".encode()
                )
                raw = await reader.readuntil(b"\r\n\r\n")
                head = parse_response(raw[:-2])
                if not 0 <= head.length <= max_bytes:
                    raise ControlFailed("control's answer has no plain length")
                return head, await reader.readexactly(head.length)
            finally:
                writer.close()
