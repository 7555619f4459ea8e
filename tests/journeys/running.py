"""A federation that runs for a test: `sekisho up` on free ports, with the real model behind every site."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import httpx

START_WITHIN_S = 120.0
_PORT = re.compile(r"http://127\.0\.0\.1:\d+/")


def until(condition: Callable[[], object], *, within_s: float = 60.0, what: str = "it") -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:g} s"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now; all are held until the last one is known, so no two are the same."""
    held = [socket.socket() for _ in range(count)]
    for item in held:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in held]
    for item in held:
        item.close()
    return ports


def default_config(*, sites: tuple[str, ...] = (), gateway: str = "") -> str:
    """The built-in default with free ports. `sites` keeps only these (the others' models are never loaded);
    `gateway` are more lines of [gateway]."""
    text = resources.files("sekisho.assembly").joinpath("default.toml").read_text("utf-8")
    if sites:
        blocks = re.split(r"(?m)^(?=\[)", text)
        kept: list[str] = []
        below = True  # whether a table inside a table, `[site.declaration]`, is one of a site that stays
        for block in blocks:
            if not re.match(r"\[\[?\w+\.", block):
                below = _kept(block, sites)
            if below:
                kept.append(block)
        text = "".join(kept)
    ports = iter(free_ports(len(_PORT.findall(text))))
    text = _PORT.sub(lambda _: f"http://127.0.0.1:{next(ports)}/", text)
    head = f'[gateway]\nlisten = "127.0.0.1:0"\nworkers = 2\n{gateway}\n[control]\nlisten = "127.0.0.1:0"\n\n'
    return head + text


def _kept(block: str, sites: tuple[str, ...]) -> bool:
    if block.startswith("[[site]]"):
        return any(f'id = "{site}"' in block for site in sites)
    if block.startswith(("[[endpoint]]", "[[pool]]")):
        return any(f'site = "{site}"' in block for site in sites)
    return True


class Federation:
    """One `sekisho up`. Whoever starts it stops it."""

    def __init__(self, directory: Path, config: str) -> None:
        self.home = directory / "home"
        self.config = directory / "federation.toml"
        self.config.write_text(config)
        self.ready_file = directory / "ready.json"
        self.output = directory / "up.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*sekisho(), "up", "--home", self.home, "--config", self.config, "--ready-file", self.ready_file],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )

    def wait_until_ready(self) -> dict[str, Any]:
        until(
            lambda: self.ready_file.exists() or self.process.poll() is not None,
            within_s=START_WITHIN_S,
            what="the start",
        )
        assert self.process.poll() is None, self.output.read_text()
        return self.ready()

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def row(self, name: str) -> dict[str, Any]:
        """One line of the supervisor's process table."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.home / "run" / "supervisor.sock"))
            table = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))
        return next(row for row in table["processes"] if row["name"] == name)

    def pids(self) -> list[int]:
        pids = self.ready()["pids"]
        return [pids["control"], *pids["workers"], *pids["sites"].values()]

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command of the CLI on this home."""
        return subprocess.run(
            [*sekisho(), *arguments, "--home", self.home],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment() | more,
        )

    def client(self, tenant: str) -> httpx.Client:
        ready = self.ready()
        headers = {"Authorization": f"Bearer {ready['api_keys'][tenant]}"}
        return httpx.Client(base_url=ready["gateway_url"], headers=headers, timeout=120, trust_env=False)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def sekisho() -> list[str]:
    return [sys.executable, "-m", "sekisho.cli.main"]


def environment() -> dict[str, str]:
    return os.environ | {"SEKISHO_LANG": "en", "COLUMNS": "120"}


def chat(words: str = "What is the capital of Japan?", *, max_tokens: int = 12, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": words}
    return {"model": "smollm2-135m", "messages": [message], "max_tokens": max_tokens, **more}


def alive(pid: int) -> bool:
    """Zombies included: they are something that was left."""
    return Path(f"/proc/{pid}").exists()
