"""What goes over the wire in every benchmark: prompts, the canned answer, the canned stream."""

from __future__ import annotations

import itertools
import json

MODEL = "canned"
CREATED = 1_795_000_000
CHUNKS = 100  # SSE events of a stream before [DONE]

ANSWER_TEXT = (
    "The checkpoint stood where the road narrowed. Travellers showed their papers, the guards compared the seals, "
    "and the clerk wrote down who had passed, with what, and on whose word. Nothing went on without an entry in the "
    "book. 関所は道の要に置かれた。"
)


def answer() -> bytes:
    """A chat completion with usage, about 600 bytes, as vLLM sends it."""
    message = {"role": "assistant", "content": ANSWER_TEXT}
    body = {
        "id": "chatcmpl-7f3b0c5e2d1a4986b0e7c2f1",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 42, "completion_tokens": 57, "total_tokens": 99},
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def stream_events(chunks: int = CHUNKS) -> list[bytes]:
    """`chunks` server-sent events of about 250 bytes: a role, then text, then the reason of the end."""

    def event(delta: dict[str, str], reason: str | None) -> bytes:
        body = {
            "id": "chatcmpl-7f3b0c5e2d1a4986b0e7c2f1",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": MODEL,
            "system_fingerprint": "fp_5c0ba5de11",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
        }
        return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

    words = itertools.cycle(stream_words())
    text = [event({"content": next(words)}, None) for _ in range(chunks - 2)]
    return [event({"role": "assistant", "content": ""}, None), *text, event({}, "stop")]


def stream_words() -> list[str]:
    return [word + " " for word in ANSWER_TEXT.split()]


def stream_text(chunks: int = CHUNKS) -> str:
    """What a client has read when it has read a whole stream."""
    return "".join(itertools.islice(itertools.cycle(stream_words()), chunks - 2))


def usage_event(chunks: int = CHUNKS) -> bytes:
    """The extra event of `stream_options.include_usage`."""
    body = {
        "id": "chatcmpl-7f3b0c5e2d1a4986b0e7c2f1",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": MODEL,
        "choices": [],
        "usage": {"prompt_tokens": 42, "completion_tokens": chunks - 2, "total_tokens": 40 + chunks},
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def prompt(size: int, *, stream: bool = False) -> bytes:
    """A chat request of about `size` bytes: Japanese and English text, as long prompts are."""
    line = (
        "The ward asks for the summary of this record. この記録の要約を、転院先の医師に渡せる形でまとめてください。\n"
    )
    system = {"role": "system", "content": "You are a careful assistant. Answer in the language of the question."}

    def request(content: str) -> bytes:
        body = {
            "model": MODEL,
            "messages": [system, {"role": "user", "content": content}],
            "temperature": 0.2,
            "max_tokens": 128,
            "stream": stream,
        }
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    room = max(size - len(request(line)), 0)
    return request(line * (1 + room // (len(json.dumps(line, ensure_ascii=False).encode()) - 2)))
