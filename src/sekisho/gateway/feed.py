"""Where route tables come from: the control plane's long poll, and the last good copy on this machine's disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sekisho.gateway.control import ControlAddress, ControlFailed
from sekisho.residency.table import RouteTable, TableRefused, read_table

_POLL_S = 40.0  # longer than control holds a poll
_MAX_TABLE = 256 << 20
_log = logging.getLogger("sekisho.gateway.feed")


class Feed:
    """Follows the control plane; without it the gateway goes on with the last good table.

    MUST NOT: adopt a table that is not signed by our control plane, or one older than the one in force.
    """

    def __init__(
        self,
        *,
        table_file: Path,
        public_key: Ed25519PublicKey,
        control: ControlAddress | None,
        adopt: Callable[[RouteTable], Awaitable[None]],
    ) -> None:
        self._file = table_file
        self._key = public_key
        self._control = control
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
        while self._control is not None:
            try:
                data = await self._fetch(self._control)
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
            await asyncio.to_thread(self._save, data)  # megabytes to a disk: requests must not wait for it

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

    async def _fetch(self, control: ControlAddress) -> bytes:
        """One long poll: the newer table, or nothing when there is none yet."""
        path = f"/internal/v1/table?after={self._version}"
        head, data = await control.get(path, max_bytes=_MAX_TABLE, timeout_s=_POLL_S)
        if head.status == 204:
            return b""
        if head.status != 200:
            raise ControlFailed(
                f"control answers {head.status} to the request for the route table",
                hint="check that the gateway's token is that of this control plane",
            )
        return data
