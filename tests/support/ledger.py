"""A real log with real witnesses in one process: only the network between them is in memory (httpx.ASGITransport)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sekisho.kernel.clock import FixedClock
from sekisho.ledger.heads import HeadPublisher, PublishStep
from sekisho.ledger.issue import ReceiptService
from sekisho.ledger.tlog.entries import Entry, decision_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import Cosigner, NoteSigner
from sekisho.ledger.tlog.log import LogWriter
from sekisho.ledger.tlog.policy import Group, Log, TrustPolicy
from sekisho.ledger.tlog.policy import Witness as Trusted
from sekisho.ledger.witness.http import WitnessApp
from sekisho.ledger.witness.service import Witness
from sekisho.ledger.witness.state import WitnessState

ORIGIN = "sekisho.example/log/2026"
NOW_S = 1_790_000_000
NAMES = ("japaneast", "japanwest", "ishikari", "osaka", "overseas")


def seed(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"\0"))


def decision(number: int, *, tenant: str = "hospital") -> Entry:
    """The entry of a passage as the gateway writes it, with everything that a receipt prints."""
    at_ms = NOW_S * 1000 - 5000 + number
    made = decision_entry(
        json.dumps(
            {
                "kind": "decision", "id": f"{at_ms:012x}{number:020x}", "at_ms": at_ms, "gateway": "gateway/w0",
                "outcome": "completed", "status": 200, "path": "/v1/chat/completions", "tenant": tenant,
                "key": "0123456789ab", "floor": "confidential", "data_class": "confidential", "model": "smollm2-135m",
                "rules": ["jp-only", "fresh-evidence"], "endpoint": "ishikari-smollm2", "site": "ishikari",
                "operator": "sakura", "country": "JP", "attempts": [
                    {"endpoint": "ishikari-smollm2", "result": "ok", "duration_us": 1000}
                ], "table": 7, "policy": "ab" * 32, "valid_until_ms": at_ms + 3_600_000, "tokens_in": 12,
                "tokens_out": 34, "first_byte_us": 1500, "duration_us": 90000, "bytes_in": 200, "bytes_out": 400,
                "request_commitment": "cd" * 32, "response_commitment": "ef" * 32,
            }
        ).encode()
    )  # fmt: skip
    assert made is not None
    return made


class LedgerLab:
    """One log, five witnesses of which three are a quorum, and a clock that stands still."""

    def __init__(self, folder: Path, *, threshold: int = 3, post_quantum: Sequence[str] = ()) -> None:
        self.folder = folder
        self.root = folder / "log"
        self.clock = FixedClock(NOW_S)
        self.signer = NoteSigner(ORIGIN, seed("log"))
        self.writer = LogWriter(self.root, self.signer, origin=ORIGIN)
        self.index = LogIndex(self.root, writable=True)
        self.cosigners = {name: [Cosigner(f"sekisho.example/w/{name}", seed(name))] for name in NAMES}
        for name in post_quantum:
            key = MLDSA44PrivateKey.from_seed_bytes(name.encode().ljust(32, b"\0"))
            self.cosigners[name].append(Cosigner(f"sekisho.example/w/{name}", key))
        self.states = {name: WitnessState(folder / "witness" / name) for name in NAMES}
        self.witnesses = {name: self.witness(name) for name in NAMES}
        self.down: set[str] = set()
        self.threshold = threshold
        self.policy = self.trust()

    def witness(self, name: str) -> Witness:
        return Witness(cosigners=self.cosigners[name], logs={ORIGIN: [self.signer.verifier]}, state=self.states[name])

    def restart(self, name: str) -> None:
        """A new process on the same directory."""
        self.states[name].close()
        self.states[name] = WitnessState(self.folder / "witness" / name)
        self.witnesses[name] = self.witness(name)

    def trust(self) -> TrustPolicy:
        witnesses = [
            Trusted(name=f"{name}{number}", key=cosigner.verifier, url=f"http://{name}")
            for name in NAMES
            for number, cosigner in enumerate(self.cosigners[name])
        ]
        groups = [
            Group(
                name=f"op-{name}", threshold=1, members=tuple(one.name for one in witnesses if one.name[:-1] == name)
            )
            for name in NAMES
        ]
        groups.append(Group(name="quorum", threshold=self.threshold, members=tuple(group.name for group in groups)))
        policy = TrustPolicy(
            logs=(Log(key=self.signer.verifier),), witnesses=tuple(witnesses), groups=tuple(groups), quorum="quorum"
        )
        assert TrustPolicy.parse(policy.encode()) == policy
        return policy

    def log(self, entries: Sequence[Entry]) -> None:
        first = self.writer.append([entry.data for entry in entries])
        self.index.add(first, entries)

    def client(self) -> httpx.AsyncClient:
        mounts: dict[str, httpx.AsyncBaseTransport] = {
            f"all://{name}": _Down() if name in self.down else httpx.ASGITransport(
                WitnessApp({"": self.witnesses[name]}, clock=self.clock)  # type: ignore[arg-type]  # ty of httpx
            )
            for name in NAMES
        }  # fmt: skip
        return httpx.AsyncClient(mounts=mounts, trust_env=False)

    def publish(self, *, timeout_s: float = 5.0) -> PublishStep:
        return self.publish_from(self.root, timeout_s=timeout_s)

    def publish_from(self, root: Path, *, timeout_s: float = 5.0) -> PublishStep:
        async def step() -> PublishStep:
            async with self.client() as client:
                publisher = HeadPublisher(root, policy=self.policy, signer=self.signer, client=client)
                return await publisher.step(now_s=0.0, timeout_s=timeout_s)

        return asyncio.run(step())

    def service(self) -> ReceiptService:
        return ReceiptService(lambda: [self.root], lambda _: self.policy)

    def close(self) -> None:
        self.writer.close()
        self.index.close()
        for state in self.states.values():
            state.close()


class _Down(httpx.AsyncBaseTransport):
    """A fake: an address where nobody answers."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody answers here", request=request)
