"""One strict reading (law 6 on the wire): a corpus of framing and JSON attacks.

Each is refused with the right status, the connection is closed where its end can't be known, exactly one decision is
written, and nothing reaches an endpoint.
"""

# ruff: noqa: E501 - a corpus: one attack a line
from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.background import SOAK, until
from support.shared import ODD_KEY, Lab
from support.upstream import message
from support.wire import Cut, chat, request

OK = chat("only-jp")
KEY = b"authorization: Bearer sk-dev\r\n"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"host: h\r\n"
INNER = b"GET /v1/models HTTP/1.1\r\nhost: h\r\n" + KEY + b"\r\n"  # what a smuggler would like to be read


def post(*fields: bytes, body: bytes = OK, line: bytes = LINE, host: bytes = HOST) -> bytes:
    return line + host + KEY + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def sized(*fields: bytes, body: bytes = OK) -> bytes:
    return post(b"content-length: %d" % len(body), *fields, body=body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    return post(b"transfer-encoding: chunked", *fields, body=body)


CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(OK), OK)
LENGTH = b"%d" % len(OK)

MALFORMED: dict[str, tuple[bytes, set[int]]] = {
    "CL and TE": (post(b"content-length: 4", b"transfer-encoding: chunked", body=CHUNKS + INNER), {400}),
    "TE and CL": (post(b"transfer-encoding: chunked", b"content-length: 4", body=CHUNKS + INNER), {400}),
    "TE twice": (post(b"transfer-encoding: chunked", b"transfer-encoding: identity", body=CHUNKS), {400}),
    "TE list": (post(b"transfer-encoding: chunked, identity", body=CHUNKS), {400, 501}),
    "TE gzip, chunked": (post(b"transfer-encoding: gzip, chunked", body=CHUNKS), {400, 501}),
    "TE identity": (post(b"transfer-encoding: identity", body=OK), {400, 501}),
    "TE xchunked": (post(b"transfer-encoding: xchunked", body=CHUNKS), {400, 501}),
    "TE quoted": (post(b'transfer-encoding: "chunked"', body=CHUNKS), {400, 501}),
    "TE empty": (post(b"transfer-encoding:", body=CHUNKS), {400, 501}),
    "TE vertical tab": (post(b"transfer-encoding: \x0bchunked", body=CHUNKS), {400}),
    "TE with space before colon": (post(b"transfer-encoding : chunked", body=CHUNKS), {400}),
    "TE in HTTP/1.0": (LINE.replace(b"1.1", b"1.0") + KEY + b"transfer-encoding: chunked\r\n\r\n" + CHUNKS, {400, 501}),
    "CL twice, same": (post(b"content-length: " + LENGTH, b"Content-Length: " + LENGTH), {400}),
    "CL twice, other": (post(b"content-length: " + LENGTH, b"content-length: 0", body=OK + INNER), {400}),
    "CL list": (post(b"content-length: %b, %b" % (LENGTH, LENGTH)), {400}),
    "CL plus": (post(b"content-length: +" + LENGTH), {400}),
    "CL minus": (post(b"content-length: -1"), {400}),
    "CL hex": (post(b"content-length: 0x48"), {400}),
    "CL space inside": (post(b"content-length: 7 2"), {400}),
    "CL underscore": (post(b"content-length: 7_2"), {400}),
    "CL dot": (post(b"content-length: 72.0"), {400}),
    "CL empty": (post(b"content-length:"), {400}),
    "CL other digits": (post("content-length: ７２".encode()), {400}),
    "CL huge": (post(b"content-length: 18446744073709551616"), {400, 413}),
    "CL huge but short": (post(b"content-length: 999999999999999"), {413}),
    "obs-fold": (post(b"content-length: " + LENGTH, b"x-a: b", b" c"), {400}),
    "obs-fold first": (LINE + b" x: y\r\n" + HOST + KEY + b"\r\n", {400}),
    "folded CL": (post(b"content-length:", b" " + LENGTH), {400}),
    "bare LF": (sized().replace(b"\r\n", b"\n"), {400}),
    "bare LF after a header": (sized(b"x-a: b\nx-b: c"), {400}),
    "bare CR in a header": (sized(b"x-a: b\rcontent-length: 0"), {400}),
    "bare CR at a line's end": (sized(b"x-a: b\r"), {400}),
    "NUL in a header": (sized(b"x-a: \x00"), {400}),
    "NUL in a name": (sized(b"x\x00a: b"), {400}),
    "NUL in the target": (sized().replace(b"/v1/chat", b"/v1\x00/chat"), {400}),
    "control character": (sized(b"x-a: \x07"), {400}),
    "DEL": (sized(b"x-a: \x7f"), {400}),
    "space before colon": (sized(b"x-a : b"), {400}),
    "no colon": (sized(b"x-a"), {400}),
    "no name": (sized(b": b"), {400}),
    "two hosts": (sized(b"host: other"), {400}),
    "no host": (post(b"content-length: " + LENGTH, host=b""), {400}),
    "two keys": (sized(b"authorization: Bearer sk-hospital"), {400}),
    "two classes": (sized(b"x-sekisho-class: public", b"X-SEKISHO-CLASS: restricted"), {400}),
    "two content types": (sized(b"content-type: application/json", b"content-type: text/plain"), {400}),
    "chunk extension": (chunked(b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(OK), OK)), {400}),
    "last chunk's extension": (chunked(b"%x\r\n%b\r\n0;a\r\n\r\n" % (len(OK), OK)), {400}),
    "trailer": (chunked(b"%x\r\n%b\r\n0\r\nx-sekisho-class: public\r\n\r\n" % (len(OK), OK)), {400}),
    "chunk size with space": (chunked(b"%x \r\n%b\r\n0\r\n\r\n" % (len(OK), OK)), {400}),
    "chunk size with 0x": (chunked(b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(OK), OK)), {400}),
    "chunk size negative": (chunked(b"-1\r\n%b\r\n0\r\n\r\n" % OK), {400}),
    "chunk size huge": (chunked(b"ffffffffffffffff1\r\n%b\r\n0\r\n\r\n" % OK), {400, 413}),
    "chunk size that wraps": (chunked(b"10000000000000048\r\n%b\r\n0\r\n\r\n" % OK), {400, 413}),
    "chunk ends with LF": (chunked(b"%x\r\n%b\n0\r\n\r\n" % (len(OK), OK)), {400}),
    "chunk size ends with LF": (chunked(b"%x\n%b\r\n0\r\n\r\n" % (len(OK), OK)), {400}),
    "chunk longer than said": (chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(OK) - 1, OK)), {400}),
    "HTTP/0.9": (b"GET /v1/models\r\n\r\n", {400, 505}),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    "HTTP/1.2": (sized().replace(b"HTTP/1.1", b"HTTP/1.2"), {505}),
    "HTTP/2.0": (sized().replace(b"HTTP/1.1", b"HTTP/2.0"), {505}),
    "http/1.1": (sized().replace(b"HTTP/1.1", b"http/1.1"), {400}),
    "HTTP/1.1 and more": (sized().replace(b"HTTP/1.1", b"HTTP/1.1 x"), {400}),
    "TLS hello": (bytes.fromhex("16030100c8010000c40303") + bytes(189), {400}),
    "space at the start": (b" " + sized(), {400}),
    "two spaces": (sized().replace(b"POST ", b"POST  "), {400}),
    "tab in the line": (sized().replace(b"POST ", b"POST\t"), {400}),
    "lower-case method": (sized().replace(b"POST", b"post"), {400, 405}),
    "long target": (sized().replace(b"/v1/chat", b"/" + b"a" * 9000), {414, 431}),
    "long head": (sized(*[b"x-%d: %b" % (n, b"a" * 1000) for n in range(20)]), {431}),
    "one endless header": (LINE + b"x: " + b"a" * 40_000, {431}),
    "PROXY without being asked": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + sized(), {400}),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_request_without_a_single_reading_is_refused_and_the_connection_closed(lab: Lab, name: str) -> None:
    data, statuses = MALFORMED[name]
    with lab.gateway.wire() as wire:
        wire.send(data)
        answer = wire.answer()
        assert answer.status in statuses
        assert answer.headers.get("connection") == "close"
        assert wire.closed(), "nothing after it is read as a request"
    (decision,) = lab.new_decisions()
    assert (decision.id, decision.status, decision.code) == (answer.decision, answer.status, answer.code)
    assert decision.outcome == "refused"
    assert decision.rules
    assert answer.json["error"]["way_out"]
    assert lab.reached() == 0


@pytest.mark.parametrize(
    "line",
    [
        b"POST http://127.0.0.1/v1/chat/completions HTTP/1.1\r\n",
        b"POST //v1/chat/completions HTTP/1.1\r\n",
        b"POST /v1/./chat/completions HTTP/1.1\r\n",
        b"POST /x/../v1/chat/completions HTTP/1.1\r\n",
        b"POST /v1/chat%2fcompletions HTTP/1.1\r\n",
        b"POST /v1/chat/completions/ HTTP/1.1\r\n",
        b"POST /v1/chat/completions?model=x HTTP/1.1\r\n",
        b"POST /v1/chat/completions#x HTTP/1.1\r\n",
        b"POST /V1/CHAT/COMPLETIONS HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n",
        b"TRACE /v1/chat/completions HTTP/1.1\r\n",
        b"GET /v1/chat/completions HTTP/1.1\r\n",
        b"PUT /v1/models HTTP/1.1\r\n",
        b"POST /internal/v1/table HTTP/1.1\r\n",
    ],
)
def test_any_other_way_to_write_a_path_is_refused(lab: Lab, line: bytes) -> None:
    answer = lab.gateway.ask(post(b"content-length: " + LENGTH, line=line))
    assert answer.status in (400, 404, 405)
    assert [decision.id for decision in lab.new_decisions()] == [answer.decision]
    assert lab.reached() == 0


def test_what_follows_a_refused_body_is_not_read_as_a_request(lab: Lab) -> None:
    """The classic: a body that is refused before it is read must not become the next request."""
    with lab.gateway.wire() as wire:
        wire.send(request(b"", key="sk-unknown", headers=("content-length: 500",)), INNER, pause_s=0.05)
        assert wire.answer().status == 401
        assert wire.closed()
    assert len(lab.new_decisions()) == 1


@settings(max_examples=400 if SOAK else 60)
@given(data=st.lists(st.sampled_from([b"POST", b" ", b"/v1/chat/completions", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b"\x00",
    b"host: h", b"content-length: 5", b"transfer-encoding: chunked", b"5", b"hello", b"0", b":", b"\xff", KEY, b"{}", b"\r\n\r\n"]),
    min_size=1, max_size=14).map(b"".join))  # fmt: skip
def test_no_bytes_at_all_get_a_500_a_hang_or_an_endpoint(lab: Lab, data: bytes) -> None:
    lab.fresh()
    with lab.gateway.wire() as wire:
        wire.send(data)
        wire.socket.shutdown(1)
        answers = []
        try:
            while True:
                answers.append(wire.answer())
        except Cut:
            assert not wire.buffer, "answers are whole"
    assert all(400 <= answer.status < 500 or answer.status in (501, 505) for answer in answers)
    ids = [answer.decision for answer in answers]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {decision.id for decision in lab.new_decisions()}
    assert lab.reached() == 0
    assert lab.gateway.processes[0].poll() is None


@settings(max_examples=150 if SOAK else 25)
@given(cuts=st.lists(st.integers(1, 2000), max_size=8), kinds=st.lists(st.sampled_from(["sized", "chunked", "refused", "models", "health"]), min_size=1, max_size=5))  # fmt: skip
def test_pipelined_requests_are_answered_in_order_however_the_bytes_are_cut(
    lab: Lab, cuts: list[int], kinds: list[str]
) -> None:
    lab.fresh()
    wanted = []
    data = b""
    for index, kind in enumerate(kinds):
        body = chat("only-jp", user=f"u{index}")
        match kind:
            case "sized":
                data += sized(body=body)
            case "chunked":
                half = len(body) // 2
                data += chunked(
                    b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (half, body[:half], len(body) - half, body[half:])
                )
            case "refused":
                data += sized(body=chat("nobody"))
            case "models":
                data += INNER
            case _:
                data += b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"
        if kind in ("sized", "chunked"):
            wanted.append(body)
    edges = [0, *sorted({cut % len(data) for cut in cuts}), len(data)]
    with lab.gateway.wire() as wire:
        wire.send(*[data[a:b] for a, b in itertools.pairwise(edges)], pause_s=0.001)
        answers = [wire.answer() for _ in kinds]
    expected = {"sized": 200, "chunked": 200, "refused": 404, "models": 200, "health": 200}
    assert [answer.status for answer in answers] == [expected[kind] for kind in kinds]
    for kind, answer in zip(kinds, answers, strict=True):
        if kind in ("sized", "chunked"):
            assert answer.body == message()
    assert [each.body for each in lab.jp.received] == wanted, (
        "the bytes that were checked are the bytes that are sent"
    )
    recorded = [each.headers["x-sekisho-decision"] for each in answers if "x-sekisho-decision" in each.headers]
    assert [decision.id for decision in lab.new_decisions()] == recorded


def test_empty_lines_before_a_request_do_not_keep_the_worker_busy(lab: Lab) -> None:
    """RFC 9112 §2.2 lets a server skip "at least one" empty line: it must not cost more than reading it."""

    def cpu_s() -> float:
        with open(f"/proc/{lab.gateway.processes[0].pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    before = cpu_s()
    with lab.gateway.wire() as wire:
        try:
            for _ in range(8):
                wire.send(b"\r\n" * (64 << 10))
            wire.send(sized())
            wire.answer()
        except (OSError, Cut):
            pass  # refusing so many is right too
    assert lab.gateway.answers_still()
    assert cpu_s() - before < 1.0, "CPU seconds for one megabyte of empty lines"


# -- the JSON body

NOT_ONE_READING: dict[str, bytes] = {
    "duplicate model": b'{"model":"only-us","model":"only-jp"}',
    "duplicate model, same": b'{"model":"only-jp","model":"only-jp"}',
    "escaped model": b'{"mod\\u0065l":"only-jp"}',
    "escaped duplicate": b'{"model":"only-us","mod\\u0065l":"only-jp"}',
    "escaped duplicate first": b'{"\\u006dodel":"only-us","model":"only-jp"}',
    "duplicate behind a longer value": b'{"model":"only-jp","messages":[],"model":"only-us","messages":["' + b"x" * 50 + b'"]}',
    "duplicate behind a shorter value": b'{"messages":["' + b"x" * 50 + b'"],"model":"only-us","messages":[],"model":"only-jp"}',
    "a value that holds the member": b'{"user":"\\",\\"model\\":\\"only-us\\"","model":"only-us","user":"x","model":"only-jp"}',
    "duplicate stream": b'{"model":"only-jp","stream":true,"stream":false}',
    "duplicate in stream_options": b'{"model":"only-jp","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
    "no object": b'["only-jp"]',
    "a string": b'"only-jp"',
    "null": b"null",
    "nothing but space": b"   ",
    "two documents": b'{"model":"only-jp"}{"model":"only-us"}',
    "garbage after": b'{"model":"only-jp"}x',
    "NUL after": b'{"model":"only-jp"}\x00',
    "BOM": b'\xef\xbb\xbf{"model":"only-jp"}',
    "UTF-16": '{"model":"only-jp"}'.encode("utf-16"),
    "invalid UTF-8 in a value": b'{"model":"only-jp","user":"\xff"}',
    "invalid UTF-8 deep inside": b'{"model":"only-jp","messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "invalid UTF-8 in a key": b'{"model":"only-jp","\xff":1}',
    "surrogates as UTF-8": b'{"model":"only-jp","user":"\xed\xa0\x80"}',
    "lone surrogate": b'{"model":"only-jp","user":"\\ud800"}',
    "NaN": b'{"model":"only-jp","temperature":NaN}',
    "Infinity": b'{"model":"only-jp","temperature":Infinity}',
    "leading zero": b'{"model":"only-jp","n":01}',
    "single quotes": b"{'model':'only-jp'}",
    "comment": b'{"model":"only-jp"/*,"model":"only-us"*/}',
    "trailing comma": b'{"model":"only-jp",}',
    "control character": b'{"model":"only-jp","user":"\n"}',
    "depth": b'{"model":"only-jp","a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "depth, open": b'{"model":"only-jp","a":' + b'{"a":' * 100_000,
    "no model": b'{"messages":[]}',
    "model null": b'{"model":null}',
    "model number": b'{"model":7}',
    "model list": b'{"model":["only-jp"]}',
    "model empty": b'{"model":""}',
    "model with NUL": b'{"model":"only-jp\\u0000"}',
    "model with line ends": b'{"model":"only-jp\\r\\nx-a: b"}',
    "model too long": b'{"model":"' + b"a" * 5000 + b'"}',
    "stream is a string": b'{"model":"only-jp","stream":"true"}',
    "stream is a number": b'{"model":"only-jp","stream":1}',
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_ONE_READING)
def test_a_body_without_a_single_reading_is_refused(lab: Lab, name: str) -> None:
    answer = lab.gateway.ask(sized(body=NOT_ONE_READING[name]))
    assert answer.status == 400
    assert answer.code.startswith("request.")
    assert [decision.id for decision in lab.new_decisions()] == [answer.decision]
    assert lab.reached() == 0


def test_an_empty_body_is_refused(lab: Lab) -> None:
    assert lab.gateway.ask(sized(body=b"")).code == "request.invalid_json"
    assert lab.reached() == 0


JSON_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False) | JSON_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=200 if SOAK else 40)
@given(
    extra=st.dictionaries(JSON_TEXT.filter(lambda key: key not in ("model", "stream", "stream_options", "n")), JSON_VALUES, max_size=4),
    indent=st.sampled_from([None, 1, "\t"]),
    ascii_only=st.booleans(),
)  # fmt: skip
def test_a_body_with_one_reading_arrives_byte_for_byte(
    lab: Lab, extra: dict[str, object], indent: int | str | None, ascii_only: bool
) -> None:
    lab.fresh()
    text = json.dumps({**extra, "model": "only-jp"}, indent=indent, ensure_ascii=ascii_only)
    keys_plain = all(json.dumps(key, ensure_ascii=ascii_only) == f'"{key}"' for key in extra)
    answer = lab.gateway.ask(sized(body=text.encode()))
    if keys_plain:
        assert answer.status == 200, answer.body
        assert [each.body for each in lab.jp.received] == [text.encode()]
    else:
        assert answer.code == "request.escaped_key"
        assert lab.reached() == 0


# -- content types, keys, classes


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/json; charset=utf-16", "application/json; charset=shift_jis", "application/jsonx", "application/json, text/plain", ""])  # fmt: skip
def test_another_content_type_is_refused(lab: Lab, kind: str) -> None:
    answer = lab.chat(headers=(f"content-type: {kind}",))
    assert (answer.status, answer.code) == (415, "http.unsupported_media_type")
    assert lab.reached() == 0


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_is_json_in_any_case(lab: Lab, kind: str) -> None:
    assert lab.chat(headers=(f"content-type: {kind}",)).status == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity", ""])
def test_a_compressed_body_is_refused(lab: Lab, coding: str) -> None:
    assert lab.chat(headers=(f"content-encoding: {coding}",)).status == 415
    assert lab.reached() == 0


@pytest.mark.parametrize("value", [b"Bearer", b"Bearer ", b"bearer sk-de", b"Bearer sk-dev2", b"Basic sk-dev", b"sk-dev",
    b"Bearer \xff\xfe", b"Bearer sk-dev\xc2\xa0", b"Bearer \xe9\x8d\xb5", b"Bearer sk-dev,sk-maker", b"Bearer sk-dev sk-maker",
    b"Bearer " + b"a" * 8000, b'Bearer "sk-dev"', b""])  # fmt: skip
def test_a_key_that_is_not_known_to_the_byte_is_refused(lab: Lab, value: bytes) -> None:
    answer = lab.gateway.ask(
        LINE + HOST + b"authorization: " + value + b"\r\ncontent-length: %b\r\n\r\n%b" % (LENGTH, OK)
    )
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    (decision,) = lab.new_decisions()
    assert (decision.id, decision.tenant, decision.key) == (answer.decision, "", "")
    assert lab.reached() == 0


CLASSES = ("public", "internal", "confidential", "restricted")
FLOORS = {"sk-dev": 0, "sk-maker": 1, "sk-hospital": 2, "sk-bureau": 3}


@pytest.mark.parametrize("key", FLOORS)
@pytest.mark.parametrize("asked", CLASSES)
def test_a_header_raises_the_class_and_never_lowers_it(lab: Lab, key: str, asked: str) -> None:
    answer = lab.chat("m", key=key, headers=(f"x-sekisho-class: {asked}",))
    label = CLASSES[max(FLOORS[key], CLASSES.index(asked))]
    assert (answer.status, answer.headers["x-sekisho-class"]) == (200, label)
    (decision,) = lab.new_decisions()
    assert (decision.data_class, decision.floor) == (label, CLASSES[FLOORS[key]])


@pytest.mark.parametrize("value", [b"Confidential", b"PUBLIC", b"secret", b"", b"public, restricted", b"0", b"public;q=1", b"\xff",
    "公開".encode(), b"public\tinternal"])  # fmt: skip
def test_a_class_that_is_none_is_refused_not_ignored(lab: Lab, value: bytes) -> None:
    answer = lab.gateway.ask(sized(b"x-sekisho-class: " + value))
    assert (answer.status, answer.code) == (400, "class.invalid")
    assert lab.reached() == 0


def test_similar_header_names_do_not_count(lab: Lab) -> None:
    answer = lab.chat(
        key="sk-hospital", headers=("x_sekisho_class: public", "x-sekisho-class-: public", "x-sekisho-floor: public")
    )
    assert answer.headers["x-sekisho-class"] == "confidential"


# -- sizes and times


def test_a_body_one_byte_too_large_is_refused_before_it_is_read(lab: Lab) -> None:
    limit = lab.gateway.settings.max_body_bytes
    with lab.gateway.wire() as wire:
        wire.send(request(key="sk-dev", headers=(f"content-length: {limit + 1}",)))
        answer = wire.answer()
        assert (answer.status, answer.code) == (413, "http.body_too_large")
        assert wire.closed()
    assert len(lab.new_decisions()) == 1


def test_the_largest_body_passes_and_the_next_byte_of_a_chunked_one_does_not(lab: Lab) -> None:
    limit = lab.gateway.settings.max_body_bytes
    start, end = b'{"model":"only-jp","prompt":"', b'"}'
    body = start + b"a" * (limit - len(start) - len(end)) + end
    answer = lab.gateway.ask(sized(body=body))
    assert answer.status == 200
    assert [len(each.body) for each in lab.jp.received] == [limit]
    assert lab.jp.received[0].body == body
    with lab.gateway.wire() as wire:
        part = b"100000\r\n" + b"a" * (1 << 20) + b"\r\n"
        try:
            wire.send(post(b"transfer-encoding: chunked", body=b""), *[part] * (limit >> 20), b"1\r\na\r\n")
            assert wire.answer().code == "http.body_too_large"
        except OSError:
            pass  # it stopped reading before everything was sent
    until(lambda: len(lab.new_decisions()) == 2)
    assert lab.new_decisions()[1].status == 413
    assert lab.reached() == 1


@pytest.mark.parametrize("start", [b"P", LINE, LINE + HOST + KEY, b"GET /v1/models\r\n"])
def test_half_a_head_gets_408(lab: Lab, start: bytes) -> None:
    with lab.gateway.wire() as wire:
        answer = wire.ask(start)
        assert (answer.status, answer.code) == (408, "http.timeout")
        assert wire.closed()
    assert [decision.id for decision in lab.new_decisions()] == [answer.decision]


@pytest.mark.parametrize("start", [post(b"content-length: 72", body=b'{"mod'), chunked(b"5\r\nhel"), chunked(b"")])
def test_half_a_body_gets_408(lab: Lab, start: bytes) -> None:
    with lab.gateway.wire() as wire:
        answer = wire.ask(start)
        assert (answer.status, answer.code) == (408, "http.timeout")
        assert wire.closed()
    assert [decision.id for decision in lab.new_decisions()] == [answer.decision]
    assert lab.reached() == 0


def test_a_head_that_drips_is_ended_all_the_same(lab: Lab) -> None:
    """The clock starts with the first byte; more bytes do not wind it up again."""
    with lab.gateway.wire() as wire:
        ended = time.monotonic() + 10
        answer = None
        wire.socket.settimeout(0.05)
        while answer is None:
            assert time.monotonic() < ended, "a dripping head is read for ever"
            wire.send(b"P" if not wire.buffer else b"")
            try:
                answer = wire.answer()
            except TimeoutError:
                continue
    assert answer.status == 408


def test_a_client_that_sends_nothing_is_closed_without_a_decision(lab: Lab) -> None:
    with lab.gateway.wire() as wire:
        assert wire.closed()
    assert lab.new_decisions() == []


def test_a_key_is_any_bytes_that_a_header_can_carry(lab: Lab) -> None:
    """It is hashed as it comes; nobody decodes it."""
    data = LINE + HOST + b"authorization: Bearer %b\r\ncontent-length: %b\r\n\r\n%b"
    assert lab.gateway.ask(data % (ODD_KEY, LENGTH, OK)).status == 200
    for other in (ODD_KEY[:-1], ODD_KEY + b"a", ODD_KEY.swapcase() + b"a", ODD_KEY.replace(b"\xff", b"\xfe")):
        assert lab.gateway.ask(data % (other, LENGTH, OK)).status == 401
    assert [decision.tenant for decision in lab.new_decisions()] == ["odd", "", "", "", ""]
