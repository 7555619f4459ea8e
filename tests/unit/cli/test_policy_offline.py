"""`sekisho policy check|test|diff|explain` on files alone: nothing runs, nothing is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sekisho.assembly.config import ConfigRefused, load_config
from sekisho.cli.policy import policy
from sekisho.residency.policy.bundle import default_bundle

RULE = """
@id("own-log-retention")
@reason_en("Site {site} keeps its logs for {log_retention_days} days. A longer retention would change this.")
@reason_ja("拠点 {site} のログ保存期間は {log_retention_days} 日です。保存期間が延びれば許可されます。")
forbid (principal, action in Action::"serve-guarded", resource)
unless { resource.log_retention_days >= 90 };
"""
CASE = """
[[case]]
name = "two months"
class = "confidential"
endpoint = { log_retention_days = 60 }
allowed = false
rules = ["own-log-retention"]
"""
CONFIG = """
[[operator]]
id = "sakura"
country = "JP"
law = "JP"
[[site]]
id = "ishikari"
operator = "sakura"
country = "JP"
[[endpoint]]
id = "ishikari-1"
site = "ishikari"
url = "http://127.0.0.1:9103/v1"
models = ["m"]
[[tenant]]
id = "hospital"
"""


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_LANG", "en")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "policies" / "tests").mkdir(parents=True)
    (tmp_path / "policies" / "9-own.cedar").write_text(RULE, encoding="utf-8")
    (tmp_path / "policies" / "tests" / "own.toml").write_text(CASE, encoding="utf-8")
    (tmp_path / "f.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path / "policies"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(policy, [str(argument) for argument in arguments])


def test_the_default_files_are_fine_and_pass_their_tests() -> None:
    assert "no mistakes" in run("check").stdout
    tested = run("test")
    assert (tested.exit_code, tested.stdout) == (0, "37 of 37 cases passed\n")


def test_own_files_are_checked_and_tested(own: Path) -> None:
    assert run("check", own).exit_code == 0
    assert run("test", own).stdout == "1 of 1 cases passed\n"
    (own / "tests" / "own.toml").write_text(CASE.replace("60", "120"), encoding="utf-8")
    failed = run("test", own)
    assert failed.exit_code == 1
    assert "own.toml:2: two months: expected denied, got allowed" in failed.stderr


def test_a_mistake_is_a_line_with_its_place(own: Path) -> None:
    (own / "9-own.cedar").write_text(RULE.replace("log_retention_days >=", "log_retention >="), encoding="utf-8")
    checked = run("check", own)
    assert checked.exit_code == 1
    assert checked.stderr.startswith("9-own.cedar:6:19: attribute `log_retention`")


def test_a_policy_that_lets_guarded_work_out_is_named(own: Path) -> None:
    text = {file.name: file.text for file in default_bundle().files}["2-confidential.cedar"]
    wide = text.replace("resource.site_country == context.jurisdiction", 'resource.site_country != "CN"')
    (own / "2-confidential.cedar").write_text(wide, encoding="utf-8")
    checked = run("check", own)
    assert checked.exit_code == 0
    assert "confidential work may leave the jurisdiction" in checked.stderr
    widened = run("diff", own, "--config", own.parent / "f.toml")
    assert widened.exit_code == 1
    assert "another person must approve" in widened.stdout


def test_the_difference_names_tenants_endpoints_and_reasons(own: Path) -> None:
    told = run("diff", own, "--config", own.parent / "f.toml")
    assert told.exit_code == 0
    assert "+ rule 9-own.cedar: own-log-retention" in told.stdout
    assert "confidential · hospital\n  loses ishikari-1 (0 left)" in told.stdout
    assert "keeps its logs for 0 days" in told.stdout


def test_an_explanation_has_both_languages_and_the_source(own: Path) -> None:
    config = own.parent / "f.toml"
    config.write_text('[residency]\npolicies = "policies"\n' + CONFIG, encoding="utf-8")
    asked = ("explain", "--tenant", "hospital", "--model", "m", "--config", config, "--class")
    told = run(*asked, "confidential")
    assert told.exit_code == 1
    assert "own-log-retention (9-own.cedar:5)" in told.stdout
    assert "拠点 ishikari" in told.stdout
    assert "Site ishikari" in told.stdout
    config.write_text(CONFIG, encoding="utf-8")
    allowed = run(*asked, "restricted")
    assert allowed.exit_code == 0
    assert "site-in-jurisdiction (2-confidential.cedar:5; source: Sekisho" in allowed.stdout


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (CONFIG + 'profiles = ["gov-clout"]\n', "there is no policy profile `gov-clout` — did you mean `gov-cloud`?"),
        ('[residency]\npolicies = "none"\n' + CONFIG, "there is no policy directory"),
    ],
)
def test_a_configuration_with_policies_that_are_not_there_is_refused_at_its_line(
    own: Path, text: str, what: str
) -> None:
    (own.parent / "f.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigRefused) as refused:
        load_config(own.parent / "f.toml")
    assert what in str(refused.value)


def test_a_configuration_whose_policy_files_have_mistakes_is_refused(own: Path) -> None:
    (own / "9-own.cedar").write_text("permit", encoding="utf-8")
    (own.parent / "f.toml").write_text('[residency]\npolicies = "policies"\n' + CONFIG, encoding="utf-8")
    with pytest.raises(ConfigRefused, match=r"policy file 9-own\.cedar:1:1"):
        load_config(own.parent / "f.toml")
