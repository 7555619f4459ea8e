"""Lines of keys, checked against documents whose lines are known because we wrote them line by line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.runtime.toml import ConfigRefused, Problem, TomlPath, parse_toml, read_toml


def lines_of(text: str) -> dict[TomlPath, int]:
    return dict(parse_toml(text, file="f.toml").lines)


def test_every_form_of_toml_has_its_line() -> None:
    text = '''\
title = "x"
"quoted.key".'with space' = 1
esc."\\u00e9" = 2

[a.b]          # a is only implied
text = """
not = "a key"
[nor.a.table]
"quoted\\"""""
literal = \'\'\'
a = 1
\'\'\'
list = [
  1, # one
  "]", { deep = [ 2,
    3 ], also.dotted = true },
]
[a]
own = 1
[[site]]
id = 1979-05-27 07:32:00Z
[[site.part]]
[[site.part]]
z = 1
[site.sub]
k = 1
[[site]]
id = "second"
'''
    lines = lines_of(text)
    assert lines == {
        ("title",): 1,
        ("quoted.key",): 2,
        ("quoted.key", "with space"): 2,
        ("esc",): 3,
        ("esc", "é"): 3,
        ("a",): 18,
        ("a", "b"): 5,
        ("a", "b", "text"): 6,
        ("a", "b", "literal"): 10,
        ("a", "b", "list"): 13,
        ("a", "b", "list", 0): 14,
        ("a", "b", "list", 1): 15,
        ("a", "b", "list", 2): 15,
        ("a", "b", "list", 2, "deep"): 15,
        ("a", "b", "list", 2, "deep", 0): 15,
        ("a", "b", "list", 2, "deep", 1): 16,
        ("a", "b", "list", 2, "also"): 16,
        ("a", "b", "list", 2, "also", "dotted"): 16,
        ("a", "own"): 19,
        ("site",): 20,
        ("site", 0): 20,
        ("site", 0, "id"): 21,
        ("site", 0, "part"): 22,
        ("site", 0, "part", 0): 22,
        ("site", 0, "part", 1): 23,
        ("site", 0, "part", 1, "z"): 24,
        ("site", 0, "sub"): 25,
        ("site", 0, "sub", "k"): 26,
        ("site", 1): 27,
        ("site", 1, "id"): 28,
    }


def test_line_ends_of_both_kinds_count_the_same() -> None:
    text = 'a = 1\n[t]\nb = """\nx\n"""\nc = 2\n'
    assert lines_of(text) == lines_of(text.replace("\n", "\r\n"))


def test_the_nearest_table_stands_in_for_what_is_missing() -> None:
    document = parse_toml("\n[[site]]\nid = 1\n", file="f")
    assert document.line(("site", 0, "operator", "deep")) == 2
    assert document.line(("nothing",)) == 1
    assert document.line(()) == 1


# -- documents made line by line, so that their lines are known

KEY = st.text(alphabet="abcXYZ09_-", min_size=1, max_size=4)
ANY_TEXT = st.text(alphabet="aé関🗾 \"'\\.#=[]{},", max_size=6)


@dataclass
class Written:
    """A document that grows by lines and knows where everything in it is."""

    lines: list[str] = field(default_factory=lambda: [""])
    expected: dict[TomlPath, int] = field(default_factory=dict)

    def put(self, text: str) -> None:
        self.lines[-1] += text

    def newline(self) -> None:
        self.lines.append("")

    def note(self, path: TomlPath) -> None:
        self.expected[path] = len(self.lines)

    def text(self) -> str:
        return "\n".join(self.lines)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def documents(draw: st.DrawFn) -> Written:
    written = Written()
    for name in draw(st.lists(KEY, max_size=3, unique=True)):
        pair(draw, written, (), name)
        end(draw, written)
    for name in draw(st.lists(KEY.map(lambda key: f"T{key}"), max_size=4, unique=True)):
        if draw(st.booleans()):
            table(draw, written, (name,), f"[{name}]")
            continue
        written.note((name,))
        for position in range(draw(st.integers(1, 3))):
            table(draw, written, (name, position), f"[[{name}]]")
            if draw(st.booleans()):
                table(draw, written, (name, position, "Sub"), f"[ {name} . 'Sub' ]")
    return written


def table(draw: st.DrawFn, written: Written, path: TomlPath, header: str) -> None:
    written.put(header)
    written.note(path)
    end(draw, written)
    for name in draw(st.lists(KEY, max_size=3, unique=True)):
        pair(draw, written, path, name)
        end(draw, written)


def end(draw: st.DrawFn, written: Written) -> None:
    written.put(draw(st.sampled_from(["", " ", " # [x] = '", "\t#"])))
    for _ in range(draw(st.integers(1, 2))):
        written.newline()


def pair(draw: st.DrawFn, written: Written, path: TomlPath, name: str) -> None:
    """`name` alone, or with a dotted second part."""
    path = (*path, name)
    written.note(path)
    written.put(draw(st.sampled_from([name, quoted(name), f"'{name}'"])))
    if draw(st.booleans()):
        inner = draw(ANY_TEXT)
        path = (*path, inner)
        written.note(path)
        written.put(" . " + quoted(inner))
    written.put(draw(st.sampled_from(["=", " = "])))
    value(draw, written, path, depth=0)


def value(draw: st.DrawFn, written: Written, path: TomlPath, *, depth: int) -> None:
    kinds = ["scalar", "string", "multiline"] + (["array", "inline"] if depth < 2 else [])
    match draw(st.sampled_from(kinds)):
        case "scalar":
            written.put(draw(st.sampled_from(["1", "-0.5", "true", "inf", "2026-11-22T01:02:03+09:00", "07:32:00"])))
        case "string":
            written.put(quoted(draw(ANY_TEXT)))
        case "multiline":
            mark = draw(st.sampled_from(['"""', "'''"]))
            written.put(mark)
            for _ in range(draw(st.integers(0, 3))):
                written.put(draw(st.sampled_from(["", "a = 1", "[[t]]", "# no", '" "', "''"])))
                written.newline()
            # up to two quotes of the closing kind may stand before the end
            written.put(mark[0] * draw(st.integers(0, 2)) + mark)
        case "array":
            array(draw, written, path, depth=depth)
        case _:
            written.put("{ ")
            for place, name in enumerate(draw(st.lists(KEY, max_size=3, unique=True))):
                written.put(", " if place else "")
                written.note((*path, name))
                written.put(f"{name} = ")
                value(draw, written, (*path, name), depth=depth + 1)
            written.put(" }")


def array(draw: st.DrawFn, written: Written, path: TomlPath, *, depth: int) -> None:
    written.put("[")
    for position in range(draw(st.integers(0, 3))):
        if position:
            written.put(",")
        for _ in range(draw(st.integers(0, 2))):
            written.put(draw(st.sampled_from(["", " # ], { x"])))
            written.newline()
        written.note((*path, position))
        value(draw, written, (*path, position), depth=depth + 1)
    if draw(st.booleans()):
        written.newline()
    written.put("]")


@given(documents())
def test_lines_are_those_that_were_written(written: Written) -> None:
    document = parse_toml(written.text(), file="f.toml")
    assert document.data == tomllib.loads(written.text())
    assert dict(document.lines) == written.expected


@given(st.text(alphabet="a1.= \n\"'[]{},#\\", max_size=40))
def test_no_text_is_a_fault_of_ours(text: str) -> None:
    """Whatever tomllib takes is scanned, and whatever it refuses has a place."""
    try:
        document = parse_toml(text, file="f.toml")
    except ConfigRefused as error:
        refused = error.problems
    else:
        assert set(document.data) == {path[0] for path in document.lines}
        return
    assert len(refused) == 1
    assert 1 <= refused[0].line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \n", 2),
        ("a = 1\n\nb = [1,\n", 3),
        ('a = 1\nb = "x\n', 2),
        ("a = 1\na = 2\n", 2),
        ("[t]\n[t]\n", 2),
        ("[" * 5000, 1),
        ("a = " + "[" * 5000 + "]" * 5000, 1),
        ("a = " + "9" * 5000, 1),
        ("\ufeffa = 1", 1),
    ],
)
def test_what_is_no_toml_is_refused_at_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigRefused) as refused:
        parse_toml(text, file="f.toml")
    (problem,) = refused.value.problems
    assert problem.line == line
    assert problem.mend


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"a = 1\nb = '\xe9'\n")
    for name, line, words in [
        ("none.toml", 1, "can't be read"),
        (".", 1, "can't be read"),
        ("latin.toml", 2, "not UTF-8"),
    ]:
        with pytest.raises(ConfigRefused) as refused:
            read_toml(tmp_path / name)
        (problem,) = refused.value.problems
        assert (problem.line, words in problem.what) == (line, True)
        assert problem.file == str(tmp_path / name)


def test_a_refusal_prints_one_line_a_problem_in_the_order_of_the_file() -> None:
    refused = ConfigRefused(
        [
            Problem(file="f.toml", line=9, what="b", mend="y"),
            Problem(file="f.toml", line=2, what="a", mend="x"),
        ]
    )
    assert str(refused) == "f.toml:2: a — x\nf.toml:9: b — y"
    assert refused.code == "config.refused"
    assert refused.hint
