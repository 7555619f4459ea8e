"""The statement of a pack as a page for people: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Literal

import jinja2

from sekisho.ledger.pack.border import covered_ms
from sekisho.ledger.pack.model import CONTROLS, Statement

Language = Literal["en", "ja"]

_STATES: dict[Language, dict[str, str]] = {
    "en": {"satisfied": "✔ satisfied", "not-satisfied": "✘ not satisfied", "not-assessed": "– not assessed"},
    "ja": {"satisfied": "✔ 適合", "not-satisfied": "✘ 不適合", "not-assessed": "– 未評価"},
}
_REPLAYS: dict[Language, dict[str, str]] = {
    "en": {
        "same": "✔ same",
        "different": "✘ different",
        "no-inputs": "– inputs not kept",
        "not-decided": "– refused before the policy",
    },
    "ja": {
        "same": "✔ 一致",
        "different": "✘ 不一致",
        "no-inputs": "– 入力の保存期間外",
        "not-decided": "– ルール適用前の拒否",
    },
}


_BORDERS: dict[Language, dict[str, str]] = {
    "en": {
        "clean": "✔ nothing guarded, canary seen",
        "crossed": "✘ guarded traffic crossed",
        "disagreement": "✘ the counters disagree",
        "blind": "✘ canary not seen: proves nothing",
        "unreadable": "✘ unreadable",
    },
    "ja": {
        "clean": "✔ 保護対象なし、カナリア検知",
        "crossed": "✘ 保護対象の通信が越境",
        "disagreement": "✘ 計数器の値が不一致",
        "blind": "✘ カナリア未検知（証明にならない）",
        "unreadable": "✘ 読み取り不可",
    },
}


@cache
def _template() -> jinja2.Template:
    text = resources.files("sekisho.ledger.pack").joinpath("report.html.j2").read_text()
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["instant"] = _instant
    return made.from_string(text)


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def report(statement: Statement, language: Language) -> str:
    """The page in one language; a pure function of the statement."""
    return _template().render(
        lang=language,
        ja=language == "ja",
        statement=statement,
        controls={control.id: control for control in CONTROLS},
        states=_STATES[language],
        replays=_REPLAYS[language],
        borders=_BORDERS[language],
        covered_s=covered_ms(statement.border, since_ms=statement.since_ms, until_ms=statement.until_ms) // 1000,
        period_s=(statement.until_ms - statement.since_ms) // 1000,
    )
