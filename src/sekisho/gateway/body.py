"""One strict reading of the JSON body, whatever the content type says.

The body is decoded once by msgspec (values stay raw), then walked over its top level: every key must stand there
literally, once, with the value that was decoded. A body with a duplicate or an escaped top-level key therefore has
no second reading for the endpoint to take; it is refused. The bytes that were checked are the bytes that are sent,
but for two documented splices (alias, usage of streams).
"""

from __future__ import annotations

import json
import re
from codecs import utf_8_decode
from collections import Counter
from typing import Final

import msgspec

from sekisho.kernel.ids import MODEL

_decode_top: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_str: Final = msgspec.json.Decoder(str).decode
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")  # RFC 8259 §2
_NOT_BLANK: Final = frozenset(bytes([code]) for code in range(256)) - {b" ", b"\t", b"\r", b"\n"}
_MAX_KEYS: Final = 256
_PIECE: Final = 16 << 10
_USAGE: Final = b'"stream_options":{"include_usage":true}'


class BodyRefused(Exception):
    """A body that has no single reading, or that does not say which model it wants. Never quotes the body."""

    def __init__(self, code: str, what: str, way_out: str = "", way_out_ja: str = "") -> None:
        """The way out is that of the code, unless there is more to say."""
        super().__init__(what)
        self.code = code
        self.what = what
        self.way_out = way_out
        self.way_out_ja = way_out_ja


Top = dict[str, msgspec.Raw]


def read_top(body: bytes) -> Top:
    """The values of the top level, still raw, once it is sure that no other reading exists. Raises BodyRefused."""
    try:
        top = _decode_top(body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise BodyRefused("request.invalid_json", "the body is not a JSON object") from None
    if len(top) > _MAX_KEYS:
        raise BodyRefused(
            "request.too_many_keys",
            f"the body has {len(top)} top-level keys; no request of the OpenAI API has nearly as many",
        )
    # Braces, and for each member two quotes, a colon and a comma (the last member has none).
    shortest = 1 + 4 * len(top)
    for key, value in top.items():
        shortest += len(key) + len(value)
        if not key.isascii():
            shortest = -1
            break
    if shortest != len(body):
        # Not the shortest way to write these members: there is white space, an escape or a duplicate.
        walk(body, top)
    return top


def walk(body: bytes, top: Top) -> dict[str, tuple[int, int]]:
    """Where each value lies, (start, end); BodyRefused unless `body` is exactly `top` written out in order.

    A value is compared, not only skipped: were its length alone taken, a longer duplicate could hide members.
    """
    spans: dict[str, tuple[int, int]] = {}
    position = _blank(body, body.index(b"{") + 1)
    last = len(top) - 1
    for index, (key, raw) in enumerate(top.items()):
        literal = b'"%b"' % key.encode()
        if not body.startswith(literal, position):
            raise _duplicate(body)
        position = _blank(body, position + len(literal))
        position = _blank(body, position + 1)  # the colon: the decoder has checked it
        value = bytes(raw)
        if not body.startswith(value, position):
            raise _duplicate(body)
        end = position + len(value)
        spans[key] = (position, end)
        position = _blank(body, end)
        if not body.startswith(b"}" if index == last else b",", position):
            raise _duplicate(body)
        position = _blank(body, position + 1)
    if position != len(body) and top:
        raise _duplicate(body)
    return spans


def _blank(body: bytes, position: int) -> int:
    if body[position : position + 1] in _NOT_BLANK:
        return position
    match = _SPACE.match(body, position)
    return match.end() if match else position


def _duplicate(body: bytes) -> BodyRefused:
    """Say which of the two it was (slow path: the body is refused either way)."""
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> None:
        counts = Counter(key for key, _ in items)
        duplicates[:] = sorted(key for key, count in counts.items() if count > 1)[:3]

    try:
        json.loads(body, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        pass
    else:
        if duplicates:
            names = ", ".join(repr(key[:40]) for key in duplicates)
            return BodyRefused(
                "request.duplicate_key",
                f"the body has these keys twice: {names}; which one counts is open",
            )
    return BodyRefused("request.escaped_key", "a top-level key of the body is written with escapes")


class Reading:
    """What routing and admission need to know of a request. `wants_usage`: the client asked for the usage chunk of a
    stream itself. `prefix`: raw bytes of the prompt's beginning, for affinity."""

    __slots__ = ("choices", "max_tokens", "model", "prefix", "stream", "wants_usage")

    def __init__(
        self, *, model: str, stream: bool, wants_usage: bool, max_tokens: int | None, choices: int, prefix: bytes
    ) -> None:
        self.model = model
        self.stream = stream
        self.wants_usage = wants_usage
        self.max_tokens = max_tokens
        self.choices = choices
        self.prefix = prefix


# What counts in a request, as plain numbers: a body's keys are looked up once.
_MODEL: Final = 1
_STREAM: Final = 2
_STREAM_OPTIONS: Final = 3
_N: Final = 4
_LIMIT: Final = 5  # and above: the first of these counts
_PROMPT: Final = 8  # likewise
_FIELDS: Final[dict[str, int]] = {
    "model": _MODEL, "stream": _STREAM, "stream_options": _STREAM_OPTIONS, "n": _N,
    "max_completion_tokens": _LIMIT, "max_tokens": _LIMIT + 1, "max_output_tokens": _LIMIT + 2,
    "messages": _PROMPT, "prompt": _PROMPT + 1, "input": _PROMPT + 2,
}  # fmt: skip
# Names of models as they were written, and what they mean.
_models: Final[dict[bytes, str]] = {}
_MODELS: Final = 1024


def _model(raw: msgspec.Raw) -> str:
    """The name of a model. Raises BodyRefused."""
    text = bytes(raw)
    known = _models.get(text)
    if known is not None:
        return known
    try:
        model = _decode_str(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        model = ""
    if MODEL.fullmatch(model) is None:
        raise BodyRefused("request.invalid_model", "`model` is not the name of a model")
    if len(_models) >= _MODELS:
        _models.clear()
    _models[text] = model
    return model


def check_utf8(body: bytes) -> None:
    """Raises UnicodeDecodeError. In pieces that stay in the cache: the text itself is not needed, and to build all of
    a long one costs half of the time."""
    if len(body) <= _PIECE:
        body.decode()
        return
    view = memoryview(body)
    position, end = 0, len(body)
    while position < end:
        piece = view[position : position + _PIECE]
        # the last character of a piece may be cut: it is read again with the next one
        position += utf_8_decode(piece, "strict", position + _PIECE >= end)[1]


def read_body(body: bytes, *, prefix_bytes: int, prefix_min_bytes: int = 0) -> Reading:
    """`prefix_min_bytes`: a prompt that is shorter has no prefix worth knowing. Raises BodyRefused."""
    if not body.isascii():
        try:
            check_utf8(body)  # the decoder skips over values without looking into them (RFC 8259 §8.1)
        except UnicodeDecodeError:
            raise BodyRefused("request.invalid_json", "the body is not UTF-8") from None
    top = read_top(body)
    model = ""
    stream = wants_usage = False
    max_tokens: int | None = None
    choices = 1
    limit_at = prompt_at = _PROMPT + 3
    limit: msgspec.Raw | None = None
    prompt: msgspec.Raw | None = None
    for key, raw in top.items():
        field = _FIELDS.get(key)
        if field is None:
            if key.lower() in _FIELDS:
                raise BodyRefused(
                    "request.duplicate_key",
                    "a key of the body differs from one that counts in upper and lower case only",
                    f"write {key.lower()!r}; some servers read both as one",
                    f"{key.lower()!r} と小文字で書いてください。両者を同じものとして扱うサーバーがあります",
                )
        elif field >= _PROMPT:
            if field < prompt_at:
                prompt_at, prompt = field, raw
        elif field >= _LIMIT:
            if field < limit_at and bytes(raw).isdigit():
                limit_at, limit = field, raw
        elif field == _MODEL:
            model = _model(raw)
        elif field == _STREAM:
            text = bytes(raw)
            if text not in (b"true", b"false", b"null"):
                raise BodyRefused("request.invalid_stream", "`stream` is neither true nor false")
            stream = text == b"true"
        elif field == _STREAM_OPTIONS:
            text = bytes(raw)
            if text != b"null":
                asked = read_top(text).get("include_usage")
                wants_usage = asked is not None and bytes(asked) == b"true"
        elif (text := bytes(raw)).isdigit():
            choices = min(max(int(text[:4]), 1), 128)
    if not model:
        raise BodyRefused("request.no_model", "the body names no model")
    if limit is not None:
        max_tokens = int(bytes(limit)[:10])
    prefix = b""
    if prompt is not None and len(prompt) >= prefix_min_bytes:
        prefix = bytes(memoryview(prompt)[:prefix_bytes])
    return Reading(
        model=model,
        stream=stream,
        wants_usage=wants_usage,
        max_tokens=max_tokens,
        choices=choices,
        prefix=prefix,
    )


def splice_model(body: bytes, model: str) -> bytes:
    """The body with the alias's model in place of the alias: everything else as it came."""
    start, end = walk(body, _decode_top(body))["model"]
    return b"".join((body[:start], msgspec.json.encode(model), body[end:]))


def splice_usage(body: bytes) -> bytes:
    """The body with `stream_options.include_usage` set: everything else as it came."""
    top = _decode_top(body)
    options = top.get("stream_options")
    if options is None:
        first = body.index(b"{") + 1
        return b"".join((body[:first], _USAGE, b",", body[first:]))
    start, end = walk(body, top)["stream_options"]
    merged = {"include_usage": msgspec.Raw(b"true")}
    if bytes(options) != b"null":
        merged = _decode_top(options) | merged
    return b"".join((body[:start], msgspec.json.encode(merged), body[end:]))
