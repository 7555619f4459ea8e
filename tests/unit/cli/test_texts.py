"""Both languages, always."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.cli import texts
from sekisho.cli.texts import Text, language

JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龯]")


def every_text() -> Iterator[tuple[str, Text]]:
    for name, value in vars(texts).items():
        if isinstance(value, Text):
            yield name, value
    for code, value in texts.CODES.items():
        yield code, value


ALL = dict(every_text())


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("name", ALL)
def test_every_sentence_exists_in_both_languages_and_says_the_same_values(name: str) -> None:
    text = ALL[name]
    assert text.en
    assert not JAPANESE.search(text.en)
    assert JAPANESE.search(text.ja) or name == "OPTION_JSON"
    assert fields(text.en) == fields(text.ja)


def test_there_are_sentences_at_all() -> None:
    assert len(ALL) > 80


def test_every_sentence_is_said_somewhere() -> None:
    source = "".join(file.read_text() for file in Path(texts.__file__).parent.glob("*.py"))
    said = set(re.findall(r"\btexts\.([A-Z_]+)", source))
    assert {name for name in vars(texts) if isinstance(getattr(texts, name), Text)} == said - {"CODES"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "LC_ALL": "ja_JP"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "SEKISHO_LANG": "en"}, "en"),
        ({"LANG": "C", "SEKISHO_LANG": "JA"}, "ja"),
        ({"LANG": "ja", "SEKISHO_LANG": ""}, "ja"),
    ],
)
def test_the_environment_chooses_the_language(environment: dict[str, str], expected: str) -> None:
    assert language(environment) == expected


def test_a_sentence_follows_the_language_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_LANG", "ja")
    assert "すべて正常" in str(texts.ALL_WELL)
    monkeypatch.setenv("SEKISHO_LANG", "en")
    assert texts.FAULT_SILENT(name="worker-0") == "worker-0 does not answer"
