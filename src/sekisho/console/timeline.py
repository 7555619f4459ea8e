"""Pictures of reservations: areas of what is taken over time, and bars in lanes. Pure; per cent and pixels."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sekisho.capacity.model import Reservation
from sekisho.capacity.survey import Taken

COLUMNS = 240
HEIGHT = 40
BAR = 26
# A bar that is narrower can't be hit with a finger.
MIN_WIDTH = 0.6


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture shows: slots [first, until)."""

    first: int
    until: int

    def percent(self, slot: int) -> float:
        inside = min(max(slot, self.first), self.until)
        return round(100 * (inside - self.first) / (self.until - self.first), 3)


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the picture. Paths are in a box of COLUMNS × HEIGHT; `whole` is what the height stands for."""

    name: str
    href: str
    said: str
    whole: int
    peak: int
    taken: str
    blocked: str


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    x: float
    width: float
    y: int
    label: str
    said: str
    kind: str


def path(columns: tuple[int, ...], whole: int) -> str:
    """The area under the columns; empty when there is nothing."""
    if not any(columns) or whole <= 0:
        return ""
    steps = [f"M0 {HEIGHT}"]
    last = -1.0
    for place, value in enumerate(columns):
        y = round(HEIGHT - HEIGHT * min(value, whole) / whole, 2)
        if y != last:
            steps.append(f"H{place}V{y:g}")
            last = y
    steps.append(f"H{len(columns)}V{HEIGHT}Z")
    return "".join(steps)


def peaks(taken: Iterable[Taken], span: Span) -> tuple[int, ...]:
    """The most that is taken in each column."""
    steps: dict[int, int] = {}
    for each in taken:
        first, until = max(each.first, span.first), min(each.until, span.until)
        if first < until:
            steps[first] = steps.get(first, 0) + each.gpus
            steps[until] = steps.get(until, 0) - each.gpus
    columns = [0] * COLUMNS
    width = span.until - span.first
    ordered = sorted(steps)
    level = 0
    for at, following in zip(ordered, [*ordered[1:], span.until], strict=False):
        level += steps[at]
        left = (at - span.first) * COLUMNS // width
        right = -(-(following - span.first) * COLUMNS // width)
        for column in range(left, min(right, COLUMNS)):
            columns[column] = max(columns[column], level)
    return tuple(columns)


def lanes(shown: Iterable[tuple[Reservation, str, str, str]], span: Span) -> tuple[tuple[Bar, ...], int]:
    """Bars that don't overlap in a lane, and the height of all lanes; each comes with label, sentence and kind."""
    ends: list[float] = []
    bars = []
    for held, label, said, kind in shown:
        x = min(span.percent(held.body.first), 100 - MIN_WIDTH)
        width = max(span.percent(held.body.until) - x, MIN_WIDTH)
        lane = next((place for place, end in enumerate(ends) if end <= x), len(ends))
        if lane == len(ends):
            ends.append(0.0)
        ends[lane] = x + width
        bars.append(Bar(id=held.id, x=x, width=round(width, 3), y=lane * BAR, label=label, said=said, kind=kind))
    return tuple(bars), max(len(ends), 1) * BAR
