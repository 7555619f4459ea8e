"""A map of a finding as SVG: land, discs, the region that is left, the declared place. No outside resources.

Plate carrée around the declared place with longitudes squeezed by the cosine of its latitude: true to scale near it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

import msgspec

from sekisho.residency.location.earth import ground_km
from sekisho.residency.location.land import Land
from sekisho.residency.location.model import Finding
from sekisho.residency.location.words import Language, headline, land_name

WIDTH, HEIGHT, LEGEND = 720, 600, 92
_KM_PER_DEGREE = 111.19
_WIDEST_DEG = 60.0
_CIRCLE = 90  # corners of a drawn circle
_MARGIN = 24.0  # what lies further out is drawn onto the edge of this
_FINEST = 1.2  # steps below this many pixels are left out

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1b2430}.halo{paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ".home{fill:#b9d8bd;stroke:#5c8a63;stroke-width:.6}.abroad{fill:#e3c9c4;stroke:#a27068;stroke-width:.6}"
    ".disc{fill:none;stroke:#1f5fae;stroke-width:1.6}.fibre{fill:none;stroke:#1f5fae;stroke-width:1;"
    "stroke-dasharray:5 4}.region{fill:#1f5fae;fill-opacity:.22}.claim{fill:#c2410c;stroke:#fff;stroke-width:1.5}"
    ".mark{fill:#1f5fae;stroke:#fff;stroke-width:1.2}.near{stroke:#7f1d1d;stroke-width:2.4;fill:none}"
)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A window on the world: the middle in degrees, and how much of it."""

    latitude: float
    longitude: float
    height_deg: float
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def _scale(self) -> float:
        return self.height / self.height_deg

    @property
    def _squeeze(self) -> float:
        return max(0.2, math.cos(math.radians(self.latitude)))

    def xy(self, latitude: float, longitude: float) -> tuple[float, float]:
        east = (longitude - self.longitude + 180) % 360 - 180
        return self._at(latitude, east)

    def _at(self, latitude: float, east: float) -> tuple[float, float]:
        return (
            self.width / 2 + east * self._squeeze * self._scale,
            self.height / 2 - (latitude - self.latitude) * self._scale,
        )

    def box(self) -> tuple[float, float, float, float]:
        """South, west, north, east in degrees; east may be above 180 and west below -180."""
        half_lat = self.height_deg / 2
        half_lon = min(180.0, self.width / 2 / (self._squeeze * self._scale))
        return (
            self.latitude - half_lat,
            self.longitude - half_lon,
            self.latitude + half_lat,
            self.longitude + half_lon,
        )

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        """A closed path of (longitude, latitude), without what is too small or too far out to be seen."""
        corners: list[tuple[float, float]] = []
        for longitude, latitude in points:
            x, y = self._at(latitude, longitude - self.longitude)
            corner = (
                min(max(x, -_MARGIN), self.width + _MARGIN),
                min(max(y, -_MARGIN), self.height + _MARGIN),
            )
            if not corners or abs(corner[0] - corners[-1][0]) + abs(corner[1] - corners[-1][1]) > _FINEST:
                corners.append(corner)
        if len(corners) < 3:
            return ""
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"


def land_shapes(land: Land, view: View, home: str) -> list[str]:
    """The land in the window, home and abroad apart."""
    paths: dict[str, list[str]] = {"home": [], "abroad": []}
    for country, ring in land.outlines(*view.box()):
        path = view.path(ring)
        if path:
            paths["home" if country.code == home else "abroad"].append(path)
    return [f'<path class="{name}" fill-rule="evenodd" d="{"".join(parts)}"/>' for name, parts in paths.items()]


def draw(finding: Finding, land: Land, language: Language, *, prefix: str = "loc") -> str:
    """The map. `prefix` begins every id, for pages with more than one."""
    view = _view(finding)
    claim = finding.claim
    title = _say(language, f"Where {claim.site} can be", f"{claim.site} の所在の範囲")
    lead = headline(finding).in_(language)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + LEGEND}" role="img" '
        f'aria-labelledby="{prefix}-t {prefix}-d" lang="{language}">',
        f'<title id="{prefix}-t">{escape(title)}</title><desc id="{prefix}-d">{escape(lead)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT + LEGEND}" fill="#fff"/>',
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#eef4f9"/>',
        *land_shapes(land, view, claim.country),
        *_discs(finding, view, prefix),
        *_marks(finding, view, language),
        "</svg>",
        *_legend(lead, language),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def circle(view: View, latitude: float, longitude: float, km: float) -> str:
    """The points at this straight distance (km) from a place, as a path; the whole window when it is everything.

    Drawn on a sphere; verdicts are not.
    """
    if km >= 2 * 6371.0:
        return f"M-9 -9H{view.width + 9}V{view.height + 9}H-9Z"
    way, phi = ground_km(km) / 6371.0088, math.radians(latitude)
    points: list[tuple[float, float]] = []
    for step in range(_CIRCLE):
        bearing = 2 * math.pi * step / _CIRCLE
        north = math.asin(math.sin(phi) * math.cos(way) + math.cos(phi) * math.sin(way) * math.cos(bearing))
        east = math.atan2(
            math.sin(bearing) * math.sin(way) * math.cos(phi), math.cos(way) - math.sin(phi) * math.sin(north)
        )
        points.append((_unrolled(longitude + math.degrees(east), view.longitude), math.degrees(north)))
    if way + abs(phi) > math.pi / 2:
        return f"M-9 -9H{view.width + 9}V{view.height + 9}H-9Z"  # around a pole: nothing is left out by drawing all
    return view.path(points)


def _unrolled(longitude: float, middle: float) -> float:
    return middle + (longitude - middle + 180) % 360 - 180


def _view(finding: Finding) -> View:
    """A window with the declared place, the landmarks that matter for it, and the smallest disc in it."""
    claim = finding.claim
    # where a disc excludes the declared place, both have to be seen
    away = [disc for disc in finding.discs if disc.distance_km > disc.radius_km]
    far = max(away, key=lambda disc: disc.distance_km - disc.radius_km, default=None)
    latitude, longitude = claim.latitude, claim.longitude
    shown = [(claim.latitude, claim.longitude, 2.0)]
    if far is not None:
        latitude = (latitude + far.latitude) / 2
        longitude += ((far.longitude - longitude + 180) % 360 - 180) / 2
        shown.append((far.latitude, far.longitude, far.radius_km / _KM_PER_DEGREE + 2))
    else:
        shown += [(disc.latitude, disc.longitude, 2.0) for disc in finding.discs]
        deciding = [disc.radius_km + disc.distance_km for disc in finding.discs]
        shown.append((latitude, longitude, max(4.0, min(deciding, default=0.0) / _KM_PER_DEGREE * 1.1)))
    squeeze = max(0.2, math.cos(math.radians(latitude)))
    reach = 0.0
    for north, east, around in shown:
        aside = abs((east - longitude + 180) % 360 - 180) * squeeze * HEIGHT / WIDTH
        reach = max(reach, abs(north - latitude) + around, aside + around)
    return View(
        latitude=latitude, longitude=longitude, height_deg=2 * min(reach, _WIDEST_DEG / (2 - (far is not None)))
    )


def _discs(finding: Finding, view: View, prefix: str) -> list[str]:
    clips, outlines = [], []
    for number, disc in enumerate(finding.discs):
        path = circle(view, disc.latitude, disc.longitude, disc.radius_km)
        inside = f' clip-path="url(#{prefix}-c{number - 1})"' if number else ""
        clips.append(f'<clipPath id="{prefix}-c{number}"{inside}><path d="{path}"/></clipPath>')
        outlines.append(f'<path class="disc" d="{path}"/>')
        outlines.append(f'<path class="fibre" d="{circle(view, disc.latitude, disc.longitude, disc.fibre_km)}"/>')
    if not clips:
        return []
    region = (
        f'<rect class="region" width="{view.width}" height="{view.height}" '
        f'clip-path="url(#{prefix}-c{len(clips) - 1})"/>'
    )
    return [f"<defs>{''.join(clips)}</defs>", region, *outlines]


def _marks(finding: Finding, view: View, language: Language) -> list[str]:
    parts = []
    for disc in finding.discs:
        x, y = view.xy(disc.latitude, disc.longitude)
        parts.append(f'<path class="mark" d="M{x:.1f} {y - 7:.1f}l6 11h-12z"/>')
        parts.append(_label(x + 9, y + 16, f"{disc.landmark} {disc.rtt_ms:.2f} ms"))
    x, y = view.xy(finding.claim.latitude, finding.claim.longitude)
    parts.append(f'<circle class="claim" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
    parts.append(_label(x + 9, y - 6, finding.claim.site))
    if finding.land is not None:
        x, y = view.xy(finding.land.latitude, finding.land.longitude)
        parts.append(f'<path class="near" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"/>')
        parts.append(_label(x + 9, y + 4, land_name(finding.land).in_(language)))
    return parts


def _label(x: float, y: float, text: str) -> str:
    if x > WIDTH * 0.7:  # towards the middle
        return f'<text class="halo" text-anchor="end" x="{x - 18:.1f}" y="{y:.1f}">{escape(text)}</text>'
    return f'<text class="halo" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _legend(lead: str, language: Language) -> list[str]:
    rows = (
        ("disc", "M12 0h26", _say(language, "light in vacuum: decides", "真空中の光速（判定に使用）")),
        ("fibre", "M12 0h26", _say(language, "light in fibre: shown only", "光ファイバー（参考）")),
        ("near", "M20 -5l10 10m0 -10l-10 10", _say(language, "nearest foreign land", "最も近い国外扱いの陸地")),
    )
    parts = [f'<text x="12" y="{HEIGHT + 22}" font-weight="600">{escape(line)}</text>' for line in _wrap(lead)[:1]]
    parts += [
        f'<text x="12" y="{HEIGHT + 22 + 17 * row}">{escape(line)}</text>'
        for row, line in enumerate(_wrap(lead))
        if row
    ]
    for number, (name, path, words) in enumerate(rows):
        x, y = 240 * number, HEIGHT + LEGEND - 14
        parts.append(f'<path class="{name}" transform="translate({x} {y - 4})" d="{path}"/>')
        parts.append(f'<text x="{x + 46}" y="{y}">{escape(words)}</text>')
    return parts


def _wrap(text: str) -> list[str]:
    """Lines of about 105 columns; Japanese characters count as two."""
    lines, line, columns = [], "", 0
    for word in text.replace("。", "。 ").split(" "):
        wide = sum(1 + (ord(letter) > 0x2E7F) for letter in word) + 1
        if columns + wide > 105 and line:
            lines.append(line.rstrip())
            line, columns = "", 0
        line += word + " "
        columns += wide
    return [*lines, line.rstrip()]


def _say(language: Language, en: str, ja: str) -> str:
    return ja if language == "ja" else en
