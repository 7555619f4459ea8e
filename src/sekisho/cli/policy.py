"""`sekisho policy check|test|diff|explain|replay`: policies are looked at. Changing them is in `policy_change.py`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import msgspec

from sekisho.assembly.config import load_config
from sekisho.cli import policy_texts as said
from sekisho.cli import texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.console.policy_api import PolicyInForce, rules_of
from sekisho.federation.errors import UnknownName
from sekisho.kernel.classes import LABELS, DataClass
from sekisho.residency.model import Allowed
from sekisho.residency.policy.bundle import Bundle, default_cases, load_bundle
from sekisho.residency.policy.cases import Result, run_cases
from sekisho.residency.policy.change import Difference, Standing, difference
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.reach import Widening, leaving
from sekisho.residency.policy.read import examine
from sekisho.residency.policy.source import Replay
from sekisho.residency.why import Explanation, explain
from sekisho.runtime.toml import ConfigRefused, Document, parse_toml, read_toml

Directory = click.Path(path_type=Path)
_JURISDICTION = "JP"


@click.group(help=str(said.POLICY))
def policy() -> None:
    """The help is `POLICY`."""


def files_of(bundle: Bundle) -> dict[str, str]:
    return {file.name: file.text for file in bundle.files}


@policy.command(help=str(said.CHECK))
@click.argument("directory", metavar="[DIR]", required=False, type=Directory)
def check(directory: Path | None) -> None:
    """The help is `CHECK`. Exits with 1 when there is a mistake."""
    bundle = load_bundle(directory)
    rules, mistakes = examine(bundle)
    for mistake in mistakes:
        # Plain lines, so that editors and CI jump to them.
        click.echo(str(mistake), err=True)
    if mistakes:
        raise SystemExit(1)
    for example in leaving(CedarPolicy(bundle, jurisdiction=_JURISDICTION)):
        click.echo(said.LEAVES(data_class=example.data_class, example=_example(example)), err=True)
    click.echo(said.FINE(count=len(rules), files=len(bundle.files), profiles=len(bundle.profiles)))


@policy.command("test", help=str(said.TEST))
@click.argument("directory", metavar="[DIR]", required=False, type=Directory)
def test(directory: Path | None) -> None:
    """The help is `TEST`. Exits with 1 when a case fails."""
    bundle = load_bundle(directory)
    policies: dict[str, CedarPolicy] = {}
    results: list[Result] = []
    try:
        for document in _documents(directory):
            results += run_cases(
                document, policies, lambda jurisdiction: CedarPolicy(bundle, jurisdiction=jurisdiction)
            )
    except ConfigRefused as refused:
        click.echo(str(refused), err=True)
        raise SystemExit(1) from None
    failed = [result for result in results if result.faults]
    for result in failed:
        for fault in result.faults:
            click.echo(f"{result.file}:{result.line}: {result.name}: {fault}", err=True)
    click.echo(said.PASSED(passed=len(results) - len(failed), all=len(results)))
    sys.exit(1 if failed else 0)


def _documents(directory: Path | None) -> list[Document]:
    own = [] if directory is None else sorted((directory / "tests").glob("*.toml"))
    if own:
        return [read_toml(path) for path in own]
    return [parse_toml(text, file=name) for name, text in sorted(default_cases().items())]


@policy.command(help=str(said.DIFF))
@click.argument("directory", metavar="DIR", type=Directory)
@click.option("--config", type=Directory, help=str(said.OPTION_CONFIG))
@json_option
@home_option
def diff(*, directory: Path, config: Path | None, as_json: bool, root: Path) -> None:
    """The help is `DIFF`. Exits with 1 when guarded work could reach more."""
    bundle = load_bundle(directory)
    if config is not None:
        old, standing = _offline(config)
        new = CedarPolicy(bundle, jurisdiction=standing.jurisdiction)
        told = difference(old, new, standing, now=time.time())
    else:
        body = {"files": files_of(bundle)}
        told = call(root, "POST", "/api/v1/policies/examine", body=body, answer=Difference)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=1).decode())
    else:
        show_difference(told)
    sys.exit(1 if told.widens else 0)


def _offline(config: Path) -> tuple[CedarPolicy, Standing]:
    """A configuration without anything that runs: declarations only, no evidence."""
    found = load_config(config).config
    standing = Standing(
        federation=found.federation,
        jurisdiction=found.residency.jurisdiction,
        evidence_validity_s=found.residency.evidence_validity_s,
    )
    return CedarPolicy(load_bundle(found.residency.policies), jurisdiction=standing.jurisdiction), standing


def show_difference(told: Difference) -> None:
    """Print it for a person."""
    for rule in told.rules_removed:
        click.echo(said.RULE_REMOVED(rule=rule))
    for rule in told.rules_added:
        click.echo(said.RULE_ADDED(rule=rule))
    if not told.changes:
        click.echo(said.NO_CHANGE)
    for change in told.changes:
        names = ", ".join(change.tenants[:10]) + (f", … ({len(change.tenants)})" if len(change.tenants) > 10 else "")
        click.echo(said.CHANGED(data_class=change.data_class, tenants=names))
        if change.lost:
            click.echo(said.LOSES(endpoints=", ".join(change.lost), left=change.left))
        if change.gained:
            click.echo(said.GAINS(endpoints=", ".join(change.gained)))
        for reason in change.reasons:
            click.echo(f"    {reason.rule}: {reason.ja if texts.language() == 'ja' else reason.en}")
    click.echo(said.WIDENS if told.widens else said.NARROWS)
    for example in told.widened:
        kind = "".join(f" · {name}" for name in (*example.profiles, example.tenant) if name)
        click.echo(said.EXAMPLE(data_class=example.data_class, kind=kind, example=_example(example)))


def _example(example: Widening) -> str:
    if not example.example:
        return str(said.NOT_PROVEN)
    return ", ".join(f"{path} = {value or '–'}" for path, value in example.example.items())


@policy.command("explain", help=str(said.EXPLAIN))
@click.option("--tenant", required=True, help=str(texts.OPTION_TENANT))
@click.option("--class", "data_class", required=True, type=click.Choice(LABELS), help=str(texts.OPTION_CLASS_WHY))
@click.option("--model", required=True, help=str(texts.OPTION_MODEL_WHY))
@click.option("--config", type=Directory, help=str(said.OPTION_CONFIG))
@home_option
def explain_(*, tenant: str, data_class: str, model: str, config: Path | None, root: Path) -> None:
    """The help is `EXPLAIN`. Exit code 0 when somebody may serve, 1 when nobody may."""
    if config is not None:
        decided, standing = _offline(config)
        now = time.time()
        told = explain(
            standing.federation,
            decided,
            tenant=tenant,
            data_class=DataClass[data_class.upper()],
            model=model,
            evidence={},
            issued_at=now,
            now=now,
            evidence_validity_s=standing.evidence_validity_s,
        )
        if told is None:
            raise UnknownName(f"there is no tenant {tenant!r} in {config}", hint="look at its [[tenant]]s")
        rules = rules_of(decided)
    else:
        query = {"tenant": tenant, "class": data_class, "model": model}
        told = call(root, "GET", "/api/v1/why", query=query, answer=Explanation)
        rules = call(root, "GET", "/api/v1/policies", answer=PolicyInForce).rules
    # A rule that permits and forbids stands there twice, together: the first place is enough.
    show_explanation(told, {rule.id: (f"{rule.file}:{rule.line}", rule.source) for rule in reversed(rules)})
    sys.exit(1 if told.code else 0)


def show_explanation(told: Explanation, rules: dict[str, tuple[str, str]]) -> None:
    """Endpoint by endpoint, every reason in both languages, with where its rule stands and what it comes from."""
    for row in told.endpoints:
        allowed = isinstance(row.verdict, Allowed)
        mark = str(texts.WHY_ALLOWED if allowed else texts.WHY_DENIED)
        click.echo(f"{row.endpoint} · {row.site} · {row.operator} · {row.country}: {mark}")
        if isinstance(row.verdict, Allowed):
            for name in row.verdict.rules:
                click.echo(f"  {name}{_origin(name, rules)}")
        for reason in row.reasons:
            click.echo(f"  {reason.rule}{_origin(reason.rule, rules)}")
            click.echo(f"    ja: {reason.ja}\n    en: {reason.en}")
    where = {"tenant": told.tenant, "data_class": told.data_class, "model": told.model}
    if told.code:
        click.echo(texts.WHY_NOBODY(code=told.code, **where))
    else:
        sites = dict.fromkeys(row.site for row in told.endpoints if isinstance(row.verdict, Allowed))
        click.echo(texts.WHY_SOMEBODY(sites=", ".join(sites), **where))


def _origin(rule: str, rules: dict[str, tuple[str, str]]) -> str:
    if rule not in rules:
        return ""
    place, source = rules[rule]
    return f" ({place}; {said.SOURCE(source=source)})" if source else f" ({place})"


@policy.command(help=str(said.REPLAY))
@click.argument("decision", metavar="DECISION-ID")
@json_option
@home_option
def replay(*, decision: str, as_json: bool, root: Path) -> None:
    """The help is `REPLAY`."""
    told = call(root, "GET", f"/api/v1/policies/replay/{decision}", answer=Replay)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=1).decode())
    else:
        show_explanation(told.explanation, {})
        match told.outcome:
            case "same":
                click.echo(said.REPLAY_SAME(code=told.explanation.code))
            case "not-residency":
                click.echo(said.REPLAY_OTHER(code="limits, model, endpoint"))
            case "different":
                click.echo(said.REPLAY_DIFFERENT)
                for line in told.differences:
                    click.echo(f"  {line}")
    sys.exit(1 if told.outcome == "different" else 0)
