"""Traces of real load, and how long an endpoint takes for a request: a profile that was measured on a real one."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from sekisho.kernel.errors import SekishoError


class TraceUnreadable(SekishoError):
    """A file is no trace or no profile."""

    code = "capacity.trace"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the trace: seconds since its first one, and tokens."""

    at_s: float
    tokens_in: int
    tokens_out: int


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one request on a busy slot: `fixed_s` + in × `prefill_s` + out × `decode_s`. The first token comes
    after the first two. `error_s`: how far the measured requests were from it, on average; `source`: who measured."""

    fixed_s: float
    prefill_s: float
    decode_s: float
    error_s: float = 0.0
    source: str = ""

    def first_token_s(self, arrival: Arrival) -> float:
        return self.fixed_s + arrival.tokens_in * self.prefill_s

    def service_s(self, arrival: Arrival) -> float:
        return self.first_token_s(arrival) + arrival.tokens_out * self.decode_s


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a real endpoint: tokens, and seconds to the first token and to the last."""

    tokens_in: int
    tokens_out: int
    first_s: float
    whole_s: float


def read_trace(path: Path, *, limit: int = 1_000_000) -> list[Arrival]:
    """TIMESTAMP, ContextTokens, GeneratedTokens (the form of the Azure LLM inference traces). TraceUnreadable."""
    found: list[Arrival] = []
    begin: datetime | None = None
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                at = datetime.fromisoformat(row["TIMESTAMP"][:26])  # the seventh digit is a tenth of a microsecond
                begin = begin or at
                found.append(
                    Arrival(
                        at_s=(at - begin).total_seconds(),
                        tokens_in=int(row["ContextTokens"]),
                        tokens_out=int(row["GeneratedTokens"]),
                    )
                )
                if len(found) >= limit:
                    break
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TraceUnreadable(
            f"{path} is no trace: {error}", hint="it needs the columns TIMESTAMP, ContextTokens and GeneratedTokens"
        ) from None
    if len(found) < 2:
        raise TraceUnreadable(f"{path} has no two requests", hint="give a longer trace")
    return sorted(found, key=lambda each: each.at_s)


def read_profile(path: Path) -> Profile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except (OSError, msgspec.MsgspecError) as error:
        raise TraceUnreadable(f"{path} is no profile: {error}", hint="`sekisho capacity profile` makes one") from None


def fit(measured: Sequence[Timed], *, source: str) -> Profile:
    """Two straight lines (least squares): the first token over the prompt, the rest over what was generated."""
    fixed_s, prefill_s = _line([(each.tokens_in, each.first_s) for each in measured])
    rest = [(each.tokens_out, each.whole_s - each.first_s) for each in measured]
    decode_s = sum(out * took for out, took in rest) / max(sum(out * out for out, _ in rest), 1)
    made = Profile(fixed_s=max(fixed_s, 0.0), prefill_s=max(prefill_s, 0.0), decode_s=max(decode_s, 0.0))
    off = [
        abs(each.whole_s - made.fixed_s - each.tokens_in * made.prefill_s - each.tokens_out * made.decode_s)
        for each in measured
    ]
    return msgspec.structs.replace(made, error_s=round(sum(off) / len(off), 6), source=source)


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    count = len(points)
    middle = sum(x for x, _ in points) / count
    mean = sum(y for _, y in points) / count
    spread = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - mean) for x, y in points) / spread if spread else 0.0
    return mean - slope * middle, slope
