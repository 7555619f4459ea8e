"""`sekisho endpoint suspend|resume`: take an endpoint out of every route, and put it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from sekisho.cli import texts
from sekisho.cli.control_client import call
from sekisho.cli.local import home_option


@click.group(help=str(texts.ENDPOINT))
def endpoint() -> None:
    """The help is `texts.ENDPOINT`."""


@endpoint.command(help=str(texts.ENDPOINT_SUSPEND))
@click.argument("endpoint_id", metavar="ID")
@home_option
def suspend(*, endpoint_id: str, root: Path) -> None:
    """The help is `texts.ENDPOINT_SUSPEND`."""
    call(root, "POST", f"/api/v1/endpoints/{quote(endpoint_id, safe='')}/suspend", answer=Any)
    click.echo(texts.SUSPENDED(id=endpoint_id))


@endpoint.command(help=str(texts.ENDPOINT_RESUME))
@click.argument("endpoint_id", metavar="ID")
@home_option
def resume(*, endpoint_id: str, root: Path) -> None:
    """The help is `texts.ENDPOINT_RESUME`."""
    call(root, "POST", f"/api/v1/endpoints/{quote(endpoint_id, safe='')}/resume", answer=Any)
    click.echo(texts.RESUMED(id=endpoint_id))
