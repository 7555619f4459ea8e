"""Streams at a fixed concurrency; each must be complete: 200, the whole text, [DONE], nothing after it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import msgspec
import uvloop

from bench import content
from bench.load.http_client import Connection, request_bytes


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta


class Event(msgspec.Struct):
    choices: list[Choice]


_decode = msgspec.json.Decoder(Event).decode


def flaw(status: int, body: bytes, expected: str) -> str | None:
    """What is wrong with a stream, or None."""
    if status != 200:
        return f"status {status}: {body[:200]!r}"
    lines = [line for line in body.split(b"\n") if line.startswith(b"data:")]
    if not lines or lines[-1].strip() != b"data: [DONE]":
        return "no [DONE] at the end"
    text = "".join(choice.delta.content or "" for line in lines[:-1] for choice in _decode(line[5:].strip()).choices)
    if text != expected:
        return f"{len(text)} characters of text instead of {len(expected)}"
    return None


async def client(port: int, request: bytes, todo: list[int], results: dict[str, Any], expected: str) -> None:
    connection: Connection | None = None
    while todo:
        todo.pop()
        try:
            if connection is None or connection.transport is None or connection.transport.is_closing():
                connection = await Connection.open(port)
            start = time.perf_counter()
            status, body = await connection.send(request)
            end = time.perf_counter()
            wrong = flaw(status, body, expected)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            wrong, connection = f"{type(error).__name__}: {error}", None
        if wrong:
            results["flaws"].append(wrong)
            continue
        results["complete"] += 1
        results["events"] += body.count(b"\ndata:") + 1
        results["reads"] += connection.reads
        results["first_byte_ms"].append((connection.first_byte_at - start) * 1000)
        results["duration_ms"].append((end - start) * 1000)
    if connection is not None:
        connection.close()


async def run(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {
        "complete": 0,
        "events": 0,
        "reads": 0,
        "flaws": [],
        "first_byte_ms": [],
        "duration_ms": [],
    }
    request = request_bytes(options.port, content.prompt(360, stream=True), options.key)
    todo = list(range(options.streams))
    expected = content.stream_text(options.chunks)
    clients = [
        asyncio.create_task(client(options.port, request, todo, results, expected))
        for _ in range(options.concurrency)
    ]
    _, late = await asyncio.wait(clients, timeout=options.limit_s)
    for task in late:
        task.cancel()
    results["unfinished"] = len(late) + len(todo)
    results["flawed"] = len(results["flaws"])
    results["flaws"] = results["flaws"][:5]
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=content.CHUNKS)
    parser.add_argument("--limit-s", type=float, default=60)
    json.dump(uvloop.run(run(parser.parse_args())), sys.stdout)


if __name__ == "__main__":
    main()
