"""Two languages: which one a reader wants, and the texts in it."""

from __future__ import annotations

import gettext
import io
from functools import cache
from importlib import resources
from typing import Final, Literal

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

Language = Literal["ja", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("ja", "en")
DEFAULT: Final[Language] = "ja"
DOMAIN = "console"


class Translator:
    """`t("%(n)s endpoints", n=3)`: the text in one language. Values are put in after translation."""

    def __init__(self, language: Language, catalog: gettext.NullTranslations) -> None:
        self.language = language
        self._catalog = catalog

    def __call__(self, text: str, **values: object) -> str:
        return self._catalog.gettext(text) % values

    def many(self, one: str, other: str, n: int, **values: object) -> str:
        """The form that fits the number; `%(n)s` is the number."""
        return self._catalog.ngettext(one, other, n) % {"n": f"{n:,}", **values}


@cache
def translator(language: Language) -> Translator:
    """From the compiled catalog, or from its source when nobody has compiled it (a checkout without `make`)."""
    folder = resources.files("sekisho.console") / "locale" / language / "LC_MESSAGES"
    compiled = folder / f"{DOMAIN}.mo"
    source = (folder / f"{DOMAIN}.po").read_bytes()
    # A stale compiled file would show yesterday's words; the source is small, so it is always what counts.
    data = compiled.read_bytes() if compiled.is_file() else b""
    fresh = compile_catalog(source)
    return Translator(language, gettext.GNUTranslations(io.BytesIO(data if data == fresh else fresh)))


def compile_catalog(source: bytes) -> bytes:
    """A .po file's bytes → a .mo file's bytes."""
    out = io.BytesIO()
    write_mo(out, read_po(io.BytesIO(source)))
    return out.getvalue()


def parse_language(text: str) -> Language | None:
    return text if text in LANGUAGES else None


def negotiate(cookie: str, accept_language: str) -> Language:
    """What the reader chose before, else what the browser prefers (RFC 9110 §12.5.4), else Japanese."""
    chosen = parse_language(cookie)
    if chosen is not None:
        return chosen
    ranked: list[tuple[float, int, Language]] = []
    for position, part in enumerate(accept_language.split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        language = parse_language(tag.split("-")[0].strip().lower())
        if language is not None:
            try:
                ranked.append((-float(quality or 1), position, language))
            except ValueError:
                continue
    return min(ranked)[2] if ranked else DEFAULT
