"""What a share guarantees on the real gateway, and what admission with 10,000 shares costs.

    python -m bench.guarantee [--seconds 20] [--rounds 5] [--json FILE]        (about three minutes)

Guarantee: two real workers, one endpoint with real slots (it counts what is under way and notes every excess),
service times between 0.1 and 0.5 s. Twenty greedy tenants keep ten times as many requests under way as there are
slots; an owner of a quarter of the slots sends within its reservation, with pauses. The same load runs with no
shares, with shares that are lent at once (`keep_warm` 0) and with shares as they are by default. Queue times are
those that the gateway wrote into its decisions.

Cost: three gateways of two workers each, asked in turns: no shares; 10,000 shares and a tenant that owns none; 10,000
shares and a tenant that owns one. CPU of the workers a request, medians of the rounds; and the same for admission
alone, in this process, which a loaded machine disturbs less. Exit code 1: a "must" fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import content, tables
from bench.measure import ROOT, ask
from bench.processes import LOAD_CORE, PROXY_CORE, CpuClock, Failed, Process, wait_for
from bench.upstream import JsonUpstream
from sekisho.federation.model import ApiKey, Endpoint, Federation, Operator, Site, Tenant
from sekisho.gateway.choose import choose
from sekisho.gateway.limits import Board
from sekisho.gateway.live import Grant, Route
from sekisho.gateway.settings import GatewaySettings, WorkerSpec
from sekisho.gateway.shares import Share, Shares
from sekisho.gateway.tuning import Tuning
from sekisho.gateway.upstream import Endpoint as LiveEndpoint
from sekisho.kernel.classes import DataClass
from sekisho.ledger.journal import read_records, segments
from sekisho.ledger.model import Decision, decode_record
from sekisho.residency.compile import compile_table
from sekisho.residency.decide import BuiltinPolicy
from sekisho.residency.table import EndpointEntry, RouteSet, RouteTable, ShareEntry, sign_table

SLOTS = 16
OWNED = 4
GREEDY = 20
OVERLOAD = 10
SHARES = 10_000
MODEL = content.MODEL


class Workers:
    """Real workers of one gateway on one port."""

    def __init__(self, folder: Path, table: RouteTable, *, count: int, core: int | None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        signing = Ed25519PrivateKey.generate()
        (folder / "table.bin").write_bytes(sign_table(table, signing))
        self.processes: list[Process] = []
        self.port = 0
        with contextlib.ExitStack() as listeners:
            for index in range(count):
                listener = listeners.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen(4096)
                self.port = listener.getsockname()[1]
                self._start(index, count, listener.fileno(), signing, core)
        for index, process in enumerate(self.processes):
            end = time.monotonic() + 60
            while not (folder / f"w{index}.sock").exists():
                if time.monotonic() > end or not process.alive():
                    raise Failed(f"worker {index}: {process.log_tail()}")
                time.sleep(0.05)
        wait_for(self.port, seconds=60, process=self.processes[0])

    def _start(self, index: int, count: int, fd: int, signing: Ed25519PrivateKey, core: int | None) -> None:
        folder = self.folder
        spec = WorkerSpec(
            index=index,
            workers=count,
            settings=GatewaySettings(listen=f"127.0.0.1:{self.port}", workers=count, queue_timeout_s=2.0),
            listen_fds=(fd,),
            table_file=str(folder / "table.bin"),
            control_public_key=tables.public_key_hex(signing),
            journal_dir=str(folder / f"journal/w{index}"),
            limits_file=str(folder / "limits.shm"),
            admin_socket=str(folder / f"w{index}.sock"),
        )
        (folder / f"w{index}.json").write_bytes(msgspec.json.encode(spec))
        command = [sys.executable, "-m", "sekisho.assembly.worker", str(folder / f"w{index}.json")]
        self.processes.append(Process(command, core=core, log=folder / f"w{index}.log", pass_fds=(fd,), cwd=ROOT))

    def pids(self) -> tuple[int, ...]:
        return tuple(pid for process in self.processes for pid in process.pids())

    def stop(self) -> None:
        for process in self.processes:
            process.stop()

    def decisions(self) -> Iterator[Decision]:
        for folder in sorted((self.folder / "journal").glob("w*")):
            for path in segments(folder):
                for _, payload in read_records(path):
                    record = decode_record(payload)
                    if isinstance(record, Decision):
                        yield record


def _table(names: Sequence[str], *, upstream: int, slots: int, shares: tuple[ShareEntry, ...]) -> RouteTable:
    source = Federation(
        operators=(Operator(id="bench", name="Bench", country="JP", law="JP"),),
        sites=(Site(id="bench", operator="bench", name="Bench", country="JP"),),
        endpoints=(
            Endpoint(id="e", site="bench", url=f"http://127.0.0.1:{upstream}/v1", models=(MODEL,), slots=slots),
        ),
        tenants=tuple(Tenant(id=name, name=name, floor=DataClass.INTERNAL) for name in names),
        keys=tuple(
            ApiKey(id=f"k-{name}", tenant=name, sha256=hashlib.sha256(_key(name).encode()).hexdigest())
            for name in names
        ),
        aliases={},
    )
    table = compile_table(
        source, BuiltinPolicy(jurisdiction="JP"), version=1, now=time.time(), jurisdiction="JP",
        evidence_validity_s=86_400.0, salts=dict.fromkeys(names, b"0123456789abcdef"),
    )  # fmt: skip
    return msgspec.structs.replace(table, shares=shares)


def _key(name: str) -> str:
    return f"sk-bench-{name}"


def _share(tenant: int, slots: int, keep_warm_s: float) -> ShareEntry:
    return ShareEntry(
        id=f"tp-{tenant}", tenant=tenant, data_class="internal", model=MODEL, places=((0, slots),),
        until=time.time() + 86_400, keep_warm_s=keep_warm_s,
    )  # fmt: skip


# -- the guarantee


class Engine:
    """An endpoint with real slots: more at a time than it has is an excess, and is noted."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._body = content.answer()
        self.now = self.most = 0
        self.busy_s = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.now += 1
                self.most = max(self.most, self.now)
                takes_s = self._random.uniform(0.1, 0.5)
                self.busy_s += takes_s
                await asyncio.sleep(takes_s)
                self.now -= 1
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(self._body), self._body)
                )
        writer.close()


async def _client(port: int, tenant: str, end: float, pause_s: float, chance: random.Random) -> None:
    """Ask again and again, with pauses of 0 to 2 × `pause_s`; after a refusal as Retry-After (here: 0.2 s) says."""
    body = content.prompt(360)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {_key(tenant)}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while time.monotonic() < end:
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if answer[9:12] != b"200":
                await asyncio.sleep(0.2)
            elif pause_s:
                await asyncio.sleep(chance.uniform(0.0, 2 * pause_s))
    writer.close()


async def _overload(folder: Path, shares: tuple[ShareEntry, ...], seconds: float) -> dict[str, Any]:
    engine = Engine(7)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, backlog=4096)
    names = ("owner", *(f"greedy-{n}" for n in range(GREEDY)))
    upstream = server.sockets[0].getsockname()[1]
    table = _table(names, upstream=upstream, slots=SLOTS, shares=shares)
    workers = await asyncio.to_thread(Workers, folder, table, count=2, core=None)
    try:
        chance = random.Random(11)
        end = time.monotonic() + seconds
        started = time.monotonic()
        clients = [
            _client(workers.port, f"greedy-{n}", end, 0.0, chance)
            for n in range(GREEDY)
            for _ in range(SLOTS * OVERLOAD // GREEDY)
        ]
        clients += [_client(workers.port, "owner", end, 0.15, chance) for _ in range(OWNED)]
        await asyncio.gather(*clients)
        elapsed = time.monotonic() - started
    finally:
        await asyncio.to_thread(workers.stop)
        server.close()
    found = list(workers.decisions())
    own = [each for each in found if each.tenant == "owner"]
    queued = sorted(each.queue_us / 1000 for each in own if each.status == 200)
    return {
        "owner": Counter(str(each.status) for each in own),
        "greedy": Counter(str(each.status) for each in found if each.tenant != "owner"),
        "queue_p50_ms": round(_at(queued, 0.5), 2),
        "queue_p99_ms": round(_at(queued, 0.99), 2),
        "queue_max_ms": round(queued[-1], 2) if queued else 0.0,
        "most_at_a_time": engine.most,
        "slots_busy": round(engine.busy_s / elapsed / SLOTS, 3),
    }


def _at(values: Sequence[float], quantile: float) -> float:
    return values[min(int(len(values) * quantile), len(values) - 1)] if values else 0.0


# -- the cost


def _cost(folder: Path, rounds: int) -> dict[str, Any]:
    upstream = JsonUpstream(folder / "upstream")
    wait_for(upstream.port, seconds=20, process=upstream.process)
    body = folder / "body.json"
    body.write_bytes(content.prompt(360))
    names = ("asks", *(f"t{n}" for n in range(SHARES)))
    some = tuple(_share(n, 1, 2.0) for n in range(1, SHARES + 1))
    kinds = {
        "none": (),
        "others": some,
        "own": (*some[1:], _share(0, 256, 2.0)),
    }
    gateways: dict[str, Workers] = {}
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    try:
        for kind, shares in kinds.items():
            table = _table(names, upstream=upstream.port, slots=16_384, shares=shares)
            gateways[kind] = Workers(folder / kind, table, count=2, core=PROXY_CORE)
            end = time.monotonic() + 120
            while (answer := ask(gateways[kind].port, _key("asks"), content.prompt(360)))[0] != 200:
                if time.monotonic() > end:
                    raise Failed(f"{kind}: {answer}")
                time.sleep(0.1)
        for turn in range(rounds + 1):
            order = list(kinds)[turn % 3 :] + list(kinds)[: turn % 3]
            for kind in order:
                clock = CpuClock(gateways[kind].pids())
                requests = _wrk(gateways[kind].port, body, 2)
                if turn:  # the first round warms
                    spent[kind].append(clock.elapsed_ns() / 1000 / requests)
    finally:
        for each in gateways.values():
            each.stop()
        upstream.process.stop()
    base = statistics.median(spent["none"])
    return {
        "cpu_us": {kind: round(statistics.median(each), 2) for kind, each in spent.items()},
        "rounds": {kind: [round(value, 2) for value in each] for kind, each in spent.items()},
        "added_us": {kind: round(statistics.median(spent[kind]) - base, 2) for kind in ("others", "own")},
    }


def _alone(folder: Path, rounds: int) -> dict[str, Any]:
    """CPU µs of taking and giving back a slot, without the rest of the gateway: two workers' board, 10,000 shares
    that are all known; medians of the rounds. What owners give back lies in hand until it is settled: after every
    32nd request here, as at 32 connections (`seldom`: after each, as when requests come one by one)."""
    folder.mkdir()
    boards = [Board(folder / "limits.shm", worker=index, workers=2) for index in range(2)]
    shares, settings, loop = Shares(boards[0]), GatewaySettings(), asyncio.new_event_loop()
    plain, shared = (
        LiveEndpoint(
            EndpointEntry(id=name, site="s", operator="o", country="JP", url="http://127.0.0.1:1/v1", slots=16_384),
            settings=settings,
            tuning=Tuning(settings),
            slots=shares.slots(name, 16_384),
            loop=loop,
            on_usable=lambda _: None,
            write=lambda *_: None,
        )
        for name in ("plain", "shared")
    )
    shares.adopt({"shared"})
    entry = RouteSet(endpoints=(0,), rules=("any",))
    without, within = Route((plain,), entry), Route((shared,), entry)
    owners = [
        share
        for n in range(SHARES)
        if (share := shares.find(tenant=f"t{n}", data_class=1, model="m", grants=[Grant(((shared, 1),), 4e9, 2.0)]))
    ]

    def like_anybody(route: Route) -> None:
        found = choose(route, None, (), load_bound=1.25)
        assert found is not None
        found.slots.release()

    def as_owner(share: Share) -> None:
        place = share.take(within, None, ())
        assert place is not None
        place.release()

    def in_load(n: int, share: Share) -> None:
        as_owner(share)
        if not n % 32:
            shares.settle()

    def seldom(_: int) -> None:
        as_owner(owners[0])
        shares.settle()

    for share in owners:
        as_owner(share)
    kinds: dict[str, Callable[[int], None]] = {
        "none": lambda _: like_anybody(without),
        "others": lambda _: like_anybody(within),
        "own": lambda n: in_load(n, owners[0]),
        "own, each another": lambda n: in_load(n, owners[n % SHARES]),
        "own, seldom": seldom,
    }
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, work in kinds.items():
            begin = time.process_time_ns()
            for n in range(20_000):
                work(n)
            spent[kind].append((time.process_time_ns() - begin) / 20_000_000)
    for board in boards:
        board.close()
    loop.close()
    medians = {kind: statistics.median(each) for kind, each in spent.items()}
    return {
        "cpu_us": {kind: round(value, 2) for kind, value in medians.items()},
        "added_us": {kind: round(value - medians["none"], 2) for kind, value in medians.items() if kind != "none"},
    }


def _wrk(port: int, body: Path, seconds: int) -> int:
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", "-c32", f"-d{seconds}s", "-s"]
    command += [str(ROOT / "bench" / "load" / "post.lua"), f"http://127.0.0.1:{port}/v1/chat/completions"]
    environment = {**os.environ, "BENCH_BODY": str(body), "BENCH_KEY": _key("asks")}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
    told = json.loads(output.strip().rpartition("\n")[2])
    if told["bad_status"] or told["errors"]:
        raise Failed(f"wrk: {told}")
    return int(told["requests"])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("guarantee", "cost"))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx serves as another user
        if args.only != "cost":
            for kind, shares in (
                ("no shares", ()),
                ("lent at once", (_share(0, OWNED, 0.0),)),
                ("kept warm 2 s", (_share(0, OWNED, 2.0),)),
            ):
                found[kind] = told = asyncio.run(_overload(folder / kind.replace(" ", "-"), shares, args.seconds))
                print(
                    f"{kind:14} owner {dict(told['owner'])} queue p50 {told['queue_p50_ms']} p99 "
                    f"{told['queue_p99_ms']} max {told['queue_max_ms']} ms | others {dict(told['greedy'])} | "
                    f"slots busy {told['slots_busy']:.0%}, most at a time {told['most_at_a_time']} of {SLOTS}",
                    flush=True,
                )
        if args.only != "guarantee":
            found["alone"] = alone = _alone(folder / "alone", args.rounds + 2)
            print(
                f"admission alone: CPU µs {alone['cpu_us']}; added by 10,000 shares {alone['added_us']}", flush=True
            )
            found["cost"] = cost = _cost(folder, args.rounds)
            print(f"real gateway: CPU µs a request {cost['cpu_us']}; added {cost['added_us']}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    kept = found.get("kept warm 2 s")
    good = True
    if kept is not None:
        good = set(kept["owner"]) == {"200"} and kept["queue_p99_ms"] <= 50 and kept["most_at_a_time"] <= SLOTS
    if "alone" in found:
        good = good and max(found["alone"]["added_us"].values()) <= 5
    print("must: holds" if good else "must: DOES NOT HOLD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
