"""`sekisho receipt`: receipts are fetched from control, and verified from a file alone."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sekisho.cli import receipt_texts as texts
from sekisho.cli.receipt_verify import ReceiptFault, verified_text
from sekisho.cli.texts import OPTION_HOME, OPTION_JSON


@click.group(help=str(texts.RECEIPT))
def receipt() -> None:
    """The help is `texts.RECEIPT`."""


_home = click.option(
    "--home", "root", type=click.Path(path_type=Path), default=".sekisho", envvar="SEKISHO_HOME",
    show_default=True, show_envvar=True, help=str(OPTION_HOME),
)  # fmt: skip


@receipt.command(help=str(texts.GET))
@click.argument("decision")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=str(texts.OPTION_OUT))
@click.option(
    "--format", "form", type=click.Choice(["proof", "cose"]), default="proof", help=str(texts.OPTION_FORMAT)
)
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help=str(texts.OPTION_WAIT)
)
@_home
def get(*, decision: str, out: Path, form: str, wait_s: float, root: Path) -> None:
    """The help is `texts.GET`."""
    from sekisho.cli.control_client import fetch  # noqa: PLC0415 - `verify` needs no HTTP client

    path = f"/internal/v1/receipts/{decision}"
    if len(decision) != 32 or not decision.isascii() or not decision.isalnum():
        raise ReceiptFault(
            f"{decision!r} is no decision id", code="receipt.invalid", hint="it has 32 hexadecimal digits"
        )
    end = time.monotonic() + wait_s
    while True:
        status, data = fetch(root, path, query={"format": form})
        if status != 202:
            break
        if time.monotonic() >= end:
            raise ReceiptFault(
                "a quorum of witnesses has not cosigned it yet",
                code="receipt.pending",
                hint="ask again in a second; if that goes on, look at the witnesses in the console",
            )
        time.sleep(0.2)
    try:
        out.write_bytes(data)
    except OSError as error:
        raise ReceiptFault(f"{out} can't be written: {error.strerror}", hint="choose another --out") from None
    click.echo(texts.WRITTEN(file=out, size=len(data)))


@receipt.command(help=str(texts.VERIFY))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help=str(texts.OPTION_POLICY))
@click.option("--ignore-unknown", is_flag=True, help=str(texts.OPTION_IGNORE_UNKNOWN))
@click.option("--json", "as_json", is_flag=True, help=str(OPTION_JSON))
@_home
def verify(*, file: Path, policy_file: Path | None, ignore_unknown: bool, as_json: bool, root: Path) -> None:
    """The help is `texts.VERIFY`."""
    click.echo(
        verified_text(file, policy_file=policy_file, ignore_unknown=ignore_unknown, as_json=as_json, root=root)
    )
