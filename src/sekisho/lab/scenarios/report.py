"""What a scenario reports: facts with their limits, and files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A promise, whether it held, and the figures that say so."""

    en: str
    ja: str
    held: bool
    figures: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`figures` are for programs; `files` lie in the scenario's folder."""

    scenario: str
    title_en: str
    title_ja: str
    checks: tuple[Check, ...]
    figures: dict[str, Any]
    files: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        return all(check.held for check in self.checks)

    def write(self, folder: Path) -> Path:
        path = folder / "report.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))
        return path


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest-rank percentile; `share` from 0 to 1. ValueError when there are no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def distribution(values: Sequence[float]) -> dict[str, float]:
    """Count, smallest, 5th, 25th, 50th, 75th, 95th, 99th percentile and largest."""
    shares = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
    found = {name: round(percentile(values, share), 3) for name, share in shares.items()}
    return {"count": len(values), "min": round(min(values), 3), **found, "max": round(max(values), 3)}
