"""`sekisho receipt verify`: in plain words, in both languages, from a file alone, and fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.cli import start
from sekisho.ledger.issue import ReceiptService
from support.ledger import NOW_S, LedgerLab, decision

RUN = [sys.executable, "-m", "sekisho.cli.start", "receipt", "verify"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("receipt")
    lab = LedgerLab(folder / "lab")
    lab.log([decision(number) for number in range(20)])
    lab.publish()
    service: ReceiptService = lab.service()
    for form in ("proof", "cose"):
        made = service.receipt(decision(7).id.hex(), None, now_ms=NOW_S * 1000, form=form)
        assert isinstance(made, bytes)
        (folder / f"r.{form}").write_bytes(made)
    (folder / "home" / "log" / "policy").mkdir(parents=True)
    (folder / "home" / "log" / "policy" / "2026.policy").write_bytes(lab.policy.encode())
    (folder / "home" / "log" / "policy" / "2027.policy").write_bytes(b"quorum none\n")
    (folder / "p.policy").write_bytes(lab.policy.encode())
    yield folder
    lab.close()


def verify(folder: Path, *arguments: str, language: str = "en") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments],
        cwd=folder,
        env=os.environ | {"SEKISHO_LANG": language},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", ["r.proof", "r.cose"])
def test_says_who_where_why_and_who_saw_it(files: Path, name: str) -> None:
    done = verify(files, name, "--policy", "p.policy")
    assert done.returncode == 0, done.stderr
    for words in (
        "This receipt holds.", "ishikari of sakura in JP", "jp-only, fresh-evidence", "ab" * 32,
        "entry 7 of 20 in sekisho.example/log/2026", "Cosigned by sekisho.example/w/", "2026-09-21",
    ):  # fmt: skip
        assert words in done.stdout
    assert done.stdout.count("Cosigned by") == 3


def test_says_it_in_japanese(files: Path) -> None:
    done = verify(files, "r.proof", "--policy", "p.policy", language="ja")
    assert "この受領証は正当です" in done.stdout
    assert "事業者 sakura" in done.stdout
    assert "全 20 件中、番号 7" in done.stdout


def test_takes_the_policy_of_the_installation_by_the_log(files: Path) -> None:
    assert verify(files, "r.proof", "--home", "home").returncode == 0


def test_tells_programs_in_json(files: Path) -> None:
    told = json.loads(verify(files, "r.proof", "--policy", "p.policy", "--json").stdout)
    assert told["receipt"]["index"] == 7
    assert told["entry"]["operator"] == "sakura"


def test_a_changed_byte_is_refused_with_a_code_and_a_next_step(files: Path) -> None:
    changed = bytearray((files / "r.proof").read_bytes())
    changed[60] ^= 1
    (files / "bad.proof").write_bytes(changed)
    done = verify(files, "bad.proof", "--policy", "p.policy")
    assert done.returncode == 2
    assert "[receipt.forged]" in done.stderr or "[receipt.malformed]" in done.stderr
    assert "next step" in done.stderr
    assert "改変または偽造" in verify(files, "bad.proof", "--policy", "p.policy", language="ja").stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nothing.proof", "--policy", "p.policy"), "receipt.unreadable"),
        (("r.proof", "--home", "empty"), "receipt.no_policy"),
        (("r.proof", "--policy", "r.proof"), "policy.malformed"),
        (("p.policy", "--policy", "p.policy"), "receipt.malformed"),
        ((".", "--policy", "p.policy"), "receipt.unreadable"),
        (("r.proof", "--policy", "home/log/policy/2027.policy"), "receipt.other_log"),
    ],
)
def test_bad_input_gets_a_code_and_never_a_traceback(files: Path, arguments: tuple[str, ...], code: str) -> None:
    done = verify(files, *arguments)
    assert done.returncode == 2
    assert f"[{code}]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("r.proof", "--policy", "p.policy"), ("--policy=p.policy", "r.cose", "--json"), ("--home=home", "r.proof")],
)
def test_the_short_way_says_what_the_command_says(files: Path, arguments: tuple[str, ...]) -> None:
    whole = [sys.executable, "-m", "sekisho.cli.main", "receipt", "verify", *arguments]
    environment = os.environ | {"SEKISHO_LANG": "en"}
    said = subprocess.run(whole, cwd=files, env=environment, capture_output=True, text=True, check=True).stdout
    assert verify(files, *arguments).stdout == said


@pytest.mark.parametrize(
    "arguments",
    [(), ("r.proof", "p.policy"), ("r.proof", "--policy"), ("r.proof", "--policy="), ("r.proof", "--jso"),
     ("--help",), ("r.proof", "--json=1"), ("--", "r.proof")],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_command(
    files: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    assert start._verified(arguments) is None


def test_needs_no_network_and_no_database(files: Path) -> None:
    """Neither is even imported: what is not there can't be asked. Nor is anything of the other commands."""
    program = (
        "import sys; from sekisho.cli.start import main\n"
        "sys.argv = ['sekisho', 'receipt', 'verify', 'r.proof', '--policy', 'p.policy']; main()\n"
        "print(sorted({'httpx', 'sqlalchemy', 'sqlite3', 'litestar', 'asyncio', 'rich', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=files, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
