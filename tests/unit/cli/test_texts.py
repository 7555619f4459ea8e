"""Both languages, always."""

from __future__ import annotations

import importlib
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.cli import texts
from sekisho.cli.texts import Text, language

JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龯]")


SAME = {"texts.OPTION_JSON"}
WORD = re.compile(r"(?<!-)\b[A-Za-z]*[a-z]{3}")
FOLDER = Path(texts.__file__).parent
MODULES = {path.stem: importlib.import_module(f"sekisho.cli.{path.stem}") for path in FOLDER.glob("*texts.py")}


def every_text() -> Iterator[tuple[str, Text]]:
    for place, module in MODULES.items():
        for name, value in vars(module).items():
            if isinstance(value, Text):
                yield f"{place}.{name}", value
            elif isinstance(value, dict):
                yield from ((f"{place}.{name}.{key}", text) for key, text in value.items() if isinstance(text, Text))


ALL = dict(every_text())


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("name", ALL)
def test_every_sentence_exists_in_both_languages_and_says_the_same_values(name: str) -> None:
    text = ALL[name]
    assert text.en
    assert not JAPANESE.search(text.en)
    # ID, GPU and what is filled in read the same in both
    assert JAPANESE.search(text.ja) or not WORD.search(re.sub(r"\{[^}]*\}", "", text.en)) or name in SAME
    assert fields(text.en) == fields(text.ja)


def test_there_are_sentences_at_all() -> None:
    assert len(ALL) > 80


def test_every_sentence_is_said_somewhere() -> None:
    sources = [path.read_text() for path in FOLDER.glob("*.py")]
    for place, module in MODULES.items():
        for name, value in vars(module).items():
            if isinstance(value, Text):
                # its definition is one; what another module imported to say it counts there, too
                said = sum(len(re.findall(rf"\b{name}\b", source)) for source in sources)
                assert said > 1, f"{place}.{name} is never said"


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
