"""The documents and the code say the same: nothing undocumented, nothing said that is not there, no dead link."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest

from sekisho.cli import texts
from sekisho.console import metrics as console_metrics
from sekisho.gateway.metrics import Metrics
from sekisho.gateway.refusals import CATALOGUE
from sekisho.ledger.model import Attempt, Decision, Dispatch, Outcome
from sekisho.ledger.witness import http as witness_http
from sekisho.residency import decide, routes
from sekisho.residency.policy.bundle import default_bundle
from sekisho.residency.policy.read import read_rules
from sekisho.runtime import problems

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "sekisho"
REFERENCE = DOCS / "reference"


def load_make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference_make", REFERENCE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return load_make()


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def first_cells(text: str) -> set[str]:
    """What stands in backticks in the first cell of each table row."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def block(text: str, name: str) -> str:
    return text.partition(f"<!-- make:{name} -->")[2].partition(f"<!-- /make:{name} -->")[0]


def source_text(*rooms: str) -> str:
    return "\n".join(
        path.read_text(encoding="utf-8")
        for room in (rooms or ("",))
        for path in sorted((SOURCE / room).rglob("*.py"))
    )


def test_generated_pages_are_up_to_date(make: ModuleType) -> None:
    assert make.stale() == [], "run `python docs/reference/make.py`"


# -- settings


def test_every_setting_has_a_row_and_says_what_it_means(make: ModuleType) -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+?) \| (.+) \| (.+) \|$", page("configuration.md"), re.MULTILINE)
    assert len(rows) == len(make.setting_names())
    assert [name for name, _, kind, says in rows if not kind.strip() or not says.strip()] == []


# -- codes

# Codes are written in these ways only; a test below fails when one is written otherwise in the catalogue.
_CODE = re.compile(r'\bcode\s*=\s*"([a-z_]+(?:\.[a-z_]+)?)"')
_RESULT = re.compile(r'"((?:client|hedge|upstream)\.[a-z_]+)"')


def codes_in_source() -> set[str]:
    # `internal` is the one code without a dot; `code="…"` of a Prometheus label has a brace
    return set(_CODE.findall(source_text())) | set(problems._CODES.values()) | set(texts.CODES)


def test_every_code_is_documented_and_every_documented_code_exists(make: ModuleType) -> None:
    text = page("errors.md")
    in_records = {code for code in _RESULT.findall(source_text("gateway")) if code not in CATALOGUE}
    known = codes_in_source() | set(CATALOGUE) | in_records | {"ok"}
    documented = first_cells(block(text, "refusals") + block(text, "faults") + block(text, "records"))
    assert sorted(known - documented) == [], (
        "undocumented: add it to FAULTS or RECORD_CODES in docs/reference/make.py"
    )
    assert sorted(documented - known) == [], "documented, but no code says it any more"


def test_what_is_a_fault_has_a_way_out(make: ModuleType) -> None:
    assert [code for code, (says, way_out) in make.FAULTS.items() if not says or not way_out] == []
    assert sorted(set(texts.CODES) - set(make.FAULTS)) == []


def test_results_of_attempts_are_documented(make: ModuleType) -> None:
    found = set(_RESULT.findall(source_text("gateway")))
    assert sorted(found - set(make.RECORD_CODES) - set(CATALOGUE)) == []


def test_every_rule_is_documented() -> None:
    rules = {rule for entry in CATALOGUE.values() for rule in entry.rules}
    rules |= {
        decide.ANY_SITE,
        decide.SITE_IN_JURISDICTION,
        decide.OPERATOR_LAW_IN_JURISDICTION,
        decide.EVIDENCE_FRESH,
    }
    rules |= {routes.ENDPOINT_SUSPENDED}
    rules |= {rule.id for rule in read_rules(default_bundle()) if not rule.profile}
    assert first_cells(page("residency-rules.md")) - {"public", "internal", "confidential", "restricted"} == rules


# -- commands


def test_every_command_and_option_is_documented(make: ModuleType) -> None:
    text = page("cli.md")
    for name, command in make.commands():
        assert f"### {name}\n" in text
        for parameter in command.params:
            assert all(option in text for option in (*parameter.opts, *parameter.secondary_opts) if option[0] == "-")


# -- metrics and the journal


def test_every_metric_is_documented_and_every_documented_metric_exists(make: ModuleType) -> None:
    metrics = Metrics()
    metrics.observe(
        Decision(id="0" * 32, at_ms=0, gateway="g", outcome="completed", status=200, tenant="t", data_class="public",
                 site="s", first_byte_us=1, queue_us=1)
    )  # fmt: skip
    names = {series.split("{")[0] for series in (*metrics.counters(), *metrics.histograms())}
    names |= {f"sekisho_worker_{field}" for field in (*console_metrics._GAUGES, "journal_ok", "draining")}
    names |= {f"sekisho_endpoint_{field}" for field in console_metrics._ENDPOINT_GAUGES}
    text = (SOURCE / "console" / "metrics.py").read_text(encoding="utf-8")
    names |= set(re.findall(r'Gauge\w+\(\s*"(\w+)"', text))
    names |= {f"{name}_total" for name in re.findall(r'Counter\w+\(\s*"(\w+)"', text)}
    names |= set(witness_http.METRICS)
    names |= set(witness_http.METRICS)
    assert set(make.METRICS) == names
    assert first_cells(page("metrics.md")) == names


def test_every_outcome_and_field_of_a_record_is_documented(make: ModuleType) -> None:
    text = page("journal.md")
    assert first_cells(block(text, "outcomes")) == set(get_args(Outcome)) == set(make.OUTCOMES)
    for kind, name in ((Decision, "decision"), (Dispatch, "dispatch"), (Attempt, "attempt")):
        record: Any = kind
        assert first_cells(block(text, name)) == {field.name for field in msgspec.structs.fields(record)}
    every = {field.name for kind in (Decision, Dispatch, Attempt) for field in msgspec.structs.fields(kind)}
    assert set(make.FIELDS) == every


def test_every_header_of_ours_is_documented() -> None:
    found = {name.lower() for name in re.findall(r"(?i)x-sekisho-[a-z]+(?:-[a-z]+)*", source_text())}
    assert found
    assert sorted(name for name in found if name not in page("headers.md").lower()) == []


# -- pages

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<(?:img|source)[^>]+(?:src|srcset)=\"([^\"]+)\"|<a href=\"([^\"]+)\"")


def pages() -> list[Path]:
    found = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *SOURCE.rglob("README.md")]
    return sorted(path for path in found if path.name not in ("ARCHITECTURE.md",))


def heading_anchors(text: str) -> set[str]:
    """Anchors as GitHub makes them."""
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        anchors.add(plain.replace(" ", "-"))
    return anchors


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_resolves(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for groups in _LINK.findall(text):
        target = next(filter(None, groups))
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        assert where.exists(), f"{target} leads nowhere"
        if anchor and where.suffix == ".md":
            assert anchor in heading_anchors(where.read_text(encoding="utf-8")), f"{target} has no such heading"


def test_what_exists_in_one_language_exists_in_the_other() -> None:
    for folder in ("tutorial", "how-to", "explanation"):
        names = {path.name for path in (DOCS / folder).glob("*.md")}
        assert names
        for name in names:
            stem, language, _ = name.rsplit(".", 2)
            assert f"{stem}.{'ja' if language == 'en' else 'en'}.md" in names, f"{folder}/{name} stands alone"
    assert (ROOT / "README.md").exists()
    assert (ROOT / "README.ja.md").exists()


def test_a_page_and_its_translation_show_the_same_commands() -> None:
    """Words differ; what is typed does not."""
    for english in (*DOCS.rglob("*.en.md"), ROOT / "README.md"):
        japanese = english.with_name(english.name.replace(".en.md", ".ja.md").replace("README.md", "README.ja.md"))
        assert commands_in(english) == commands_in(japanese), english.name


def commands_in(path: Path) -> list[str]:
    shells = re.findall(r"```(?:sh|toml|python)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split(" #")[0].rstrip() for shell in shells for line in shell.splitlines()]
    return [line for line in lines if line and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("index", ["README.md", "README.ja.md", "adr/README.md"])
def test_the_index_names_every_page(index: str) -> None:
    path = DOCS / index
    text = path.read_text(encoding="utf-8")
    other = "ja" if index == "README.md" else "en"
    for found in sorted(path.parent.rglob("*.md")):
        relative = str(found.relative_to(path.parent))
        if found.name.startswith("README") or relative.startswith("adr/") or relative.endswith(f".{other}.md"):
            continue
        assert f"({relative})" in text, f"{index} does not name {relative}"
