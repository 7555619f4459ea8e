"""The shapes in which servers report token usage (msgspec structs: this module is not compiled)."""

from __future__ import annotations

import msgspec


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Both vocabularies: chat/completions/embeddings (`prompt_tokens`) and responses (`input_tokens`)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None


class _Inner(msgspec.Struct):
    usage: Usage | None = None


class Event(msgspec.Struct):
    usage: Usage | None = None
    choices: list[msgspec.Raw] | None = None
    response: _Inner | None = None


class Answer(msgspec.Struct):
    usage: Usage | None = None


decode_event = msgspec.json.Decoder(Event).decode
decode_answer = msgspec.json.Decoder(Answer).decode
