"""`make up` in a terminal: arguments get through, the panel appears, and Ctrl-C drains through make."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from running import alive, chat, default_config, environment, until

pytestmark = [pytest.mark.journey, pytest.mark.model]

REPOSITORY = Path(__file__).parents[2]


class Terminal:
    """A program in a pseudo-terminal of its own; `shown` grows with what it prints."""

    def __init__(self, *command: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(REPOSITORY)
            # as a shell would start it
            os.execvpe(command[0], command, environment() | {"TERM": "xterm", "COLUMNS": "120"})  # noqa: S606
        self.shown = ""
        self.status: int | None = None
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while not self._closing.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            try:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # pty(7): EIO when the last program has closed its side
                break
        os.close(self._master)

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def close_window(self) -> None:
        self._closing.set()
        self._reader.join()

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def kill(self) -> None:
        if not self.ended():
            os.killpg(self.pid, 9)
            os.waitpid(self.pid, 0)
        self.close_window()


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(*command: str) -> Terminal:
        opened.append(Terminal(*command))
        return opened[-1]

    yield open_
    for item in opened:
        item.kill()


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_ctrl_c_drains_through_make(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    config, ready_file, home = tmp_path / "f.toml", tmp_path / "ready.json", tmp_path / "home"
    config.write_text(default_config(sites=("sakura-ishikari",)))
    arguments = f"--home {home} --config {config} --ready-file {ready_file}"
    # -o: what is installed is tried, nothing is installed
    make = terminal("make", "-o", ".venv/.native", "up", f"BIN={Path(sys.executable).parent}", f"ARGS={arguments}")
    until(lambda: ready_file.exists() or make.ended(), within_s=90, what="the start")
    until(lambda: "The checkpoint is open" in make.shown or make.ended(), within_s=10, what="the panel")
    panel = plain(make.shown)
    assert "Gateway" in panel
    assert "secrets/admin_token" in panel
    assert "Ctrl-C stops it" in panel

    ready = json.loads(ready_file.read_text())
    pids = [ready["pids"]["supervisor"], ready["pids"]["control"], *ready["pids"]["workers"]]
    lines: list[str] = []

    def read() -> None:
        headers = {"Authorization": f"Bearer {ready['api_keys']['hospital']}"}
        body = chat("Tell a long story.", max_tokens=400, stream=True, ignore_eos=True)
        url = f"{ready['gateway_url']}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60, trust_env=False) as answer:
            for line in answer.iter_lines():
                lines.append(line)  # one by one: the test looks at them meanwhile

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: bool(lines), within_s=20, what="the first line of the answer")
    assert reader.is_alive()
    make.press(b"\x03")
    until(make.ended, within_s=40, what="the end")
    reader.join(5)
    assert [line for line in lines if line][-1] == "data: [DONE]"
    assert "Draining" in make.shown
    assert "nothing is left running" in make.shown
    assert not [pid for pid in pids if alive(pid)]


def test_closing_the_window_drains(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    config, ready_file, home = tmp_path / "f.toml", tmp_path / "ready.json", tmp_path / "home"
    config.write_text(default_config(sites=("sakura-ishikari",)))
    command = ("-m", "sekisho.cli.main", "up", "--home", str(home), "--config", str(config))
    window = terminal(sys.executable, *command, "--ready-file", str(ready_file))
    until(lambda: ready_file.exists() or window.ended(), within_s=90, what="the start")
    window.close_window()
    until(window.ended, within_s=40, what="the end")
    assert window.status == 0
    assert "stopped cut=nobody" in (home / "logs" / "supervisor.log").read_text()
