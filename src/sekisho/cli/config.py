"""`sekisho config check|schema`: a configuration is looked at without starting anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import msgspec

from sekisho.assembly.config import ConfigRefused, load_config
from sekisho.assembly.config import schema as config_schema
from sekisho.cli import texts
from sekisho.cli.local import home_option, json_option
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

WAITING = Text(
    "Show what of the configuration would let guarded work reach more, and waits for an administrator.",
    "設定のうち、保護対象の処理が届く先を広げるため管理者の承認を待っているものを表示します。",
)
NOTHING_WAITS = Text("All of the configuration is in force.", "設定はすべて有効です。")
KINDS = {
    "site": Text("Site {id}: {classes} work could reach more.", "拠点 {id}：{classes} の処理が届く先が広がります。"),
    "tenant": Text(
        "Tenant {id}: its {classes} work could reach more.", "テナント {id}：{classes} の処理が届く先が広がります。"
    ),
    "jurisdiction": Text(
        "Jurisdiction {id}: {classes} work could reach more.", "法域 {id}：{classes} の処理が届く先が広がります。"
    ),
}
BEFORE = Text("The version before is in force.", "変更前の内容が有効です。")
OUT = Text("It is left out until then.", "承認されるまで使われません。")
NEXT = Text(
    "An administrator puts it in force: sekisho config approve {wanted}",
    "有効にするには管理者が実行します: sekisho config approve {wanted}",
)
APPROVE = Text(
    "Put in force what waits of the configuration; `waiting` shows its digest.",
    "承認待ちの設定を有効にします。ダイジェストは `waiting` で表示されます。",
)
APPROVED = Text("The configuration is in force.", "設定を有効にしました。")


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


@config.command(help=str(WAITING))
@json_option
@home_option
def waiting(*, as_json: bool, root: Path) -> None:
    """The help is `WAITING`. Exits with 1 when something waits."""
    from sekisho.cli.control_client import call  # noqa: PLC0415 - `check` needs no HTTP client
    from sekisho.console.policy_api import ConfigurationWaiting  # noqa: PLC0415

    found = call(root, "GET", "/api/v1/configuration/waiting", answer=ConfigurationWaiting).waiting
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    elif found is None:
        click.echo(str(NOTHING_WAITS))
    else:
        for each in found.held:
            what = KINDS[each.kind](id=each.id, classes=", ".join(each.classes))
            click.echo(f"{what} {OUT if each.closed else BEFORE}")
        click.echo(NEXT(wanted=found.wanted))
    sys.exit(0 if found is None else 1)


@config.command(help=str(APPROVE))
@click.argument("digest", metavar="DIGEST")
@home_option
def approve(*, digest: str, root: Path) -> None:
    """The help is `APPROVE`. The digest is asked for so that nobody approves what changed since they looked."""
    from sekisho.cli.control_client import call  # noqa: PLC0415
    from sekisho.console.policy_api import ConfigurationWaiting  # noqa: PLC0415

    call(root, "POST", "/api/v1/configuration/approve", body={"wanted": digest}, answer=ConfigurationWaiting)
    click.echo(str(APPROVED))


@config.command(help=str(SCHEMA))
def schema() -> None:
    """The help is `SCHEMA`."""
    click.echo(json.dumps(config_schema(), indent=2, ensure_ascii=False))
