"""`python -m sekisho.console.translations`: compile the catalogs; with `--extract`, first take up new strings.

English is the language of the sources, so its catalog is filled in; a Japanese entry that is missing stays empty,
and a test refuses it.
"""

from __future__ import annotations

import io
import sys
from importlib import resources
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from sekisho.console.i18n import DOMAIN, LANGUAGES, Language, compile_catalog

KEYWORDS: dict[str, tuple[int, ...] | None] = {"_": None, "t": None, "many": (1, 2)}
# Headers that say nothing here, and a date that would change the file on every run.
_LEFT_OUT = tuple(
    b'"' + name for name in (b"POT-Creation-Date", b"PO-Revision-Date", b"Report-Msgid", b"Last-Tr", b"Language-Team")
)
_METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]


def folder() -> Path:
    return Path(str(resources.files("sekisho.console")))


def extracted() -> dict[str | tuple[str, ...], list[tuple[str, int]]]:
    """Every string of the pages and where it stands; a pair is one that counts."""
    found: dict[str | tuple[str, ...], list[tuple[str, int]]] = {}
    options = {"templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}}
    for file, line, message, _comments, _context in extract_from_dir(
        folder(), method_map=_METHODS, options_map=options, keywords=KEYWORDS, strip_comment_tags=True
    ):
        found.setdefault(message, []).append((file, line))
    return found


def catalog_path(language: Language) -> Path:
    return folder() / "locale" / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def update(language: Language) -> None:
    """Takes up new strings and drops those that are no longer there; translations stay."""
    path = catalog_path(language)
    old = read_po(io.BytesIO(path.read_bytes()), locale=language)
    new = Catalog(
        locale=language,
        domain=DOMAIN,
        project="Sekisho",
        version="1",
        header_comment="# The words of the console. Made by `python -m sekisho.console.translations --extract`.",
        msgid_bugs_address="",
        last_translator="",
        language_team="",
        charset="utf-8",
        fuzzy=False,
    )
    for message, places in sorted(extracted().items(), key=lambda item: str(item[0])):
        known = old.get(message if isinstance(message, str) else message[0])
        text = known.string if known is not None else ""
        if language == "en":
            text = message
        # The file alone: line numbers would change the catalog with every edit.
        new.add(message, text, locations=[(file, 0) for file in sorted({file for file, _ in places})])
    out = io.BytesIO()
    write_po(out, new, width=110, omit_header=False, include_lineno=False, sort_output=True)
    lines = [line for line in out.getvalue().splitlines(keepends=True) if not line.startswith(_LEFT_OUT)]
    path.write_bytes(b"".join(lines))


def main(arguments: list[str]) -> int:
    for language in LANGUAGES:
        if "--extract" in arguments:
            update(language)
        path = catalog_path(language)
        path.with_suffix(".mo").write_bytes(compile_catalog(path.read_bytes()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
