"""One word for one thing: what the glossary decided is what console, command line and documents say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# word that is not used → the one that is
RETIRED = {
    "待機リスト": "キャンセル待ち",
    "ウェイトリスト": "キャンセル待ち",
    "ウエイトリスト": "キャンセル待ち",
    "コホート": "融通グループ",
}
PLACES = [
    *(ROOT / "src" / "sekisho").rglob("*.po"),
    *(ROOT / "src" / "sekisho" / "cli").rglob("*_texts.py"),
    *(ROOT / "src" / "sekisho" / "capacity").rglob("*.py"),
    *(ROOT / "docs").rglob("*.ja.md"),
    ROOT / "README.ja.md",
]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_word_is_left(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for retired, word in RETIRED.items():
        assert retired not in text, f"say {word}, not {retired}"


def test_the_words_of_the_glossary_are_those_of_the_console() -> None:
    said = (ROOT / "src/sekisho/console/locale/ja/LC_MESSAGES/console.po").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([a-z][^|]*) \| ([^|]+) \|", (ROOT / "docs/reference/glossary.md").read_text("utf-8"), re.M
    )
    assert len(rows) >= 15
    for _english, japanese in rows:
        for word in japanese.strip().split("、"):
            assert word in said, word
