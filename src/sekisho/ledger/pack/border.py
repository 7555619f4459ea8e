"""Border statements as a pack reads them: signed counts of what crossed a border, each of them an entry of the log.

The body of such an entry is that of `sekisho.federation.border.body`: three counters of every line over the border,
with their zeros, and a canary, public traffic on purpose, that shows that the counters count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import msgspec

from sekisho.ledger.tlog.entries import EntryRefused, canonical

KIND = "border"
_COUNTERS = ("line", "interface", "capture")

BorderFinding = Literal[
    "clean",  # all counters saw the canary, none of them anything guarded
    "crossed",  # a counter saw something guarded
    "disagreement",  # the counters do not say the same
    "blind",  # the canary was not seen: the zeros prove nothing
    "unreadable",  # not of a form that this version reads
]


class BorderLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement counts. `guarded`: packets on guarded lines, by the counter that saw most; `canary`: on canary
    lines, by the one that saw least. `digest` and `previous` chain the statements of a border."""

    id: str
    border: str
    sequence: int
    from_ms: int
    to_ms: int
    lines: int
    guarded: int
    canary: int
    finding: BorderFinding
    digest: str
    previous: str


class _Way(msgspec.Struct, frozen=True, kw_only=True):
    canary: bool = False


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    way: _Way
    counted: dict[str, dict[str, int]]

    def packets(self) -> list[int]:
        return [self.counted[name]["out_packets"] + self.counted[name]["in_packets"] for name in _COUNTERS]

    def agreed(self) -> bool:
        first = self.counted[_COUNTERS[0]]
        return all(self.counted[name] == first for name in _COUNTERS)


class _Statement(msgspec.Struct, frozen=True, kw_only=True):
    border: str
    sequence: int
    from_ms: int
    to_ms: int
    rows: tuple[_Row, ...]
    previous: str


def read_border(entry: Mapping[str, Any]) -> BorderLine:
    """What the counts of an entry say; what it says of itself (`finding`) is not asked."""
    body = entry.get("body")
    document = body.get("statement") if isinstance(body, dict) else None
    try:
        said = msgspec.convert(document, _Statement)
        digest = hashlib.sha256(canonical(document)).hexdigest()
        guarded = [row for row in said.rows if not row.way.canary]
        canaries = [row for row in said.rows if row.way.canary]
        seen = max((max(row.packets()) for row in guarded), default=0)
        if any(value < 0 for row in said.rows for name in _COUNTERS for value in row.counted[name].values()):
            raise ValueError("a count below zero")
        canary = max((min(row.packets()) for row in canaries), default=0)
    except (msgspec.ValidationError, EntryRefused, KeyError, ValueError):
        return BorderLine(
            id=str(entry.get("id", "?")), border="", sequence=0, from_ms=0, to_ms=0, lines=0, guarded=0, canary=0,
            finding="unreadable", digest="", previous="",
        )  # fmt: skip
    finding: BorderFinding = "clean"
    if seen:
        finding = "crossed"
    elif not all(row.agreed() for row in said.rows):
        finding = "disagreement"
    elif not canary:
        finding = "blind"
    return BorderLine(
        id=str(entry.get("id", "?")), border=said.border, sequence=said.sequence, from_ms=said.from_ms,
        to_ms=said.to_ms, lines=len(guarded), guarded=seen, canary=canary, finding=finding, digest=digest,
        previous=said.previous,
    )  # fmt: skip


def gaps(lines: Iterable[BorderLine]) -> list[str]:
    """Where a border's statements do not follow on each other: one is missing, was changed, or leaves time out."""
    borders: dict[str, list[BorderLine]] = {}
    for line in lines:
        if line.finding != "unreadable":
            borders.setdefault(line.border, []).append(line)
    found = []
    for border, chain in sorted(borders.items()):
        ordered = sorted(chain, key=lambda line: (line.to_ms, line.sequence))
        for before, after in pairwise(ordered):
            if (after.sequence, after.previous, after.from_ms) != (before.sequence + 1, before.digest, before.to_ms):
                found.append(f"border {border}: statement {after.sequence} does not follow on {before.sequence}")
    return found


def covered_ms(lines: Sequence[BorderLine], *, since_ms: int, until_ms: int) -> int:
    """How much of a period lies in some clean statement."""
    clean = [line for line in lines if line.finding == "clean"]
    spans = sorted((max(line.from_ms, since_ms), min(line.to_ms, until_ms)) for line in clean)
    total, reached = 0, since_ms
    for start, end in spans:
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
