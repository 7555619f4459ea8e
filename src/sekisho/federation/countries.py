"""Which country codes exist (ISO 3166-1 alpha-2), and what people call the countries."""

from __future__ import annotations

from functools import cache
from typing import Literal

from babel import Locale

Language = Literal["en", "ja"]

# CLDR, where the names come from, also names regions that are no country of ISO 3166-1.
_NOT_COUNTRIES = frozenset({"AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "ZZ"})


@cache
def _names(language: Language) -> dict[str, str]:
    return {
        code: name
        for code, name in Locale.parse(language).territories.items()
        if len(code) == 2 and code.isalpha() and code not in _NOT_COUNTRIES
    }


def is_country(code: str) -> bool:
    """`JP` → True, `UK` → False (the code of the United Kingdom is GB)."""
    return code in _names("en")


def country_label(code: str, language: Language) -> str:
    """`JP` → `Japan (JP)` or `日本（JP）`; a code without a name stays as it is."""
    name = _names(language).get(code)
    if name is None:
        return code
    return f"{name} ({code})" if language == "en" else f"{name}（{code}）"
