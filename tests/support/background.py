"""One event loop in a thread, on which the scripted servers of the tests live."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

SOAK = os.environ.get("SEKISHO_SOAK") == "1"
"""Long runs: the same tests with more time, more clients, more bytes."""


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The loop; started on first use, it ends with the process."""
    made = asyncio.new_event_loop()
    threading.Thread(target=made.run_forever, name="scripted servers", daemon=True).start()
    return made


def run(work: Coroutine[Any, Any, T], *, within_s: float = 30.0) -> T:
    """Run a coroutine over there and wait for its result."""
    return asyncio.run_coroutine_threadsafe(work, loop()).result(within_s)


def until(condition: Callable[[], object], *, within_s: float = 20.0, what: str = "it") -> None:
    """Wait for a condition. The limit is there for what never happens, not to measure."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:g} s"
        time.sleep(0.01)
