"""Identifiers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

# Names that people give: operators, sites, endpoints, tenants. Safe in a header, a path and a file name.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
# Names of models: what an OpenAI client may send (`Qwen/Qwen3-8B`, `smollm2-135m:q8`).
MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/@+-]{0,126}[A-Za-z0-9])?")

DECISION = re.compile(r"[0-9a-f]{32}")


def decision_ids(boot: bytes) -> Callable[[int], str]:
    """A source of decision ids: 32 hex digits, sorted by time to the millisecond.

    The argument is the time in Unix milliseconds (48 bits of the id); 40 bits name this process run (`boot`, five
    random bytes) and a counter has 40 bits: unique without coordination, and a restarted process never repeats one.
    """
    if len(boot) != 5:
        raise ValueError("boot must be 5 bytes")
    prefix = boot.hex()
    count = itertools.count(1).__next__

    def next_id(at_ms: int) -> str:
        return f"{at_ms:012x}{prefix}{count():010x}"

    return next_id
