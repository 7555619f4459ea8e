"""`sekisho evidence pack` and `verify`: what an auditor gets, and what an auditor does with it."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from sekisho.cli import pack_texts as texts
from sekisho.cli.texts import OPTION_HOME, language
from sekisho.kernel.errors import SekishoError

_TIMEOUT_S = 600.0


class PackFault(SekishoError):
    """A pack can't be written or read."""

    code = "pack.unreadable"


class Moment(click.ParamType[int]):
    """A day or an instant in UTC, as Unix milliseconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            read = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-11-01 or 2026-11-01T09:00", param, ctx)
        return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)


_home = click.option(
    "--home", "root", type=click.Path(path_type=Path), default=".sekisho", envvar="SEKISHO_HOME",
    show_default=True, show_envvar=True, help=str(OPTION_HOME),
)  # fmt: skip


@click.group(help=str(texts.EVIDENCE))
def evidence() -> None:
    """The help is `texts.EVIDENCE`."""


@evidence.command(help=str(texts.PACK))
@click.option("--tenant", required=True, help=str(texts.OPTION_TENANT))
@click.option("--from", "since_ms", type=Moment(), required=True, help=str(texts.OPTION_FROM))
@click.option("--to", "until_ms", type=Moment(), required=True, help=str(texts.OPTION_TO))
@click.option("--seed", required=True, help=str(texts.OPTION_SEED))
@click.option("--sample", type=click.IntRange(1, 500), default=30, show_default=True, help=str(texts.OPTION_SAMPLE))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=str(texts.OPTION_OUT))
@_home
def pack(*, tenant: str, since_ms: int, until_ms: int, seed: str, sample: int, out: Path, root: Path) -> None:
    """The help is `texts.PACK`."""
    from sekisho.cli.control_client import send  # noqa: PLC0415 - `verify` needs no HTTP client

    body = {"tenant": tenant, "since_ms": since_ms, "until_ms": until_ms, "seed": seed, "sample": sample}
    data = send(root, "/api/v1/evidence/packs", body=body, timeout_s=_TIMEOUT_S)
    try:
        out.write_bytes(data)
    except OSError as error:
        raise PackFault(f"{out} can't be written: {error.strerror}", hint="choose another --out") from None
    click.echo(texts.WRITTEN(file=out, size=len(data)))


@evidence.command(help=str(texts.VERIFY))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help=str(texts.OPTION_POLICY))
@_home
def verify(*, file: Path, policy_file: Path | None, root: Path) -> None:
    """The help is `texts.VERIFY`. Exit 1: the pack is sound, and says that a control was not satisfied."""
    from sekisho.ledger.pack.archive import MAX_PACK_BYTES  # noqa: PLC0415 - `--help` should answer at once
    from sekisho.ledger.pack.model import CONTROLS  # noqa: PLC0415
    from sekisho.ledger.pack.verify import verify_pack  # noqa: PLC0415
    from sekisho.ledger.tlog.policy import TrustPolicy  # noqa: PLC0415
    from sekisho.residency.policy.offline import OfflineReplay  # noqa: PLC0415

    data = _read(file, MAX_PACK_BYTES)
    policy = TrustPolicy.parse(_read(policy_file or _own_policy(root), 1 << 20))
    told = verify_pack(data, policy, replay=OfflineReplay(), now_s=time.time())
    statement = told.statement
    click.echo(
        texts.PROVEN(
            by=told.signed_by,
            passages=statement.passages,
            tenant=statement.tenant,
            receipts=told.receipts,
            replayed=told.replayed,
        )
    )
    titles = {control.id: control.ja if language() == "ja" else control.en for control in CONTROLS}
    for finding in statement.findings:
        click.echo(
            texts.FINDING(
                state=texts.STATES[finding.state],
                title=titles[finding.control],
                exceptions=finding.exceptions,
                checked=finding.checked,
            )
        )
    click.echo(str(texts.NOT_PROVEN))
    if any(finding.state == "not-satisfied" for finding in statement.findings):
        sys.exit(1)


def _own_policy(root: Path) -> Path:
    from sekisho.assembly.home import Home  # noqa: PLC0415
    from sekisho.ledger.receipts_http import policy_path  # noqa: PLC0415
    from sekisho.ledger.tlog.years import years  # noqa: PLC0415

    base = Home.at(root).ledger
    found = years(base)
    if not found:
        raise PackFault(
            "this installation has no log, so no trust policy either",
            hint="give the policy of the maker: --policy FILE",
        )
    return policy_path(base, found[-1])


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise PackFault(f"{path} can't be read: {error.strerror}", hint="check the name of the file") from None
    if len(data) > most:
        raise PackFault(f"{path} is longer than it can be", hint="check the name of the file")
    return data
