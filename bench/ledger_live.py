"""A passage, its receipt with a quorum: how long one waits for the other while 2,000 passages a second go by.

The processes are those of `sekisho up`: control, sequencer and the witnesses of the demonstration (five, a majority
of operators is the quorum). A journal, written by the class that the gateway's workers write with, stands for the
gateway: dispatch and decision, 2,000 times a second. Of some passages the receipt is asked for over HTTP as a gateway
asks for it for a tenant, every 25 ms from the decision on, until it is there. Afterwards every receipt is verified.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench.processes import CpuClock, Failed, MachineClock, Process
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.ledger.journal import Journal
from sekisho.ledger.model import Dispatch, encode_record
from sekisho.ledger.receipts import ReceiptRefused, verify_receipt
from sekisho.ledger.tlog.policy import TrustPolicy

TICK_S = 0.01
POLL_S = 0.025
GIVE_UP_S = 30.0
TENANT = "hospital"


def measure(folder: Path, *, seconds: float, rate: int, samples_per_s: float) -> dict[str, Any]:
    """Latencies in ms from the decision in the journal to the receipt in hand; CPU of every process."""
    home = Home.at(folder)
    create(home)
    ensure_secrets(home)
    with _running(home) as (processes, url):
        clocks = {name: CpuClock(process.pids()) for name, process in processes.items()}
        machine, own = MachineClock(), time.process_time()
        waited, receipts, wrote = asyncio.run(_load(home, url, seconds=seconds, rate=rate, every_s=1 / samples_per_s))
        busy, stolen, wall = machine.elapsed()
        cpu = {name: clock.elapsed_ns() / 1e9 for name, clock in clocks.items()}
        cpu["load"] = time.process_time() - own
        foreign = max(0.0, busy + stolen - sum(cpu.values())) / wall / (os.cpu_count() or 1)
    policy = TrustPolicy.parse((home.ledger / "policy" / f"{datetime.now(UTC).year}.policy").read_bytes())
    refused = 0
    for data in receipts:
        try:
            verify_receipt(data, policy, now_s=time.time())
        except ReceiptRefused:
            refused += 1
    if not waited:
        raise Failed("no receipt was to be had")
    (folder / "receipt.tlog-proof").write_bytes(receipts[-1])
    (folder / "trust.policy").write_bytes(policy.encode())
    ordered = sorted(waited)
    return {
        "receipt": {
            "rate": rate,
            "seconds": seconds,
            "passages": wrote,
            "samples": len(ordered),
            "never": sum(each >= GIVE_UP_S for each in ordered),
            "refused": refused,
            "p50_ms": 1000 * ordered[len(ordered) // 2],
            "p99_ms": 1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
            "max_ms": 1000 * ordered[-1],
            "bytes": len(receipts[-1]) if receipts else 0,
            "cpu_us_a_passage": {name: 1e6 * spent / max(1, wrote) for name, spent in cpu.items()},
            "cpu_share": {name: spent / wall for name, spent in cpu.items()},
            "foreign_share": foreign,
        }
    }


@contextlib.contextmanager
def _running(home: Home) -> Iterator[tuple[dict[str, Process], str]]:
    with contextlib.ExitStack() as stack:
        listeners = {
            name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in ("witness", "control")
        }
        processes: dict[str, Process] = {}
        for name in ("witness", "sequencer", "control"):
            arguments = ["--home", str(home.root)]
            fds: tuple[int, ...] = ()
            if name in listeners:
                fds = (listeners[name].fileno(),)
                arguments += ["--fd", str(fds[0])]
            process = Process(
                [sys.executable, "-P", "-m", f"sekisho.assembly.{name}", *arguments],
                core=None,
                log=home.root / "logs" / f"bench-{name}.log",
                pass_fds=fds,
            )
            stack.callback(process.stop)
            processes[name] = process
        url = f"http://127.0.0.1:{listeners['control'].getsockname()[1]}"
        _wait_ready(url, processes)
        yield processes, url


def _wait_ready(url: str, processes: dict[str, Process]) -> None:
    year = datetime.now(UTC).year
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for name, process in processes.items():
            if not process.alive():
                raise Failed(f"{name} ended: {process.log_tail()}")
        with contextlib.suppress(httpx.HTTPError):
            # The first entries of a new installation (its policy) are cosigned: everything is at work.
            if httpx.get(f"{url}/log/{year}/checkpoint.cosigned", trust_env=False, timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    raise Failed(f"no cosigned checkpoint within two minutes: {processes['control'].log_tail()}")


async def _load(
    home: Home, url: str, *, seconds: float, rate: int, every_s: float
) -> tuple[list[float], list[bytes], int]:
    from bench.ledger import decision  # noqa: PLC0415 - it imports this module

    journal = Journal(home.root / "journal" / "w0", gateway="gateway/w0", segment_bytes=16 << 20, sync_s=0.004)
    journal.open(asyncio.get_running_loop())
    token = home.gateway_token.read_text().strip()
    host, port = url.removeprefix("http://").split(":")
    waited: list[float] = []
    receipts: list[bytes] = []
    asking: set[asyncio.Task[None]] = set()

    async def ask(id: str, began: float) -> None:
        """On a connection of its own. No HTTP library: one would cost more than what is measured."""
        reader, writer = await asyncio.open_connection(host, int(port))
        request = (
            f"GET /internal/v1/receipts/{id}?tenant={TENANT} HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode()
        try:
            while (age := time.perf_counter() - began) < GIVE_UP_S:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                body = await reader.readexactly(length)
                if head.startswith(b"http/1.1 200"):
                    waited.append(time.perf_counter() - began)
                    receipts.append(body)
                    return
                await asyncio.sleep(POLL_S)
            waited.append(age)
        finally:
            writer.close()

    run, number = random.getrandbits(40), 0
    began = time.perf_counter()
    sample_at = began
    while (now := time.perf_counter()) < began + seconds:
        due = int((now - began) * rate)
        while number < due:
            at_ms = time.time_ns() // 1_000_000
            id = f"{at_ms:012x}{run:010x}{number:010x}"
            made = msgspec.structs.replace(decision(number), id=id, at_ms=at_ms, tenant=TENANT)
            sent = msgspec.convert(made, Dispatch, from_attributes=True)
            journal.dispatch(id, encode_record(sent), guarded=True)
            journal.decide(id, encode_record(made), guarded=True)
            number += 1
            if time.perf_counter() >= sample_at:
                sample_at += every_s
                task = asyncio.create_task(ask(id, time.perf_counter()))
                asking.add(task)
                task.add_done_callback(asking.discard)
        await asyncio.sleep(TICK_S)
    if asking:
        await asyncio.wait(asking, timeout=GIVE_UP_S + 5)
    journal.close()
    return waited, receipts, number


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger_live", description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty directory for the home")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=2_000, help="passages a second")
    parser.add_argument("--samples", type=float, default=10.0, help="receipts asked for a second")
    options = parser.parse_args()
    print(json.dumps(
        measure(options.folder.absolute(), seconds=options.seconds, rate=options.rate, samples_per_s=options.samples)
    ))  # fmt: skip


if __name__ == "__main__":
    main()
