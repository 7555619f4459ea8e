"""Identifiers."""

from __future__ import annotations

import re
from typing import Final

# Names that people give: operators, sites, endpoints, tenants. Safe in a header, a path and a file name.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
# Names of models: what an OpenAI client may send (`Qwen/Qwen3-8B`, `smollm2-135m:q8`).
MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/@+-]{0,126}[A-Za-z0-9])?")

DECISION = re.compile(r"[0-9a-f]{32}")


_HEX: Final = [f"{byte:02x}" for byte in range(256)]


class DecisionIds:
    """A source of decision ids: 32 hex digits, sorted by time to the millisecond.

    48 bits of the id are the time, 40 bits name this process run (`boot`, five random bytes) and 40 bits are a
    counter: unique without coordination, and a restarted process never repeats one.
    """

    __slots__ = ("_boot", "_count", "_ms", "_start")

    def __init__(self, boot: bytes) -> None:
        if len(boot) != 5:
            raise ValueError("boot must be 5 bytes")
        self._boot = boot.hex()
        self._count = 0
        self._ms = -1
        self._start = ""  # what the ids of one millisecond have in common

    def next(self, at_ms: int) -> str:
        """`at_ms`: Unix milliseconds."""
        count = self._count = self._count + 1
        low = count & 0xFFFF
        if at_ms != self._ms or not low:
            self._ms = at_ms
            self._start = "%012x%s%06x" % (at_ms, self._boot, count >> 16)  # noqa: UP031 - a third of an f-string's time
        return self._start + _HEX[low >> 8] + _HEX[low & 0xFF]
