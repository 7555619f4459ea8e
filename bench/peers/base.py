"""What the bench asks of a peer."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from bench.processes import Process

BENCH_HOME = Path(".bench")


class Peer(ABC):
    """One proxy in front of one upstream, on one core. An instance is started once."""

    name: ClassVar[str]
    authenticates: ClassVar[bool] = False  # a wrong key is refused…
    refuses_with: ClassVar[frozenset[int]] = frozenset({401})  # …like this
    routes_by_model: ClassVar[bool] = False  # an unknown model is refused
    what_is_on: ClassVar[str]  # for the report
    start_limit_s: ClassVar[float] = 30.0
    slow: ClassVar[bool] = False  # gets a sixth of the streams, or a round would take minutes

    def __init__(self, *, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.port = 0
        self.process: Process | None = None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    @abstractmethod
    def start(self, port: int, upstream: int) -> None:
        """Listens at 127.0.0.1:`port` and forwards to 127.0.0.1:`upstream`; Failed when it can't."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """As the peer itself tells it."""

    def pids(self) -> tuple[int, ...]:
        return self.process.pids() if self.process else ()

    def stop(self) -> None:
        if self.process:
            self.process.stop()
