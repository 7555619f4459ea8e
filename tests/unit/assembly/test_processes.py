"""The small parts of the supervisor: back-off, log files, words for exits, and dying with one's parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sekisho.assembly.logs import BoundedLog
from sekisho.assembly.processes import BackOff
from sekisho.runtime.children import exit_in_words


def test_back_off_doubles_to_its_limit() -> None:
    back_off = BackOff()
    delays = [back_off.after_death(lived_s=0.01) for _ in range(9)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_long_life_is_forgiven() -> None:
    back_off = BackOff()
    for _ in range(9):
        back_off.after_death(lived_s=29.9)
    assert back_off.after_death(lived_s=30.0) == 0.1
    assert back_off.after_death(lived_s=0.0) == 0.2


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (2, "exit code 2"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_exits_are_said_in_words(code: int, words: str) -> None:
    assert exit_in_words(code) == words


def test_a_log_never_grows_beyond_its_bound(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "x.log", max_bytes=1000, keep=3)
    for number in range(200):
        log.write(f"{number:049d}\n".encode())
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert all(file.stat().st_size <= 1000 for file in files)
    newest = (tmp_path / "x.log.1").read_text() + (tmp_path / "x.log").read_text()
    assert newest.endswith(f"{199:049d}\n")
    assert [int(line) for line in newest.splitlines()] == list(range(160, 200))


def test_a_start_begins_a_new_log_and_keeps_the_old_one(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = BoundedLog(tmp_path / "x.log")
        log.write(text)
        log.close()
    assert (tmp_path / "x.log").read_bytes() == b"second\n"
    assert (tmp_path / "x.log.1").read_bytes() == b"first\n"


def test_a_log_that_can_not_be_written_loses_lines_counts_them_and_recovers(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "missing" / "x.log")
    log.write(b"lost\n")
    assert log.last_words() == "lost"
    (tmp_path / "missing").mkdir()
    log.write(b"kept\n")
    log.close()
    text = (tmp_path / "missing" / "x.log").read_text()
    assert text == "[sekisho: 5 bytes of this log could not be written]\nkept\n"


def test_the_last_words_are_the_last_line_that_says_something(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "x.log")
    assert log.last_words() == ""
    log.write(b"Traceback\nValueError: no\n\n  \n")
    assert log.last_words() == "ValueError: no"
    log.close()


PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "sekisho.assembly.launch", str(os.getpid()), "wait_for_ever"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def waiting_module(tmp_path: Path) -> dict[str, str]:
    code = "import pathlib, time\npathlib.Path('started').write_text('')\ntime.sleep(60)\n"
    (tmp_path / "wait_for_ever.py").write_text(code)
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def test_a_launched_module_dies_with_its_parent(tmp_path: Path, waiting_module: dict[str, str]) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=waiting_module, cwd=tmp_path
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until((tmp_path / "started").exists)
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.communicate()
    wait_until(lambda: not Path(f"/proc/{child}").exists())


def test_a_module_whose_parent_is_gone_already_never_starts(tmp_path: Path, waiting_module: dict[str, str]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-m", "sekisho.assembly.launch", str(gone.pid), "wait_for_ever"]
    orphan = subprocess.run(command, env=waiting_module, cwd=tmp_path, timeout=10, check=False)
    assert orphan.returncode == -signal.SIGKILL
    assert not (tmp_path / "started").exists()


def wait_until(condition: object, within_s: float = 10.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
