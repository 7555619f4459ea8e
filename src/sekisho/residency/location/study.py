"""How fast an answer has to be to prove "inside Japan": the 47 prefectural capitals, on real geography.

    python -m sekisho.residency.location.study [DIRECTORY]

Writes `location-capitals.{en,ja}.svg` into DIRECTORY/pictures and the tables between the marks `<!-- study -->` of
DIRECTORY/explanation/location-proofs.{en,ja}.md. Without DIRECTORY it prints the English table. Nothing is measured
here: these are bounds that follow from the map alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import dist, inf
from pathlib import Path

import msgspec

from sekisho.residency.location.capitals import CAPITALS, MARKS, Capital, Mark
from sekisho.residency.location.decide import decide
from sekisho.residency.location.earth import FIBRE_KM_PER_MS, LIGHT_KM_PER_MS, point
from sekisho.residency.location.land import Land, natural_earth
from sekisho.residency.location.model import Claim, Sighting
from sekisho.residency.location.picture import WIDTH, View, land_shapes
from sekisho.residency.location.words import Language

_NOW, _VALIDITY_S, _POSITION_ERROR_KM = 1.0e9, 3600.0, 1.0
_STEP_MS = 0.005


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The largest RTT (ms) from a landmark that still proves the country.

    `light_ms` and `fibre_ms`: what vacuum and straight fibre need there and back; `spare_ms` is what is left above
    straight fibre for detours and the machines.
    """

    mark: str
    rtt_ms: float
    light_ms: float
    fibre_ms: float

    @property
    def spare_ms(self) -> float:
        return self.rtt_ms - self.fibre_ms


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`best`: of the default landmarks; `more`: of all of them; `joint_ms`: how much every default landmark's answer
    may come above straight fibre so that all of them together still prove it (below 0: straight fibre would not)."""

    capital: Capital
    best: Bound
    more: Bound
    joint_ms: float


def study(land: Land, capitals: Sequence[Capital] = CAPITALS, marks: Sequence[Mark] = MARKS) -> list[Row]:
    rows = []
    for capital in capitals:
        bounds = [_bound(capital, mark, land) for mark in marks]
        default = [bound for bound, mark in zip(bounds, marks, strict=True) if mark.default]
        rows.append(
            Row(
                capital=capital,
                best=max(default, key=lambda bound: bound.spare_ms),
                more=max(bounds, key=lambda bound: bound.spare_ms),
                joint_ms=_largest(partial(_proves, capital, [mark for mark in marks if mark.default], land)),
            )
        )
    return rows


def _fibre_ms(capital: Capital, mark: Mark) -> float:
    return 2 * _km(capital, mark) / FIBRE_KM_PER_MS


def _km(capital: Capital, mark: Mark) -> float:
    return dist(point(capital.latitude, capital.longitude), point(mark.latitude, mark.longitude))


def _bound(capital: Capital, mark: Mark, land: Land) -> Bound:
    fibre_ms = _fibre_ms(capital, mark)
    spare = _largest(partial(_proves, capital, [mark], land))
    return Bound(
        mark=mark.id,
        rtt_ms=fibre_ms + spare,
        light_ms=2 * _km(capital, mark) / LIGHT_KM_PER_MS,
        fibre_ms=fibre_ms,
    )


def _proves(capital: Capital, marks: Sequence[Mark], land: Land, spare_ms: float) -> bool | None:
    """Whether answers that come this much above straight fibre prove it; None when light can't be that fast."""
    rtts = [_fibre_ms(capital, mark) + spare_ms for mark in marks]
    if any(rtt <= 0 or rtt < 2 * _km(capital, mark) / LIGHT_KM_PER_MS for rtt, mark in zip(rtts, marks, strict=True)):
        return None
    sightings = [
        Sighting(
            landmark=mark.id,
            latitude=mark.latitude,
            longitude=mark.longitude,
            position_error_km=_POSITION_ERROR_KM,
            rtt_ms=rtt,
            at=_NOW,
        )
        for rtt, mark in zip(rtts, marks, strict=True)
    ]
    claim = Claim(site="s", country="JP", latitude=capital.latitude, longitude=capital.longitude)
    return decide(claim, sightings, land, now=_NOW, validity_s=_VALIDITY_S).verdict == "proven"


def _largest(proves: Callable[[float], bool | None]) -> float:
    """The largest spare time, ms, rounded down to 5 µs; -inf when not even light would be fast enough."""
    low, high = -30.0, 30.0
    while high - low > _STEP_MS:
        middle = (low + high) / 2
        if proves(middle) is False:
            high = middle
        else:
            low = middle
    return low if proves(low) else -inf


# -- what people read


def table(rows: Sequence[Row], language: Language) -> str:
    """A Markdown table."""
    names = {mark.id: mark.ja if language == "ja" else mark.en for mark in MARKS}
    head = {
        "en": "| Prefecture | Capital | best default landmark | largest RTT that proves it | of that, above straight "
        "fibre | all four together: above fibre | best of all eight |",
        "ja": "| 都道府県 | 所在地 | 最適な既定のランドマーク | 証明できる最大の RTT | うち直線の光ファイバーを"
        "超える余裕 | 4 か所併用時の余裕 | 8 か所から選ぶ場合 |",
    }[language]
    lines = [head, "|---|---|---|---:|---:|---:|---|"]
    for row in rows:
        prefecture, capital = row.capital.prefecture, row.capital
        lines.append(
            "| "
            + " | ".join(
                (
                    prefecture.ja if language == "ja" else prefecture.en,
                    capital.ja if language == "ja" else capital.en,
                    *_cells(row.best, names, language),
                    _spare(row.joint_ms, language),
                    f"{names[row.more.mark]} {_ms(row.more.rtt_ms)} ({_spare(row.more.spare_ms, language)})"
                    if row.more.rtt_ms > -inf
                    else _none(language),
                )
            )
            + " |"
        )
    return "\n".join(lines)


def _cells(bound: Bound, names: dict[str, str], language: Language) -> tuple[str, str, str]:
    if bound.rtt_ms == -inf:
        return "–", _none(language), "–"
    return names[bound.mark], _ms(bound.rtt_ms), _spare(bound.spare_ms, language)


def _none(language: Language) -> str:
    return "不可" if language == "ja" else "none"


def _ms(value: float) -> str:
    return f"{value - 0.005:.2f} ms"


def _spare(value: float, language: Language) -> str:
    return _none(language) if value == -inf else f"{value - 0.005:+.2f} ms"


def picture(rows: Sequence[Row], land: Land, language: Language) -> str:
    """A map: each capital coloured by the time it has above straight fibre from its best default landmark."""
    view = View(latitude=35.6, longitude=135.6, height_deg=23.0, height=640)
    words = {
        "en": ("What proves “inside Japan” for the 47 prefectural capitals", "time left above straight fibre"),
        "ja": ("47 都道府県庁所在地で「国内」を証明できる余裕", "直線の光ファイバーを超える余裕"),
    }[language]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 690" role="img" aria-labelledby="t d" '
        f'lang="{language}"><title id="t">{words[0]}</title><desc id="d">{words[1]}</desc>',
        "<style>text{font:12px system-ui,sans-serif;fill:#1b2430}.home{fill:#e4ecdf;stroke:#7d9c81;stroke-width:.6}"
        ".abroad{fill:#e8dcda;stroke:#b39a96;stroke-width:.6}</style>",
        f'<rect width="{WIDTH}" height="690" fill="#fff"/>',
        f'<svg width="{WIDTH}" height="640"><rect width="{WIDTH}" height="640" fill="#eef4f9"/>',
        *land_shapes(land, view, "JP"),
    ]
    for row in rows:
        x, y = view.xy(row.capital.latitude, row.capital.longitude)
        name = row.capital.ja if language == "ja" else row.capital.en
        lines.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{_colour(row.best.spare_ms)}" stroke="#1b2430" '
            f'stroke-width=".7"><title>{name}: {_spare(row.best.spare_ms, language)}</title></circle>'
        )
    for mark in MARKS:
        x, y = view.xy(mark.latitude, mark.longitude)
        fill = "#1f5fae" if mark.default else "#fff"
        lines.append(
            f'<path d="M{x:.1f} {y - 16:.1f}l6 10h-12z" fill="{fill}" stroke="#1f5fae" stroke-width="1.4"/>'
            f'<text x="{x + 9:.1f}" y="{y - 8:.1f}" paint-order="stroke" stroke="#fff" stroke-width="3">'
            f"{mark.ja if language == 'ja' else mark.en}</text>"
        )
    lines.append("</svg>")
    lines.append(f'<text x="12" y="672">{words[1]}</text>')
    for number, (label, value) in enumerate((("≥ 2 ms", 2.0), ("1–2 ms", 1.0), ("0–1 ms", 0.0), ("&lt; 0 ms", -1.0))):
        x = 262 + 112 * number
        lines.append(f'<circle cx="{x}" cy="668" r="6" fill="{_colour(value)}" stroke="#1b2430" stroke-width=".7"/>')
        lines.append(f'<text x="{x + 12}" y="672">{label}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _colour(spare_ms: float) -> str:
    steps = ((2.0, "#1b7f3b"), (1.0, "#8fbf4d"), (0.0, "#f2b134"))
    return next((colour for least, colour in steps if spare_ms >= least), "#b3261e")


def main() -> None:
    land = natural_earth()
    rows = study(land)
    if len(sys.argv) < 2:
        sys.stdout.write(table(rows, "en") + "\n")
        return
    docs = Path(sys.argv[1])
    languages: tuple[Language, ...] = ("en", "ja")
    for language in languages:
        (docs / "pictures" / f"location-capitals.{language}.svg").write_text(picture(rows, land, language))
        page = docs / "explanation" / f"location-proofs.{language}.md"
        before, _, rest = page.read_text().partition("<!-- study -->")
        after = rest.partition("<!-- /study -->")[2]
        page.write_text(f"{before}<!-- study -->\n{table(rows, language)}\n<!-- /study -->{after}")


if __name__ == "__main__":
    main()
