"""The two sizes in which pages are looked at, and axe-core on them (W3C rules for people who see, hear or move
differently)."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, ViewportSize

from support.background import SOAK

AXE = (Path(__file__).parents[1] / "journeys" / "vendor" / "axe-4.14.1.min.js").read_text()
DESKTOP: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
# A run takes seconds on a slow machine, and a screen in two languages and two sizes has the same elements with other
# words in another order: one of the four is looked at, in turns, and all of them in the soak mode.
_TURNS = (("ja", True), ("en", False))
# Only what is wrong: all that axe found to be right is megabytes of a large page.
_FIND = """async () => {
  const {violations} = await axe.run({resultTypes: ['violations']})
  return violations.map(({id, nodes}) => [id, nodes.map(({html}) => html)])
}"""


def assert_accessible(page: Page, *, language: str = "", turn: int = 0) -> None:
    """Fails when axe finds anything. `turn`: the number of the screen among those that are tried in every `language`;
    without a language it is looked at in any case."""
    size = page.viewport_size
    assert size is not None
    if language and not SOAK and (language, size == PHONE) != _TURNS[turn % len(_TURNS)]:
        return
    page.evaluate(AXE)
    violations = page.evaluate(_FIND)
    assert violations == [], (page.url, size)
