"""The picture of a distribution: the share of answers that had begun after so many milliseconds, as SVG.

Readable on light and dark pages, with no script and no font of its own (the manner of bench/chart.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal
from xml.sax.saxutils import escape

import msgspec

from sekisho.lab.scenarios.report import percentile

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 56, 56
_TICKS = 6
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933; }
  .title { font-weight: 600; font-size: 14px; }
  .note { font-size: 12px; fill: #52606d; }
  .line { fill: none; stroke: #7b8794; stroke-width: 2.5; stroke-dasharray: 7 4; }
  .line-us { fill: none; stroke: #b8432f; stroke-width: 2.5; }
  .grid { stroke: #e4e7eb; stroke-width: 1; }
  .page { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb; }
    .note { fill: #9aa5b1; }
    .line { stroke: #9aa5b1; }
    .line-us { stroke: #e8735c; }
    .grid { stroke: #323f4b; }
    .page { fill: #12171d; }
  }
"""
_TITLE = {
    "en": "Share of answers that have begun, by time to the first token (ms)",
    "ja": "最初のトークンまでの時間（ミリ秒）と、応答が始まった割合",
}


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Values in milliseconds, and what they are called."""

    name_en: str
    name_ja: str
    values: tuple[float, ...]
    ours: bool = False


def cumulative(series: Sequence[Series], *, language: Literal["en", "ja"]) -> str:
    """One step line a series. What is beyond the 99th percentile is in the figures only."""
    right = max(percentile(each.values, 0.99) for each in series)
    step = _round_up(right / _TICKS)
    right = step * math.ceil(right / step)
    names = {each.name_en: each.name_ja if language == "ja" else each.name_en for each in series}
    medians = {each.name_en: percentile(each.values, 0.5) for each in series}
    told = "; ".join(f"{names[name]}: p50 {medians[name]:.0f} ms" for name in names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(told, {chr(34): "&quot;"})}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>',
        f'<text class="title" x="20" y="28">{escape(_TITLE[language])}</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="note" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for number in range(int(right / step) + 1):
        x = _x(number * step, right)
        parts.append(
            f'<text class="note" x="{x:.1f}" y="{_HEIGHT - 34}" text-anchor="middle">{number * step:g}</text>'
        )
    for index, each in enumerate(series):
        kind = "line-us" if each.ours else "line"
        parts.append(f'<path class="{kind}" d="{_path(sorted(each.values), right)}"/>')
        x = 20 + index * 360
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x + 28}" y1="{_HEIGHT - 16}" y2="{_HEIGHT - 16}"/>')
        words = f"{names[each.name_en]} · p50 {medians[each.name_en]:.0f} ms"
        parts.append(f'<text x="{x + 36}" y="{_HEIGHT - 12}">{escape(words)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _path(ordered: Sequence[float], right: float) -> str:
    points = [f"M{_x(0, right):.1f},{_y(0):.1f}"]
    for number, value in enumerate(ordered, start=1):
        x = _x(min(value, right), right)
        points.append(f"H{x:.1f}")
        if value > right:
            break
        points.append(f"V{_y(number / len(ordered)):.1f}")
    return " ".join(points)


def _x(value: float, right: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / right


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(times * power for times in (1, 2, 5, 10) if times * power >= value))
