"""`sekisho operator …` and `sekisho pool list`."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import click
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from sekisho.cli import site_texts as said
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option, json_option
from sekisho.cli.texts import Text
from sekisho.federation.model import Pool
from sekisho.federation.views import OperatorView
from sekisho.kernel.errors import SekishoError


class KeyFileRefused(SekishoError):
    """A key file that can't be written or read."""

    code = "operator.key_file"


@click.group(help=str(said.OPERATOR))
def operator() -> None:
    """The help is `OPERATOR`."""


@operator.group("key", help=str(said.OPERATOR_KEY))
def key_() -> None:
    """The help is `OPERATOR_KEY`."""


@key_.command("new", help=str(said.OPERATOR_KEY_NEW))
@click.option(
    "--out", type=click.Path(path_type=Path), default="operator.key", show_default=True, help=str(said.OPTION_OUT)
)
def new(*, out: Path) -> None:
    """The help is `OPERATOR_KEY_NEW`."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        # never over another key, and never readable by others, not for a moment
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        raise KeyFileRefused(
            f"{out} can't be written: {error.strerror or error}", hint="choose another file with --out"
        ) from None
    click.echo(key.public_key().public_bytes_raw().hex())


def read_operator_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyFileRefused(
            f"{path} can't be read: {error.strerror or error}", hint="make a key with `sekisho operator key new`"
        ) from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileRefused(f"{path} is no Ed25519 key", hint="make one with `sekisho operator key new`")
    return key


@operator.command("list", help=str(said.OPERATOR_LIST))
@json_option
@home_option
def list_operators(*, as_json: bool, root: Path) -> None:
    """The help is `OPERATOR_LIST`."""
    _show(call(root, "GET", "/api/v1/operators", answer=list[OperatorView]), as_json=as_json)


@operator.command(help=str(said.OPERATOR_ADD))
@click.argument("operator_id", metavar="ID")
@click.option("--name", required=True, help=str(said.OPTION_NAME))
@click.option("--country", required=True, help=str(said.OPTION_COUNTRY))
@click.option("--law", required=True, help=str(said.OPTION_LAW))
@home_option
def add(*, operator_id: str, name: str, country: str, law: str, root: Path) -> None:
    """The help is `OPERATOR_ADD`."""
    body = {"id": operator_id, "name": name, "country": country, "law": law}
    call(root, "POST", "/api/v1/operators", body=body, answer=list[OperatorView])
    click.echo(said.RECORDED(operator=operator_id))


@operator.command(help=str(said.OPERATOR_TRUST))
@click.argument("operator_id", metavar="ID")
@click.argument("key")
@home_option
def trust(*, operator_id: str, key: str, root: Path) -> None:
    """The help is `OPERATOR_TRUST`."""
    where = f"/api/v1/operators/{quote(operator_id, safe='')}/key"
    call(root, "POST", where, body={"key": key}, answer=list[OperatorView])
    click.echo(said.TRUSTED(operator=operator_id, key=key))


@click.group(help=str(said.POOL))
def pool() -> None:
    """The help is `POOL`."""


@pool.command("list", help=str(said.POOL_LIST))
@json_option
@home_option
def list_pools(*, as_json: bool, root: Path) -> None:
    """The help is `POOL_LIST`."""
    pools = call(root, "GET", "/api/v1/pools", answer=list[Pool])
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(pools), indent=1).decode())
        return
    table = _table(said.COLUMN_POOL, said.COLUMN_SITE, said.COLUMN_GPU, said.COLUMN_COUNT, said.COLUMN_MEMORY)
    for each in pools:
        memory = f"{each.memory_mib / 1024:.0f} GiB" if each.memory_mib else "–"
        count = f"{each.count} ({said.SIMULATED})" if each.simulated else str(each.count)
        table.add_row(each.id, each.site, each.gpu, count, memory)
    Console(highlight=False, markup=False).print(table)


def _show(operators: list[OperatorView], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(operators), indent=1).decode())
        return
    table = _table(
        said.COLUMN_OPERATOR,
        said.COLUMN_NAME,
        said.COLUMN_COUNTRY,
        said.COLUMN_LAW,
        said.COLUMN_SOURCE,
        said.COLUMN_KEY,
    )
    for each in operators:
        table.add_row(each.id, each.name, each.country, each.law, str(said.SOURCES[each.source]), each.key or "–")
    Console(highlight=False, markup=False).print(table)


def _table(*columns: Text) -> Table:
    table = Table()
    for column in columns:
        table.add_column(str(column), overflow="fold")
    return table
