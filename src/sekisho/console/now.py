"""The screen Now: is all well, what needs somebody, where things are. Pure: facts in, view-model out."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.console.facts import Facts, SiteLive
from sekisho.console.i18n import Translator
from sekisho.console.needs import Need, needs
from sekisho.console.render import View, duration
from sekisho.console.tiles import COLUMNS, GRID, ROWS
from sekisho.kernel.jurisdictions import PREFECTURES
from sekisho.runtime.changes import Change

TILE = 40
GAP = 4
# What fits beside the map; the table below it has all.
LEGEND = 8


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """One of the four. `state` is `ok`, `none` (there is nothing yet) or `failed` (it could not be found out)."""

    label: str
    value: str
    note: str
    state: Literal["ok", "none", "failed"] = "ok"
    href: str = ""


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """A prefecture. `marks` are the numbers of its sites in the legend; without any it is scenery."""

    x: int
    y: int
    label: str
    name: str
    marks: str = ""
    state: str = ""
    href: str = ""
    said: str = ""


class Legend(msgspec.Struct, frozen=True, kw_only=True):
    """A site in the map's legend. `place` is its prefecture, or its country when it stands in none."""

    number: int
    name: str
    place: str
    state: str
    href: str


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A page that the reader looked at before."""

    label: str
    href: str


class NowView(View, frozen=True, kw_only=True):
    level: Literal["stop", "act", "ok"]
    verdict: str
    needs: tuple[Need, ...]
    notes: tuple[Need, ...]  # good to know: nobody has to do anything
    numbers: tuple[Number, ...]
    tiles: tuple[Tile, ...]
    legend: tuple[Legend, ...]
    unlisted: int
    width: int
    height: int
    sites: tuple[SiteLive, ...]
    left: tuple[Left, ...]
    recent: tuple[Change, ...]
    table_version: int | None
    table_age: str

    @property
    def template(self) -> str:
        return "now.html"


def now_view(facts: Facts, t: Translator, left: tuple[Left, ...]) -> NowView:
    listed = needs(facts, t)
    level, verdict = _verdict(facts, listed, t)
    return NowView(
        level=level,
        verdict=verdict,
        needs=tuple(need for need in listed if need.severity != "watch"),
        notes=tuple(need for need in listed if need.severity == "watch"),
        numbers=_numbers(facts, t),
        tiles=_tiles(facts, t),
        legend=_legend(facts, t)[:LEGEND],
        unlisted=max(0, len(facts.sites) - LEGEND),
        width=COLUMNS * (TILE + GAP) - GAP,
        height=ROWS * (TILE + GAP) - GAP,
        sites=facts.sites,
        left=left,
        recent=facts.recent,
        table_version=facts.state.table.version if facts.state else None,
        table_age=duration(facts.now - facts.state.table.issued_at, t) if facts.state else "",
    )


def _verdict(facts: Facts, listed: tuple[Need, ...], t: Translator) -> tuple[Literal["stop", "act", "ok"], str]:
    stops = [need for need in listed if need.severity == "stop"]
    if stops:
        return "stop", t("Work is being refused: %(what)s.", what=stops[0].title)
    serving = [live for live in facts.endpoints if live.state == "serving"]
    sites = len({live.endpoint.site for live in serving})
    served = t(
        "The checkpoint is open: %(serving)s of %(all)s endpoints serve, at %(sites)s sites",
        serving=len(serving),
        all=len(facts.endpoints),
        sites=sites,
    )
    acts = sum(need.severity == "act" for need in listed)
    if acts:
        return "act", t.many(
            "%(served)s; %(n)s thing needs you.", "%(served)s; %(n)s things need you.", acts, served=served
        )
    return "ok", t("%(served)s, and nothing needs you.", served=served)


def _numbers(facts: Facts, t: Translator) -> tuple[Number, ...]:
    slots = sum(live.endpoint.slots for live in facts.endpoints)
    free = sum(live.slots_free for live in facts.endpoints)
    answers = any(report.snapshot for report in facts.reports)
    refusals = Number(
        label=t("Refusals in 24 hours"),
        value=f"{facts.refusals:,}",
        note=t("of %(n)s passages", n=f"{facts.passages:,}"),
        href="/gateway?verdict=refused",
    )
    capacity = Number(
        label=t("Slots free"),
        value=f"{free:,}" if answers else t("unknown"),
        note=t("of %(n)s at all endpoints", n=f"{slots:,}") if answers else t("no gateway answers"),
        state="ok" if answers else "failed",
    )
    reserved = facts.reserved
    if reserved.gpus:
        capacity = Number(
            label=t("GPUs free now"),
            value=f"{reserved.free:,}",
            note=t("of %(n)s in all pools", n=f"{reserved.gpus:,}"),
            href="/capacity",
        )
    return (
        refusals,
        capacity,
        _checkpoint(facts, t),
        Number(
            label=t("Alliance inbox"),
            value="–",
            note=t("not built yet: it comes with the shield"),
            state="none",
        ),
    )


def _checkpoint(facts: Facts, t: Translator) -> Number:
    label, ledger = t("Last checkpoint"), facts.ledger
    if not ledger.origin:
        return Number(label=label, value="–", note=t("no entry in the log yet"), state="none", href="/ledger")
    if ledger.cosigned_at is None:
        return Number(label=label, value=t("none"), note=t("no quorum yet"), state="failed", href="/ledger")
    waiting = ledger.size - ledger.counts
    note = (
        t.many("%(n)s entry waits for a quorum", "%(n)s entries wait for a quorum", waiting)
        if waiting > 0
        else t("all %(n)s entries are under a quorum", n=f"{ledger.size:,}")
    )
    age = duration(facts.now - ledger.cosigned_at, t)
    return Number(label=label, value=t("%(age)s ago", age=age), note=note, href="/ledger")


# The worst first: a tile with several sites shows it.
_ORDER = ("resting", "unknown", "suspended", "partly", "empty", "serving")


def _tiles(facts: Facts, t: Translator) -> tuple[Tile, ...]:
    tiles = []
    for prefecture in PREFECTURES:
        column, row = GRID[prefecture.code]
        here = [
            (number, live) for number, live in enumerate(facts.sites, 1) if live.site.prefecture == prefecture.code
        ]
        name = prefecture.ja if t.language == "ja" else prefecture.en
        short = prefecture.ja if prefecture.code == 1 else prefecture.ja[:-1]
        names = ", ".join(live.site.name for _, live in here)
        numbers = [str(number) for number, _ in here]
        tiles.append(
            Tile(
                x=column * (TILE + GAP),
                y=row * (TILE + GAP),
                label=short if t.language == "ja" else "",
                name=name,
                marks=" ".join(numbers) if len(numbers) < 4 else f"{numbers[0]} +{len(numbers) - 1}",
                state=min((live.state for _, live in here), key=_ORDER.index) if here else "",
                href=(f"/sites/{here[0][1].site.id}" if len(here) == 1 else "#sites") if here else "",
                said=t("%(prefecture)s: %(sites)s", prefecture=name, sites=names) if here else name,
            )
        )
    return tuple(tiles)


def _legend(facts: Facts, t: Translator) -> tuple[Legend, ...]:
    prefectures = {each.code: each.ja if t.language == "ja" else each.en for each in PREFECTURES}
    return tuple(
        Legend(
            number=number,
            name=live.site.name,
            place=prefectures.get(live.site.prefecture or 0, live.site.country),
            state=live.state,
            href=f"/sites/{live.site.id}",
        )
        for number, live in enumerate(facts.sites, 1)
    )
