"""Every string in both languages, and each reader gets theirs."""

from __future__ import annotations

import io
import re

import pytest
from babel.messages.pofile import read_po

from sekisho.console.i18n import LANGUAGES, Language, negotiate, translator
from sekisho.console.translations import catalog_path, extracted

_PLACE = re.compile(r"%\((\w+)\)s")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_string_is_translated_and_none_is_left_over(language: Language) -> None:
    catalog = read_po(io.BytesIO(catalog_path(language).read_bytes()), locale=language)
    have = {message.id: message.string for message in catalog if message.id}
    assert set(have) == set(extracted()), "run `python -m sekisho.console.translations --extract`"
    for text, translated in have.items():
        forms = (translated,) if isinstance(translated, str) else translated
        assert forms, text
        assert all(forms), f"{language}: no translation of {text!r}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_keep_the_values(language: Language) -> None:
    catalog = read_po(io.BytesIO(catalog_path(language).read_bytes()), locale=language)
    for message in catalog:
        if not message.id:
            continue
        text = message.id if isinstance(message.id, str) else message.id[-1]
        forms = (message.string,) if isinstance(message.string, str) else message.string
        for form in forms:
            assert set(_PLACE.findall(form)) == set(_PLACE.findall(text)), text


def test_japanese_is_japanese() -> None:
    catalog = read_po(io.BytesIO(catalog_path("ja").read_bytes()), locale="ja")
    # Names and marks that are written the same in both
    same = {"%(prefecture)s: %(sites)s", ", "}
    kana_or_kanji = re.compile(r"[぀-ヿ一-鿿]")
    for message in catalog:
        text = message.string if isinstance(message.string, str) else message.string[0]
        if message.id and message.id not in same and message.id not in ("Id",):
            assert kana_or_kanji.search(text), message.id


def test_numbers_take_the_form_that_fits() -> None:
    assert translator("en").many("%(n)s passage", "%(n)s passages", 1) == "1 passage"
    assert translator("en").many("%(n)s passage", "%(n)s passages", 1200) == "1,200 passages"
    assert translator("ja").many("%(n)s passage", "%(n)s passages", 1) == "通過 1 件"


@pytest.mark.parametrize(
    ("cookie", "accept", "language"),
    [
        ("", "", "ja"),
        ("", "en-GB,en;q=0.9", "en"),
        ("", "de,en;q=0.5,ja;q=0.4", "en"),
        ("", "de-CH", "ja"),
        ("", "en;q=0.2, ja-JP", "ja"),
        ("ja", "en", "ja"),
        ("xx", "en", "en"),
        ("", "en;q=nonsense,,;;ja", "ja"),
    ],
)
def test_language_is_what_was_chosen_or_preferred(cookie: str, accept: str, language: str) -> None:
    assert negotiate(cookie, accept) == language
