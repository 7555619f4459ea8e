"""What an answer cost: token usage read from JSON and from streams, and the splice-out of a usage chunk.

Servers differ: usage at the end of a stream in a chunk without choices (OpenAI, vLLM, llama.cpp), beside the last
choice (SGLang), in every chunk (continuous statistics), or in `response.completed` (Responses API).
"""

from __future__ import annotations

from typing import Final

import msgspec

from sekisho.gateway.usage import Usage, decode_answer, decode_event

_LONGEST_EVENT: Final = 1 << 20
_MAX_TOKENS: Final = 100_000_000


class Tokens:
    """Counts of one answer. `exact` once the endpoint itself has said so."""

    __slots__ = ("cached", "exact", "tokens_in", "tokens_out")

    def __init__(self) -> None:
        self.tokens_in = 0
        self.tokens_out = 0
        self.cached = 0
        self.exact = False

    def read(self, usage: Usage) -> None:
        details = usage.prompt_tokens_details or usage.input_tokens_details
        tokens_in: int = usage.prompt_tokens or usage.input_tokens or 0
        tokens_out: int = usage.completion_tokens or usage.output_tokens or 0
        cached: int = (details.cached_tokens or 0) if details is not None else 0
        # What an endpoint says is data from outside: a number that no answer can have is not believed.
        self.exact = 0 <= tokens_in <= _MAX_TOKENS and 0 <= tokens_out <= _MAX_TOKENS and 0 <= cached <= _MAX_TOKENS
        if self.exact:
            self.tokens_in, self.tokens_out, self.cached = tokens_in, tokens_out, cached
        else:
            self.tokens_in = self.tokens_out = self.cached = 0

    def read_json(self, body: bytes) -> None:
        """The usage of a whole JSON answer; left alone when there is none."""
        try:
            answer = decode_answer(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if answer.usage is not None:
            self.read(answer.usage)


class StreamMeter:
    """Reads a stream of server-sent events as it passes. `strip`: the usage chunk was asked for by us, not by the
    client, so it is taken out."""

    __slots__ = ("_strip", "carry", "events", "tokens")

    def __init__(self, tokens: Tokens, *, strip: bool) -> None:
        self.tokens = tokens
        self.events = 0
        self._strip = strip
        self.carry = b""

    def feed(self, payload: bytes) -> bytes | None:
        """None: pass the bytes on as they came. Otherwise: what the client may see of it now (maybe nothing)."""
        if not self.carry:
            self.events += payload.count(b"data:")
            if b'"usage"' not in payload and payload.endswith(b"\n\n"):
                return None  # the usual case: whole events, no usage among them
            data = payload
        else:
            data = self.carry + payload
            self.events += data.count(b"data:") - self.carry.count(b"data:")
        held = bool(self.carry) and self._strip
        self.carry = b""
        end = _last_event_end(data)
        kept: list[bytes] = []
        stripped = False
        for event in _events(data[:end]):
            if b'"usage"' in event and self._read_event(event) and self._strip:
                stripped = True
                self.events -= 1
            else:
                kept.append(event)
        self.carry = data[end:]
        if len(self.carry) > _LONGEST_EVENT:  # not an event stream as we know it: stop looking into it
            self._strip = False
            kept.append(self.carry)
            self.carry = b""
            return b"".join(kept) if held or stripped else None
        if not self._strip:
            return None
        if held or stripped or self.carry:
            return b"".join(kept)
        return None

    def rest(self) -> bytes:
        """What was held back when the stream ended in the middle of an event."""
        rest, self.carry = self.carry, b""
        return rest if self._strip else b""

    def _read_event(self, event: bytes) -> bool:
        """Read the usage in an event; True when the event carries nothing else."""
        start = event.find(b"data:")
        if start < 0:
            return False
        try:
            answer = decode_event(event[start + 5 :].strip())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        if answer.response is not None and answer.response.usage is not None:
            self.tokens.read(answer.response.usage)
            return False
        if answer.usage is None:
            return False
        self.tokens.read(answer.usage)
        return not answer.choices


def _last_event_end(data: bytes) -> int:
    """Where the last complete event ends: after its empty line, LF or CRLF (WHATWG HTML §9.2.5)."""
    return max(
        data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0, data.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0
    )


def _events(data: bytes) -> list[bytes]:
    """Complete events, each with its own empty line, so that joining them gives the data back."""
    events: list[bytes] = []
    start = 0
    while start < len(data):
        lf, crlf = data.find(b"\n\n", start), data.find(b"\r\n\r\n", start)
        ends = [end for end in (lf + 2 if lf >= 0 else -1, crlf + 4 if crlf >= 0 else -1) if end > 0]
        end = min(ends) if ends else len(data)
        events.append(data[start:end])
        start = end
    return events
