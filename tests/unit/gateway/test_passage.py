# ruff: noqa: E501 - a corpus of answers: one a line
"""A passage as both ends see it: bytes on sockets, and the decision in the journal."""

from __future__ import annotations

import hashlib
import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.background import SOAK, until
from support.shared import Lab
from support.upstream import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    Script,
    Turn,
    answers,
    chunk,
    closes,
    event,
    message,
    resets,
    says,
    sends_then,
    stalls,
    streams,
    then,
    usage_event,
    whole,
)  # fmt: skip
from support.wire import Cut, chat, request

EVENTS = [event(word) for word in ("To", "ky", "o")]
MODEL = "only-jp"
KEY = "sk-dev"


def ask_stream(**more: object) -> bytes:
    return request(chat(MODEL, stream=True, **more), key=KEY)


# -- the client's side


@pytest.mark.parametrize("size", [10, 16_000, 300_000])
def test_a_decision_commits_to_the_bytes_of_the_request_and_of_the_answer(lab: Lab, size: int) -> None:
    """A long request is on its way before it is committed to; one that is refused is committed to all the same."""
    sent = chat(MODEL, user="u" * size)
    answer = lab.gateway.ask(request(sent, key=KEY))
    salt = hashlib.sha256(b"dev").digest()[:16]  # as support.gateway.compiled makes it

    def commitment(id: str, data: bytes) -> str:
        return hashlib.sha256(salt + id.encode() + data).hexdigest()

    id = answer.headers["x-sekisho-decision"]
    decided = lab.gateway.decision(id)
    assert decided.request_commitment == commitment(id, sent)
    assert decided.response_commitment == commitment(id, answer.body)
    refused = lab.gateway.ask(request(chat("no-such-model", user="u" * size), key=KEY))
    id = refused.headers["x-sekisho-decision"]
    assert lab.gateway.decision(id).request_commitment == commitment(id, chat("no-such-model", user="u" * size))


def test_an_answer_passes_and_says_where_it_came_from(lab: Lab) -> None:
    lab.jp.script = answers(
        headers=("x-request-id: r1", "server: vLLM", "set-cookie: a=b", "x-sekisho-country: XX", "x-internal: y")
    )
    answer = lab.chat()
    assert answer.body == message()
    assert {name: answer.headers[f"x-sekisho-{name}"] for name in ("site", "operator", "country", "class")} == {
        "site": "site-jp", "operator": "op-jp", "country": "JP", "class": "public",
    }  # fmt: skip
    assert answer.headers["x-request-id"] == "r1"
    assert not {"server", "set-cookie", "x-internal"} & set(answer.headers)
    decision = lab.gateway.decision(answer.decision)
    assert (decision.outcome, decision.status, decision.endpoint) == ("completed", 200, "jp")
    assert (decision.tokens_in, decision.tokens_out, decision.partial) == (7, 3, False)
    assert lab.jp.received[0].decision == answer.decision


def test_the_clients_key_and_headers_stay_here(lab: Lab) -> None:
    lab.chat(headers=("cookie: secret=1", "x-forwarded-for: 1.2.3.4", "x-sekisho-decision: forged"))
    sent = lab.jp.received[0].headers
    assert set(sent) <= {"host", "content-type", "content-length", "x-sekisho-decision", "traceparent", "tracestate"}
    assert "forged" not in sent["x-sekisho-decision"]


def test_keep_alive_and_close(lab: Lab) -> None:
    with lab.gateway.wire() as wire:
        for _ in range(3):
            assert wire.ask(request(chat(MODEL), key=KEY)).status == 200
        assert (
            wire.ask(request(chat(MODEL), key=KEY, headers=("connection: close",))).headers["connection"] == "close"
        )
        assert wire.closed()
    assert len({each.connection for each in lab.jp.received}) == 1, "the endpoint's connection is kept too"


def test_an_http_1_0_client_gets_whole_answers_and_streams_without_chunks(lab: Lab) -> None:
    with lab.gateway.wire() as wire:
        answer = wire.ask(request(chat(MODEL), key=KEY, version="1.0"))
        assert (answer.status, answer.framed, answer.body) == (200, "length", message())
        assert wire.closed()
    lab.jp.script = streams([*EVENTS, DONE], pause_s=0.01)
    with lab.gateway.wire() as wire:
        answer = wire.ask(request(chat(MODEL, stream=True), key=KEY, version="1.0"))
        assert (answer.framed, answer.body) == ("close", b"".join(EVENTS) + DONE)


def test_an_http_1_0_client_can_tell_a_cut_stream_from_a_whole_one(lab: Lab) -> None:
    """Without chunks the end of the connection is the end of the answer: a cut must not look like it."""
    lab.jp.script = sends_then(resets, STREAM_HEAD, chunk(EVENTS[0]))
    with lab.gateway.wire() as wire:
        wire.send(request(chat(MODEL, stream=True), key=KEY, version="1.0"))
        try:
            answer = wire.answer()
        except Cut as cut:
            assert cut.reset  # noqa: PT017 - both ends are right
        else:
            assert b'"error"' in answer.body


def test_expect_100_continue(lab: Lab) -> None:
    body = chat(MODEL)
    with lab.gateway.wire() as wire:
        wire.send(request(key=KEY, headers=("expect: 100-continue", f"content-length: {len(body)}")))
        assert wire.head()[0] == 100
        wire.send(body)
        assert wire.answer().status == 200
        wire.send(request(key="sk-nobody", headers=("expect: 100-continue", f"content-length: {len(body)}")))
        assert wire.answer().status == 401, "no invitation to send what is refused"
    assert lab.gateway.ask(request(body, key=KEY, headers=("expect: 200-ok",))).status == 417


def test_models_lists_what_the_caller_may_use_at_this_class(lab: Lab) -> None:
    def names(key: str, *headers: str) -> set[str]:
        answer = lab.gateway.ask(request(key=key, method="GET", target="/v1/models", headers=headers))
        return {row["id"] for row in answer.json["data"]}

    everything = {"m", "pair", "only-jp", "only-az", "only-us", "gpt-4o-mini"}
    assert names("sk-dev") == everything
    assert names("sk-hospital") == names("sk-dev", "x-sekisho-class: confidential") == everything - {"only-us"}
    assert names("sk-bureau") == everything - {"only-us", "only-az"}


def test_an_alias_is_spliced_and_nothing_else_changes(lab: Lab) -> None:
    body = b' {"messages" : [{"role":"user","content":"\xe6\x9d\xb1\xe4\xba\xac \\u6771"}],\n"model":\t"gpt-4o-mini" , "n":1}  '
    answer = lab.gateway.ask(request(body, key=KEY))
    assert answer.status == 200
    assert lab.jp.received[0].body == body.replace(b"gpt-4o-mini", b"only-jp")
    decision = lab.gateway.decision(answer.decision)
    assert (decision.model, decision.served_model) == ("gpt-4o-mini", "only-jp")


# -- streams


@settings(max_examples=200 if SOAK else 40)
@given(
    words=st.lists(st.text(max_size=8), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    chunk_cuts=st.lists(st.integers(0, 3000), max_size=6),
    where=st.integers(0, 5),
    asked=st.booleans(),
    by_length=st.booleans(),
)
def test_a_stream_arrives_whole_but_for_the_usage_chunk_that_was_not_asked_for(
    lab: Lab, *, words: list[str], cuts: list[int], chunk_cuts: list[int], where: int, asked: bool, by_length: bool
) -> None:
    lab.fresh()
    events = [event(word) for word in words]
    events.insert(min(where, len(events)), usage_event())
    payload = b"".join(events) + DONE
    if by_length:
        raw = whole(payload, kind="text/event-stream")
    else:
        raw = STREAM_HEAD + b"".join(map(chunk, split(payload, chunk_cuts))) + LAST_CHUNK
    lab.jp.script = says(*split(raw, cuts), pause_s=0.001)
    more = {"stream_options": {"include_usage": True}} if asked else {}
    answer = lab.gateway.ask(ask_stream(**more))
    assert answer.status == 200
    assert answer.body == (payload if asked else payload.replace(usage_event(), b""))
    sent = json.loads(lab.jp.received[0].body)
    assert sent["stream_options"] == {"include_usage": True}
    decision = lab.gateway.decision(answer.decision)
    assert (decision.outcome, decision.stream, decision.tokens_in, decision.tokens_out) == ("completed", True, 7, 3)
    assert not decision.partial


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if b > a]


def test_the_framing_is_whole_when_a_chunks_size_comes_alone(lab: Lab) -> None:
    """A size line, then a pause, then the chunk: what the client gets is still one chunked body."""
    for asked in ({}, {"stream_options": {"include_usage": True}}):
        lab.fresh()
        framed = chunk(EVENTS[0])
        lab.jp.script = says(
            STREAM_HEAD + framed[:4], framed[4:], chunk(EVENTS[1]), chunk(DONE) + LAST_CHUNK, pause_s=0.05
        )
        answer = lab.gateway.ask(ask_stream(**asked))
        assert answer.body == EVENTS[0] + EVENTS[1] + DONE


def test_the_first_event_arrives_before_the_second_is_made(lab: Lab) -> None:
    lab.jp.script = sends_then(stalls, STREAM_HEAD, chunk(EVENTS[0]))
    with lab.gateway.wire() as wire:
        wire.send(ask_stream())
        wire.head()
        assert wire.chunk() == EVENTS[0]


@pytest.mark.parametrize("end", [resets, closes, stalls], ids=["reset", "close", "stall"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_that_the_endpoint_cuts_is_visibly_unfinished(lab: Lab, end: object, asked: bool) -> None:
    lab.jp.script = sends_then(end, STREAM_HEAD, chunk(EVENTS[0]), chunk(EVENTS[1]))  # type: ignore[arg-type]
    more = {"stream_options": {"include_usage": True}} if asked else {}
    with lab.gateway.wire() as wire:
        wire.send(ask_stream(**more))
        _, headers = wire.head()
        with pytest.raises(Cut):
            list(iter(wire.chunk, b""))
    decision = lab.gateway.decision(headers["x-sekisho-decision"])
    assert (decision.outcome, decision.partial, decision.tokens_out) == ("upstream_cut", True, 2)
    assert lab.reached() == 1, "never again after the first byte"


@pytest.mark.parametrize("end", [resets, closes], ids=["reset", "close"])
def test_a_long_answer_that_the_endpoint_cuts_is_visibly_unfinished(lab: Lab, end: object) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n"
    lab.jp.script = sends_then(end, head + b"x" * 200_000)  # type: ignore[arg-type]
    with lab.gateway.wire() as wire:
        wire.send(request(chat(MODEL), key=KEY))
        with pytest.raises(Cut):
            wire.answer()
    until(lab.new_decisions)
    assert [each.outcome for each in lab.new_decisions()] == ["upstream_cut"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_work_at_the_endpoint(lab: Lab, stream: bool) -> None:
    lab.jp.script = sends_then(stalls, STREAM_HEAD, *map(chunk, EVENTS)) if stream else stalls
    with lab.gateway.wire() as wire:
        wire.send(request(chat(MODEL, stream=stream), key=KEY))
        until(lambda: lab.jp.received)
        number = lab.jp.received[0].connection
        if stream:
            wire.head()
            assert [wire.chunk() for _ in EVENTS] == EVENTS
        left = time.monotonic()
    until(lambda: number in lab.jp.closed, what="the end of the endpoint's connection")
    assert lab.jp.closed[number] - left < 1.0, "well before the idle timeout of 1.5 s would do it"
    decision = lab.gateway.decision(lab.jp.received[0].decision)
    assert (decision.outcome, decision.status, decision.endpoint) == ("client_gone", 499, "jp")
    assert (decision.partial, decision.tokens_out) == (True, len(EVENTS) if stream else 0)


def test_a_client_that_leaves_with_more_requests_in_the_pipe_is_seen_too(lab: Lab) -> None:
    lab.jp.script = stalls
    with lab.gateway.wire() as wire:
        wire.send(request(chat(MODEL), key=KEY) + request(chat(MODEL, user="x" * 200_000), key=KEY))
        until(lambda: lab.jp.received)
        number = lab.jp.received[0].connection
        left = time.monotonic()
        time.sleep(0.1)
    until(lambda: number in lab.jp.closed)
    assert lab.jp.closed[number] - left < 1.2, "before the endpoint's timeout of 1.5 s did it"


# -- endpoints that behave badly

BAD: dict[str, Script] = {
    "reset": resets,
    "close": closes,
    "half a head": sends_then(closes, b"HTTP/1.1 200 OK\r\ncontent-"),
    "no HTTP": says(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "duplicate Content-Length": says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} "),
    "CL and TE": says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "broken chunk": says(STREAM_HEAD + b"zz\r\n"),
    "bare LF": says(b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}"),
    "NUL in a header": says(b"HTTP/1.1 200 OK\r\nx: \x00\r\ncontent-length: 2\r\n\r\n{}"),
    "huge head": says(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 80_000 + b"content-length: 2\r\n\r\n{}"),
    "101": says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    "too short": sends_then(closes, b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{}"),
    "chunked, no end": sends_then(closes, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    "500 with a secret": answers(b"Traceback: hunter2", status="500 hunter2", headers=("x-secret: hunter2", "retry-after: hunter2")),
    "503": answers(b"{}", status="503 Busy"),
    "429": answers(b"{}", status="429 Slow down", headers=("retry-after: 3",)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_another_endpoint_of_the_set_takes_over_before_the_first_byte(lab: Lab, name: str) -> None:
    """Whoever gets the request first fails. A kept connection that was lost may be tried anew where it was."""
    lab.jp.script = lab.az.script = then(BAD[name], answers())
    answer = lab.chat("pair", key="sk-hospital")
    assert (answer.status, answer.body) == (200, message())
    decision = lab.gateway.decision(answer.decision)
    tried = [attempt.endpoint for attempt in decision.attempts]
    assert len(tried) == len(set(tried))
    assert decision.endpoint == tried[-1]
    assert lab.jp.decisions() + lab.az.decisions() == [answer.decision] * 2
    if name not in ("reset", "close"):
        assert sorted(tried) == ["az", "jp"]
    assert lab.us.received == []


@pytest.mark.parametrize("name", BAD)
def test_when_the_set_is_exhausted_the_answer_is_an_error_without_the_endpoints_words(lab: Lab, name: str) -> None:
    lab.jp.script = lab.az.script = BAD[name]
    answer = lab.chat("pair", key="sk-hospital")
    assert answer.status in (429, 502, 503, 504)
    assert b"hunter2" not in answer.body + repr(answer.headers).encode()
    assert answer.code.startswith("upstream.")
    decision = lab.gateway.decision(answer.decision)
    assert (decision.outcome, decision.status, decision.code) == ("failed", answer.status, answer.code)
    assert sorted(attempt.endpoint for attempt in decision.attempts) == ["az", "jp"]
    assert "hunter2" not in repr(decision)
    assert lab.us.received == []
    assert lab.chat("only-us").status == 200, "the connection and the worker are fine"


def test_an_endpoint_that_never_answers_is_given_up_in_time(lab: Lab) -> None:
    lab.jp.script = stalls
    answer = lab.chat()
    assert (answer.status, answer.code) == (504, "upstream.timeout")
    assert lab.gateway.decision(answer.decision).outcome == "failed"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_never_followed_nor_passed_on(lab: Lab, status: str) -> None:
    lab.jp.script = answers(b"", status=status, headers=(f"location: {lab.us.url}/chat/completions",))
    answer = lab.chat(key="sk-hospital")
    assert (answer.status, answer.code) == (502, "upstream.error")
    assert "location" not in answer.headers
    assert lab.us.received == []


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_what_the_endpoint_says_of_our_own_key_stays_here(lab: Lab, status: str) -> None:
    lab.jp.script = answers(
        b'{"error":"key hunter2 is wrong"}', status=status, headers=("www-authenticate: Bearer hunter2",)
    )
    answer = lab.chat()
    assert answer.status == 502
    assert b"hunter2" not in answer.body + repr(answer.headers).encode()


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable"])
def test_what_the_endpoint_says_of_the_request_passes(lab: Lab, status: str) -> None:
    lab.jp.script = answers(b'{"error":{"message":"context too long"}}', status=status)
    answer = lab.chat()
    assert (answer.status, answer.body) == (int(status[:3]), b'{"error":{"message":"context too long"}}')
    assert lab.gateway.decision(answer.decision).outcome == "completed"


def test_interim_answers_are_skipped(lab: Lab) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    lab.jp.script = says(*split(early + whole(message()), [5, 30, 60, 90]), pause_s=0.005)
    answer = lab.chat()
    assert (answer.status, answer.interim, answer.body) == (200, (), message())


@pytest.mark.parametrize("surplus", [b"x", whole(b'{"choices":"poison"}'), b"\r\n"])
def test_bytes_after_the_end_never_become_the_next_answer(lab: Lab, surplus: bytes) -> None:
    lab.jp.script = then(says(whole(message("first")) + surplus), answers(message("second")))
    with lab.gateway.wire() as wire:
        assert wire.ask(request(chat(MODEL), key=KEY)).body == message("first")
        assert wire.ask(request(chat(MODEL), key=KEY)).body == message("second")
    assert len({each.connection for each in lab.jp.received}) == 2


def test_bytes_that_come_late_never_become_the_next_answer(lab: Lab) -> None:
    lab.jp.script = then(
        says(whole(message("first")), whole(message("poison")), pause_s=0.05), answers(message("second"))
    )
    with lab.gateway.wire() as wire:
        assert wire.ask(request(chat(MODEL), key=KEY)).body == message("first")
        time.sleep(0.15)
        assert wire.ask(request(chat(MODEL), key=KEY)).body == message("second")


def test_a_kept_connection_that_was_closed_costs_nobody_anything(lab: Lab) -> None:
    async def once(turn: Turn) -> None:
        await turn.send(whole(message()))
        turn.close()

    lab.jp.script = once
    for _ in range(5):
        answer = lab.chat()
        assert answer.status == 200
        assert lab.gateway.decision(answer.decision).attempts[-1].result == "ok"
    assert lab.reached() == 5


def test_an_answer_that_comes_before_the_request_is_through_ends_the_connection(lab: Lab) -> None:
    """The rest of the body still goes out on it: whatever is sent after it could be read as part of it."""
    after = bytearray()

    async def early(turn: Turn) -> None:
        await turn.send(whole(b'{"error":{"message":"too long"}}', status="400 Bad Request"))
        await turn.pause(0.3)
        while part := await turn.reader.read(1 << 20):
            after.extend(part.replace(b"x", b""))
        turn.close()

    lab.jp.read_bodies = False
    lab.jp.script = early
    try:
        with lab.gateway.wire() as wire:
            answer = wire.ask(request(chat(MODEL, user="x" * (24 << 20)), key=KEY))
            assert answer.status == 400
            lab.jp.read_bodies = True
            lab.jp.script = answers()
            assert wire.ask(request(chat(MODEL), key=KEY)).body == message()
    finally:
        lab.jp.read_bodies = True
    assert b"POST" not in after, "another request on the same connection"


def test_many_answers_at_once_reach_those_who_asked(lab: Lab) -> None:
    async def echo(turn: Turn) -> None:
        await turn.pause(0.001 * (turn.request.connection % 7))
        await turn.send(whole(turn.request.body))

    for upstream in lab.upstreams:
        upstream.script = echo
    wires = [lab.gateway.wire() for _ in range(60)]
    for round_ in range(4):
        for number, wire in enumerate(wires):
            wire.send(request(chat("m", user=f"{round_}-{number}"), key=KEY))
        for number, wire in enumerate(wires):
            assert wire.answer().body == chat("m", user=f"{round_}-{number}")
    for wire in wires:
        wire.close()
    ids = [decision.id for decision in lab.new_decisions()]
    assert len(ids) == len(set(ids)) == 240


def test_an_endpoint_that_was_slow_once_is_tried_again(lab: Lab) -> None:
    """A measurement grows old: else one bad moment takes an endpoint out for ever."""

    async def slow(turn: Turn) -> None:
        await turn.pause(0.3)
        await turn.send(whole(message()))

    lab.jp.script = slow
    assert lab.chat().status == 200
    lab.jp.script = answers()
    lab.az.script = sends_then(answers(), pause_s=0.01)
    lab.jp.received.clear()
    ends = time.monotonic() + (60 if SOAK else 6)
    while not lab.jp.received:
        assert time.monotonic() < ends, "never again"
        assert lab.chat("pair").status == 200
