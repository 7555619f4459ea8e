"""`sekisho border`: a post states what its counters counted; everybody else reads and checks the statements."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import click
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from rich.console import Console
from rich.table import Table

from sekisho.assembly.home import write_atomic
from sekisho.cli import border_texts as said
from sekisho.cli.control_client import call, fetch
from sekisho.cli.local import home_option, json_option
from sekisho.cli.operator import read_operator_key
from sekisho.federation.border import (
    Reading,
    Row,
    SignedStatement,
    Statement,
    Way,
    from_json,
    sign,
    statement,
    verify_chain,
)
from sekisho.federation.border_service import BorderView
from sekisho.federation.border_store import Post
from sekisho.kernel.errors import SekishoError

T = TypeVar("T")
File = click.Path(path_type=Path)


class BorderFileRefused(SekishoError):
    """A file of these commands that can't be what it should be."""

    code = "border.file"


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """What a post remembers: its statements, the counters as they stood at the end of the last, and when that was."""

    border: str
    at_ms: int
    readings: tuple[Row, ...]
    statements: tuple[SignedStatement, ...] = ()


@click.group(help=str(said.BORDER))
def border() -> None:
    """The help is `BORDER`."""


@border.command(help=str(said.KEY))
@click.option("--out", type=File, default="border.key", show_default=True, help=str(said.OPTION_KEY_OUT))
def key(*, out: Path) -> None:
    """The help is `KEY`. A key that is there is used again."""
    if not out.exists():
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(out, made)
    click.echo(read_operator_key(out).public_key().public_bytes_raw().hex())


@border.command(help=str(said.TRUST))
@click.argument("name")
@click.argument("public")
@home_option
def trust(*, name: str, public: str, root: Path) -> None:
    """The help is `TRUST`."""
    made = call(root, "POST", f"/api/v1/borders/{quote(name, safe='')}/key", body={"key": public}, answer=Post)
    click.echo(said.TRUSTED(border=made.name, key=made.key))


@border.command(help=str(said.STATE))
@click.option("--border", "name", required=True, help=str(said.OPTION_NAME))
@click.option("--key", "key_file", type=File, required=True, help=str(said.OPTION_KEY))
@click.option("--readings", type=File, required=True, help=str(said.OPTION_READINGS))
@click.option("--chain", "chain_file", type=File, required=True, help=str(said.OPTION_CHAIN))
@click.option("--control", help=str(said.OPTION_CONTROL))
@click.option("--ca", type=File, help=str(said.OPTION_CA))
def state(
    *, name: str, key_file: Path, readings: Path, chain_file: Path, control: str | None, ca: Path | None
) -> None:
    """The help is `STATE`. The first run only remembers where the counters stand."""
    from sekisho.assembly.site_control import hand_in_statements  # noqa: PLC0415 - an HTTP client
    from sekisho.assembly.site_home import control_address  # noqa: PLC0415

    signing = read_operator_key(key_file)
    data = sys.stdin.buffer.read() if str(readings) == "-" else _read(readings)
    rows = _decoded(data, tuple[Row, ...], readings)
    now_ms = time.time_ns() // 1_000_000
    if not chain_file.exists():
        chain = Chain(border=name, at_ms=now_ms, readings=rows)
    else:
        before = _decoded(_read(chain_file), Chain, chain_file)
        if before.border != name:
            raise BorderFileRefused(
                f"{chain_file} is the chain of {before.border!r}", hint="give each border a file of its own"
            )
        made = sign(
            statement(
                border=name,
                before=_by_way(before.readings),
                after=_by_way(rows),
                from_ms=before.at_ms,
                to_ms=now_ms,
                previous=before.statements[-1].statement if before.statements else None,
            ),
            signing,
        )
        chain = Chain(border=name, at_ms=now_ms, readings=rows, statements=(*before.statements, made))
        _echo(made.statement)
    # Kept before it is sent: what was handed in and forgotten could never be continued.
    _write(chain_file, msgspec.json.encode(chain))
    if control is not None and chain.statements:
        authority = None if ca is None else str(ca.absolute())
        taken = hand_in_statements(control_address(control), name, chain.statements, ca=authority)
        click.echo(said.HANDED_IN(taken=taken))


@border.command("list", help=str(said.LIST))
@json_option
@home_option
def list_borders(*, as_json: bool, root: Path) -> None:
    """The help is `LIST`."""
    views = call(root, "GET", "/api/v1/borders", answer=list[BorderView])
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(views), indent=1).decode())
        return
    if not views:
        click.echo(str(said.NOTHING))
        return
    table = Table()
    for column in (
        said.COLUMN_BORDER,
        said.COLUMN_WAY,
        said.COLUMN_CLASS,
        said.COLUMN_LINE,
        said.COLUMN_INTERFACE,
        said.COLUMN_CAPTURE,
        said.COLUMN_STATEMENTS,
        said.COLUMN_FINDING,
    ):
        table.add_column(str(column), overflow="fold")
    for view in views:
        finding = str(said.FINDINGS[view.finding]) if view.finding else "–"
        if not view.totals:
            table.add_row(view.post.name, "–", "–", "–", "–", "–", "0", finding)
        for row in view.totals:
            kind = f"{row.way.data_class} ({said.CANARY})" if row.way.canary else row.way.data_class
            counted = (str(each.packets) for each in (row.counted.line, row.counted.interface, row.counted.capture))
            table.add_row(
                view.post.name, f"{row.way.site}–{row.way.peer}", kind, *counted, str(view.statements), finding
            )
    Console(highlight=False, markup=False).print(table)


@border.command(help=str(said.EXPORT))
@click.argument("name")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "csv"]),
    default="json",
    show_default=True,
    help=str(said.OPTION_FORMAT),
)
@click.option("--since-ms", type=click.IntRange(min=0), default=0, help=str(said.OPTION_SINCE))
@click.option("--out", type=File, help=str(said.OPTION_OUT))
@home_option
def export(*, name: str, form: Literal["json", "csv"], since_ms: int, out: Path | None, root: Path) -> None:
    """The help is `EXPORT`."""
    query = {"format": form, "since_ms": str(since_ms)}
    _, data = fetch(root, f"/api/v1/borders/{quote(name, safe='')}/statements", query=query)
    if out is None:
        sys.stdout.buffer.write(data)
    else:
        _write(out, data)


@border.command(help=str(said.VERIFY))
@click.argument("file", type=File)
@click.option("--key", "public", required=True, help=str(said.OPTION_PUBLIC))
def verify(*, file: Path, public: str) -> None:
    """The help is `VERIFY`."""
    try:
        known = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except ValueError:
        raise BorderFileRefused(
            "that is no public key", hint="64 hex digits, as `sekisho border key` prints"
        ) from None
    chain = verify_chain(from_json(_read(file)), known)
    findings = Counter(made.finding for made in chain)
    shown = ", ".join(f"{said.FINDINGS[name]} {count}" for name, count in findings.items())
    click.echo(said.VERIFIED(statements=len(chain), findings=shown or "–"))
    sys.exit(1 if findings["crossed"] else 0)


def _echo(made: Statement) -> None:
    guarded = sum(_most(row.counted) for row in made.rows if not row.way.canary)
    canary = sum(_most(row.counted) for row in made.rows if row.way.canary)
    click.echo(
        said.STATED(
            border=made.border,
            sequence=made.sequence,
            finding=said.FINDINGS[made.finding],
            guarded=guarded,
            canary=canary,
        )
    )


def _most(counted: Reading) -> int:
    return max(counted.line.packets, counted.interface.packets, counted.capture.packets)


def _by_way(rows: tuple[Row, ...]) -> dict[Way, Reading]:
    found = {row.way: row.counted for row in rows}
    if len(found) != len(rows):
        raise BorderFileRefused("the readings name a line twice", hint="one reading for each site, peer and class")
    return found


def _decoded(data: bytes, kind: type[T], file: Path) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BorderFileRefused(
            f"{file} can't be read: {error}", hint="see docs/how-to/keep-a-border-ledger.en.md"
        ) from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BorderFileRefused(f"{file} can't be read: {error.strerror or error}", hint="check the path") from None


def _write(file: Path, data: bytes) -> None:
    try:
        write_atomic(file, data)
    except OSError as error:
        raise BorderFileRefused(
            f"{file} can't be written: {error.strerror or error}", hint="choose another place"
        ) from None
