"""`sekisho key new|hash` and `sekisho config check|schema`: nothing runs, nothing is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sekisho.assembly.config import load_config
from sekisho.cli.config import config
from sekisho.cli.key import KeyRefused, key
from sekisho.federation.keys import hash_key, key_fault, new_key


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_LANG", "en")


def hashed(standard_input: str) -> Result:
    return CliRunner().invoke(key, ["hash"], input=standard_input)


def test_a_new_key_comes_with_its_own_hash() -> None:
    lines = CliRunner().invoke(key, ["new"]).stdout.split()
    assert lines[::2] == ["key", "hash"]
    assert key_fault(lines[1]) is None
    assert lines[3] == hash_key(lines[1])


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_hash_of_a_key_is_the_same_however_its_line_ends(end: str) -> None:
    made = new_key()
    assert hashed(made + end).stdout == hash_key(made) + "\n"


def test_a_key_as_an_argument_is_no_usage() -> None:
    assert CliRunner().invoke(key, ["hash", new_key()]).exit_code == 2


@pytest.mark.parametrize("text", ["", "\n", "short\n", "with spaces in the middle of it\n"])
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    error = hashed(text).exception
    assert isinstance(error, KeyRefused)
    assert error.hint
    assert not text.strip() or text.strip() not in str(error)


def test_what_key_hash_prints_is_what_a_configuration_takes(tmp_path: Path) -> None:
    made = new_key()
    file = tmp_path / "f.toml"
    file.write_text(f'[[tenant]]\nid = "t"\nkeys = ["{hashed(made).stdout.strip()}"]\n')
    found = load_config(file)
    assert "sha256:" + found.config.federation.keys[0].sha256 == hash_key(made)
    assert not any("plain" in warning.what for warning in found.warnings)


def test_check_of_the_built_in_default_is_fine() -> None:
    done = CliRunner().invoke(config, ["check"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "default.toml is fine: 5 sites, 5 endpoints, 3 tenants, 0 keys.\n"


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "is fine: 0 sites, 0 endpoints, 1 tenant, 1 key.\n"),
        ("ja", "に誤りはありません（拠点 0、エンドポイント 0、テナント 1、キー 1）。\n"),
    ],
)
def test_check_counts_in_both_languages(tmp_path: Path, language: str, words: str) -> None:
    file = tmp_path / "f.toml"
    file.write_text(f'[[tenant]]\nid = "t"\nkeys = ["{hashed(new_key()).stdout.strip()}"]\n')
    done = CliRunner().invoke(config, ["check", str(file)], env={"SEKISHO_LANG": language})
    assert done.stdout.endswith(words)


def test_check_prints_each_mistake_as_a_line_that_editors_jump_to(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("[gateway]\nlisten = 1\n\nworkers = -1\n")
    done = CliRunner().invoke(config, ["check", str(file)])
    assert done.exit_code == 1
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == [f"{file}:2:", f"{file}:4:"]
    assert done.stdout == ""


def test_check_says_warnings_and_still_succeeds(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    plain = new_key()
    file.write_text(f'[[tenant]]\nid = "t"\nkeys = ["{plain}"]\n')
    done = CliRunner().invoke(config, ["check", str(file)])
    assert done.exit_code == 0
    assert f"warning: {file}:3: a key of tenant `t` stands here in plain text" in done.stderr
    assert plain not in done.output


def test_the_schema_is_json() -> None:
    printed = json.loads(CliRunner().invoke(config, ["schema"]).stdout)
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "RawTenant" in printed["$defs"]
