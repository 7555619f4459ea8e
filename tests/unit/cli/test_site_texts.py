"""`sekisho site` in both languages."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from sekisho.cli import site_texts
from sekisho.cli.texts import Text

JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龯]")
TEXTS = {name: value for name, value in vars(site_texts).items() if isinstance(value, Text)}
for group in ("CODES", "FIELDS", "STATES", "SOURCES"):
    TEXTS |= {f"{group}.{name}": value for name, value in getattr(site_texts, group).items()}
FIELDS = re.compile(r"\{(\w+)\}")


@pytest.mark.parametrize("name", TEXTS)
def test_every_sentence_exists_in_both_languages(name: str) -> None:
    text = TEXTS[name]
    assert not JAPANESE.search(text.en)
    assert JAPANESE.search(text.ja) or name == "COLUMN_GPU"
    assert set(FIELDS.findall(text.en)) == set(FIELDS.findall(text.ja))


def test_every_code_that_is_called_by_name_is_documented() -> None:
    place = Path(__file__).parents[3] / "docs" / "reference" / "make.py"
    spec = importlib.util.spec_from_file_location("docs_reference_make", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(set(site_texts.CODES) - set(module.FAULTS)) == []


def test_every_sentence_is_said_somewhere() -> None:
    rooms = Path(site_texts.__file__).parent
    source = "".join((rooms / name).read_text() for name in ("site.py", "site_machine.py", "operator.py", "main.py"))
    plain = {name for name in TEXTS if "." not in name}
    said = set(re.findall(r"\b(?:said|site_texts)\.([A-Z_]+)", source))
    assert plain - said == {"SIMULATED"} - said
