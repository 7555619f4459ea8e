from __future__ import annotations

from math import acos, cos, radians, sin
from pathlib import Path

import pytest

from sekisho.lab.topology import JAPAN, Line, Place, Topology, TopologyRefused, check, read_topology


def test_the_default_has_the_round_trips_of_the_field_notes() -> None:
    # field/proof.md: Tokyo–Osaka 8–10, –Ishikari 15–17, –Fukuoka 17–20, –US West 100–110, –Virginia 150–180
    bounds = {
        "osaka": (8, 10),
        "ishikari": (15, 17),
        "fukuoka": (17, 20),
        "us-west": (100, 110),
        "virginia": (150, 180),
    }
    for site, (low, high) in bounds.items():
        assert low <= JAPAN.line("tokyo", site).rtt_ms <= high


def test_every_two_sites_of_the_default_have_a_line() -> None:
    assert len(JAPAN.lines) == len(JAPAN.sites) * (len(JAPAN.sites) - 1) // 2


def test_no_line_of_the_default_is_faster_than_light() -> None:
    for line in JAPAN.lines:
        a, b = JAPAN.site(line.a), JAPAN.site(line.b)
        east = radians(a.longitude - b.longitude)
        north = radians(a.latitude), radians(b.latitude)
        km = 6371 * acos(sin(north[0]) * sin(north[1]) + cos(north[0]) * cos(north[1]) * cos(east))
        assert line.rtt_ms / 2 * 299.792 > km, f"{line.a}–{line.b}"


def test_the_border_is_what_joins_the_jurisdiction_with_abroad() -> None:
    assert len(JAPAN.border) == 8
    assert {JAPAN.site(line.a).country for line in JAPAN.border} == {"JP"}
    assert {JAPAN.site(line.b).country for line in JAPAN.border} == {"US"}


def test_a_file_says_the_same_as_values(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        '[[sites]]\nid = "a"\nname = "A"\ncountry = "JP"\n[[sites]]\nid = "b"\nname = "B"\ncountry = "US"\n'
        '[[lines]]\na = "a"\nb = "b"\nrtt_ms = 10.0\nmbit = 100\n'
    )
    places = (Place(id="a", name="A", country="JP"), Place(id="b", name="B", country="US"))
    assert read_topology(file) == Topology(sites=places, lines=(Line(a="a", b="b", rtt_ms=10, mbit=100),))


@pytest.mark.parametrize(
    "text",
    ["", "[[sites]", '[[sites]]\nid = "a"', "\udcff", '[[sites]]\nid = "a"\nname = "A"\ncountry = "JP"\nwhat = 1'],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(TopologyRefused) as refused:
        read_topology(file)
    assert refused.value.code == "lab.topology"
    assert refused.value.hint


@pytest.mark.parametrize("id", ["", "Tokyo", "a" * 13, "to/kyo", "-a", "a b"])
def test_an_id_that_names_no_interface_is_refused(id: str) -> None:
    with pytest.raises(TopologyRefused):
        check(Topology(sites=(Place(id=id, name="x", country="JP"),), lines=()))


@pytest.mark.parametrize(
    "line",
    [
        {"b": "a"},
        {"b": "nowhere"},
        {"rtt_ms": -1.0},
        {"rtt_ms": float("nan")},
        {"loss": 1.1},
        {"mbit": 0.0},
        {"jitter_ms": -0.1},
    ],
)
def test_a_line_that_can_not_be_is_refused(line: dict[str, object]) -> None:
    places = tuple(Place(id=id, name=id, country="JP") for id in ("a", "b"))
    given = {"a": "a", "b": "b", "rtt_ms": 1.0, **line}
    with pytest.raises(TopologyRefused):
        check(Topology(sites=places, lines=(Line(**given),)))  # type: ignore[arg-type]
