"""Framing, as pure functions: whatever we accept, llhttp and h11 read the same way; we may be stricter."""

from __future__ import annotations

import itertools
import re

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sekisho.gateway.http1 import Dechunker, Malformed, parse_request, parse_response, payload_of

# -- heads, made of parts that are right, wrong and on the edge

METHODS = st.sampled_from([b"POST", b"GET", b"HEAD", b"get", b"PO ST", b"M-SEARCH", b""])
TARGETS = st.sampled_from([b"/v1/chat/completions", b"/", b"*", b"http://h/v1", b"/a b", b"/a\tb", b"", b"/\xc3\xa9"])
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.10"])
NAMES = st.sampled_from(
    [b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Content-Type", b"Connection", b"X-A",
     b"Content-Length ", b" Host", b"", b"X\x00", b"X(", b"Authorization", b"X-Sekisho-Class", b"Expect"]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [b"a", b"5", b"05", b"+5", b"-5", b"0x5", b"5, 5", b"5 5", b"", b"chunked", b"Chunked", b"gzip, chunked",
         b"chunked, identity", b"identity", b"close", b"keep-alive", b"99999999999999999999", b"a\rb", b"a\nb",
         b"a\x00b", b"\xe3\x81\x82", b"5\t", b"\x0bchunked", b"public"]
    ),
    st.binary(max_size=6),
)  # fmt: skip
SPACES = st.sampled_from([b" ", b"", b"\t", b"  "])
ENDINGS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n ", b"\r\r\n"])
FIELDS = st.lists(st.tuples(NAMES, SPACES, VALUES, ENDINGS), max_size=5)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    line = draw(METHODS) + b" " + draw(TARGETS) + b" " + draw(VERSIONS) + draw(ENDINGS)
    host = draw(st.sampled_from([b"Host: h\r\n"] * 4 + [b""]))
    return line + host + b"".join(name + b":" + space + value + end for name, space, value, end in draw(FIELDS))


class Llhttp:
    """What llhttp reads."""

    def __init__(self, data: bytes) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)
        self.method = self.parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


WANTED = {
    b"host", b"authorization", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding",
    b"x-sekisho-class", b"expect", b"connection",
}  # fmt: skip


@given(heads(), st.binary(max_size=40))
@example(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n", b"helloGET / HTTP/1.1\r\n")
@example(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")
def test_what_we_accept_llhttp_reads_the_same_way(head: bytes, body: bytes) -> None:
    try:
        ours = parse_request(head)
    except Malformed:
        return
    payload = b"x" * ours.length if 0 <= ours.length <= 1000 else b""
    if ours.length == -1:
        payload = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    if ours.method not in (b"POST", b"GET", b"HEAD"):
        return  # llhttp knows a list of methods; every other is refused later by its path
    oracle = Llhttp(head + b"\r\n" + payload)
    assert oracle.method == ours.method
    assert oracle.target == ours.target
    theirs = {name: value.rstrip(b" \t") for name, value in oracle.headers if name in WANTED}
    assert theirs == {name: value for name, value in ours.headers.items() if name in WANTED}
    if ours.length <= 1000:
        assert oracle.complete
        assert oracle.body == (body if ours.length == -1 else payload)
        assert oracle.parser.should_keep_alive() or not ours.keep_alive, "we never keep what they would close"


@given(heads())
def test_what_we_accept_h11_reads_the_same_way(head: bytes) -> None:
    try:
        ours = parse_request(head)
    except Malformed:
        return
    if ours.target.startswith(b"http") or b"expect" in ours.headers:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + b"\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (ours.method, ours.target)
    theirs = {bytes(name): bytes(value) for name, value in event.headers if bytes(name) in WANTED}
    for name, value in ours.headers.items():
        if name in WANTED:
            assert theirs[name] == (value.lower() if name == b"transfer-encoding" else value)
    assert set(theirs) <= set(ours.headers)


@given(heads())
def test_a_head_has_no_character_that_could_be_read_as_another_line(head: bytes) -> None:
    try:
        ours = parse_request(head)
    except Malformed:
        return
    for value in (ours.method, ours.target, *ours.headers.values()):
        assert not set(value) & {0, 10, 13}
    assert head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r")


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"Transfer-Encoding", b"Host", b"X-Sekisho-Class", b"Authorization"]
)
def test_a_header_that_counts_is_given_once(name: bytes) -> None:
    values = {b"Content-Length": b"5", b"Transfer-Encoding": b"chunked"}
    line = name + b": " + values.get(name, b"a") + b"\r\n"
    host = b"" if name == b"Host" else b"Host: h\r\n"
    with pytest.raises(Malformed):
        parse_request(b"POST / HTTP/1.1\r\n" + host + line + line.swapcase().replace(b"CHUNKED", b"chunked"))


# -- answers


@given(
    status=st.sampled_from([b"200", b"204", b"304", b"404", b"500", b"099", b"600", b"20", b"2000"]),
    fields=FIELDS,
    version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2"]),
)
def test_an_answer_we_accept_llhttp_accepts_with_the_same_framing(
    status: bytes, fields: list[tuple[bytes, bytes, bytes, bytes]], version: bytes
) -> None:
    head = version + b" " + status + b" OK\r\n" + b"".join(n + b":" + s + v + e for n, s, v, e in fields)
    try:
        ours = parse_response(head)
    except Malformed:
        return
    names = [name.lower() for name, *_ in fields]
    if ours.status in (204, 304):
        return  # they have no body, whatever they say: bytes after them cost the connection
    if ours.length >= 0:
        assert names.count(b"content-length") == 1
        assert b"transfer-encoding" not in names
    if ours.length == -1:
        assert b"content-length" not in names
    if ours.length == -2:
        assert not ours.keep_alive

    class Reader:
        done = False

        def on_message_complete(self) -> None:
            self.done = True

    reader = Reader()
    parser = httptools.HttpResponseParser(reader)
    payload = b"x" * ours.length if 0 <= ours.length < 1000 else b"0\r\n\r\n" if ours.length == -1 else b""
    parser.feed_data(head + b"\r\n" + payload)
    assert parser.get_status_code() == ours.status
    if -2 < ours.length < 1000:
        assert reader.done


# -- chunked bodies


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


PAYLOADS = st.lists(st.binary(min_size=1, max_size=30), max_size=6)
CUTS = st.lists(st.integers(0, 400), max_size=12)


@given(PAYLOADS, CUTS, st.binary(max_size=20), st.sampled_from([b"%x", b"%X", b"%04x"]))
def test_a_chunked_body_is_the_same_however_it_is_cut(
    payloads: list[bytes], cuts: list[int], rest: bytes, size: bytes
) -> None:
    body = b"".join(size % len(part) + b"\r\n" + part + b"\r\n" for part in payloads) + b"0\r\n\r\n"
    dechunker = Dechunker()
    found = []
    for piece in cut(body, cuts):
        assert not dechunker.done or not piece
        found += dechunker.feed(piece) if piece else []
    assert dechunker.done
    assert dechunker.rest == b""
    assert b"".join(found) == b"".join(payloads)
    again = Dechunker()
    assert b"".join(again.feed(body + rest)) == b"".join(payloads)
    assert (again.done, again.rest) == (True, rest)


BROKEN = st.one_of(
    st.binary(max_size=30),
    st.lists(st.sampled_from([b"5", b"\r\n", b"\n", b"\r", b"hello", b"0", b";a=b", b" ", b"-1", b"0x5", b"\x00",
                              b"ffffffff", b"fffffffff", b"5\r\nhello\r\n", b"0\r\n\r\n", b"X: y\r\n"]), max_size=8)
    .map(b"".join),
)  # fmt: skip


@given(BROKEN, CUTS)
@example(b"5 \r\nhello\r\n0\r\n\r\n", [])
@example(b"5;ext=1\r\nhello\r\n0\r\n\r\n", [])
@example(b"0\r\nTrailer: x\r\n\r\n", [4])
@example(b"5\nhello\n0\n\n", [])
@example(b"10000000000000005\r\nhello\r\n0\r\n\r\n", [])
def test_the_verdict_on_a_chunked_body_does_not_depend_on_how_it_is_cut(data: bytes, cuts: list[int]) -> None:
    def read(pieces: list[bytes]) -> tuple[bytes, bool] | None:
        dechunker, found = Dechunker(), []
        try:
            for piece in pieces:
                if piece and not dechunker.done:
                    found += dechunker.feed(piece)
        except Malformed:
            return None
        return b"".join(found), dechunker.done

    whole = read([data])
    pieces = read(cut(data, cuts))
    bytewise = read([data[i : i + 1] for i in range(len(data))])
    assert whole == pieces == bytewise
    if whole is not None and whole[1]:
        oracle = Llhttp(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data[: data.find(b"0\r\n\r\n") + 5]
        )
        assert oracle.body == whole[0] or data.count(b"0\r\n\r\n") > 1


@given(PAYLOADS, CUTS)
def test_aligned_says_when_other_chunks_may_come_between(payloads: list[bytes], cuts: list[int]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in payloads)
    edges, position = {0}, 0
    for part in payloads:
        position += len(b"%x\r\n%b\r\n" % (len(part), part))
        edges.add(position)
    dechunker, fed = Dechunker(), 0
    for piece in cut(body, cuts):
        if piece:
            dechunker.feed(piece)
            fed += len(piece)
            assert dechunker.aligned is (fed in edges)


WHOLE = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,2})\r\n(.*)\r\n\Z", re.DOTALL)


@given(st.binary(max_size=300), st.booleans(), st.integers(0, 310), st.binary(max_size=2), st.integers(0, 2))
def test_a_whole_chunk_is_known_from_its_bytes(payload: bytes, upper: bool, at: int, put: bytes, cut: int) -> None:
    chunk = (b"%X" if upper else b"%x") % len(payload) + b"\r\n" + payload + b"\r\n"
    for data in (chunk, chunk[:at] + put + chunk[at + cut :]):
        found = WHOLE.match(data)
        expected = found.end(1) + 2 if found and len(found[2]) == int(found[1], 16) else 0
        assert payload_of(data) == expected


def test_chunks_of_more_than_three_digits_are_left_to_the_dechunker() -> None:
    assert payload_of(b"fff\r\n" + b"x" * 4095 + b"\r\n") == 5
    assert payload_of(b"1000\r\n" + b"x" * 4096 + b"\r\n") == 0
