"""`sekisho config check|schema`: a configuration is looked at without starting anything."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sekisho.assembly.config import ConfigRefused, load_config
from sekisho.assembly.config import schema as config_schema
from sekisho.cli import texts
from sekisho.cli.texts import Count, Text

CHECK = Text(
    "Check a configuration (without FILE, the built-in demonstration) and say all that is wrong with it.",
    "設定を検査し（FILE 省略時は内蔵のデモ構成）、誤りをすべて示します。",
)
SCHEMA = Text("Print the JSON Schema of the configuration.", "設定の JSON Schema を出力します。")
WARNING = Text("warning: {text}", "警告: {text}")
FINE = Text(
    "{file} is fine: {sites:site}, {endpoints:endpoint}, {tenants:tenant}, {keys:key}.",
    "{file} に誤りはありません（拠点 {sites}、エンドポイント {endpoints}、テナント {tenants}、キー {keys}）。",
)


@click.group(help=str(texts.CONFIG))
def config() -> None:
    """The help is `texts.CONFIG`."""


@config.command(help=str(CHECK))
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """The help is `CHECK`. Exits with 1 when the configuration is refused; each mistake is a line of its own."""
    try:
        loaded = load_config(file)
    except ConfigRefused as refused:
        # Plain lines, so that editors and CI jump to them.
        click.echo(str(refused), err=True)
        raise SystemExit(1) from None
    for warning in loaded.warnings:
        click.echo(WARNING(text=warning), err=True)
    federation = loaded.config.federation
    click.echo(
        FINE(
            file=loaded.config.file,
            sites=Count(len(federation.sites)),
            endpoints=Count(len(federation.endpoints)),
            tenants=Count(len(federation.tenants)),
            keys=Count(len(federation.keys)),
        )
    )


@config.command(help=str(SCHEMA))
def schema() -> None:
    """The help is `SCHEMA`."""
    click.echo(json.dumps(config_schema(), indent=2, ensure_ascii=False))
