"""Verdicts about places that everybody can check on a map."""

from __future__ import annotations

import time
from itertools import pairwise
from math import dist
from xml.etree import ElementTree

import pytest

from sekisho.residency.location.decide import WIDEST_KM, decide, facts
from sekisho.residency.location.earth import LIGHT_KM_PER_MS, place, point
from sekisho.residency.location.land import Land, natural_earth
from sekisho.residency.location.model import Claim, Finding, Sighting
from sekisho.residency.location.picture import draw
from sekisho.residency.location.words import LIMITS, headline, report

NOW = 1_800_000_000.0
TOKYO, OSAKA, ISHIKARI, FUKUOKA = (35.68, 139.77), (34.69, 135.50), (43.19, 141.33), (33.59, 130.40)
QUINCY, SEOUL = (47.23, -119.85), (37.57, 126.98)


@pytest.fixture(scope="module")
def land() -> Land:
    return natural_earth()


def seen(name: str, at: tuple[float, float], rtt_ms: float, *, age_s: float = 0.0) -> Sighting:
    return Sighting(
        landmark=name,
        latitude=at[0],
        longitude=at[1],
        position_error_km=1.0,
        rtt_ms=rtt_ms,
        at=NOW - age_s,
        digest=name,
    )


def judged(land: Land, at: tuple[float, float], *sightings: Sighting, country: str = "JP", **more: object) -> Finding:
    claim = Claim(site="s", country=country, latitude=at[0], longitude=at[1], **more)  # type: ignore[arg-type]
    return decide(claim, sightings, land, now=NOW, validity_s=3600.0)


def test_osaka_seen_from_osaka_within_a_millisecond_is_proven(land: Land) -> None:
    found = judged(land, OSAKA, seen("osaka", OSAKA, 1.0))
    assert (found.verdict, found.why) == ("proven", "location.inside")
    assert 200 < found.margin_km < 300
    assert found.until == NOW + 3600


def test_the_intersection_proves_what_no_landmark_proves_alone(land: Land) -> None:
    # from Tokyo the rocks of the Japan Sea are in reach, from Ishikari Sakhalin: never the same land from both
    near, far = seen("ishikari", ISHIKARI, 2.5), seen("tokyo", TOKYO, 6.4)
    assert [judged(land, ISHIKARI, each).verdict for each in (near, far)] == ["consistent", "consistent"]
    assert judged(land, ISHIKARI, near, far).verdict == "proven"


def test_tokyo_to_osaka_at_usual_speed_is_consistent_and_names_the_land_in_reach(land: Land) -> None:
    found = judged(land, OSAKA, seen("tokyo", TOKYO, 9.0))
    assert found.verdict == "consistent"
    assert found.margin_km < 0
    assert found.land is not None
    assert found.fibre_margin_km is not None
    assert found.fibre_margin_km > found.margin_km


def test_whoever_answers_quincy_within_five_milliseconds_is_not_in_osaka(land: Land) -> None:
    found = judged(land, OSAKA, seen("quincy", QUINCY, 5.0), seen("osaka", OSAKA, 110.0))
    assert (found.verdict, found.why) == ("contradicted", "location.declared_outside")
    assert found.outside_km > 6000


def test_slowness_alone_contradicts_nobody_without_a_limit_of_their_own(land: Land) -> None:
    slow = seen("osaka", OSAKA, 110.0)
    assert judged(land, OSAKA, slow).verdict == "consistent"
    limited = judged(land, OSAKA, slow, limits_ms={"osaka": 20.0})
    assert (limited.verdict, limited.why, limited.slow) == ("contradicted", "location.too_slow", ("osaka",))
    assert judged(land, OSAKA, seen("osaka", OSAKA, 1.0), limits_ms={"osaka": 20.0}).verdict == "proven"


def test_landmarks_whose_discs_do_not_meet_contradict_every_claim(land: Land) -> None:
    for at in (TOKYO, OSAKA, FUKUOKA):
        assert judged(land, at, seen("tokyo", TOKYO, 0.1), seen("fukuoka", FUKUOKA, 0.1)).verdict == "contradicted"


def test_a_disc_inside_a_foreign_country_proves_nothing_although_no_outline_is_near(land: Land) -> None:
    kansas = (38.5, -98.0)
    found = judged(land, kansas, seen("kansas", kansas, 0.5))
    assert found.verdict == "consistent"
    assert found.land is not None
    assert found.land.country.code == "US"
    assert judged(land, kansas, seen("kansas", kansas, 0.5), country="US").verdict == "proven"


def test_a_disc_that_contains_a_whole_country_proves_nothing(land: Land) -> None:
    # Luxembourg lies wholly inside; the disc's edge lies in other countries
    found = judged(land, (49.6, 6.1), seen("luxembourg", (49.6, 6.1), 2.0), country="LU")
    assert found.verdict == "consistent"


def test_open_sea_proves_no_country(land: Land) -> None:
    found = judged(land, (30.0, 160.0), seen("ship", (30.0, 160.0), 0.5))
    assert (found.verdict, found.why) == ("consistent", "location.no_land")


def test_land_across_the_antimeridian_is_near(land: Land) -> None:
    taveuni = (-16.85, -179.97)  # Fiji, an island on the line
    assert judged(land, taveuni, seen("taveuni", taveuni, 0.2), country="FJ").verdict == "proven"
    chukotka = (68.0, 179.9)
    found = judged(land, chukotka, seen("chukotka", chukotka, 0.5), country="JP")
    assert found.land is not None
    assert found.land.country.code == "RU"
    assert found.verdict == "consistent"


def test_the_pole_is_somebody_s_continent(land: Land) -> None:
    pole = (-89.99, 0.0)
    found = judged(land, pole, seen("pole", pole, 0.5))
    assert found.verdict == "consistent"
    assert judged(land, pole, seen("pole", pole, 0.5), country="AQ").verdict == "proven"


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (TOKYO, "JP"),
        ((24.46, 122.99), "JP"),  # Yonaguni
        ((34.40, 129.30), "JP"),  # Tsushima
        ((38.02, 138.37), "JP"),  # Sado
        ((26.21, 127.68), "JP"),  # Naha
        ((27.07, 142.225), "JP"),  # Chichijima
        ((44.00, 145.70), "RU"),  # Kunashiri: who administers it, not whose it is
        (SEOUL, "KR"),
        ((37.50, 130.87), "KR"),  # Ulleungdo
    ],
)
def test_the_map_knows_japan_s_islands_and_its_neighbours(land: Land, at: tuple[float, float], code: str) -> None:
    assert [country.code for country in land.countries_at(*at)] == [code]


@pytest.mark.parametrize(
    ("at", "codes"),
    [
        ((67.0, -175.0), ["RU"]),  # Chukotka, across the antimeridian
        ((68.0, 179.9), ["RU"]),
        ((68.0, -179.9), ["RU"]),
        ((67.0, 0.0), []),  # the Norwegian Sea at the same latitude
        ((-89.99, 77.0), ["AQ"]),
        ((89.99, 77.0), []),
    ],
)
def test_the_map_has_no_seam(land: Land, at: tuple[float, float], codes: list[str]) -> None:
    assert [country.code for country in land.countries_at(*at)] == codes


def test_no_edge_of_the_map_is_long_enough_to_leave_the_ground(land: Land) -> None:
    longest = max(dist(a, b) for run in range(len(land._runs)) for a, b in pairwise(land._points(run)))
    assert longest < 40.0  # 0.25° both ways at the equator; the sagitta is below 32 m


def test_the_picture_stands_alone_and_names_what_it_shows(land: Land) -> None:
    found = judged(land, OSAKA, seen("<tokyo>", TOKYO, 9.0), seen("quincy", QUINCY, 130.0))
    for language in ("en", "ja"):
        drawn = draw(found, land, language)
        root = ElementTree.fromstring(drawn)  # noqa: S314 - our own text
        assert root.attrib["role"] == "img"
        assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
        assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")
        assert headline(found).in_(language) in "".join(root.itertext())
        assert len(drawn) < 400_000


def test_every_verdict_has_words_in_both_languages_and_the_limits_beside_it(land: Land) -> None:
    for found in (
        judged(land, OSAKA),
        judged(land, OSAKA, seen("osaka", OSAKA, 1.0)),
        judged(land, OSAKA, seen("tokyo", TOKYO, 9.0)),
        judged(land, OSAKA, seen("quincy", QUINCY, 5.0)),
        judged(land, OSAKA, seen("osaka", OSAKA, 30.0), limits_ms={"osaka": 10.0}),
        judged(land, (30.0, 160.0), seen("ship", (30.0, 160.0), 0.5)),
    ):
        for language in ("en", "ja"):
            lines = report(found, language)
            assert lines[-3:] == [each.in_(language) for each in LIMITS]
            assert len(lines) >= 4


def test_old_and_future_measurements_do_not_count(land: Land) -> None:
    assert judged(land, OSAKA, seen("osaka", OSAKA, 1.0, age_s=3600)).verdict == "declared"
    assert judged(land, OSAKA, seen("osaka", OSAKA, 1.0, age_s=-61)).verdict == "declared"
    aged = judged(land, OSAKA, seen("osaka", OSAKA, 1.0, age_s=600))
    assert (aged.verdict, aged.at, aged.until) == ("proven", NOW - 600, NOW + 3000)


def test_the_newest_of_a_landmark_counts_even_when_it_proves_less(land: Land) -> None:
    found = judged(land, OSAKA, seen("osaka", OSAKA, 1.0, age_s=60), seen("osaka", OSAKA, 40.0))
    assert found.verdict == "consistent"


def test_an_answer_too_slow_to_bound_anything_is_shown_and_does_not_decide(land: Land) -> None:
    found = judged(land, OSAKA, seen("tokyo", TOKYO, 400.0))
    assert found.verdict == "consistent"
    assert [disc.decides for disc in found.discs] == [False]
    assert found.discs[0].radius_km > WIDEST_KM


def test_facts_never_round_a_margin_up(land: Land) -> None:
    found = judged(land, OSAKA, seen("osaka", OSAKA, 1.0))
    assert facts(found).margin_km <= found.margin_km < facts(found).margin_km + 1
    inside = judged(land, OSAKA, seen("osaka", OSAKA, 5.0))
    assert facts(inside).margin_km <= inside.margin_km < 0


def test_a_verdict_takes_less_than_fifty_milliseconds(land: Land) -> None:
    sightings = [seen("a", TOKYO, 7.0), seen("b", OSAKA, 3.0), seen("c", ISHIKARI, 17.0), seen("d", FUKUOKA, 9.0)]
    judged(land, OSAKA, *sightings)
    start = time.process_time()
    for _ in range(20):
        judged(land, OSAKA, *sightings)
    assert (time.process_time() - start) / 20 < 0.050


def test_known_distances_and_places() -> None:
    # Axes of WGS 84; Tokyo to Osaka is about 400 km (Geospatial Information Authority of Japan)
    assert dist(point(*TOKYO), point(*OSAKA)) == pytest.approx(404.0, rel=0.01)
    assert dist(point(0, 0), point(0, 180)) == pytest.approx(2 * 6378.137)
    assert dist(point(90, 0), point(-90, 0)) == pytest.approx(2 * 6356.752314245)
    assert LIGHT_KM_PER_MS == 299.792458
    for at in (TOKYO, QUINCY, (-33.9, 18.4)):
        assert place(point(*at)) == pytest.approx(at, abs=1e-9)
