"""Makes the land that location proofs are decided on, from Natural Earth by way of the npm package `world-atlas`.

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python tools/land.py package/countries-10m.json src/sekisho/residency/location/data/land.bin
    python tools/land.py package/countries-10m.json --against package/countries-50m.json    (how far scales differ)

The file that it writes is described in `sekisho/residency/location/data/README.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from array import array
from itertools import pairwise, product
from math import dist
from pathlib import Path
from typing import Any

from babel.core import get_global

from sekisho.residency.location.earth import Point, point

EDGES = 32  # in a run: one bounding ball, one step of the search
RUNS = 16  # in a group
MAX_STEP_DEG = 0.25  # longer edges are cut: a straight line in space then leaves the surface by less than 32 m
# Rocks that the source leaves out although somebody disputes them: whatever is unclear counts as foreign.
SOURCE = "Natural Earth 4.1.0, 1:10m Admin 0 countries, npm world-atlas 2.0.2"
EXTRA = (("", "Liancourt Rocks (Takeshima / Dokdo)", 37.2418, 131.8645),)


Ring = tuple[str, str, int, list[tuple[int, int]]]
"""Alpha-2 code or "", name, number of its polygon, closed ring of quantised longitude and latitude."""


def rings(atlas: dict[str, Any]) -> list[Ring]:
    arcs: list[list[tuple[int, int]]] = []
    for arc in atlas["arcs"]:
        x = y = 0
        points = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            points.append((x, y))
        arcs.append(points)
    numeric = get_global("territory_aliases")
    found: list[Ring] = []
    polygons = 0
    for country in atlas["objects"]["countries"]["geometries"]:
        code = numeric.get(country.get("id") or "", [""])[0]
        groups = {"Polygon": [country["arcs"]], "MultiPolygon": country["arcs"]}[country["type"]]
        for polygon in groups:
            polygons += 1
            for ring in polygon:
                points = []
                for index in ring:
                    part = arcs[index] if index >= 0 else arcs[~index][::-1]
                    points.extend(part if not points else part[1:])
                if points[0] != points[-1]:
                    raise SystemExit(f"a ring of {country['properties']['name']} is open")
                found.append((code, country["properties"]["name"], polygons, points))
    return found


def unrolled(
    ring: list[tuple[int, int]], scale: tuple[float, float], shift: tuple[float, float]
) -> list[tuple[int, int]]:
    """The ring with no jump at the antimeridian (the source closes rings across it): longitudes may leave ±180°.

    A ring around a pole is closed by way of the pole.
    """
    turn = round(360 / scale[0])
    result = [ring[0]]
    offset = 0
    for (x0, _), (x1, y1) in pairwise(ring):
        if abs(x1 - x0) > turn / 2:
            offset += turn if x1 < x0 else -turn
        result.append((x1 + offset, y1))
    if offset:
        pole = round(
            ((-90 if sum(y for _, y in ring) * scale[1] / len(ring) + shift[1] < 0 else 90) - shift[1]) / scale[1]
        )
        result += [(result[-1][0], pole), (result[0][0], pole), result[0]]
    return result


def cut(ring: list[tuple[int, int]], step: tuple[float, float]) -> list[tuple[int, int]]:
    """The ring with no edge longer than MAX_STEP_DEG in either direction."""
    result = [ring[0]]
    for (x0, y0), (x1, y1) in pairwise(ring):
        pieces = int(max(abs(x1 - x0) * step[0], abs(y1 - y0) * step[1]) / MAX_STEP_DEG) + 1
        result.extend(
            (round(x0 + (x1 - x0) * k / pieces), round(y0 + (y1 - y0) * k / pieces)) for k in range(1, pieces + 1)
        )
    return result


def ball(points: list[Point], radii: list[float] | None = None) -> tuple[float, float, float, float]:
    """A ball around all points (or balls): the middle of their box, never too small."""
    middle = tuple((min(p[k] for p in points) + max(p[k] for p in points)) / 2 for k in range(3))
    reach = max(dist(middle, p) + (radii[i] if radii else 0.0) for i, p in enumerate(points))
    return (*middle, reach + 0.005)  # float32 in the file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atlas", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    atlas = json.loads(arguments.atlas.read_text())
    if arguments.against:
        compare(atlas, json.loads(arguments.against.read_text()))
    if arguments.out:
        write(atlas, arguments.out)


def write(atlas: dict[str, Any], out: Path) -> None:
    scale, shift = atlas["transform"]["scale"], atlas["transform"]["translate"]
    all_rings = rings(atlas)
    for code, name, latitude, longitude in EXTRA:
        x, y = round((longitude - shift[0]) / scale[0]), round((latitude - shift[1]) / scale[1])
        all_rings.append((code, name, -len(all_rings), [(x - 1, y), (x, y + 1), (x + 1, y), (x, y - 1), (x - 1, y)]))
    out.write_bytes(pack(all_rings, scale, shift, SOURCE))
    print(f"{len(all_rings)} rings, {out.stat().st_size} bytes")


def pack(
    all_rings: list[Ring],
    scale: tuple[float, float],
    shift: tuple[float, float],
    source: str,
) -> bytes:
    """The file's bytes, from closed rings of quantised points."""
    countries = sorted({(code, name) for code, name, _, _ in all_rings})
    number = {country: index for index, country in enumerate(countries)}

    at = lambda p: point(p[1] * scale[1] + shift[1], p[0] * scale[0] + shift[0])  # noqa: E731
    xs, ys, ring_table = array("i"), array("i"), array("i")
    runs: list[tuple[int, int, int, tuple[float, float, float, float]]] = []
    for code, name, polygon, ring in all_rings:
        whole = cut(unrolled(ring, scale, shift), scale)
        start = len(xs)
        xs.extend(p[0] for p in whole)
        ys.extend(p[1] for p in whole)
        ring_table.extend((number[code, name], polygon, start, len(whole)))
        for first in range(0, len(whole) - 1, EDGES):
            last = min(first + EDGES, len(whole) - 1)
            part = [at(p) for p in whole[first : last + 1]]
            runs.append((number[code, name], start + first, last - first, ball(part)))
    order = halve(runs)
    groups = [order[i : i + RUNS] for i in range(0, len(order), RUNS)]
    balls, group_balls, run_table = array("f"), array("f"), array("i")
    for group in groups:
        group_balls.extend(ball([run[3][:3] for run in group], [run[3][3] for run in group]))
        for country, start, edges, around in group:
            run_table.extend((country, start, edges))
            balls.extend(around)
    parts = [delta(xs), delta(ys), ring_table, run_table, balls, group_balls]
    if sys.byteorder == "big":
        for part in parts:
            part.byteswap()
    head = json.dumps(
        {
            "source": source,
            "scale": scale,
            "shift": shift,
            "group": RUNS,
            "countries": countries,
            "parts": [len(part) for part in parts],
        },
        ensure_ascii=False,
    ).encode()
    body = b"".join(part.tobytes() for part in parts)
    data = b"SKLAND1\n" + len(head).to_bytes(4, "little") + head + body
    return zlib.compress(data, 9)


def delta(values: array[int]) -> array[int]:
    before = 0
    result = array("i")
    for value in values:
        result.append(value - before)
        before = value
    return result


def halve(runs: list[Any]) -> list[Any]:
    """Neighbours in space become neighbours in the list."""
    if len(runs) <= RUNS:
        return runs
    spread = [max(r[3][k] for r in runs) - min(r[3][k] for r in runs) for k in range(3)]
    axis = spread.index(max(spread))
    runs = sorted(runs, key=lambda r: r[3][axis])
    half = -(-len(runs) // (2 * RUNS)) * RUNS
    return halve(runs[:half]) + halve(runs[half:])


def compare(atlas: dict[str, Any], other: dict[str, Any]) -> None:
    """Of every vertex of the second map: how far it lies from the first map's outline of the same country."""

    def outlines(each: dict[str, Any]) -> dict[str, list[Point]]:
        scale, shift = each["transform"]["scale"], each["transform"]["translate"]
        result: dict[str, list[Point]] = {}
        for _, name, _, ring in rings(each):
            result.setdefault(name, []).extend(
                point(y * scale[1] + shift[1], x * scale[0] + shift[0]) for x, y in ring
            )
        return result

    fine, coarse = outlines(atlas), outlines(other)
    distances: list[float] = []
    for name in coarse.keys() & fine.keys():
        cells: dict[tuple[int, ...], list[Point]] = {}
        for p in fine[name]:
            cells.setdefault(tuple(int(v // 50) for v in p), []).append(p)
        for p in coarse[name]:
            around = product(*((int(v // 50) - 1, int(v // 50), int(v // 50) + 1) for v in p))
            near = [q for cell in around for q in cells.get(cell, ())]
            distances.append(min((dist(p, q) for q in near), default=50.0))
    distances.sort()
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        reach = distances[min(len(distances) - 1, int(share * len(distances)))]
        print(f"{share:6.1%} of {len(distances)} vertices within {reach:.2f} km")


if __name__ == "__main__":
    main()
