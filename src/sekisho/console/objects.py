"""The pages of single things: a decision, a site, an endpoint. Each has Summary · Why · Events · Raw."""

from __future__ import annotations

import shlex
from typing import Literal

import msgspec

from sekisho.console.evidence import SiteStanding
from sekisho.console.facts import EndpointLive, SiteLive
from sekisho.console.gateway import Cell
from sekisho.console.render import View
from sekisho.ledger.model import Decision
from sekisho.ledger.store import PassageRow
from sekisho.residency.evidence_store import Evidence
from sekisho.residency.matrix import RouteChange
from sekisho.residency.model import Reason
from sekisho.residency.why import Explanation
from sekisho.runtime.changes import Change

Tab = Literal["summary", "why", "evidence", "proof", "events", "raw"]
TABS: tuple[Tab, ...] = ("summary", "why", "events", "raw")
SITE_TABS: tuple[Tab, ...] = ("summary", "why", "evidence", "events", "raw")


ENTRY_TABS: tuple[Tab, ...] = ("summary", "proof", "events", "raw")


def parse_tab(text: str, known: tuple[Tab, ...] = TABS) -> Tab:
    return next((tab for tab in known if tab == text), "summary")


class ObjectView(View, frozen=True, kw_only=True):
    """`path` is the page's address without the tab; `raw` is JSON; `commands` do the same at a terminal."""

    tab: Tab
    path: str
    raw: str
    commands: tuple[str, ...]


class DecisionView(ObjectView, frozen=True, kw_only=True):
    """`now_says` is what the table in force says of the same question; `there` whether its site still exists."""

    decision: Decision
    worker: str
    now_says: Explanation | None
    there: bool

    @property
    def template(self) -> str:
        return "decision.html"


class ClassVerdict(msgspec.Struct, frozen=True, kw_only=True):
    data_class: str
    cell: Cell


class SiteView(ObjectView, frozen=True, kw_only=True):
    """`history`: the evidence that was handed in, the newest first. `consequences`: what the button would change."""

    live: SiteLive
    standing: SiteStanding
    history: tuple[Evidence, ...]
    consequences: tuple[RouteChange, ...]
    prefecture: str
    verdicts: tuple[ClassVerdict, ...]
    changes: tuple[Change, ...]
    passages: tuple[PassageRow, ...]

    @property
    def template(self) -> str:
        return "site.html"


class EndpointView(ObjectView, frozen=True, kw_only=True):
    """`consequences` are what the button of this page would change."""

    live: EndpointLive
    site: SiteLive
    verdicts: tuple[tuple[str, tuple[Reason, ...], tuple[str, ...]], ...]  # class, reasons against, rules for
    changes: tuple[Change, ...]
    passages: tuple[PassageRow, ...]
    consequences: tuple[RouteChange, ...]

    @property
    def template(self) -> str:
        return "endpoint.html"


def pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def curl(base: str, path: str, *, method: str = "") -> str:
    """The same from the API, at a terminal on this machine."""
    verb = f"-X {method} " if method else ""
    return f'curl {verb}-H "Authorization: Bearer $(cat .sekisho/secrets/admin_token)" {base.rstrip("/")}{path}'


def why_command(tenant: str, data_class: str, model: str) -> str:
    words = ["sekisho", "why", "--tenant", tenant, "--class", data_class, "--model", model]
    return shlex.join(words)
