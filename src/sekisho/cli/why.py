"""`sekisho why`: who may serve a tenant, class and model, who may not, and by which rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import assert_never

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from sekisho.cli import texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.kernel.classes import LABELS
from sekisho.residency.model import Allowed, Denied, Verdict
from sekisho.residency.why import EndpointVerdict, Explanation


@click.command(help=str(texts.WHY))
@click.option("--tenant", required=True, help=str(texts.OPTION_TENANT))
@click.option("--class", "data_class", required=True, type=click.Choice(LABELS), help=str(texts.OPTION_CLASS_WHY))
@click.option("--model", required=True, help=str(texts.OPTION_MODEL_WHY))
@json_option
@home_option
def why(*, tenant: str, data_class: str, model: str, as_json: bool, root: Path) -> None:
    """The help is `texts.WHY`. Exit code 0 when somebody may serve, 1 when nobody may."""
    query = {"tenant": tenant, "class": data_class, "model": model}
    found = call(root, "GET", "/api/v1/why", query=query, answer=Explanation)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        show(Console(highlight=False, markup=False), found)
    sys.exit(1 if found.code else 0)


def show(console: Console, found: Explanation) -> None:
    """Print it for a person."""
    if found.data_class != found.asked_class:
        console.print(texts.WHY_RAISED(asked=found.asked_class, counts=found.data_class, tenant=found.tenant))
    if found.model != found.asked_model:
        console.print(texts.WHY_ALIAS(asked=found.asked_model, model=found.model))
    if found.endpoints:
        table = Table(show_lines=True)
        for column in (texts.COLUMN_ENDPOINT, texts.COLUMN_SITE, texts.COLUMN_VERDICT):
            table.add_column(str(column), overflow="fold")
        table.add_column(str(texts.COLUMN_REASONS), overflow="fold", ratio=1)
        for endpoint in found.endpoints:
            place = f"{endpoint.site} · {endpoint.operator} · {endpoint.country}"
            table.add_row(endpoint.endpoint, place, *_verdict(endpoint))
        console.print(table)
    where = {"tenant": found.tenant, "data_class": found.data_class, "model": found.model}
    if found.code:
        console.print(texts.WHY_NOBODY(code=found.code, **where), style="bold red")
    else:
        sites = [endpoint.site for endpoint in found.endpoints if isinstance(endpoint.verdict, Allowed)]
        console.print(texts.WHY_SOMEBODY(sites=", ".join(dict.fromkeys(sites)), **where), style="bold green")


def _verdict(endpoint: EndpointVerdict) -> tuple[Styled, str]:
    verdict: Verdict = endpoint.verdict
    match verdict:
        case Allowed(rules=rules):
            return Styled(str(texts.WHY_ALLOWED), style="green"), ", ".join(rules)
        case Denied(reasons=reasons):
            japanese = texts.language() == "ja"
            lines = [f"{reason.rule}: {reason.ja if japanese else reason.en}" for reason in reasons]
            return Styled(str(texts.WHY_DENIED), style="red"), "\n".join(lines)
        case _:
            assert_never(verdict)
