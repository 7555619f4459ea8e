"""Where things stand in Cedar text: statements, tokens, and the place of a mistake. The engine itself names none."""

from __future__ import annotations

import re
from collections.abc import Iterator

import cedarpy
import msgspec

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z_]\w*)|(?P<number>\d+)"""
    r"""|(?P<mark>::|==|!=|<=|>=|&&|\|\||.)""",
    re.DOTALL,
)
_NAMED = re.compile(r"`([^`]+)`")
_FOR_POLICY = re.compile(r"^for policy `[^`]*`[,:] ")


class Token(msgspec.Struct, frozen=True):
    text: str
    start: int
    end: int


class Statement(msgspec.Struct, frozen=True):
    """One policy: `text[start:end]` of its file, with its tokens (comments and spaces left out)."""

    start: int
    end: int
    tokens: tuple[Token, ...]


def statements(text: str) -> Iterator[Statement]:
    """The policies of a file, each up to its semicolon; what follows the last one is a statement of its own."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "space":
            continue
        tokens.append(Token(match[0], match.start(), match.end()))
        if match[0] == ";":
            yield Statement(tokens[0].start, match.end(), tuple(tokens))
            tokens = []
    if tokens:
        yield Statement(tokens[0].start, tokens[-1].end, tuple(tokens))


def syntax_fault(text: str, statement: Statement) -> tuple[str, int] | None:
    """What is wrong with the form of a statement, and where in `text`; None when nothing is.

    The parser reads from left to right and stops at the first token that can't follow, so the shortest beginning
    that it does not merely find unfinished ends with that token.
    """
    what = _parse_fault(text[statement.start : statement.end])
    if what is None:
        return None
    if "end of input" in what:
        return what, statement.tokens[-1].start
    if "unexpected token" not in what:
        return what, statement.start
    low, high = 0, len(statement.tokens) - 1
    while low < high:
        middle = (low + high) // 2
        fault = _parse_fault(text[statement.start : statement.tokens[middle].end])
        if fault is not None and "unexpected token" in fault:
            high = middle
        else:
            low = middle + 1
    return what, statement.tokens[low].start


def _parse_fault(text: str) -> str | None:
    try:
        cedarpy.policies_to_json_str(text)
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def place_of(statement: Statement, message: str) -> int:
    """Where a validation message points: the last thing that it names and that stands there, else the policy."""
    named = [name for name in _NAMED.findall(message) if not name.startswith("policy")]
    for name in reversed(named):
        wanted = name.rsplit("::", 1)[-1]
        for token in statement.tokens:
            if token.text in (wanted, f'"{wanted}"'):
                return token.start
    effects = [token.start for token in statement.tokens if token.text in ("permit", "forbid")]
    return effects[0] if effects else statement.start


def told(message: str) -> str:
    """The engine's message without its own name for the policy."""
    return _FOR_POLICY.sub("", " ".join(message.split()))


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """From 1, as editors count."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
