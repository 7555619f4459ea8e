"""The load of a trace against a real endpoint of the OpenAI API, and the profile of one."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx
import msgspec

from sekisho.capacity.throughput.trace import Arrival, Profile, Timed, TraceUnreadable, fit
from sekisho.kernel.errors import SekishoError

_PROMPTS = (8, 64, 256, 512)  # words of the prompts that a profile is taken from
_ANSWERS = (8, 32)  # tokens


class HostRefused(SekishoError):
    """Load would go to a machine that is not this one, and nobody said that it may."""

    code = "capacity.host"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the requests. Times in seconds to the first token; `slo`: the part that came in time."""

    requests: int
    answered: int
    refused: int
    failed: int
    slo: float
    first_p50_s: float
    first_p99_s: float


def check_host(url: str, allowed: Sequence[str]) -> None:
    """HostRefused unless it is this machine's loopback or was named: a load generator is a weapon in wrong hands."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host in allowed:
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise HostRefused(f"{host!r} is not this machine", hint="name it with --allow-host if it is yours")


async def live(
    trace: Sequence[Arrival], *, url: str, model: str, key: str, speed: float, seconds: float, slo_s: float
) -> Told:
    """Each request when it is due (divided by `speed`), whether earlier ones are answered or not."""
    chosen = [each for each in trace if each.at_s / speed < seconds]
    begin = time.monotonic()
    limits = httpx.Limits(max_connections=2000)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:

        async def one(arrival: Arrival) -> tuple[int, Timed | None]:
            await asyncio.sleep(max(begin + arrival.at_s / speed - time.monotonic(), 0.0))
            return await _ask(client, url, model, key, arrival.tokens_in, max(arrival.tokens_out, 1))

        found = await asyncio.gather(*(one(each) for each in chosen))
    firsts = sorted(timed.first_s for _, timed in found if timed is not None)
    count = len(found)
    return Told(
        requests=count,
        answered=len(firsts),
        refused=sum(status == 429 for status, _ in found),
        failed=sum(timed is None and status != 429 for status, timed in found),
        slo=round(sum(each <= slo_s for each in firsts) / count, 4) if count else 0.0,
        first_p50_s=round(firsts[len(firsts) // 2], 4) if firsts else 0.0,
        first_p99_s=round(firsts[min(int(len(firsts) * 0.99), len(firsts) - 1)], 4) if firsts else 0.0,
    )


async def profile(*, url: str, model: str, key: str) -> Profile:
    """One request after the other, of different lengths: what a busy slot of this endpoint takes."""
    measured: list[Timed] = []
    status = 0
    async with httpx.AsyncClient(timeout=300, trust_env=False) as client:
        await _ask(client, url, model, key, _PROMPTS[0], _ANSWERS[0])  # the first one warms
        for words in _PROMPTS:
            for tokens in _ANSWERS:
                status, timed = await _ask(client, url, model, key, words, tokens)
                if timed is not None and timed.tokens_out > 0:
                    measured.append(timed)
    if len(measured) < len(_PROMPTS):
        raise TraceUnreadable(
            f"{url} answered {len(measured)} of {len(_PROMPTS) * len(_ANSWERS)} requests (the last with {status})",
            hint="check the model and the key (SEKISHO_KEY)",
        )
    return fit(measured, source=url)


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    usage: _Usage | None = None


async def _ask(  # noqa: PLR0917 - one request in plain words
    client: httpx.AsyncClient, url: str, model: str, key: str, words: int, tokens: int
) -> tuple[int, Timed | None]:
    """(status, what was timed; None when there was no whole answer). The prompt is filler of so many words."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "word " * max(words, 1)}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begin = time.monotonic()
    first = 0.0
    usage = _Usage()
    try:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with client.stream("POST", f"{url.rstrip('/')}/chat/completions", json=body, headers=headers) as answer:
            if answer.status_code != 200:
                return answer.status_code, None
            async for line in answer.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                first = first or time.monotonic()
                told = msgspec.json.decode(line[6:].encode(), type=_Event)
                usage = told.usage or usage
    except (httpx.HTTPError, msgspec.MsgspecError):
        return 0, None
    whole_s = time.monotonic() - begin
    return 200, Timed(
        tokens_in=usage.prompt_tokens or words,
        tokens_out=usage.completion_tokens,
        first_s=(first or time.monotonic()) - begin,
        whole_s=whole_s,
    )
