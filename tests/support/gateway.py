"""A real gateway worker for a test: its process, its signed route table, its journal."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.model import ApiKey, Endpoint, Federation, Limits, Operator, Site, Tenant
from sekisho.gateway.settings import GatewaySettings, WorkerSnapshot, WorkerSpec
from sekisho.kernel.classes import DataClass
from sekisho.ledger.journal import read_records, segments
from sekisho.ledger.model import Decision, Dispatch, Record, decode_record
from sekisho.residency.compile import compile_table
from sekisho.residency.decide import BuiltinPolicy
from sekisho.residency.model import SiteEvidence
from sekisho.residency.table import RouteTable, sign_table
from support import background
from support.background import until
from support.staged import snapshot, staged
from support.wire import Answer, Wire


@dataclass(frozen=True)
class Place:
    """An endpoint with a site and an operator of its own."""

    id: str
    url: str
    country: str = "JP"
    law: str = "JP"
    models: tuple[str, ...] = ("m",)
    slots: int = 64


UNLIMITED = Limits()


@dataclass(frozen=True)
class Who:
    """A tenant with one key: `sk-<id>`."""

    id: str
    floor: DataClass = DataClass.PUBLIC
    limits: Limits = UNLIMITED
    models: tuple[str, ...] | None = None
    key: bytes = b""

    @property
    def secret(self) -> bytes:
        return self.key or f"sk-{self.id}".encode()


def federation(
    places: Iterable[Place], tenants: Iterable[Who], *, aliases: dict[str, str] | None = None
) -> Federation:
    places, tenants = tuple(places), tuple(tenants)
    return Federation(
        operators=tuple(Operator(id=f"op-{p.id}", name=p.id, country=p.law, law=p.law) for p in places),
        sites=tuple(Site(id=f"site-{p.id}", operator=f"op-{p.id}", name=p.id, country=p.country) for p in places),
        endpoints=tuple(
            Endpoint(id=p.id, site=f"site-{p.id}", url=p.url, models=p.models, slots=p.slots) for p in places
        ),
        tenants=tuple(Tenant(id=t.id, name=t.id, floor=t.floor, models=t.models, limits=t.limits) for t in tenants),
        keys=tuple(ApiKey(id=f"k-{t.id}", tenant=t.id, sha256=hashlib.sha256(t.secret).hexdigest()) for t in tenants),
        aliases=aliases or {},
    )


def compiled(
    source: Federation,
    *,
    version: int = 1,
    validity_s: float = 3600.0,
    suspended: frozenset[str] = frozenset(),
    evidence: Mapping[str, SiteEvidence] = MappingProxyType({}),
) -> RouteTable:
    """By the built-in rules of Japan, as of now."""
    return compile_table(
        source,
        BuiltinPolicy(jurisdiction="JP"),
        version=version,
        now=time.time(),
        jurisdiction="JP",
        evidence_validity_s=validity_s,
        salts={tenant.id: hashlib.sha256(tenant.id.encode()).digest()[:16] for tenant in source.tenants},
        suspended=suspended,
        evidence=evidence,
    )


class Control:
    """The part of a control plane that a gateway sees: the long poll for route tables. FAKE: it keeps one table.

    `receipts`: what it answers a path under /internal/v1/receipts/ with (a whole HTTP answer; b"" hangs up).
    """

    def __init__(self, signing: Ed25519PrivateKey) -> None:
        self._signing = signing
        self._version = 0
        self._signed = b""
        self.receipts: dict[str, bytes] = {}
        self.asked: list[str] = []
        self._changed = asyncio.Event()
        self._server: asyncio.AbstractServer = background.run(self._start())
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _start(self) -> asyncio.AbstractServer:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def publish(self, table: RouteTable) -> None:
        background.run(self._publish(table.version, sign_table(table, self._signing)))

    async def _publish(self, version: int, signed: bytes) -> None:
        self._version, self._signed = version, signed
        self._changed.set()
        self._changed = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            if path.startswith("/internal/v1/receipts/"):
                self.asked.append(path)
                writer.write(self.receipts.get(path, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"))
                await writer.drain()
                writer.close()
                return
            after = int(head.split(b"after=")[1].split(b" ")[0])
            if self._version <= after:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 10)
            if self._version > after:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(self._signed), self._signed))
            else:
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
        writer.close()

    def stop(self) -> None:
        background.loop().call_soon_threadsafe(self._server.close)


QUIET = GatewaySettings(
    # Tests make endpoints fail on purpose: neither ejection nor the retry budget shall hide what comes after.
    eject_after_failures=1_000_000,
    retry_budget_floor_per_s=1_000_000.0,
    drain_grace_s=0.2,
)


class Checkpoint:
    """One or more workers on one port. Whoever starts it stops it."""

    def __init__(
        self,
        folder: Path,
        table: RouteTable,
        *,
        settings: GatewaySettings = QUIET,
        workers: int = 1,
        control: bool = False,
        journal_dir: Path | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.workers = workers
        self.journal_dir = journal_dir or folder / "journal"
        self.signing = Ed25519PrivateKey.generate()
        self.control = Control(self.signing) if control else None
        (folder / "table.bin").write_bytes(sign_table(table, self.signing))
        self.listeners: list[socket.socket] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._seen: dict[Path, int] = {}
        self._records: list[Record] = []
        self._listen()
        for index in range(workers):
            self.processes.append(self._start(index))
        self.wait_until_ready()

    # -- processes

    def _listen(self) -> None:
        """The sockets belong to the test, as they belong to the supervisor: they outlive every worker."""
        port = 0
        for _ in range(self.workers):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(4096)
            port = listener.getsockname()[1]
            self.listeners.append(listener)
        self.port = port

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        fd = self.listeners[index].fileno()
        spec = WorkerSpec(
            index=index,
            workers=self.workers,
            settings=msgspec.structs.replace(self.settings, listen=f"127.0.0.1:{self.port}", workers=self.workers),
            listen_fds=(fd,),
            table_file=str(self.folder / "table.bin"),
            control_public_key=self.signing.public_key().public_bytes_raw().hex(),
            control_url=self.control.url if self.control else None,
            journal_dir=str(self.journal_dir / f"w{index}"),
            limits_file=str(self.folder / "limits.shm"),
            admin_socket=str(self.folder / f"w{index}.sock"),
        )
        file = self.folder / f"w{index}.json"
        file.write_bytes(msgspec.json.encode(spec))
        with (self.folder / f"w{index}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sekisho.assembly.worker", str(file)],
                pass_fds=(fd,),
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            for index, process in enumerate(self.processes):
                assert process.poll() is None, self.log(index)
                try:
                    if self.snapshot(index).table_version == 0:
                        return False
                except (OSError, msgspec.DecodeError):
                    return False
            return True

        until(ready, within_s=60, what="the start of the workers")

    def log(self, index: int = 0) -> str:
        return (self.folder / f"w{index}.log").read_text()

    def kill(self, index: int = 0) -> None:
        """kill -9."""
        self.processes[index].kill()
        self.processes[index].wait()

    def restart(self, index: int = 0) -> None:
        self.processes[index] = self._start(index)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for listener in self.listeners:
            listener.close()
        if self.control is not None:
            self.control.stop()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what it says of itself

    def snapshot(self, index: int = 0) -> WorkerSnapshot:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(20)
            asked.connect(str(self.folder / f"w{index}.sock"))
            parts = []
            while part := asked.recv(1 << 16):
                parts.append(part)
        return msgspec.json.decode(b"".join(parts), type=WorkerSnapshot)

    def rss(self, index: int = 0) -> int:
        """Bytes of memory of the worker, as the kernel counts them."""
        pages = int(Path(f"/proc/{self.processes[index].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def publish(self, table: RouteTable) -> None:
        """Let the control plane issue a table, and wait until it is obeyed."""
        assert self.control is not None
        self.control.publish(table)
        for index in range(self.workers):
            until(lambda index=index: self.snapshot(index).table_version >= table.version, what="the table's arrival")

    # -- what it wrote down

    def records(self) -> list[Record]:
        """All records so far, in the order of each journal: those in the segments, and those on the way there."""
        for folder in sorted(self.journal_dir.glob("w*")):
            stage = snapshot(folder)
            for path in segments(folder):
                try:
                    for offset, payload in read_records(path, self._seen.get(path, 0)):
                        self._seen[path] = offset
                        self._records.append(decode_record(payload))
                except FileNotFoundError:  # an empty one that was reserved and given back
                    continue
            for name, start, end, payload in staged(stage):
                if self._seen.get(folder / name, 0) == start:
                    self._seen[folder / name] = end
                    self._records.append(decode_record(payload))
        return self._records

    def decisions(self) -> list[Decision]:
        return [record for record in self.records() if isinstance(record, Decision)]

    def dispatches(self) -> list[Dispatch]:
        return [record for record in self.records() if isinstance(record, Dispatch)]

    def decision(self, id: str) -> Decision:
        """The one decision with this id (waits for it: that of a client that left is written when that is seen)."""
        until(lambda: any(each.id == id for each in self.decisions()), what=f"the decision {id}")
        (found,) = [each for each in self.decisions() if each.id == id]
        return found

    # -- talking to it

    def wire(self, *, timeout_s: float = 20.0, receive_buffer: int = 0) -> Wire:
        return Wire(self.port, timeout_s=timeout_s, receive_buffer=receive_buffer)

    def ask(self, data: bytes) -> Answer:
        with self.wire() as wire:
            return wire.ask(data)

    def answers_still(self) -> bool:
        """Whether a new connection gets an answer."""
        return self.ask(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").status == 200


def codes(decisions: Sequence[Decision]) -> list[str]:
    return [decision.code for decision in decisions]
