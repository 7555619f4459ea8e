"""The commands, as a person runs them: in processes of their own, against a real supervisor over stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sekisho.cli.main import COMMANDS, cli

STAND_INS = Path(__file__).parents[1] / "assembly"


def sekisho(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sekisho.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"SEKISHO_LANG": "en", "COLUMNS": "160"} | environment,
    )


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """FAKE workers: they have no admin socket, so they never answer `status`."""
    home = tmp_path / "home"
    process = subprocess.Popen(
        [sys.executable, "-m", "stand_ins", "fleet", str(home), "serves", "5", str(tmp_path / "ready.json")],
        env=os.environ | {"PYTHONPATH": str(STAND_INS)},
    )
    deadline = time.monotonic() + 15
    while not (tmp_path / "ready.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield home
    process.kill()
    process.wait()


def test_help_loads_nothing_that_only_commands_need() -> None:
    """So it answers at once, on any machine."""
    program = (
        "import sys; from sekisho.cli.start import main\n"
        "sys.argv = ['sekisho', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncio', 'cryptography', 'httpx', 'litestar', 'rich', 'sqlalchemy', 'uvicorn', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("language", "words"), [("en", "One checkpoint"), ("ja", "ひとつの関所")])
def test_help_speaks_both_languages_and_names_every_command(language: str, words: str) -> None:
    output = sekisho("--help", SEKISHO_LANG=language).stdout
    assert words in output
    for name, (_, _, text) in COMMANDS.items():
        assert name in output
        assert (text.ja if language == "ja" else text.en).split()[0] in output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name


def test_status_shows_processes_and_is_not_well_without_answers(running: Path) -> None:
    result = sekisho("status", "--home", str(running))
    assert result.returncode == 1
    for name in ("control", "worker-0", "worker-1", "site-here"):
        assert name in result.stdout
    assert "worker-0 does not answer" in result.stdout


def test_status_in_json(running: Path) -> None:
    result = sekisho("status", "--json", "--home", str(running))
    found = json.loads(result.stdout)
    assert result.returncode == 1
    assert found["ok"] is False
    assert found["supervisor"]["processes"][0]["name"] == "control"


def test_reload_says_what_came_of_it(running: Path) -> None:
    good = sekisho("reload", "--home", str(running))
    assert (good.returncode, good.stdout) == (0, "The configuration was read again.\n")
    (running / "broken").touch()
    bad = sekisho("reload", "--home", str(running))
    assert bad.returncode == 2
    assert "line 3 is wrong" in bad.stderr
    assert "[reload.refused]" in bad.stderr


def test_down_waits_for_the_end(running: Path) -> None:
    pid = json.loads((running / "run" / "ready.json").read_text())["pids"]["control"]
    result = sekisho("down", "--home", str(running))
    assert (result.returncode, result.stdout) == (0, "Stopped; nothing is left running.\n")
    assert not Path(f"/proc/{pid}").exists()
    assert sekisho("down", "--home", str(running)).returncode == 2


def test_down_that_takes_too_long_says_so(running: Path) -> None:
    result = sekisho("down", "--timeout", "0", "--home", str(running))
    assert result.returncode == 2
    assert "[down.timeout]" in result.stderr


@pytest.mark.parametrize("command", [["status"], ["down"], ["reload"], ["ask", "x"], ["key", "demo", "hospital"]])
def test_without_anything_that_runs_there_is_a_next_step(command: list[str], tmp_path: Path) -> None:
    result = sekisho(*command, "--home", str(tmp_path / "none"))
    assert result.returncode == 2
    assert "nothing runs on" in result.stderr
    assert "[up.not_running]" in result.stderr
    assert "sekisho up" in result.stderr
    japanese = sekisho(*command, "--home", str(tmp_path / "none"), SEKISHO_LANG="ja")
    assert "ここでは Sekisho は動いていません" in japanese.stderr
    assert not (tmp_path / "none").exists()


def test_a_demonstration_key_is_printed_alone(running: Path) -> None:
    assert sekisho("key", "demo", "hospital", "--home", str(running)).stdout == "sk-not-a-secret\n"
    nobody = sekisho("key", "demo", "nobody", "--home", str(running))
    assert nobody.returncode == 2
    assert "hospital" in nobody.stderr


def test_an_unknown_command_is_refused() -> None:
    assert sekisho("open-sesame").returncode == 2
