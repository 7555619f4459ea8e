"""Identifiers."""

from __future__ import annotations

import re
from collections.abc import Callable

# Names that people give: operators, sites, endpoints, tenants. Safe in a header, a path and a file name.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
# Names of models: what an OpenAI client may send (`Qwen/Qwen3-8B`, `smollm2-135m:q8`).
MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/@+-]{0,126}[A-Za-z0-9])?")

DECISION = re.compile(r"[0-9a-f]{32}")


def decision_ids(boot: bytes, now: Callable[[], float]) -> Callable[[], str]:
    """A source of decision ids: 32 hex digits, sorted by time to the millisecond.

    48 bits of Unix milliseconds, 40 bits that name this process run (`boot`, five random bytes), and a counter
    of 40 bits: unique without coordination, and a restarted process never repeats one.
    """
    if len(boot) != 5:
        raise ValueError("boot must be 5 bytes")
    prefix = boot.hex()
    count = 0

    def next_id() -> str:
        nonlocal count
        count += 1
        return "%012x%s%010x" % (int(now() * 1000), prefix, count)  # noqa: UP031 - measured: half of an f-string's time

    return next_id
