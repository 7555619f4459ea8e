"""Requests at a fixed rate, each timed from the moment it was due: a gateway that stalls can't hide it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from bench import content
from bench.load.http_client import Connection, request_bytes

SLOW_MS = 10.0


class Load:
    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.request = request_bytes(port, content.prompt(360), key)
        self.idle: list[Connection] = []
        self.times_ms: list[float] = []
        self.slow: list[tuple[float, float]] = []  # (seconds since the start, ms)
        self.why: list[str] = []
        self.start = 0.0

    async def one(self, due: float) -> None:
        try:
            connection = self.idle.pop() if self.idle else await Connection.open(self.port, keep_body=False)
            status, _ = await connection.send(self.request)
            if status != 200:
                raise ConnectionError(f"status {status}")
            self.idle.append(connection)
        except Exception as error:  # a garbled answer too: whoever is not counted here would not be missed
            self.why.append(str(error) or type(error).__name__)
            return
        took_ms = (time.monotonic() - due) * 1000
        self.times_ms.append(took_ms)
        if took_ms > SLOW_MS:
            self.slow.append((round(due - self.start, 3), round(took_ms, 1)))

    async def run(self, rate: float, seconds: float) -> dict[str, Any]:
        for _ in range(8):  # connections are there before the clock starts
            self.idle.append(await Connection.open(self.port, keep_body=False))
        start = self.start = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()  # those under way: to gather all of them at the end took 20 ms itself
        for number in range(int(rate * seconds)):
            due = start + number / rate
            late = due - time.monotonic()
            if late > 0:
                await asyncio.sleep(late)
            task = asyncio.create_task(self.one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        ordered = sorted(self.times_ms) or [0.0]
        return {
            "requests": len(self.times_ms),
            "failed": len(self.why),
            "why": self.why[:3],
            "p50_ms": ordered[len(ordered) // 2],
            "p999_ms": ordered[min(len(ordered) - 1, len(ordered) * 999 // 1000)],
            "max_ms": ordered[-1],
            "slow": self.slow[:50],
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    json.dump(uvloop.run(Load(options.port, options.key).run(options.rate, options.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
