"""Durations and sizes as people write them: `30s`, `5ms`, `1h`, `16MiB`."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_duration_s(text: str) -> float | None:
    """`30s` → 30.0 seconds; None when it is not a number with ms, s, m, h or d."""
    match = _DURATION.fullmatch(text)
    return float(match[1]) * _SECONDS[match[2]] if match else None


def parse_size_bytes(text: str) -> int | None:
    """`16MiB` → 16777216 bytes; None when it is not a whole number with B, KiB, MiB or GiB."""
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _BYTES[match[2]] if match else None


def format_duration(seconds: float) -> str:
    """12.3 → `12.3s`, 7200 → `2h`: the largest unit that reads well."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= size:
            value = seconds / size
            return f"{value:.0f}{unit}" if value == int(value) else f"{value:.1f}{unit}"
    return f"{seconds:.1f}s"
