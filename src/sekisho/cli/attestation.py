"""`sekisho attestation`: what is known of sites, and what that is held against.

`check`, `rim` and `sign` need nothing that runs.
"""

from __future__ import annotations

import base64
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sekisho.assembly.home import write_atomic
from sekisho.cli import attestation_texts as says
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.cli.operator import read_operator_key
from sekisho.cli.texts import Text, language
from sekisho.console.evidence_api import ApprovedVersion, EvidenceDetail, EvidenceView
from sekisho.federation.attester import read_bundle
from sekisho.kernel.errors import SekishoError
from sekisho.residency.attestation import tdx
from sekisho.residency.attestation.appraise import Anchors, verify
from sekisho.residency.attestation.references import Reference, measurements_of_rim
from sekisho.residency.attestation.refusals import Finding, Refused, refuse
from sekisho.residency.attestation.register import RegisterEntry, SignedEntry, Signer
from sekisho.residency.attestation.register import sign as sign_entry
from sekisho.residency.evidence_store import ApprovedReference, CollateralRow

T = TypeVar("T")
_API = "/api/v1/evidence"
File = click.Path(exists=True, dir_okay=False, path_type=Path)


class EvidenceFileRefused(SekishoError):
    """A file that is not what this command reads."""

    code = "evidence.file"


@click.group(help=str(says.ATTESTATION))
def attestation() -> None:
    """The help is `ATTESTATION`."""


# -- evidence


@attestation.command("list", help=str(says.LIST))
@click.option("--site", "site_id", default="", help=str(says.OPTION_SITE))
@click.option("--limit", type=click.IntRange(1, 500), default=50, help=str(says.OPTION_LIMIT))
@json_option
@home_option
def list_evidence(*, site_id: str, limit: int, as_json: bool, root: Path) -> None:
    """The help is `LIST`."""
    query = {"limit": str(limit), **({"site": site_id} if site_id else {})}
    rows = call(root, "GET", _API, answer=list[EvidenceView], query=query)
    if as_json:
        _print_json(rows)
        return
    now, seen = time.time(), set[tuple[str, str]]()
    table = _table(
        says.COLUMN_AT, says.COLUMN_SITE, says.COLUMN_KIND, says.COLUMN_LEVEL, says.COLUMN_STATE,
        says.COLUMN_UNTIL, says.COLUMN_CODE, says.COLUMN_ID,
    )  # fmt: skip
    for row in rows:
        newest = row.stands and (row.site, row.about) not in seen
        if row.stands:
            seen.add((row.site, row.about))
        state = says.STANDS if newest and row.until > now else says.OVER if row.stands else says.REFUSED
        table.add_row(
            _time(row.at), row.site, row.kind, row.level, str(state), _time(row.until), row.code, row.id,
            style="" if state is says.STANDS else "dim",
        )  # fmt: skip
    _print(table, rows)


@attestation.command(help=str(says.SHOW))
@click.argument("evidence_id", metavar="ID")
@json_option
@home_option
def show(*, evidence_id: str, as_json: bool, root: Path) -> None:
    """The help is `SHOW`."""
    found = call(root, "GET", f"{_API}/items/{quote(evidence_id, safe='')}", answer=EvidenceDetail)
    if as_json:
        _print_json(found)
        return
    row = found.evidence
    click.echo(f"{row.site}  {row.kind}  {row.level}  {_time(row.at)} – {_time(row.until)}")
    appraisal = found.appraisal if isinstance(found.appraisal, dict) else {}
    for part in appraisal.get("parts", ()):
        click.echo(
            f"\n{part['kind']}  {part['status']}  {part['product']}  {part['hardware_id']}  {part['building']}"
        )
        for name, value in (*part["tcb"].items(), *part["measurements"].items()):
            click.echo(f"  {name:12} {value}")
        for against in msgspec.convert(part["findings"], type=list[Finding]):
            _print_finding(against)
    if "weight" in appraisal:
        _print_finding(msgspec.convert(appraisal, type=Finding))


@attestation.command(help=str(says.CHECK))
@click.argument("file", type=File)
@click.option("--collateral", "collateral_file", type=File, help=str(says.OPTION_COLLATERAL))
@click.option("--at", type=float, help=str(says.OPTION_AT))
@json_option
def check(*, file: Path, collateral_file: Path | None, at: float | None, as_json: bool) -> None:
    """The help is `CHECK`."""
    bundle = read_bundle(file.read_bytes())
    if bundle is None:
        _print_finding(refuse("attestation.form").finding)
        sys.exit(1)
    collateral: dict[str, bytes] = {}
    if collateral_file is not None:
        document = collateral_file.read_bytes()
        names = tdx.name_collateral(document)
        if names is None:
            raise EvidenceFileRefused(
                f"{collateral_file} is no TDX collateral", hint="see `sekisho attestation import`"
            )
        collateral[names.fmspc] = document
    results = [
        verify(part, Anchors(collateral=collateral), now=time.time() if at is None else at) for part in bundle.parts
    ]
    if as_json:
        _print_json(results)
    for part, result in zip(bundle.parts, results, strict=True):
        if as_json:
            continue
        if isinstance(result, Refused):
            click.echo(f"{part.kind}  {says.REFUSED}")
            _print_finding(result.finding)
            continue
        click.echo(f"{result.kind}  {result.product}  {result.hardware_id}  –{_time(result.until)}")
        for name, value in (*result.tcb.items(), *result.measurements.items()):
            click.echo(f"  {name:12} {value}")
        for against in result.findings:
            _print_finding(against)
    sys.exit(1 if any(isinstance(result, Refused) for result in results) else 0)


# -- collateral


@attestation.command("import", help=str(says.IMPORT))
@click.argument("file", type=File)
@home_option
def import_collateral(*, file: Path, root: Path) -> None:
    """The help is `IMPORT`."""
    body = {"document": base64.b64encode(file.read_bytes()).decode()}
    row = call(root, "POST", f"{_API}/collateral", answer=CollateralRow, body=body)
    click.echo(says.IMPORTED(name=f"{row.kind} {row.name}", until=_time(row.until)))


@attestation.command(help=str(says.COLLATERAL))
@json_option
@home_option
def collateral(*, as_json: bool, root: Path) -> None:
    """The help is `COLLATERAL`."""
    rows = call(root, "GET", f"{_API}/collateral", answer=list[CollateralRow])
    if as_json:
        _print_json(rows)
        return
    table = _table(says.COLUMN_KIND, says.COLUMN_NAME, says.COLUMN_UNTIL, says.COLUMN_BY)
    for row in rows:
        table.add_row(row.kind, row.name, _time(row.until), row.imported_by)
    _print(table, rows)


# -- reference values


@attestation.command(help=str(says.REFERENCES))
@json_option
@home_option
def references(*, as_json: bool, root: Path) -> None:
    """The help is `REFERENCES`."""
    rows = call(root, "GET", f"{_API}/references", answer=list[ApprovedReference])
    if as_json:
        _print_json(rows)
        return
    table = _table(says.COLUMN_NAME, says.COLUMN_VERSION, says.COLUMN_KIND, says.COLUMN_BY, says.COLUMN_AT)
    newest = {row.reference.name: row.version for row in rows}
    for row in rows:
        live = row.withdrawn_at is None and newest[row.reference.name] == row.version
        table.add_row(
            row.reference.name, str(row.version), row.reference.kind, row.approved_by, _time(row.approved_at),
            style="" if live else "dim",
        )  # fmt: skip
    _print(table, rows)


@attestation.command(help=str(says.APPROVE))
@click.argument("file", type=File)
@home_option
def approve(*, file: Path, root: Path) -> None:
    """The help is `APPROVE`."""
    reference = _read(file, Reference)
    made = call(root, "POST", f"{_API}/references", answer=ApprovedVersion, body=msgspec.to_builtins(reference))
    click.echo(says.APPROVED(name=made.name, version=made.version))


@attestation.command(help=str(says.WITHDRAW))
@click.argument("name")
@home_option
def withdraw(*, name: str, root: Path) -> None:
    """The help is `WITHDRAW`."""
    call(root, "DELETE", f"{_API}/references/{quote(name, safe='')}", answer=Any)
    click.echo(says.WITHDRAWN(name=name))


@attestation.command(help=str(says.RIM))
@click.argument("files", type=File, nargs=-1, required=True)
@click.option("--name", required=True, help=str(says.OPTION_NAME))
def rim(*, files: tuple[Path, ...], name: str) -> None:
    """The help is `RIM`."""
    measurements: dict[str, tuple[str, ...]] = {}
    for file in files:
        found = measurements_of_rim(file.read_text(encoding="utf-8", errors="replace"))
        if not found:
            raise EvidenceFileRefused(f"{file} has no active measurements", hint="give an NVIDIA RIM (`.swidtag`)")
        if both := sorted(measurements.keys() & found.keys()):
            raise EvidenceFileRefused(
                f"{file} says again what measurement {both[0]} is",
                hint="give one RIM of the driver and one of the VBIOS",
            )
        measurements |= found
    _print_json(Reference(name=name, kind="nvidia-hopper", measurements=measurements))


# -- the register


@attestation.command(help=str(says.REGISTERED))
@json_option
@home_option
def registered(*, as_json: bool, root: Path) -> None:
    """The help is `REGISTERED`."""
    rows = call(root, "GET", f"{_API}/register", answer=list[SignedEntry])
    if as_json:
        _print_json(rows)
        return
    table = _table(says.COLUMN_HARDWARE, says.COLUMN_SITE, says.COLUMN_BUILDING, says.COLUMN_UNTIL)
    for row in rows:
        table.add_row(row.entry.hardware_id, row.entry.site, row.entry.building, _time(row.entry.valid_until))
    _print(table, rows)


@attestation.command(help=str(says.REGISTER))
@click.argument("file", type=File)
@home_option
def register(*, file: Path, root: Path) -> None:
    """The help is `REGISTER`."""
    signed = _read(file, SignedEntry)
    call(root, "POST", f"{_API}/register", answer=Any, body=msgspec.to_builtins(signed))
    entry = signed.entry
    click.echo(says.ENTERED(hardware=entry.hardware_id, site=entry.site, building=entry.building))


@attestation.command(help=str(says.SIGN))
@click.argument("file", type=File)
@click.option("--role", type=click.Choice(["operator", "auditor"]), required=True, help=str(says.OPTION_ROLE))
@click.option("--key", "key_file", type=File, required=True, help=str(says.OPTION_KEY))
def sign(*, file: Path, role: Literal["operator", "auditor"], key_file: Path) -> None:
    """The help is `SIGN`."""
    document = _read(file, dict[str, Any])
    if "entry" not in document:
        document = {"entry": document, "signatures": []}
    try:
        before = msgspec.convert(document, type=SignedEntry)
    except msgspec.ValidationError as error:
        raise _unreadable(file, error) from None
    entry: RegisterEntry = before.entry
    made = sign_entry(entry, role, read_operator_key(key_file))
    others = tuple(one for one in before.signatures if (one.key, one.role) != (made.key, made.role))
    signed = SignedEntry(entry=entry, signatures=(*others, made))
    write_atomic(file, msgspec.json.format(msgspec.json.encode(signed), indent=1) + b"\n", mode=0o644)
    click.echo(says.SIGNED(role=role, key=made.key))


@attestation.command(help=str(says.SIGNERS))
@json_option
@home_option
def signers(*, as_json: bool, root: Path) -> None:
    """The help is `SIGNERS`."""
    rows = call(root, "GET", f"{_API}/signers", answer=list[Signer])
    if as_json:
        _print_json(rows)
        return
    table = _table(says.COLUMN_ROLE, says.COLUMN_NAME, says.COLUMN_KEY)
    for row in rows:
        table.add_row(row.role, row.name, row.key)
    _print(table, rows)


@attestation.command(help=str(says.TRUST))
@click.argument("key")
@click.option("--role", type=click.Choice(["operator", "auditor"]), required=True, help=str(says.OPTION_ROLE))
@click.option("--name", required=True, help=str(says.OPTION_SIGNER))
@home_option
def trust(*, key: str, role: str, name: str, root: Path) -> None:
    """The help is `TRUST`."""
    call(root, "POST", f"{_API}/signers", answer=Signer, body={"key": key, "role": role, "name": name})
    click.echo(says.TRUSTED(name=name, role=role))


@attestation.command(help=str(says.DISTRUST))
@click.argument("key")
@home_option
def distrust(*, key: str, root: Path) -> None:
    """The help is `DISTRUST`."""
    call(root, "DELETE", f"{_API}/signers/{quote(key, safe='')}", answer=Any)
    click.echo(says.DISTRUSTED(key=key))


# -- printing and reading


def _read(file: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> EvidenceFileRefused:
    return EvidenceFileRefused(f"{file} can't be read: {error}", hint="see docs/explanation/attestation.en.md")


def _print_finding(against: Finding) -> None:
    japanese = language() == "ja"
    click.echo(f"  {says.AGAINST}: {against.ja if japanese else against.en} [{against.code}]")
    click.echo(f"  {says.STEP}: {against.step_ja if japanese else against.step_en}")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(msgspec.to_builtins(value), indent=1, ensure_ascii=False))


def _print(table: Table, rows: list[Any]) -> None:
    if rows:
        Console(highlight=False, markup=False).print(table)
    else:
        click.echo(str(says.NOTHING))


def _table(*columns: Text) -> Table:
    table = Table()
    for column in columns:
        table.add_column(str(column), overflow="fold")
    return table


def _time(at: float) -> str:
    """A year that no calendar has stays open."""
    try:
        return datetime.datetime.fromtimestamp(at, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return "–"
