# ruff: noqa: E501 - a corpus: one event a line
"""Usage read from streams, and the splice-out of the usage chunk, however the stream is cut."""

from __future__ import annotations

import itertools
import json

from hypothesis import example, given
from hypothesis import strategies as st

from sekisho.gateway.meter import StreamMeter, Tokens

USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}


def data(**members: object) -> bytes:
    return b"data: " + json.dumps(members, ensure_ascii=False).encode()


ORDINARY = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(
        lambda text: data(choices=[{"delta": {"content": text}}])
    ),
    st.sampled_from(
        [
            data(choices=[{"delta": {"content": 'say "usage" twice'}}]),
            data(choices=[{"delta": {"content": "x"}}], usage=None),
            data(choices=[], usage=None),
            data(choices=[{"delta": {}}], usage=USAGE),  # beside the last choice: stays
            b": a comment",
            b"event: ping\ndata: {}",
            b'data: {"usage": broken',
            b"data: [DONE]",
            b"id: 7",
        ]
    ),
)
SPLICED = data(choices=[], usage=USAGE)
EVENTS = st.lists(st.tuples(st.one_of(ORDINARY, ORDINARY, st.just(SPLICED)), st.sampled_from([b"\n\n", b"\r\n\r\n"])))
CUTS = st.lists(st.integers(0, 2000), max_size=10)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if b > a]


def shown(meter: StreamMeter, parts: list[bytes]) -> bytes:
    """What the client sees."""
    out = b""
    for part in parts:
        visible = meter.feed(part)
        out += part if visible is None else visible
    return out + meter.rest()


@given(EVENTS, CUTS, st.sampled_from([b"", b"data: {", b'data: {"usage"', b"\n"]))
@example([(SPLICED, b"\n\n"), (b"data: [DONE]", b"\n\n")], [3, 20, 60], b"")
def test_the_usage_chunk_and_nothing_else_is_taken_out(
    events: list[tuple[bytes, bytes]], cuts: list[int], unfinished: bytes
) -> None:
    stream = b"".join(event + end for event, end in events) + unfinished
    expected = b"".join(event + end for event, end in events if event != SPLICED) + unfinished
    tokens = Tokens()
    assert shown(StreamMeter(tokens, strip=True), pieces(stream, cuts)) == expected
    if any(event == SPLICED for event, _ in events):
        assert (tokens.tokens_in, tokens.tokens_out, tokens.cached, tokens.exact) == (11, 5, 2, True)


@given(EVENTS, CUTS)
def test_a_client_that_asked_for_usage_gets_every_byte(events: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(event + end for event, end in events)
    tokens = Tokens()
    assert shown(StreamMeter(tokens, strip=False), pieces(stream, cuts)) == stream
    whole = Tokens()
    shown(StreamMeter(whole, strip=False), [stream] if stream else [])
    assert (tokens.tokens_in, tokens.tokens_out, tokens.exact) == (whole.tokens_in, whole.tokens_out, whole.exact)


@given(EVENTS, CUTS)
def test_nothing_that_is_held_back_is_more_than_an_unfinished_event(
    events: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    """A reader sees each event as soon as it is whole."""
    stream = b"".join(event + end for event, end in events)
    meter, seen, fed = StreamMeter(Tokens(), strip=True), b"", b""
    for part in pieces(stream, cuts):
        visible = meter.feed(part)
        seen += part if visible is None else visible
        fed += part
        whole = max(
            fed.rfind(b"\n\n") + 2 if b"\n\n" in fed else 0, fed.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in fed else 0
        )
        assert len(seen) >= len(fed[:whole].replace(SPLICED + b"\n\n", b"").replace(SPLICED + b"\r\n\r\n", b""))


def test_an_endless_event_passes_and_memory_stays_bounded() -> None:
    meter = StreamMeter(Tokens(), strip=True)
    part = b"a" * 65536
    out = sum(len(part if (visible := meter.feed(part)) is None else visible) for _ in range(64))
    assert out + len(meter.rest()) == 64 * 65536
    assert out > 32 * 65536


@given(st.binary(max_size=200))
def test_no_answer_breaks_the_reading_of_its_usage(body: bytes) -> None:
    Tokens().read_json(body)
    meter = StreamMeter(Tokens(), strip=True)
    assert shown(meter, [body] if body else []) == body or b'"usage"' in body


def test_hostile_numbers_do_not_break_the_count() -> None:
    for usage in ('{"prompt_tokens":-5,"completion_tokens":-1}', '{"prompt_tokens":1e9}', '{"prompt_tokens":99999999999999999999}',
                  '{"prompt_tokens":"7"}', '{"prompt_tokens":true}', "[]", '"x"', "7"):  # fmt: skip
        tokens = Tokens()
        tokens.read_json(f'{{"usage":{usage}}}'.encode())
        assert tokens.tokens_in >= 0
        assert tokens.tokens_out >= 0
