"""The current route table, and those who wait for the next one."""

from __future__ import annotations

import asyncio

import msgspec


class PublishedTable(msgspec.Struct, frozen=True, kw_only=True):
    """`data` are the signed bytes, as they travel."""

    version: int
    data: bytes


class TablePublisher:
    """Holds one table and wakes every waiting gateway the moment it changes. Belongs to one event loop."""

    def __init__(self) -> None:
        self._current: PublishedTable | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self.waiting = 0

    @property
    def current(self) -> PublishedTable | None:
        return self._current

    def publish(self, table: PublishedTable) -> None:
        """Replaces the table; a version that does not grow is a fault of the caller's."""
        if self._current is not None and table.version <= self._current.version:
            raise ValueError(f"table {table.version} after {self._current.version}")
        self._current = table
        self._wake()

    def close(self) -> None:
        """Lets every waiter go empty-handed, now and from now on: the process is about to end."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        # A fresh event for those who come later; those who wait hold the old one.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def newer_than(self, version: int, *, timeout_s: float) -> PublishedTable | None:
        """The current table once its version is above `version`; None when that does not happen in time."""
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                while not self._closed:
                    if self._current is not None and self._current.version > version:
                        return self._current
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        return None
