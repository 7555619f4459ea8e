"""`sekisho site declare|enrol|run|rotate`: the commands for the operator's and the site's machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import click

from sekisho.assembly.config_kinds import RawTable, says
from sekisho.assembly.config_read import Reader
from sekisho.assembly.config_schema import RawSite
from sekisho.assembly.config_translate import Translator
from sekisho.assembly.home import write_atomic
from sekisho.cli import locate as _locate  # noqa: F401 - its commands join `site`
from sekisho.cli import site_texts as said
from sekisho.cli.keys import Duration
from sekisho.cli.operator import read_operator_key
from sekisho.cli.site import site
from sekisho.federation.attester import Attester
from sekisho.federation.declare import SiteDeclaration, encode_signed, read_signed, sign
from sekisho.federation.errors import EnrolmentRefused
from sekisho.federation.tokens import control_key_of
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.toml import ConfigRefused, read_toml

__all__ = ["site"]

AgentDirectory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=".sekisho-site",
    envvar="SEKISHO_SITE_DIR",
    show_default=True,
    show_envvar=True,
    help=str(said.OPTION_DIR),
)
File = click.Path(path_type=Path)


class FileRefused(SekishoError):
    """A file that can't be read or written."""

    code = "site.file"


class RawSiteFile(RawTable, frozen=True, kw_only=True):
    """What `sekisho site declare` reads: one site, as in the configuration."""

    site: Annotated[RawSite, says("the site")]


@site.command(help=str(said.DECLARE))
@click.argument("file", type=File)
@click.option("--key", "key_file", type=File, required=True, help=str(said.OPTION_KEY))
@click.option("--valid", "valid_s", type=Duration(), default="365d", show_default=True, help=str(said.OPTION_VALID))
@click.option("--out", type=File, default="declaration.json", show_default=True, help=str(said.OPTION_OUT))
def declare(*, file: Path, key_file: Path, valid_s: float, out: Path) -> None:
    """The help is `DECLARE`."""
    now = time.time()
    signed = sign(read_site(file, valid_until=now + valid_s, now=now), read_operator_key(key_file))
    try:
        write_atomic(out, encode_signed(signed) + b"\n", mode=0o644)
    except OSError as error:
        raise FileRefused(f"{out} can't be written: {error.strerror or error}", hint="choose another --out") from None
    click.echo(said.DECLARED(key=signed.operator_key, file=out))


def read_site(file: Path, *, valid_until: float, now: float) -> SiteDeclaration:
    """A file with `[site]` and `[site.declaration]`; ConfigRefused with every mistake at its line."""
    document = read_toml(file)
    reader = Reader(document)
    raw = reader.table(RawSiteFile, document.data, ())
    made = Translator(reader, directory=file.parent).site(raw.site, ("site",))
    if reader.problems:
        raise ConfigRefused(reader.problems)
    return SiteDeclaration(
        operator=made.operator,
        site=made.id,
        name=made.name,
        country=made.country,
        prefecture=made.prefecture,
        latitude=made.latitude,
        longitude=made.longitude,
        simulated=made.simulated,
        declared_at=now,
        valid_until=valid_until if made.valid_until is None else made.valid_until,
        declaration=made.declaration,
    )


@site.command(help=str(said.ENROL))
@click.option("--control", required=True, help=str(said.OPTION_CONTROL))
@click.option("--declaration", "declaration_file", type=File, required=True, help=str(said.OPTION_DECLARATION))
@click.option("--token-file", type=File, help=str(said.OPTION_TOKEN_FILE))
@click.option("--ca", type=File, help=str(said.OPTION_CA))
@AgentDirectory
def enrol(*, control: str, declaration_file: Path, token_file: Path | None, ca: Path | None, directory: Path) -> None:
    """The help is `ENROL`. The token is no argument: those lie in the shell's history and in the process table."""
    from sekisho.assembly.site_control import hand_in  # noqa: PLC0415 - an HTTP client, for this command alone
    from sekisho.assembly.site_home import (  # noqa: PLC0415
        Enrolment,
        SiteHome,
        control_address,
        prepare,
        save_enrolment,
    )

    address = control_address(control)
    token = _token(token_file)
    control_key = control_key_of(token)
    if control_key is None:
        raise EnrolmentRefused(
            "that is no invitation's token", code="enrol.token_unknown", hint="ask who runs the control plane"
        )
    signed = read_signed(_read(declaration_file))
    home = SiteHome(directory)
    key = prepare(home)
    authority = None if ca is None else str(ca.absolute())
    made = hand_in(address, ca=authority, token=token, key=key, declaration=signed)
    save_enrolment(home, Enrolment(site=made.site, control=address, control_key=control_key, ca=authority))
    click.echo(said.HANDED_IN(site=made.site, pin=made.pin))
    click.echo(said.NEXT_RUN(file=home.settings, dir=directory))


@site.command(help=str(said.RUN))
@click.option(
    "--attest",
    type=click.Choice(["none", "simulated", "hardware"]),
    default="none",
    show_default=True,
    help=str(said.OPTION_ATTEST),
)
@AgentDirectory
def run(*, attest: str, directory: Path) -> None:
    """The help is `RUN`."""
    from sekisho.assembly.site_agent import run as run_agent  # noqa: PLC0415 - a server, for this command alone
    from sekisho.federation.simulated_tee import SimulatedTee  # noqa: PLC0415

    match attest:
        case "hardware":
            hardware = _hardware()
            run_agent(directory, attester=lambda _site: hardware)
        case "simulated":
            run_agent(directory, attester=SimulatedTee)
        case _:
            run_agent(directory)


def _hardware() -> Attester:
    """What this machine has; AttesterUnavailable where it has nothing."""
    from sekisho.federation.attester_hardware import of_this_machine  # noqa: PLC0415 - for this option alone

    try:
        import pynvml  # noqa: PLC0415 - an extra: a machine without GPUs need not have it
    except ImportError:
        return of_this_machine(None)
    return of_this_machine(pynvml)


@site.command(help=str(said.ROTATE))
@AgentDirectory
def rotate(*, directory: Path) -> None:
    """The help is `ROTATE`."""
    from sekisho.assembly.site_rotation import rotate as rotate_key  # noqa: PLC0415 - an HTTP client

    changed = rotate_key(directory)
    click.echo(said.ROTATED(site=changed.site, pin=changed.pin))


def _token(file: Path | None) -> str:
    if file is not None:
        return _read(file).decode("utf-8", "replace").strip()
    if sys.stdin.isatty():
        return str(click.prompt(str(said.ASK_TOKEN), hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise FileRefused(f"{file} can't be read: {error.strerror or error}", hint="check the path") from None
