"""Receipts on the gateway's own address: the worker asks control on behalf of a tenant whose key it has checked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from sekisho.gateway.control import ControlAddress, ControlFailed
from sekisho.gateway.http1 import Malformed

_MAX_RECEIPT = 256 << 10
_TIMEOUT_S = 5.0
# Control shares its machine with the workers: clients that ask for receipts in a loop must not take it over.
_AT_ONCE = 16
_log = logging.getLogger("sekisho.gateway.receipts")


class ReceiptAnswer(NamedTuple):
    """What control said. `status` 0: it did not answer; 429: too many ask at this moment."""

    status: int
    content_type: bytes = b""
    retry_after: bytes = b""
    body: bytes = b""


class Receipts:
    """Belongs to the event loop of one worker."""

    def __init__(self, control: ControlAddress) -> None:
        self._control = control
        self._running: set[asyncio.Task[None]] = set()

    def ask(self, *, tenant: str, decision: str, form: str, done: Callable[[ReceiptAnswer], None]) -> None:
        """Calls `done` once, later. `tenant` and `decision` are safe in a URL (ids of ours), `form` likewise."""
        if len(self._running) >= _AT_ONCE:
            done(ReceiptAnswer(429))
            return
        task = asyncio.get_running_loop().create_task(self._fetch(tenant, decision, form, done))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _fetch(self, tenant: str, decision: str, form: str, done: Callable[[ReceiptAnswer], None]) -> None:
        path = f"/internal/v1/receipts/{decision}?tenant={tenant}&format={form}"
        try:
            head, body = await self._control.get(path, max_bytes=_MAX_RECEIPT, timeout_s=_TIMEOUT_S)
        except (ControlFailed, OSError, Malformed, asyncio.IncompleteReadError) as error:
            _log.warning("no receipt from control: %s", str(error) or type(error).__name__)
            done(ReceiptAnswer(0))
            return
        headers = head.headers
        done(ReceiptAnswer(head.status, headers.get(b"content-type", b""), headers.get(b"retry-after", b""), body))
