"""Location proofs: no foreign point in reach of a proof, whatever the map, the landmarks and the times.

The oracle knows nothing of the search: it tries points, one by one, on small maps made at random and on the real one.
"""

from __future__ import annotations

import importlib.util
import random
from math import asin, atan2, cos, degrees, dist, pi, radians, sin
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.residency.location.decide import decide
from sekisho.residency.location.earth import LIGHT_KM_PER_MS, point, radius_km
from sekisho.residency.location.land import Ball, Country, Land, excess_km, natural_earth
from sekisho.residency.location.model import Claim, Sighting
from support.background import SOAK

NOW = 1_800_000_000.0


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("land_tool", Path(__file__).parents[2] / "tools" / "land.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
SCALE, SHIFT = (0.0036, 0.0018), (-180.0, -90.0)

# -- small maps: squares and triangles of two countries, also on the antimeridian and at the poles

Shape = list[tuple[float, float]]  # longitude, latitude


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    width = draw(st.sampled_from([0.05, 1.0, 8.0, 40.0]))
    west = draw(st.sampled_from([-180.0, 180.0 - width, draw(st.floats(-180, 180 - width))]))
    south = draw(st.sampled_from([-90.0, 90.0 - width, draw(st.floats(-90, 90 - width))]))
    corners = [(west, south), (west + width, south), (west + width, south + width), (west, south + width)]
    if draw(st.booleans()):
        corners.pop(draw(st.integers(0, 3)))
    return corners


def packed(shapes_by_country: list[tuple[str, Shape]]) -> Land:
    """A map through the same tool that makes the real one."""
    rings = []
    for number, (code, shape) in enumerate(shapes_by_country):
        ring = [(round((x - SHIFT[0]) / SCALE[0]), round((y - SHIFT[1]) / SCALE[1])) for x, y in shape]
        rings.append((code, code, number, [*ring, ring[0]]))
    return Land(TOOL.pack(rings, SCALE, SHIFT, "a test"))


def points_of(shape: Shape, chance: random.Random, count: int) -> list[tuple[float, float]]:
    """Longitudes and latitudes on the outline and inside of a convex shape."""
    found = []
    for _ in range(count):
        weights = [chance.expovariate(1.0) if chance.random() < 0.6 else 0.0 for _ in shape]
        total = sum(weights) or 1.0
        weights = weights if sum(weights) else [1.0] + [0.0] * (len(shape) - 1)
        found.append(
            (
                sum(w * x for w, (x, _) in zip(weights, shape, strict=True)) / total,
                sum(w * y for w, (_, y) in zip(weights, shape, strict=True)) / total,
            )
        )
    return found


def reached(latitude: float, longitude: float, sightings: list[Sighting]) -> bool:
    """Whether light could go there and back within every time; nothing is allowed for."""
    at = point(latitude, longitude)
    return all(dist(at, point(s.latitude, s.longitude)) <= s.rtt_ms / 2 * LIGHT_KM_PER_MS for s in sightings)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[str, Shape]], tuple[float, float], list[Sighting], int]:
    home = draw(shapes())
    abroad = draw(st.lists(shapes(), min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**32))
    chance = random.Random(seed)
    anchor = points_of(draw(st.sampled_from([home, *abroad])), chance, 1)[0]
    sightings = []
    for number in range(draw(st.integers(1, 4))):
        spread = draw(st.sampled_from([0.01, 1.0, 15.0, 60.0]))
        latitude = max(-90.0, min(90.0, anchor[1] + chance.uniform(-spread, spread)))
        longitude = (anchor[0] + chance.uniform(-spread, spread) + 180) % 360 - 180
        floor_ms = 2 * dist(point(anchor[1], anchor[0]), point(latitude, longitude)) / LIGHT_KM_PER_MS
        slack = draw(st.sampled_from([0.0, 0.01, 0.5, 3.0, 20.0]))
        sightings.append(
            Sighting(
                landmark=f"l{number}",
                latitude=latitude,
                longitude=longitude,
                position_error_km=0.0,
                rtt_ms=floor_ms + slack,
                at=NOW,
                digest=str(number),
            )
        )
    return [("JP", home), *(("US", each) for each in abroad)], (anchor[1], anchor[0]), sightings, seed


@settings(max_examples=1000 if SOAK else 60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_proven_means_that_no_foreign_point_can_be_reached(
    case: tuple[list[tuple[str, Shape]], tuple[float, float], list[Sighting], int],
) -> None:
    world, at, sightings, seed = case
    claim = Claim(site="s", country="JP", latitude=at[0], longitude=at[1])
    found = decide(claim, sightings, packed(world), now=NOW, validity_s=60.0)
    # the site is where it says, and every answer took at least as long as light: nothing may contradict it
    assert found.verdict != "contradicted"
    if found.verdict != "proven":
        return
    chance = random.Random(seed)
    for code, shape in world:
        if code != "JP":
            for longitude, latitude in points_of(shape, chance, 60):
                assert not reached(latitude, longitude, sightings)
    later = [
        Sighting(
            landmark=s.landmark,
            latitude=s.latitude,
            longitude=s.longitude,
            position_error_km=0.0,
            rtt_ms=s.rtt_ms + found.margin_km * 2 / LIGHT_KM_PER_MS,
            at=s.at,
        )
        for s in sightings
    ]
    for code, shape in world:
        if code != "JP":
            for longitude, latitude in points_of(shape, chance, 60):
                assert not reached(latitude, longitude, later), "a margin that is not there"


def test_a_wide_disc_takes_nothing_from_what_a_narrow_one_proves() -> None:
    """Else a landmark that answers too late to count would make the proof stronger by dropping out."""
    land = packed(
        [
            ("JP", [(-180.0, 89.95), (-179.95, 89.95), (-179.95, 90.0), (-180.0, 90.0)]),
            ("US", [(-180.0, -90.0), (-179.95, -90.0), (-179.95, -89.95), (-180.0, -89.95)]),
        ]
    )
    claim = Claim(site="s", country="JP", latitude=89.97, longitude=-179.99)

    def seen(landmark: str, rtt_ms: float) -> Sighting:
        return Sighting(
            landmark=landmark, latitude=89.9, longitude=0.0, position_error_km=0.0, rtt_ms=rtt_ms, at=NOW
        )  # fmt: skip

    narrow = decide(claim, [seen("near", 1.0)], land, now=NOW, validity_s=60.0)
    both = decide(claim, [seen("near", 1.0), seen("late", 60.0)], land, now=NOW, validity_s=60.0)
    assert narrow.verdict == both.verdict == "proven"
    assert both.margin_km >= narrow.margin_km > 5000


@settings(max_examples=500 if SOAK else 40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from([0.1, 1.0, 10.0]))
def test_congestion_makes_a_proof_weaker_and_never_wrong(
    case: tuple[list[tuple[str, Shape]], tuple[float, float], list[Sighting], int], delay_ms: float
) -> None:
    world, at, sightings, _ = case
    claim = Claim(site="s", country="JP", latitude=at[0], longitude=at[1])
    land = packed(world)
    quick = decide(claim, sightings, land, now=NOW, validity_s=60.0)
    late = [
        Sighting(
            landmark=s.landmark,
            latitude=s.latitude,
            longitude=s.longitude,
            position_error_km=0.0,
            rtt_ms=s.rtt_ms + delay_ms,
            at=s.at,
        )
        for s in sightings
    ]
    slow = decide(claim, late, land, now=NOW, validity_s=60.0)
    assert slow.verdict in ("proven", "consistent")
    if slow.verdict == "proven":
        # a region that is all sea proves nothing until it is large enough to have a coast
        assert quick.verdict == "proven" or quick.why == "location.no_land"
        assert slow.margin_km <= quick.margin_km + 0.01


@settings(max_examples=100, deadline=None)
@given(st.floats(-60, 60), st.floats(-170, 170), st.floats(0, 1), st.floats(0.1, 20), st.floats(0.1, 30))
def test_the_middle_of_an_edge_counts_like_its_ends(
    south: float, west: float, along: float, away_km: float, radius: float
) -> None:
    """The longest edges are 28 km: a small disc may touch one far from both of its corners."""
    land = packed(
        [("US", [(west, south), (west + 0.249, south), (west + 0.249, south + 0.249), (west, south + 0.249)])]
    )
    a, b = land._points(0)[0], land._points(0)[1]
    on = [a[k] + (b[k] - a[k]) * along for k in range(3)]
    out = (on[0], on[1], on[2] - away_km if south < 0 else on[2] + away_km)
    balls = [Ball(out, radius)]
    found = land.nearest(balls, lambda _: True)
    assert found is not None
    steps = [tuple(a[k] + (b[k] - a[k]) * step / 2000 for k in range(3)) for step in range(2001)]
    assert found.excess_km <= min(excess_km(at, balls) for at in steps)  # type: ignore[arg-type]


# -- the real map


@pytest.fixture(scope="module")
def land() -> Land:
    return natural_earth()


@pytest.fixture(scope="module")
def outlines(land: Land) -> list[tuple[Country, tuple[float, float, float]]]:
    """Every vertex around Japan, by another way than the search's."""
    found = []
    for country, ring in land.outlines(20.0, 115.0, 60.0, 165.0):
        found += [(country, point(y, x)) for x, y in ring if 15 < y < 65 and 110 < x < 170]
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.floats(24, 46), st.floats(123, 146), st.floats(1, 1200)),
        min_size=1,
        max_size=4,
    )
)
def test_the_search_finds_what_looking_at_every_vertex_finds(
    land: Land,
    outlines: list[tuple[Country, tuple[float, float, float]]],
    discs: list[tuple[float, float, float]],
) -> None:
    balls = [Ball(point(latitude, longitude), radius) for latitude, longitude, radius in discs]
    found = land.nearest(balls, lambda country: country.code != "JP")
    assert found is not None
    slow = min(excess_km(at, balls) for country, at in outlines if country.code != "JP")
    assert found.excess_km <= slow + 1e-9  # never above: that would be a proof too many
    at = point(found.latitude, found.longitude)
    assert found.excess_km == pytest.approx(excess_km(at, balls), abs=0.05)  # and the place that it names is real


def test_no_sampled_point_of_a_proven_region_is_foreign(land: Land) -> None:
    chance = random.Random(4)
    proven = 0
    for _ in range(900):
        at = (chance.uniform(26, 45.5), chance.uniform(127, 145.5))
        if [country.code for country in land.countries_at(*at)] != ["JP"]:
            continue
        marks = [(at[0] + chance.uniform(-3, 3), at[1] + chance.uniform(-3, 3)) for _ in range(2)]
        sightings = [
            Sighting(
                landmark=str(i),
                latitude=m[0],
                longitude=m[1],
                position_error_km=0.0,
                rtt_ms=2 * dist(point(*at), point(*m)) / LIGHT_KM_PER_MS + chance.uniform(0, 3),
                at=NOW,
            )
            for i, m in enumerate(marks)
        ]
        claim = Claim(site="s", country="JP", latitude=at[0], longitude=at[1])
        if decide(claim, sightings, land, now=NOW, validity_s=60.0).verdict != "proven":
            continue
        proven += 1
        for _ in range(40):
            latitude, longitude = _somewhere_within(marks[0], radius_km(sightings[0].rtt_ms), chance)
            if reached(latitude, longitude, sightings):
                assert all(country.code == "JP" for country in land.countries_at(latitude, longitude))
    assert proven >= 30


def _somewhere_within(at: tuple[float, float], km: float, chance: random.Random) -> tuple[float, float]:
    """A point of a spherical disc (great circles, mean radius)."""
    way, bearing = km / 6371.0 * chance.random() ** 0.5, chance.uniform(0, 2 * pi)
    phi, lam = radians(at[0]), radians(at[1])
    north = asin(sin(phi) * cos(way) + cos(phi) * sin(way) * cos(bearing))
    east = lam + atan2(sin(bearing) * sin(way) * cos(phi), cos(way) - sin(phi) * sin(north))
    return degrees(north), degrees(east)
