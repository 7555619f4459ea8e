"""`sekisho policy list|show|propose|approve|apply|withdraw|history` and `sekisho admin`: they talk to what runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.cli import policy_texts as said
from sekisho.cli import texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.cli.policy import Directory, files_of, policy, show_difference
from sekisho.cli.texts import Text
from sekisho.console.policy_api import PolicyFiles, PolicyInForce
from sekisho.residency.policy.bundle import load_bundle
from sekisho.residency.policy.service import PolicyVersion, Proposal
from sekisho.runtime.admins import AdminView, NewAdmin

__all__ = ["admin", "policy"]
_SHOWN_HASH = 12


def _json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())


def _table(*columns: Text) -> Table:
    table = Table()
    for column in columns:
        table.add_column(str(column), overflow="fold")
    return table


def _print(table: Table) -> None:
    Console(highlight=False, markup=False).print(table)


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


@policy.command("list", help=str(said.LIST))
@json_option
@home_option
def list_(*, as_json: bool, root: Path) -> None:
    """The help is `LIST`."""
    told = call(root, "GET", "/api/v1/policies", answer=PolicyInForce)
    if as_json:
        _json(told)
        return
    table = _table(said.COLUMN_RULE, said.COLUMN_EFFECT, said.COLUMN_CLASSES, said.COLUMN_PROFILE, said.COLUMN_FILE)
    for rule in told.rules:
        table.add_row(rule.id, rule.effect, ", ".join(rule.classes), rule.profile, f"{rule.file}:{rule.line}")
    _print(table)
    for waiting in told.waiting:
        _proposal(waiting)


@policy.command(help=str(said.SHOW))
@click.argument("version", required=False)
@home_option
def show(*, version: str | None, root: Path) -> None:
    """The help is `SHOW`."""
    query = {} if version is None else {"version": version}
    told = call(root, "GET", "/api/v1/policies/files", query=query, answer=PolicyFiles)
    for file in told.files:
        click.echo(f"// ---- {file.name}\n{file.text.rstrip()}\n")


@policy.command(help=str(said.PROPOSE))
@click.argument("directory", metavar="DIR", type=Directory)
@click.option("--note", default="", help=str(said.OPTION_NOTE))
@json_option
@home_option
def propose(*, directory: Path, note: str, as_json: bool, root: Path) -> None:
    """The help is `PROPOSE`. Exits with 1 when it waits for a second person."""
    body = {"files": files_of(load_bundle(directory)), "note": note}
    made = call(root, "POST", "/api/v1/policies/proposals", body=body, answer=Proposal)
    if as_json:
        _json(made)
    else:
        show_difference(made.difference)
        _proposal(made)
    sys.exit(0 if made.state == "applied" else 1)


@policy.command(help=str(said.APPROVE))
@click.argument("number", type=click.IntRange(1))
@home_option
def approve(*, number: int, root: Path) -> None:
    """The help is `APPROVE`."""
    _step(root, number, "approve")


@policy.command(help=str(said.APPLY))
@click.argument("number", type=click.IntRange(1))
@home_option
def apply(*, number: int, root: Path) -> None:
    """The help is `APPLY`."""
    _step(root, number, "apply")


@policy.command(help=str(said.WITHDRAW))
@click.argument("number", type=click.IntRange(1))
@home_option
def withdraw(*, number: int, root: Path) -> None:
    """The help is `WITHDRAW`."""
    _step(root, number, "withdraw")


def _step(root: Path, number: int, step: str) -> None:
    _proposal(call(root, "POST", f"/api/v1/policies/proposals/{number}/{step}", answer=Proposal))


def _proposal(found: Proposal) -> None:
    click.echo(
        said.PROPOSAL(id=found.id, state=found.state, actor=found.actor, bundle=found.bundle[:_SHOWN_HASH])
        + (f" · {found.note}" if found.note else "")
    )
    if found.state == "waiting":
        click.echo(said.NEXT_APPROVE(id=found.id))


@policy.command(help=str(said.HISTORY))
@json_option
@home_option
def history(*, as_json: bool, root: Path) -> None:
    """The help is `HISTORY`."""
    versions = call(root, "GET", "/api/v1/policies/history", answer=list[PolicyVersion])
    if as_json:
        _json(versions)
        return
    table = _table(said.COLUMN_VERSION, said.COLUMN_SINCE, said.COLUMN_STATE)
    for version in versions:
        table.add_row(version.hash[:_SHOWN_HASH], _day(version.at), str(said.IN_FORCE) if version.in_force else "")
    _print(table)


@click.group(help=str(said.ADMIN))
def admin() -> None:
    """The help is `ADMIN`."""


@admin.command(help=str(said.ADMIN_ADD))
@click.argument("name")
@home_option
def add(*, name: str, root: Path) -> None:
    """The help is `ADMIN_ADD`. The token alone goes to standard output."""
    made = call(root, "POST", "/api/v1/admins", body={"name": name}, answer=NewAdmin)
    click.echo(said.ADMIN_MADE(name=made.name), err=True)
    click.echo(made.token)


@admin.command("list", help=str(said.ADMIN_LIST))
@json_option
@home_option
def list_admins(*, as_json: bool, root: Path) -> None:
    """The help is `ADMIN_LIST`."""
    found = call(root, "GET", "/api/v1/admins", answer=list[AdminView])
    if as_json:
        _json(found)
        return
    table = _table(said.COLUMN_NAME, said.COLUMN_SINCE, said.COLUMN_BY, said.COLUMN_STATE)
    for each in found:
        state = str(texts.KEY_LIVE if each.revoked_at is None else said.ENDED)
        table.add_row(each.name, _day(each.created_at), each.created_by, state)
    _print(table)


@admin.command(help=str(said.ADMIN_REVOKE))
@click.argument("name")
@home_option
def revoke(*, name: str, root: Path) -> None:
    """The help is `ADMIN_REVOKE`."""
    call(root, "DELETE", f"/api/v1/admins/{quote(name, safe='')}", answer=Any)
    click.echo(said.ADMIN_GONE(name=name))
