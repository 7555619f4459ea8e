"""The chart of a run: bars as SVG, readable on light and dark pages, with no script and no font of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

US = "sekisho"
WIDTH, LEFT, BAR, ROW, PANEL_HEAD, GAP = 760, 92, 16, 24, 44, 22
# A bar longer than this many times the second longest kind of bar would leave the others unreadable: it is cut,
# drawn with a break, and its number says the rest.
CUT_AT = 3.0

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933; }
  .title { font-weight: 600; font-size: 14px; }
  .note { font-size: 12px; fill: #52606d; }
  .us { font-weight: 700; }
  .bar { fill: #9aa5b1; }
  .bar-us { fill: #b8432f; }
  .axis { stroke: #cbd2d9; stroke-width: 1; }
  .cut { stroke: #ffffff; stroke-width: 3; }
  .page { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb; }
    .note { fill: #9aa5b1; }
    .bar { fill: #616e7c; }
    .bar-us { fill: #e8735c; }
    .axis { stroke: #3e4c59; }
    .cut { stroke: #12171d; }
    .page { fill: #12171d; }
  }
"""


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    note: str
    bars: list[tuple[str, float, str]]  # peer, value, as it is written


def draw(result: dict[str, Any]) -> str:
    """The SVG of a run."""
    panels = [panel for panel in _panels(result) if panel.bars]
    height = GAP + sum(PANEL_HEAD + ROW * len(panel.bars) + GAP for panel in panels)
    told = "; ".join(f"{panel.title}: " + ", ".join(f"{n} {t}" for n, _, t in panel.bars) for panel in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(told, {chr(34): "&quot;"})}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
    ]
    top = GAP
    for panel in panels:
        parts += _draw_panel(panel, top)
        top += PANEL_HEAD + ROW * len(panel.bars) + GAP
    return "\n".join([*parts, "</svg>", ""])


def _draw_panel(panel: Panel, top: int) -> list[str]:
    values = sorted(value for _, value, _ in panel.bars)
    longest = values[-1]
    if len(values) > 1 and longest > CUT_AT * values[-2]:
        longest = values[-2] * 1.25
    room = WIDTH - LEFT - 110
    parts = [
        f'<text class="title" x="20" y="{top + 12}">{escape(panel.title)}</text>',
        f'<text class="note" x="20" y="{top + 30}">{escape(panel.note)}</text>',
    ]
    first = top + PANEL_HEAD
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{first - 3}" y2="{first + ROW * len(panel.bars) - 3}"/>'
    )
    for number, (peer, value, text) in enumerate(panel.bars):
        y = first + ROW * number
        is_cut = value > longest
        length = room if is_cut else max(1.0, room * value / longest)
        label, bar = ("us", "bar-us") if peer == US else ("", "bar")
        parts += [
            f'<text class="{label}" x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(peer)}</text>',
            f'<rect class="{bar}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
            f'<text class="{label}" x="{LEFT + length + 8:.1f}" y="{y + 13}">{escape(text)}</text>',
        ]
        if is_cut:
            x = LEFT + room - 26
            parts += [
                f'<line class="cut" x1="{x + shift}" x2="{x + shift + 6}" y1="{y + BAR + 2}" y2="{y - 2}"/>'
                for shift in (0, 7)
            ]
    return parts


def _panels(result: dict[str, Any]) -> list[Panel]:
    def values(scenario: str, name: str) -> dict[str, float]:
        return {peer: figures[name] for peer, figures in result["summary"].get(scenario, {}).items()}

    def added(scenario: str) -> list[tuple[str, float, str]]:
        times = values(scenario, "p50_us")
        floor = times.pop("direct", None)
        if floor is None:
            return []
        return _sorted([(peer, max(0.0, time - floor)) for peer, time in times.items()], _time)

    small, stream = values("small_c32", "cpu_us"), values("stream_c100", "cpu_us")
    small.pop("direct", None)
    stream.pop("direct", None)
    return [
        Panel(
            title="CPU a request",
            note="small chat completion, 32 connections, one core; less is better",
            bars=_sorted(list(small.items()), _time),
        ),
        Panel(
            title="Latency added, small prompt",
            note="median over no proxy, one connection; less is better",
            bars=added("small_c1"),
        ),
        Panel(
            title="Latency added, 220 KB prompt",
            note="median over no proxy, one connection; less is better",
            bars=added("large_c1"),
        ),
        Panel(
            title="CPU a 100-chunk stream",
            note="100 streams at a time, 10 ms a chunk; less is better",
            bars=_sorted(list(stream.items()), _time),
        ),
    ]


def _sorted(bars: list[tuple[str, float]], text: Any) -> list[tuple[str, float, str]]:
    return [(peer, value, text(value)) for peer, value in sorted(bars, key=lambda bar: bar[1])]


def _time(us: float) -> str:
    return f"{us:,.1f} µs" if us < 100 else f"{us:,.0f} µs" if us < 10_000 else f"{us / 1000:,.1f} ms"
