"""`sekisho site …` on the control plane's machine; what runs elsewhere is in `site_machine.py`."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.cli import site_texts as said
from sekisho.cli.control_client import call
from sekisho.cli.keys import Duration
from sekisho.cli.local import home_option, json_option
from sekisho.federation.views import Decided, NewInvitation, SiteChanged, SiteDetail, SiteView
from sekisho.kernel.units import format_duration


@click.group(help=str(said.SITE))
def site() -> None:
    """The help is `SITE`."""


@site.command("list", help=str(said.LIST))
@json_option
@home_option
def list_sites(*, as_json: bool, root: Path) -> None:
    """The help is `LIST`."""
    views = call(root, "GET", "/api/v1/sites", answer=list[SiteView])
    if as_json:
        _echo_json(views)
        return
    table = Table()
    for column in (
        said.COLUMN_SITE,
        said.COLUMN_OPERATOR,
        said.COLUMN_COUNTRY,
        said.COLUMN_STATE,
        said.COLUMN_HEARD,
        said.COLUMN_ENDPOINTS,
    ):
        table.add_column(str(column), overflow="fold")
    now = time.time()
    for view in views:
        state = "suspended" if view.suspended else view.state
        heard = format_duration(max(now - view.heard_at, 0.0)) if view.heard_at else "–"
        table.add_row(
            view.id, view.operator, view.country, str(said.STATES[state]), heard, ", ".join(view.endpoints) or "–"
        )
    Console(highlight=False, markup=False).print(table)


@site.command(help=str(said.SHOW))
@click.argument("site_id", metavar="ID")
@json_option
@home_option
def show(*, site_id: str, as_json: bool, root: Path) -> None:
    """The help is `SHOW`."""
    detail = call(root, "GET", _path(site_id), answer=SiteDetail)
    if as_json:
        _echo_json(detail)
        return
    view = detail.site
    state = "suspended" if view.suspended else view.state
    lines = [(str(said.COLUMN_SITE), view.id), (str(said.COLUMN_STATE), str(said.STATES[state]))]
    lines += [(str(said.COLUMN_KEY), view.pin)] if view.pin else []
    lines += [(str(said.COLUMN_ANSWERS), view.location), ("", view.key)] if view.location else []
    for enrolment in detail.enrolments[:1]:
        declared = enrolment.declaration.declaration
        for name, text in said.FIELDS.items():
            holder: Any = declared if hasattr(declared, name) else declared.declaration
            lines.append((str(text), _words(getattr(holder, name))))
    for version in detail.versions:
        lines.append((f"v{version.version}", f"{_instant(version.at)} {version.actor}"))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name:<{width}}  {value}")


@site.command(help=str(said.INVITE))
@click.option("--operator", required=True, help=str(said.OPTION_OPERATOR))
@click.option("--site", "site_id", required=True, help=str(said.OPTION_SITE))
@click.option(
    "--expires", "expires_s", type=Duration(), default="24h", show_default=True, help=str(said.OPTION_EXPIRES)
)
@click.option("--replace", is_flag=True, help=str(said.OPTION_REPLACE))
@json_option
@home_option
def invite(*, operator: str, site_id: str, expires_s: float, replace: bool, as_json: bool, root: Path) -> None:
    """The help is `INVITE`."""
    body = {"operator": operator, "site": site_id, "expires_in_s": expires_s, "replace": replace}
    made = call(root, "POST", "/api/v1/sites", body=body, answer=NewInvitation)
    if as_json:
        click.echo(msgspec.json.encode(made).decode())
        return
    # The token alone on standard output: it can be piped into a secret store and into nothing else.
    click.echo(said.INVITED(site=site_id, operator=operator, until=_instant(made.expires_at)), err=True)
    click.echo(made.token)


@site.command(help=str(said.APPROVE))
@click.argument("site_id", metavar="ID")
@click.option("--pin", help=str(said.OPTION_PIN))
@home_option
def approve(*, site_id: str, pin: str | None, root: Path) -> None:
    """The help is `APPROVE`."""
    body = {} if pin is None else {"pin": pin}
    decided = call(root, "POST", _path(site_id, "approve"), body=body, answer=Decided)
    click.echo(said.APPROVED(site=site_id, pin=decided.pin))


@site.command(help=str(said.REJECT))
@click.argument("site_id", metavar="ID")
@home_option
def reject(*, site_id: str, root: Path) -> None:
    """The help is `REJECT`."""
    call(root, "POST", _path(site_id, "reject"), answer=Decided)
    click.echo(said.REJECTED(site=site_id))


@site.command(help=str(said.RETIRE))
@click.argument("site_id", metavar="ID")
@click.option("--yes", is_flag=True, help=str(said.OPTION_YES))
@home_option
def retire(*, site_id: str, yes: bool, root: Path) -> None:
    """The help is `RETIRE`."""
    if not yes:
        click.confirm(str(said.ASK_RETIRE), abort=True)
    call(root, "POST", _path(site_id, "retire"), answer=Decided)
    click.echo(said.RETIRED(site=site_id))


@site.command(help=str(said.SUSPEND))
@click.argument("site_id", metavar="ID")
@home_option
def suspend(*, site_id: str, root: Path) -> None:
    """The help is `SUSPEND`."""
    _change(root, site_id, "suspend")


@site.command(help=str(said.RESUME))
@click.argument("site_id", metavar="ID")
@home_option
def resume(*, site_id: str, root: Path) -> None:
    """The help is `RESUME`."""
    _change(root, site_id, "resume")


def _change(root: Path, site_id: str, what: str) -> None:
    changed = call(root, "POST", _path(site_id, what), answer=SiteChanged)
    text = (said.SUSPENDED if changed.suspended else said.RESUMED) if changed.changed else said.AS_BEFORE
    click.echo(text(site=site_id, version=changed.table_version))


def _path(site_id: str, what: str = "") -> str:
    return f"/api/v1/sites/{quote(site_id, safe='')}" + (f"/{what}" if what else "")


def _echo_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())


def _instant(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _words(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(map(_words, value)) or "–"
        case msgspec.Struct():
            return " ".join(filter(None, map(_words, msgspec.structs.astuple(value))))
        case _:
            return str(value) or "–"
