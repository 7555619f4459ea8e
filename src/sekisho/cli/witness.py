"""`sekisho witness`: an operator's own witness, on a machine that is not the log's."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from sekisho.assembly.sockets import Listeners, url_of
from sekisho.assembly.witness import cosigners, serve
from sekisho.cli import receipt_texts as texts
from sekisho.kernel.clock import SystemClock
from sekisho.ledger.tlog.keys import VerifierKey
from sekisho.ledger.witness.http import WitnessApp
from sekisho.ledger.witness.service import Witness
from sekisho.ledger.witness.state import WitnessState


@click.group(help=str(texts.WITNESS))
def witness() -> None:
    """The help is `texts.WITNESS`."""


_name = click.option("--name", required=True, help=str(texts.OPTION_NAME))
_keys = click.option("--keys", type=click.Path(path_type=Path), required=True, help=str(texts.OPTION_KEYS))


@witness.command(help=str(texts.WITNESS_NEW_KEY))
@_name
@_keys
def init(*, name: str, keys: Path) -> None:
    """The help is `texts.WITNESS_NEW_KEY`. Called again it prints the same keys."""
    for cosigner in cosigners(name, keys):
        click.echo(cosigner.verifier.vkey)


@witness.command(help=str(texts.WITNESS_RUN))
@_name
@_keys
@click.option("--state", type=click.Path(path_type=Path), required=True, help=str(texts.OPTION_STATE))
@click.option("--log", "logs", multiple=True, required=True, help=str(texts.OPTION_LOG))
@click.option("--listen", default="127.0.0.1:8090", show_default=True, help=str(texts.OPTION_LISTEN))
def run(*, name: str, keys: Path, state: Path, logs: tuple[str, ...], listen: str) -> None:
    """The help is `texts.WITNESS_RUN`."""
    os.umask(0o077)
    trusted: dict[str, list[VerifierKey]] = {}
    for vkey in logs:
        key = VerifierKey.parse(vkey)
        trusted.setdefault(key.name, []).append(key)
    made = Witness(cosigners=cosigners(name, keys), logs=trusted, state=WitnessState(state))
    listening: socket.socket = Listeners().alone(listen)
    click.echo(texts.WITNESS_READY(name=name, url=url_of(listening)))
    serve(WitnessApp({"": made}, clock=SystemClock()), listening)
