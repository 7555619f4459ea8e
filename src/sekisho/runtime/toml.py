"""TOML with positions: what a file says, and on which line it says so.

The standard library's `tomllib` reads the values and is the judge of what is valid. Beside it a small scanner
notes the line of every key, table and array element, so that a mistake is reported where it was made. The scanner
only ever sees text that `tomllib` accepted, so it checks nothing again.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sekisho.kernel.errors import SekishoError

# Where a value lies: keys of tables and positions in arrays. `[[site]] id = …` is `("site", 0, "id")`.
TomlPath = tuple[str | int, ...]

MAX_FILE_BYTES = 64 << 20  # ten thousand tenants with all their keys take about 4 MB


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong in a file, and how to mend it."""

    file: str
    line: int
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what} — {self.mend}"


class ConfigRefused(SekishoError):
    """A configuration that can't be used; `problems` are all that is wrong, not just the first."""

    code = "config.refused"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
        super().__init__(
            "\n".join(str(problem) for problem in self.problems),
            hint="mend these lines; `sekisho config check FILE` looks again without starting anything",
        )

    def __str__(self) -> str:
        return self.fact


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A TOML file: its values, and the line (from 1) of everything that is in it."""

    file: str
    data: dict[str, Any]
    lines: Mapping[TomlPath, int]

    def line(self, path: TomlPath) -> int:
        """The line of `path`, or of the nearest table around it; 1 when the file has neither."""
        for length in range(len(path), 0, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return 1

    def problem(self, path: TomlPath, what: str, mend: str) -> Problem:
        """A problem at `path`."""
        return Problem(file=self.file, line=self.line(path), what=what, mend=mend)


def read_toml(path: Path) -> Document:
    """The document in this file; ConfigRefused when it can't be read or is no TOML."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _refused(path, 1, f"the file can't be read: {reason}", "check the path and who may read it") from None
    if len(data) > MAX_FILE_BYTES:
        raise _refused(path, 1, f"the file is larger than {MAX_FILE_BYTES >> 20} MiB", "is this the right file?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refused(path, line, "this is not UTF-8 text", "save the file as UTF-8") from None
    return parse_toml(text, file=str(path))


def parse_toml(text: str, *, file: str) -> Document:
    """The document in this text; ConfigRefused when it is no TOML. `file` is what problems call it."""
    text = text.replace("\r\n", "\n")  # as tomllib does
    if text.startswith("\ufeff"):
        raise _refused(file, 1, "the file starts with a byte order mark", "save it as UTF-8 without BOM")
    try:
        data = tomllib.loads(text)
        lines = _Scanner(text).scan()
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(text, file, str(error)) from None
    except ValueError as error:  # a number of more digits than Python converts
        raise _refused(file, 1, f"a value can't be read: {error}", "write it shorter") from None
    except RecursionError:
        raise _refused(file, 1, "tables or arrays are nested too deep", "nest them less") from None
    return Document(file=file, data=data, lines=lines)


_AT = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


def _not_toml(text: str, file: str, message: str) -> ConfigRefused:
    match = _AT.fullmatch(message)
    if match is None:
        return _refused(file, 1, f"this is not TOML: {message}", "see https://toml.io")
    if match["line"] is None:
        return _refused(
            file, text.rstrip("\n").count("\n") + 1, f"this is not TOML: {match['what']}", "the file ends too early"
        )
    mend = f'look at column {match["column"]}; text needs quotes, as in name = "value"'
    return _refused(file, int(match["line"]), f"this is not TOML: {match['what']}", mend)


def _refused(file: Path | str, line: int, what: str, mend: str) -> ConfigRefused:
    return ConfigRefused([Problem(file=str(file), line=line, what=what, mend=mend)])


_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")  # between the parts of arrays and between statements
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]*")
# One alternative for each kind of string. A multi-line string may end in up to two quotes of its own content.
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)


class _Scanner:
    """Notes lines in a text that is known to be valid TOML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[TomlPath, int] = {}
        self._elements: dict[TomlPath, int] = {}  # how many `[[…]]` there were so far

    def scan(self) -> dict[TomlPath, int]:
        table: TomlPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._header(brackets=2)
            elif self._text[self._at] == "[":
                table = self._header(brackets=1)
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._lines

    def _line(self) -> int:
        return bisect.bisect_left(self._newlines, self._at) + 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:  # pragma: no cover - tomllib accepted the text, so it is there
            raise AssertionError(f"no {pattern.pattern} at {self._at}")
        self._at = match.end()
        return match[0]

    def _header(self, *, brackets: int) -> TomlPath:
        line = self._line()
        self._at += brackets
        *parents, name = self._key()
        self._at += brackets
        table: TomlPath = ()
        for parent in parents:
            table = self._newest((*table, parent))
            self._lines.setdefault(table, line)  # a table that only its children name
        table = (*table, name)
        if brackets == 1:
            self._lines[table] = line  # its own header says more than a child's, wherever it stands
            return table
        self._lines.setdefault(table, line)
        position = self._elements.get(table, 0)
        self._elements[table] = position + 1
        table = (*table, position)
        self._lines[table] = line
        return table

    def _newest(self, table: TomlPath) -> TomlPath:
        """Below an array of tables, a header means its newest element."""
        count = self._elements.get(table)
        return table if count is None else (*table, count - 1)

    def _key(self) -> list[str]:
        """A key and its dots, up to what comes after it."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            if self._text[self._at] in "\"'":
                # tomllib knows every escape; a one-line document makes it the judge here too
                parts.append(tomllib.loads(f"key = {self._skip(_STRING)}")["key"])
            else:
                parts.append(self._skip(_BARE_KEY))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _pair(self, table: TomlPath) -> None:
        line = self._line()
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: TomlPath) -> None:
        first = self._text[self._at]
        if first in "\"'":
            self._skip(_STRING)
        elif first == "[":
            self._items(path, closing="]")
        elif first == "{":
            self._items(path, closing="}")
        else:
            self._skip(_BARE_VALUE)

    def _items(self, path: TomlPath, *, closing: str) -> None:
        """The elements of an array, or the pairs of an inline table."""
        self._at += 1
        position = 0
        while True:
            self._skip(_BLANK)
            match self._text[self._at]:
                case char if char == closing:
                    self._at += 1
                    return
                case ",":
                    self._at += 1
                case _ if closing == "}":
                    self._pair(path)
                case _:
                    self._lines[(*path, position)] = self._line()
                    self._value((*path, position))
                    position += 1
