"""Where route tables come from: the control plane's long poll, and the last good copy on this machine's disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sekisho.gateway.http1 import parse_response
from sekisho.kernel.errors import SekishoError
from sekisho.residency.table import RouteTable, TableRefused, read_table

_POLL_S = 40.0  # longer than control holds a poll
_MAX_TABLE = 256 << 20
_log = logging.getLogger("sekisho.gateway.feed")


class FeedFailed(SekishoError):
    """The control plane did not answer as it should."""

    code = "control.unreachable"


class Feed:
    """Follows the control plane; without it the gateway goes on with the last good table.

    MUST NOT: adopt a table that is not signed by our control plane, or one older than the one in force.
    """

    def __init__(
        self,
        *,
        table_file: Path,
        public_key: Ed25519PublicKey,
        control_url: str | None,
        token_file: Path | None,
        adopt: Callable[[RouteTable], Awaitable[None]],
    ) -> None:
        self._file = table_file
        self._key = public_key
        self._url = control_url
        self._token_file = token_file
        self._adopt = adopt
        self._version = 0

    async def run(self) -> None:
        """Load the copy on disk, then follow control for ever."""
        try:
            await self._take(self._file.read_bytes(), keep=False)
        except FileNotFoundError:
            pass  # the first start
        except (OSError, TableRefused) as error:
            _log.warning("the copy of the route table on disk is not used: %s", error)
        pause = 0.05
        while self._url is not None:
            try:
                data = await self._fetch(self._url)
                if data:
                    await self._take(data, keep=True)
                pause = 0.05
            except Exception as error:  # whatever it was: a feed that stops would keep revoked keys alive
                _log.warning("no new route table: %s", str(error) or type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.5)  # law 5: a change must arrive within a second once control is back

    async def _take(self, data: bytes, *, keep: bool) -> None:
        table = await self._read(data)
        if table.version <= self._version:
            return
        await self._adopt(table)
        self._version = table.version
        if keep:
            self._save(data)

    async def _read(self, data: bytes) -> RouteTable:
        steps = read_table(data, self._key)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                table: RouteTable = done.value
                return table
            await asyncio.sleep(0)

    def _save(self, data: bytes) -> None:
        """Keep a copy; whole or not at all. A full disk costs only the copy."""
        part = self._file.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._file)
        except OSError as error:
            _log.warning("the route table could not be kept on disk: %s", error.strerror)
            with contextlib.suppress(OSError):
                part.unlink()

    async def _fetch(self, base: str) -> bytes:
        """One long poll: the newer table, or nothing when there is none yet."""
        url = urlsplit(base)
        token = self._token_file.read_text().strip() if self._token_file is not None else ""
        context = ssl.create_default_context() if url.scheme == "https" else None
        port = url.port or (443 if context else 80)
        async with asyncio.timeout(_POLL_S):
            reader, writer = await asyncio.open_connection(url.hostname, port, ssl=context)
            try:
                writer.write(
                    f"GET /internal/v1/table?after={self._version} HTTP/1.1\r\nhost: {url.netloc}\r\n"
                    f"authorization: Bearer {token}\r\nconnection: close\r\n\r\n".encode()
                )
                raw = await reader.readuntil(b"\r\n\r\n")
                head = parse_response(raw[:-2])
                if head.status == 204:
                    return b""
                if head.status != 200:
                    raise FeedFailed(
                        f"control answers {head.status} to the request for the route table",
                        hint="check that the gateway's token is that of this control plane",
                    )
                if not 0 <= head.length <= _MAX_TABLE:
                    raise FeedFailed("control's answer has no plain length")
                return await reader.readexactly(head.length)
            finally:
                writer.close()
