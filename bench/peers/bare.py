"""The floor of this language: `bench.load.bare_proxy`, which passes bytes on and does nothing else."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path

from bench.peers.base import Peer
from bench.processes import PROXY_CORE, Process, wait_for


class Bare(Peer):
    name = "bare"
    what_is_on = "uvloop + httptools, pure Python: passes bytes on; no keys, no JSON, no record (a reference)"

    def start(self, port: int, upstream: int) -> None:
        self.port = port
        command = [sys.executable, "-m", "bench.load.bare_proxy", "--port", str(port)]
        command += ["--upstream", str(upstream)]
        self.process = Process(command, core=PROXY_CORE, log=self.folder / "bare.log", cwd=Path(__file__).parents[2])
        wait_for(port, seconds=self.start_limit_s, process=self.process)

    @classmethod
    def version(cls) -> str:
        return f"Python {platform.python_version()}, uvloop {version('uvloop')}"
