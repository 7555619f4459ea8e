"""Clients at a site: `python -m sekisho.lab.load SPEC_FILE RESULT_FILE`. Each asks over the OpenAI API,
streamed, and writes down what became of each request as one JSON line, as soon as it is known."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Literal

import httpx
import msgspec

Outcome = Literal[
    "answered",  # to the end
    "refused",  # by the checkpoint, with a code
    "lost",  # broken off, timed out, or an error of the checkpoint that says that endpoints failed
]
_DONE = "data: [DONE]"
_TIMEOUT_S = 30.0
_REFUSALS = (400, 401, 403, 404, 429)


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """`parallel` clients that each ask, wait `pause_s`, and ask again: `count` times, or until `seconds` have passed.
    Several models are asked in turn with the same words."""

    name: str
    key: str
    models: tuple[str, ...]
    parallel: int = 1
    count: int | None = None
    seconds: float = 3600.0
    pause_s: float = 0.0
    max_tokens: int = 4


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    clients: tuple[Client, ...]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Times are Unix seconds and milliseconds; `first_token_ms` is 0 when none came."""

    client: str
    model: str
    at: float
    ended_at: float
    outcome: Outcome
    status: int = 0
    code: str = ""
    first_token_ms: float = 0.0
    site: str = ""
    country: str = ""
    decision: str = ""


async def ask(session: httpx.AsyncClient, client: Client, model: str, words: str) -> Asked:
    """One question, to its end."""
    at, begun = time.time(), time.perf_counter()
    body = {
        "model": model,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": client.max_tokens,
        "stream": True,
    }
    status, first_ms, code, outcome = 0, 0.0, "", "lost"
    site = country = decision = ""
    try:
        headers = {"Authorization": f"Bearer {client.key}"}
        async with session.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            status = response.status_code
            site = response.headers.get("x-sekisho-site", "")
            country = response.headers.get("x-sekisho-country", "")
            decision = response.headers.get("x-sekisho-decision", "")
            if response.is_error:
                code = _code(await response.aread())
                outcome = "refused" if status in _REFUSALS else "lost"
            else:
                async for line in response.aiter_lines():
                    if not first_ms and '"content":"' in line.replace('"content": "', '"content":"'):
                        first_ms = (time.perf_counter() - begun) * 1000
                    if line.startswith(_DONE):
                        outcome = "answered"
    except httpx.HTTPError as error:
        code = type(error).__name__
    return Asked(
        client=client.name,
        model=model,
        at=at,
        ended_at=time.time(),
        outcome=msgspec.convert(outcome, Outcome),
        status=status,
        code=code,
        first_token_ms=first_ms,
        site=site,
        country=country,
        decision=decision,
    )


def _code(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "unreadable"


async def work(spec: LoadSpec, results: Path) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with results.open("ab", buffering=0) as file:
        async with httpx.AsyncClient(
            base_url=spec.url, timeout=_TIMEOUT_S, trust_env=False, limits=limits
        ) as session:

            async def one(client: Client, number: int) -> None:
                until = time.monotonic() + client.seconds
                turn = 0
                while time.monotonic() < until and (client.count is None or turn < client.count):
                    turn += 1
                    for model in client.models:
                        # Words that no server has seen: an answer from a cached prompt would come too soon.
                        words = f"{turn * 7919 % 1000} {number}: name one city of Japan and say why you chose it."
                        asked = await ask(session, client, model, words)
                        file.write(msgspec.json.encode(asked) + b"\n")
                        await asyncio.sleep(client.pause_s)

            await asyncio.gather(*(one(client, n) for client in spec.clients for n in range(client.parallel)))


def read_results(path: Path) -> list[Asked]:
    """What has been written so far."""
    if not path.exists():
        return []
    return [
        msgspec.json.decode(line, type=Asked)
        for line in path.read_bytes().splitlines(keepends=True)
        if line[-1:] == b"\n"
    ]


def main() -> None:
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=LoadSpec)
    asyncio.run(work(spec, Path(sys.argv[2])))


if __name__ == "__main__":
    main()
