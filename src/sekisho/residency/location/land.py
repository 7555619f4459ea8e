"""Whose land lies where: Natural Earth's 1:10m countries, and two questions about them.

`nearest` asks for the least value that `excess` takes on a country's outline, where excess(p) is how far a point lies
beyond a set of balls: max over the balls of (distance to the centre - radius). It is a branch and bound over balls
around pieces of outline. Excess changes by at most 1 km per km and is convex along a straight line, so nothing is
sampled: the answer is never above the true least value, and at most `TOLERANCE_KM` below it.
`countries_at` asks whose land a point is on.

Disputed land: the data gives land to whoever administers it; land that it gives to nobody is foreign to everybody.
That is caution, not a statement about sovereignty: a proof holds whoever is right.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from importlib.resources import files
from itertools import accumulate
from math import dist, inf

import msgspec

from sekisho.residency.location.earth import Point, place, point

# Half a millimetre on a map of 1:10,000,000: coastlines and borders may lie this far from where they are drawn.
MAP_ERROR_KM = 5.0
TOLERANCE_KM = 0.001
_MAGIC = b"SKLAND1\n"
_CACHED_RUNS = 4096


class Ball(msgspec.Struct, frozen=True):
    """All points within `radius_km` of `centre`. A measurement says: the key that answered is in here."""

    centre: Point
    radius_km: float


class Country(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is ISO 3166-1 alpha-2; "" where the land is disputed or has none. `name` is Natural Earth's."""

    code: str
    name: str


class Nearest(msgspec.Struct, frozen=True, kw_only=True):
    """Land with the least excess: where (degrees), whose, and the value (km; negative: it lies inside)."""

    excess_km: float
    country: Country
    latitude: float
    longitude: float


def excess_km(at: Point, balls: Sequence[Ball]) -> float:
    """How far beyond the intersection of the balls a point lies; 0 or less inside. -inf without balls."""
    worst = -inf
    for each in balls:
        beyond = dist(at, each.centre) - each.radius_km
        worst = max(worst, beyond)
    return worst


class Land:
    """The file in memory: about 10 MB, read in a tenth of a second, and never changed."""

    def __init__(self, data: bytes) -> None:
        raw = zlib.decompress(data)
        if raw[:8] != _MAGIC:
            raise ValueError("this is not a file of tools/land.py")
        length = int.from_bytes(raw[8:12], "little")
        head = json.loads(raw[12 : 12 + length])
        self.source: str = head["source"]
        self.countries = tuple(Country(code=code, name=name) for code, name in head["countries"])
        self._scale: tuple[float, float] = tuple(head["scale"])
        self._shift: tuple[float, float] = tuple(head["shift"])
        self._group: int = head["group"]
        view = memoryview(raw)[12 + length :]
        parts: list[memoryview] = []
        for count in head["parts"]:
            parts.append(view[: 4 * count])
            view = view[4 * count :]
        self._x = array("i", accumulate(parts[0].cast("i")))
        self._y = array("i", accumulate(parts[1].cast("i")))
        rings, runs = parts[2].cast("i").tolist(), parts[3].cast("i").tolist()
        # country, polygon, first point, points
        self._rings: list[tuple[int, int, int, int]] = list(
            zip(rings[::4], rings[1::4], rings[2::4], rings[3::4], strict=True)
        )
        self._runs: list[tuple[int, int, int]] = list(zip(runs[::3], runs[1::3], runs[2::3], strict=True))
        self._balls = _quads(parts[4].cast("f").tolist())
        self._groups = _quads(parts[5].cast("f").tolist())
        self._boxes = [self._box(start, count) for _, _, start, count in self._rings]
        self._cached: dict[int, list[Point]] = {}

    def nearest(
        self, balls: Sequence[Ball], of: Callable[[Country], bool], *, within_km: float = inf
    ) -> Nearest | None:
        """The outline with the least excess over the balls, among the countries that `of` picks.

        None when there is none below `within_km`. Interiors are not looked at: see `countries_at`.
        """
        wanted = [of(country) for country in self.countries]
        terms = [(ball.centre, ball.radius_km) for ball in balls]
        if not terms:
            return None
        best, found = within_km, None
        heap: list[tuple[float, int]] = []  # lower bound; group number, or ~run number
        for number, (centre, reach) in enumerate(self._groups):
            bound = max([dist(centre, c) - r for c, r in terms]) - reach
            if bound < best:
                heap.append((bound, number))
        heap.sort()
        while heap:
            bound, number = heappop(heap)
            if bound >= best - TOLERANCE_KM:
                break
            if number >= 0:
                first = number * self._group
                for run in range(first, min(first + self._group, len(self._runs))):
                    if wanted[self._runs[run][0]]:
                        centre, reach = self._balls[run]
                        bound = max([dist(centre, c) - r for c, r in terms]) - reach
                        if bound < best - TOLERANCE_KM:
                            heappush(heap, (bound, ~run))
                continue
            value, at = _least_on_line(self._points(~number), terms, best)
            if at is not None:
                best, found = value, (at, self.countries[self._runs[~number][0]])
        if found is None:
            return None
        latitude, longitude = place(found[0])
        return Nearest(excess_km=best - TOLERANCE_KM, country=found[1], latitude=latitude, longitude=longitude)

    def countries_at(self, latitude: float, longitude: float) -> tuple[Country, ...]:
        """Whose land this is (degrees), everybody's who is drawn there; none at sea and on lakes that are cut out."""
        x = (longitude - self._shift[0]) / self._scale[0]
        y = (latitude - self._shift[1]) / self._scale[1]
        turn = 360 / self._scale[0]
        # the rings of a polygon are its outline and its holes: inside is whatever is in an odd number of them
        inside: dict[tuple[int, int], bool] = {}
        for (country, polygon, start, count), (west, south, east, north) in zip(
            self._rings, self._boxes, strict=True
        ):
            if south <= y <= north:
                for turned in (x - turn, x, x + turn):
                    if west <= turned <= east and self._in_ring(turned, y, start, count):
                        inside[country, polygon] = not inside.get((country, polygon), False)
        return tuple(self.countries[country] for (country, _), odd in inside.items() if odd)

    def outlines(
        self, south: float, west: float, north: float, east: float
    ) -> Iterator[tuple[Country, list[Point2]]]:
        """Closed rings of (longitude, latitude) in degrees whose boxes meet this one; for drawing.

        `east` may be above 180, and `west` below -180: rings then come shifted by 360.
        """
        for (country, _, start, count), box in zip(self._rings, self._boxes, strict=True):
            x0, y0 = self._degrees(box[0], box[1])
            x1, y1 = self._degrees(box[2], box[3])
            for turn in (-360.0, 0.0, 360.0):
                if x0 + turn <= east and x1 + turn >= west and y0 <= north and y1 >= south:
                    ring = [self._degrees(self._x[i], self._y[i]) for i in range(start, start + count)]
                    yield self.countries[country], [(x + turn, y) for x, y in ring]

    def _degrees(self, x: float, y: float) -> tuple[float, float]:
        return x * self._scale[0] + self._shift[0], y * self._scale[1] + self._shift[1]

    def _box(self, start: int, count: int) -> tuple[int, int, int, int]:
        xs, ys = self._x[start : start + count], self._y[start : start + count]
        return min(xs), min(ys), max(xs), max(ys)

    def _points(self, run: int) -> list[Point]:
        known = self._cached.get(run)
        if known is None:
            _, start, edges = self._runs[run]
            known = []
            for i in range(start, start + edges + 1):
                longitude, latitude = self._degrees(self._x[i], self._y[i])
                known.append(point(latitude, longitude))
            if len(self._cached) >= _CACHED_RUNS:
                self._cached.clear()
            self._cached[run] = known
        return known

    def _in_ring(self, x: float, y: float, start: int, count: int) -> bool:
        """Even-odd rule; the half-open comparison counts a vertex on the line once."""
        xs, ys = self._x, self._y
        inside = False
        x0, y0 = xs[start], ys[start]
        for i in range(start + 1, start + count):
            x1, y1 = xs[i], ys[i]
            if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
                inside = not inside
            x0, y0 = x1, y1
        return inside


Point2 = tuple[float, float]
_Term = tuple[Point, float]


def _quads(flat: Sequence[float]) -> list[tuple[Point, float]]:
    return [((x, y, z), r) for x, y, z, r in zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)]


def _least_on_line(points: Sequence[Point], terms: Sequence[_Term], best: float) -> tuple[float, Point | None]:
    """The least excess on a chain of segments when it is below `best` by more than the tolerance, and where.

    `best` and None when it is not.
    """
    found: Point | None = None
    values = [max([dist(p, c) - r for c, r in terms]) for p in points]
    lowest = min(values)
    if lowest < best:
        best, found = lowest, points[values.index(lowest)]
    for i in range(len(points) - 1):
        a, b = points[i], points[i + 1]
        # 1 km per km from both ends: on a segment nothing is lower than this
        if (values[i] + values[i + 1] - dist(a, b)) / 2 < best - TOLERANCE_KM:
            value, at = _least_on_segment((a, b), (values[i], values[i + 1]), terms, best)
            if at is not None:
                best, found = value, at
    return best, found


def _least_on_segment(
    ends: tuple[Point, Point], values: tuple[float, float], terms: Sequence[_Term], best: float
) -> tuple[float, Point | None]:
    """Halves the segment for as long as a half may hold something lower than `best`."""
    found: Point | None = None
    stack = [(*ends, *values)]
    while stack:
        a, b, at_a, at_b = stack.pop()
        if (at_a + at_b - dist(a, b)) / 2 >= best - TOLERANCE_KM:
            continue
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)
        value = max([dist(middle, c) - r for c, r in terms])
        if value < best:
            best, found = value, middle
        # the lower half last, so that it is looked at first
        halves = [(a, middle, at_a, value), (middle, b, value, at_b)]
        stack.extend(halves if at_b < at_a else halves[::-1])
    return best, found


@cache
def natural_earth() -> Land:
    """The land in this package."""
    return Land(files("sekisho.residency.location").joinpath("data/land.bin").read_bytes())
