"""One worker with three endpoints, shared by the tests of a module: starting one costs most of a second."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sekisho.federation.model import Federation
from sekisho.gateway.settings import GatewaySettings
from sekisho.kernel.classes import DataClass
from sekisho.ledger.model import Decision
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import Upstream, answers
from support.wire import Answer, chat, request

SETTINGS = msgspec.structs.replace(
    QUIET, head_timeout_s=1.0, body_timeout_s=1.0, first_byte_timeout_s=3.0, read_idle_timeout_s=1.5
)
ODD_KEY = "鍵=".encode() + bytes([0x80, 0xFF]) + b"'\"%$"
TENANTS = (
    Who("hospital", DataClass.CONFIDENTIAL),
    Who("bureau", DataClass.RESTRICTED),
    Who("maker", DataClass.INTERNAL),
    Who("dev"),
    Who("odd", key=ODD_KEY),
)


class Lab:
    """`jp` is Japanese all over, `az` stands in Japan under foreign law, `us` is abroad. All serve `m`; `jp` and `az`
    serve `pair`; each serves `only-<id>`."""

    def __init__(self, folder: Path, settings: GatewaySettings = SETTINGS) -> None:
        self.jp, self.az, self.us = (Upstream(answers()).start() for _ in range(3))
        self.source: Federation = federation(
            (
                Place("jp", self.jp.url, models=("m", "pair", "only-jp")),
                Place("az", self.az.url, law="US", models=("m", "pair", "only-az")),
                Place("us", self.us.url, country="US", law="US", models=("m", "only-us")),
            ),
            TENANTS,
            aliases={"gpt-4o-mini": "only-jp"},
        )
        self.gateway = Checkpoint(folder, compiled(self.source), settings=settings)
        self._mark = 0

    def stop(self) -> None:
        self.gateway.stop()
        for upstream in self.upstreams:
            upstream.stop()

    @property
    def upstreams(self) -> tuple[Upstream, Upstream, Upstream]:
        return self.jp, self.az, self.us

    def fresh(self) -> None:
        """Forget what was before; every endpoint answers again."""
        for upstream in self.upstreams:
            upstream.script = answers()
            upstream.received.clear()
        self._mark = len(self.gateway.decisions())

    def reached(self) -> int:
        """Requests that reached an endpoint since `fresh`."""
        return sum(len(upstream.received) for upstream in self.upstreams)

    def new_decisions(self) -> list[Decision]:
        return self.gateway.decisions()[self._mark :]

    def chat(
        self, model: str = "only-jp", *, key: str = "sk-dev", headers: tuple[str, ...] = (), **more: object
    ) -> Answer:
        return self.gateway.ask(request(chat(model, **more), key=key, headers=headers))


@contextmanager
def lab(settings: GatewaySettings = SETTINGS) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="sekisho-test-"))
    made = Lab(folder, settings)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
