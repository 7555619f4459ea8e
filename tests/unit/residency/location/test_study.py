"""The study of the 47 capitals: its places are in Japan, and its bounds are bounds."""

from __future__ import annotations

from math import inf
from xml.etree import ElementTree

import pytest

from sekisho.residency.location.capitals import CAPITALS, MARKS
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.study import picture, study, table


def test_every_capital_and_landmark_is_on_japanese_land() -> None:
    land = natural_earth()
    assert len(CAPITALS) == 47
    for each in (*CAPITALS, *MARKS):
        near = [
            country.code
            for north in (-0.03, 0.0, 0.03)
            for east in (-0.03, 0.0, 0.03)
            for country in land.countries_at(each.latitude + north, each.longitude + east)
        ]
        assert near, each.en
        assert set(near) == {"JP"}, each.en


def test_bounds_are_bounds() -> None:
    chosen = [capital for capital in CAPITALS if capital.en in ("Sapporo", "Tokyo", "Hiroshima", "Miyazaki", "Naha")]
    land = natural_earth()
    rows = {row.capital.en: row for row in study(land, chosen)}
    for row in rows.values():
        assert row.more.spare_ms >= row.best.spare_ms or row.best.rtt_ms == -inf
        if row.best.rtt_ms > -inf:
            assert row.best.rtt_ms > row.best.light_ms  # never faster than light
            assert row.joint_ms >= row.best.spare_ms - 0.011  # more discs never prove less
    # a single disc proves what it proves wherever the site is: Tokyo's reaches to the rocks in the Japan Sea (729 km)
    assert rows["Tokyo"].best.rtt_ms == pytest.approx(2 * (728.6 - 6.5) / 299.792458, abs=0.02)
    assert rows["Naha"].best.rtt_ms == -inf
    assert rows["Naha"].more.mark == "naha"
    for language in ("en", "ja"):
        assert table(list(rows.values()), language).count("\n") == 6
        ElementTree.fromstring(picture(list(rows.values()), land, language))  # noqa: S314 - our own text
