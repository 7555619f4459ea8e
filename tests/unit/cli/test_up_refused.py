"""What `sekisho up` refuses before it starts anything: fact, code, next step, exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
[gateway]
listen = "{listen}"
workers = 1
[control]
listen = "127.0.0.1:0"
[[operator]]
id = "o"
country = "JP"
law = "JP"
[[site]]
id = "s"
operator = "o"
country = "JP"
[[endpoint]]
id = "e"
site = "s"
url = "http://127.0.0.1:9/v1"
models = ["m"]
[[tenant]]
id = "t"
floor = "public"
"""


def up(*arguments: object, language: str = "en") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sekisho.cli.main", "up", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"SEKISHO_LANG": language},
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(CONFIG.format(listen="127.0.0.1:0"))
    return path


def assert_refused(result: subprocess.CompletedProcess[str], code: str, *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert f"[{code}]" in result.stderr
    assert "next step: " in result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        path = tmp_path / "federation.toml"
        path.write_text(CONFIG.format(listen=address))
        assert_refused(up("--home", tmp_path / "h", "--config", path), "listen.in_use", address, "ss -ltnp")


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    result = up("--home", tmp_path / "h", "--config", tmp_path / "no.toml")
    assert_refused(result, "config.refused", "no.toml")
    assert not (tmp_path / "h").exists()


def test_a_configuration_with_a_mistake_names_its_line(tmp_path: Path, config: Path) -> None:
    config.write_text(config.read_text() + "\n[[alias]]\nnam = 'x'\n")
    result = up("--home", tmp_path / "h", "--config", config)
    assert_refused(result, "config.refused", "federation.toml:")


def test_a_home_that_is_a_file(tmp_path: Path, config: Path) -> None:
    (tmp_path / "h").write_text("")
    result = up("--home", tmp_path / "h" / "inside", "--config", config)
    assert_refused(result, "home.unusable", "--home")


def test_a_ready_file_that_can_not_be_written(tmp_path: Path, config: Path) -> None:
    result = up("--home", tmp_path / "h", "--config", config, "--ready-file", tmp_path / "none" / "ready.json")
    assert_refused(result, "ready_file.not_writable", "ready.json")


def test_a_disk_without_room_for_the_journals(tmp_path: Path, config: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        result = up("--home", small / "h", "--config", config)
    finally:
        subprocess.run(["umount", small], check=True)
    assert_refused(result, "home.disk_full", "MiB")


def test_a_damaged_secret(tmp_path: Path, config: Path) -> None:
    secrets = tmp_path / "h" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "control.key").write_text("not a key")
    assert_refused(up("--home", tmp_path / "h", "--config", config), "home.secret_damaged", "control.key")


def test_refusals_in_japanese_say_the_code_and_what_it_means(tmp_path: Path, config: Path) -> None:
    (tmp_path / "h").write_text("")
    result = up("--home", tmp_path / "h", "--config", config, language="ja")
    assert result.returncode == 2
    assert "ホームディレクトリを使えません。" in result.stderr
    assert "[home.unusable]" in result.stderr
    assert "次の手順: " in result.stderr
