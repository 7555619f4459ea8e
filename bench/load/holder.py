"""Holds connections open: idle ones, each after one whole answer, and streams that are read as they come.

Prints one line when all are there; after a line on its standard input it prints what became of them, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

import uvloop

from bench import content
from bench.load.http_client import Connection, request_bytes
from bench.upstream import raise_file_limit

BATCH = 100


async def open_idle(port: int, request: bytes) -> Connection:
    """A kept connection that has been authenticated and served once: the model list."""
    connection = await Connection.open(port, keep_body=False)
    async with asyncio.timeout(30):
        status, _ = await connection.send(request)
    if status != 200:
        raise ConnectionError(f"status {status}")
    return connection


async def open_stream(port: int, request: bytes) -> Connection:
    connection = await Connection.open(port, keep_body=False)
    connection.send(request)
    async with asyncio.timeout(60):
        while not connection.first_byte_at:
            if connection.answer is not None and connection.answer.done():
                raise ConnectionError(f"ended at once: {connection.answer}")
            await asyncio.sleep(0.05)
    return connection


async def run(options: argparse.Namespace) -> None:
    models = (
        f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{options.port}\r\nAuthorization: Bearer {options.key}\r\n\r\n"
    ).encode()
    stream = request_bytes(options.port, content.prompt(360, stream=True), options.key)
    held: list[Connection] = []
    why: list[str] = []
    kinds: list[Any] = [(open_idle, models)] * options.idle + [(open_stream, stream)] * options.streams
    for start in range(0, len(kinds), BATCH):
        batch = (make(options.port, request) for make, request in kinds[start : start + BATCH])
        for made in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(made, Connection):
                held.append(made)
            else:
                why.append(f"{type(made).__name__}: {made}")
    _tell({"failed": len(why), "why": why[:3]})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    lost = sum(1 for each in held if each.transport is None or each.transport.is_closing())
    ended = sum(1 for each in held[options.idle :] if each.answer is None or each.answer.done())
    _tell({"lost": max(lost, ended), "reads": sum(each.reads for each in held)})


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--idle", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    options = parser.parse_args()
    raise_file_limit()
    uvloop.run(run(options))


if __name__ == "__main__":
    main()
