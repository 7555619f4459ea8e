"""All sites on one map as SVG: the verdict about each, and its smallest disc in vacuum and in fibre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import assert_never

from sekisho.residency.location.land import Land
from sekisho.residency.location.model import Finding
from sekisho.residency.location.picture import HEIGHT, STYLE, WIDTH, View, circle, land_shapes
from sekisho.residency.location.words import Language
from sekisho.residency.model import LocationVerdict

_LEGEND = 64
_AROUND_DEG = 2.5  # beyond the outermost site
_LOWEST_DEG = 9.0
_STYLE = (
    ".ok{fill:#15803d}.part{fill:#1f5fae}.no{fill:none;stroke:#b91c1c;stroke-width:3.2}"
    ".open{fill:#fff;stroke:#4b5563;stroke-width:2}.soft{fill:#1f5fae;fill-opacity:.07}"
)
WORDS: dict[LocationVerdict, tuple[str, str]] = {
    "proven": ("proven inside", "国内と証明"),
    "consistent": ("consistent, not proven", "矛盾なし（未証明）"),
    "contradicted": ("contradicted", "申告と矛盾"),
    "declared": ("declared only", "申告のみ"),
}


def overview(findings: Sequence[Finding], land: Land, language: Language, *, home: str) -> str:
    """The map of those that are declared in the country `home`; the others are for the table beside it."""
    shown = [finding for finding in findings if finding.claim.country == home]
    view = _view(shown)
    title = "拠点の所在と、応答から分かる範囲" if language == "ja" else "Sites, and what their answers bound"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + _LEGEND}" role="img" '
        f'aria-labelledby="all-t" lang="{language}"><title id="all-t">{escape(title)}</title>',
        f"<style>{STYLE}{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT + _LEGEND}" fill="#fff"/>',
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#eef4f9"/>',
        *land_shapes(land, view, home),
        *(part for finding in shown for part in _discs(finding, view)),
        *_marks(shown, view),
        "</svg>",
        *_legend(language),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _view(shown: Sequence[Finding]) -> View:
    """A window with every place in it; Japan's middle when there is none."""
    places = [(finding.claim.latitude, finding.claim.longitude) for finding in shown] or [(37.5, 138.0)]
    south, north = min(at for at, _ in places), max(at for at, _ in places)
    west, east = min(at for _, at in places), max(at for _, at in places)
    middle = (south + north) / 2
    squeeze = max(0.2, math.cos(math.radians(middle)))
    wide = (east - west + 2 * _AROUND_DEG) * squeeze * HEIGHT / WIDTH
    return View(
        latitude=middle,
        longitude=(west + east) / 2,
        height_deg=max(_LOWEST_DEG, north - south + 2 * _AROUND_DEG, wide),
    )


def _discs(finding: Finding, view: View) -> list[str]:
    """The smallest: the others hold as well, and are on the map of the site alone."""
    deciding = [disc for disc in finding.discs if disc.decides]
    if not deciding:
        return []
    disc = min(deciding, key=lambda each: each.radius_km)
    vacuum = circle(view, disc.latitude, disc.longitude, disc.radius_km)
    fibre = circle(view, disc.latitude, disc.longitude, disc.fibre_km)
    return [f'<path class="soft" d="{vacuum}"/><path class="disc" d="{vacuum}"/><path class="fibre" d="{fibre}"/>']


def _marks(shown: Sequence[Finding], view: View) -> list[str]:
    """Labels of places that are close to one another stand below each other."""
    parts: list[str] = []
    taken: list[tuple[float, float]] = []
    for finding in sorted(shown, key=lambda each: -each.claim.latitude):
        x, y = view.xy(finding.claim.latitude, finding.claim.longitude)
        parts.append(mark(finding.verdict, x, y))
        line = y + 4
        while any(abs(line - other) < 15 and abs(x - at) < 190 for at, other in taken):
            line += 15
        taken.append((x, line))
        left = x > WIDTH * 0.7
        anchor = ' text-anchor="end"' if left else ""
        parts.append(
            f'<text class="halo"{anchor} x="{x + (-11 if left else 11):.1f}" y="{line:.1f}">'
            f"{escape(finding.claim.site)}</text>"
        )
    return parts


def mark(verdict: LocationVerdict, x: float, y: float) -> str:
    """One shape for each verdict: the colour says nothing alone."""
    match verdict:
        case "proven":
            return f'<circle class="ok" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>'
        case "consistent":
            return f'<path class="part" d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z"/>'
        case "contradicted":
            return f'<path class="no" d="M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12"/>'
        case "declared":
            return f'<circle class="open" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
        case _:
            assert_never(verdict)


def _legend(language: Language) -> list[str]:
    ja = language == "ja"
    parts = []
    for number, (verdict, words) in enumerate(WORDS.items()):
        x, y = 16 + 176 * number, HEIGHT + 20
        parts.append(mark(verdict, x + 6, y))
        parts.append(f'<text x="{x + 20}" y="{y + 5}">{escape(words[ja])}</text>')
    rows = (
        ("disc", "真空中の光速（判定に使用）" if ja else "smallest disc, light in vacuum: decides"),
        ("fibre", "光ファイバー（参考）" if ja else "light in fibre: shown only"),
    )
    for number, (name, text) in enumerate(rows):
        x, y = 16 + 352 * number, HEIGHT + 46
        parts.append(f'<path class="{name}" d="M{x} {y}h26"/><text x="{x + 34}" y="{y + 5}">{escape(text)}</text>')
    return parts
