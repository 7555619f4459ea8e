# ruff: noqa: E501 - a corpus: one value a line
"""The splices, and the reading of a body, against Python's own JSON reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.gateway.body import BodyRefused, check_utf8, read_body, read_top, splice_model, splice_usage

KEYS = st.sampled_from(
    ["model", "stream", "stream_options", "messages", "n", "max_tokens", "user", "モデル", "a b", ""]
)
VALUES = st.sampled_from(
    ['"m"', '"n"', "true", "false", "null", "1", "[]", "{}", '{"include_usage":true}', '{"include_usage":false,"x":[1]}',
     '"\\"model\\":\\"x\\""', '{"model":"inner"}', '"日本"', "[{},{}]", "1e3", '"}"', '"{"', '""']
)  # fmt: skip
SPACE = st.sampled_from(["", " ", "\n", "\t\r\n "])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[tuple[str, str]]]:
    """A JSON object as text, and its members in order: keys may come twice or be written with escapes."""
    members = draw(st.lists(st.tuples(KEYS, VALUES), max_size=6))
    text = draw(SPACE) + "{"
    for index, (key, value) in enumerate(members):
        written = json.dumps(key, ensure_ascii=False)
        if key and draw(st.integers(0, 9)) == 0:
            written = f'"\\u{ord(key[0]):04x}{key[1:]}"'
        text += draw(SPACE) + written + draw(SPACE) + ":" + draw(SPACE) + value + draw(SPACE)
        text += "," if index < len(members) - 1 else ""
    return text + draw(SPACE) + "}" + draw(SPACE), members


@given(documents())
def test_a_body_is_accepted_exactly_when_every_key_stands_there_once_and_plainly(
    document: tuple[str, list[tuple[str, str]]],
) -> None:
    text, members = document
    keys = [key for key, _ in members]
    plain = "\\u" not in text
    try:
        top = read_top(text.encode())
    except BodyRefused as refused:
        assert len(set(keys)) < len(keys) or not plain, refused.code  # noqa: PT017 - both ends are right
    else:
        assert len(set(keys)) == len(keys)
        assert plain
        assert {key: bytes(value).decode() for key, value in top.items()} == dict(members)


@given(documents())
def test_the_splices_change_what_they_say_and_no_other_byte(document: tuple[str, list[tuple[str, str]]]) -> None:
    text, members = document
    body = text.encode()
    try:
        reading = read_body(body, prefix_bytes=64)
    except BodyRefused:
        return
    before = json.loads(text)
    assert reading.model == before["model"]
    assert reading.stream == (before.get("stream") is True)
    assert reading.wants_usage == ((before.get("stream_options") or {}).get("include_usage") is True)
    spliced = splice_model(body, "other/model:1")
    assert json.loads(spliced) == before | {"model": "other/model:1"}
    assert len(spliced) == len(body) + len('"other/model:1"') - len(dict(members)["model"].encode())
    with_usage = splice_usage(body)
    assert json.loads(with_usage) == before | {
        "stream_options": (before.get("stream_options") or {}) | {"include_usage": True}
    }
    read_top(with_usage)
    if "stream_options" not in before:
        first = body.index(b"{") + 1
        assert with_usage.endswith(body[first:])
        assert with_usage.startswith(body[:first])


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    try:
        reading = read_body(body, prefix_bytes=16)
    except BodyRefused as refused:
        assert refused.code.startswith("request.")  # noqa: PT017 - both ends are right
    else:
        assert json.loads(body)["model"] == reading.model


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe3\x81"])
def test_what_is_not_utf8_is_not_json(bad: bytes) -> None:
    """RFC 8259 §8.1; readers behind us replace, drop or refuse such bytes: no single reading."""
    for body in (b'{"model":"m","user":"' + bad + b'"}', b'{"model":"m","messages":[{"content":"' + bad + b'"}]}'):
        with pytest.raises(BodyRefused):
            read_body(body, prefix_bytes=16)


@given(
    lead=st.integers(16 * 1024 - 5, 16 * 1024 + 5),
    text=st.text("aé日😀", min_size=1, max_size=6),
    bad=st.sampled_from([b"", b"\xff", b"\xe3\x81", b"\x81", b"\xed\xa0\x80", b"\xf0\x9f\x98"]),
    tail=st.sampled_from([0, 1, 16 * 1024, 40_000]),
)
def test_a_long_body_is_utf8_exactly_when_python_says_so(lead: int, text: str, bad: bytes, tail: int) -> None:
    """It is looked at in pieces: what lies across their edges counts as one."""
    body = b"x" * lead + text.encode() + bad + b"y" * tail
    try:
        body.decode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            check_utf8(body)
    else:
        check_utf8(body)


@pytest.mark.parametrize("value", ["1", "007", "99999999999999999999", "-5", "1.5", "null", '"7"', "1e400"])
def test_hostile_numbers_are_no_fault(value: str) -> None:
    for name in ("max_tokens", "max_completion_tokens", "n"):
        try:
            reading = read_body(f'{{"model":"m","{name}":{value}}}'.encode(), prefix_bytes=16)
        except BodyRefused:
            continue
        assert 1 <= reading.choices <= 128
        assert reading.max_tokens is None or reading.max_tokens >= 0
