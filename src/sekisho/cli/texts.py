"""Every sentence that the command line says, in both languages, side by side.

The language is Japanese when SEKISHO_LANG, LC_ALL, LC_MESSAGES or LANG (the first that is set) begins with `ja`,
and English otherwise. Codes, names of commands and options, and file names are the same in both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "ja"]
_VARIABLES = ("SEKISHO_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def language(environment: Mapping[str, str] | None = None) -> Language:
    """The language that the environment asks for."""
    environment = os.environ if environment is None else environment
    asked = next((environment[name] for name in _VARIABLES if environment.get(name)), "")
    return "ja" if asked.lower().startswith("ja") else "en"


class Text:
    """One sentence. `str(TEXT)` is it in the current language; `TEXT(name="x")` fills in its `{name}`."""

    def __init__(self, en: str, ja: str) -> None:
        self.en = en
        self.ja = ja

    def __str__(self) -> str:
        return self.ja if language() == "ja" else self.en

    def __call__(self, **values: object) -> str:
        return str(self).format(**values)


class Count(int):
    """A number for a Text: `{sites:site}` is "1 site" or "2 sites", `{sites}` (for Japanese) the number alone."""

    def __format__(self, noun: str) -> str:
        return f"{int(self)} {noun}{'' if self == 1 else 's'}" if noun else str(int(self))


# Help
MAIN = Text(
    "One checkpoint in front of many operators' GPUs.\n\nConfidential work only ever reaches sites that may "
    "serve it, and every passage is recorded.",
    "複数の事業者の GPU の前に立つ、ひとつの関所。\n\n"
    "機密データは処理を許された拠点にしか届かず、すべての通過が記録されます。",
)
VERSION = Text("Show the version and exit.", "バージョンを表示して終了します。")
UP = Text(
    "Start gateway, control plane and (in the embedded default) the demonstration's sites; stay until Ctrl-C.",
    "ゲートウェイとコントロールプレーン（既定構成ではデモ用の拠点も）を起動し、Ctrl-C で止めるまで動かします。",
)
STATUS = Text(
    "Show processes, endpoints, route table and journal; exit code 0 only when all is well.",
    "プロセス、エンドポイント、経路表、ジャーナルの状態を表示します。すべて正常なときに限り、終了コードは 0 です。",
)
DOWN = Text(
    "Stop what `sekisho up` started, without cutting answers under way.",
    "`sekisho up` で起動したものを、応答の途中で切らずに停止します。",
)
RELOAD = Text("Read the configuration again.", "設定を読み直します。")
ASK = Text(
    "Ask a model through the gateway, as a tenant would.",
    "テナントと同じように、ゲートウェイを通してモデルに質問します。",
)
WHY = Text(
    "Say which sites may serve a tenant, class and model, and by which rules.",
    "テナント・データ区分・モデルの組み合わせを処理できる拠点と、その根拠となるルールを示します。",
)
KEY = Text("Make, list and revoke API keys.", "API キーの作成、一覧表示、失効を行います。")
KEY_LIST = Text(
    "List the API keys (never the keys themselves).", "API キーを一覧表示します（キーそのものは表示しません）。"
)
KEY_CREATE = Text(
    "Make a key for a tenant; it is shown once, and only its hash is kept.",
    "テナントのキーを作ります。表示は一度だけで、保存されるのはハッシュのみです。",
)
KEY_DEMO = Text("Print a demonstration tenant's key.", "デモ用テナントのキーを出力します。")
KEY_REVOKE = Text(
    "Revoke a key; every gateway refuses it within a second.",
    "キーを失効させます。すべてのゲートウェイが 1 秒以内に拒否します。",
)
ENDPOINT = Text("Suspend and resume endpoints.", "エンドポイントの停止と再開を行います。")
ENDPOINT_SUSPEND = Text(
    "Send no more work to an endpoint; what runs there ends in peace.",
    "エンドポイントに新しい処理を送らないようにします。実行中の処理は最後まで続きます。",
)
ENDPOINT_RESUME = Text("Send work to an endpoint again.", "エンドポイントに再び処理を送ります。")
CONFIG = Text("Check a configuration, show its schema.", "設定の検査と、スキーマの表示を行います。")

# Options
OPTION_HOME = Text("The home directory of the installation.", "この環境のホームディレクトリ。")
OPTION_CONFIG = Text(
    "A federation in TOML; without it, the built-in demonstration.", "連合の設定（TOML）。省略時は内蔵のデモ構成。"
)
OPTION_READY_FILE = Text(
    "Write addresses, keys and process ids here (JSON, secret) once everything answers.",
    "すべてが応答したら、アドレス・キー・プロセス ID をここに書きます（JSON、要秘匿）。",
)
OPTION_JSON = Text("Print JSON.", "JSON で出力します。")
OPTION_CLASS = Text(
    "Data class of the request; it can raise the key's floor, never lower it.",
    "リクエストのデータ区分。キーの下限を上げることはできますが、下げることはできません。",
)
OPTION_CLASS_WHY = Text("Data class.", "データ区分。")
OPTION_TENANT_ASK = Text(
    "Which demonstration tenant's key to use (the first one by default).",
    "どのデモ用テナントのキーを使うか（既定は先頭のテナント）。",
)
OPTION_TENANT = Text("Tenant.", "テナント。")
OPTION_MODEL = Text(
    "Model or alias (the first that the key may use by default).",
    "モデル名または別名（既定は、キーで使える先頭のもの）。",
)
OPTION_MODEL_WHY = Text("Model or alias.", "モデル名または別名。")
OPTION_STREAM = Text("Print the answer as it comes.", "応答を届いた順に表示します。")
OPTION_MAX_TOKENS = Text("Longest answer, in tokens.", "応答の最大トークン数。")
OPTION_LABEL = Text("What the key is for.", "キーの用途。")
OPTION_EXPIRES = Text("How long the key is good for, as in 90d or 12h.", "キーの有効期間（例：90d、12h）。")
OPTION_TIMEOUT = Text(
    "Seconds to wait for the end (the drain's grace by default).", "終了を待つ秒数（既定は停止時の猶予時間）。"
)

# up
STARTING = Text("Starting {count} processes", "{count} 個のプロセスを起動しています")
PROCESS_READY = Text("{name} answers (pid {pid}, {after})", "{name} が応答しました（pid {pid}、{after}）")
PROCESS_DIED = Text(
    "{name} ended ({exit}) and is started again: {words}", "{name} が終了しました（{exit}）。再起動します: {words}"
)
READY_TITLE = Text("The checkpoint is open ({after})", "関所が開きました（{after}）")
READY_GATEWAY = Text("Gateway", "ゲートウェイ")
READY_CONSOLE = Text("Console", "コンソール")
READY_TOKEN = Text("Admin token", "管理トークン")
READY_TRY = Text("Try it", "試す")
READY_STOP = Text(
    "Ctrl-C stops it; answers under way are finished first.", "Ctrl-C で停止します。応答中の処理は完了させます。"
)
SIMULATED = Text(
    "The sites are simulated: a small real model (SmolLM2-135M) on this machine stands in for each.",
    "拠点は模擬です。それぞれの代わりに、このマシンで小さな実モデル（SmolLM2-135M）が動いています。",
)
DRAINING = Text(
    "Draining: answers under way have up to {grace}; a second Ctrl-C ends at once.",
    "停止しています。応答中の処理を最大 {grace} 待ちます。もう一度 Ctrl-C を押すと、直ちに終了します。",
)
STOPPED = Text("Stopped; nothing is left running.", "停止しました。残っているプロセスはありません。")
STOPPED_CUT = Text(
    "Stopped; {names} did not end in time and was killed.",
    "停止しました。{names} は時間内に終わらなかったため、強制終了しました。",
)
RELOADED = Text("The configuration was read again. {detail}", "設定を読み直しました。{detail}")
RELOAD_REFUSED = Text("The new configuration was not taken: {detail}", "新しい設定は採用されませんでした: {detail}")
WARNING = Text("warning: {text}", "警告: {text}")

# status
TITLE_PROCESSES = Text("Processes", "プロセス")
TITLE_ENDPOINTS = Text("Endpoints (all workers together)", "エンドポイント（全ワーカー合計）")
COLUMN_PROCESS = Text("process", "プロセス")
COLUMN_AGE = Text("age", "稼働時間")
COLUMN_RESTARTS = Text("restarts", "再起動")
COLUMN_STATE = Text("state", "状態")
COLUMN_LAST_EXIT = Text("last exit", "前回の終了")
COLUMN_ENDPOINT = Text("endpoint", "エンドポイント")
COLUMN_SITE = Text("site", "拠点")
COLUMN_IN_FLIGHT = Text("in flight", "処理中")
COLUMN_FIRST_BYTE = Text("EWMA", "EWMA（応答開始）")
COLUMN_FAILURES = Text("failed", "失敗")
COLUMN_EJECTED = Text("ejected", "休止")
EJECTED_FOR = Text("{duration} more", "あと {duration}")
TABLE_LINE = Text("Route table: version {version}, {age} old", "経路表: バージョン {version}、{age} 前")
TABLE_MIXED = Text(
    "Route table: workers have different versions {versions}",
    "経路表: ワーカーごとにバージョンが異なります（{versions}）",
)
TABLE_NONE = Text("Route table: none yet", "経路表: まだありません")
JOURNAL_OK = Text("Journal: written by every worker", "ジャーナル: すべてのワーカーが記録できています")
JOURNAL_BAD = Text("Journal of {worker}: {error}", "{worker} のジャーナル: {error}")
CONFIG_WAITS = Text(
    "The configuration would let guarded work reach more and waits for an administrator: {what}. "
    "`sekisho config waiting` says why.",
    "設定の変更が保護対象の処理の届く先を広げるため、管理者の承認を待っています：{what}。"
    "理由は `sekisho config waiting` で確認できます。",
)
ALL_WELL = Text("All is well.", "すべて正常です。")
NOT_WELL = Text("Not well: {faults}", "異常があります: {faults}")
FAULT_PROCESS = Text("{name} is {state}", "{name} の状態が {state}")
FAULT_SILENT = Text("{name} does not answer", "{name} が応答しません")
FAULT_TABLE = Text("route table", "経路表")
FAULT_JOURNAL = Text("journal of {name}", "{name} のジャーナル")
FAULT_PHASE = Text("the fleet is {phase}", "全体の状態が {phase}")
FAULT_EJECTED = Text("endpoint {name} is ejected", "エンドポイント {name} が失敗により休止中")
FAULT_RELOAD = Text("the last reload was refused", "前回の再読み込みは拒否されました")

# ask, why, keys, endpoints
SERVED_BY = Text(
    "served by {site} · operator {operator} · country {country} · class {data_class} · decision {decision}",
    "処理した拠点 {site} · 事業者 {operator} · 国 {country} · データ区分 {data_class} · 判定 {decision}",
)
REFUSED = Text("Refused: {message}", "拒否されました: {message}")
REFUSED_CODE = Text("code", "コード")
REFUSED_RULES = Text("rules", "ルール")
REFUSED_WAY_OUT = Text("way out", "解決方法")
REFUSED_DECISION = Text("decision", "判定")
CUT_SHORT = Text("The answer broke off: {reason}", "応答が途中で切れました: {reason}")
WHY_ALLOWED = Text("Allowed", "許可")
WHY_DENIED = Text("Denied", "不許可")
WHY_RAISED = Text(
    "Asked for {asked}; {tenant}'s floor raises it to {counts}.",
    "指定は {asked} ですが、{tenant} の下限により {counts} として扱います。",
)
WHY_ALIAS = Text("{asked} is an alias of {model}.", "{asked} は {model} の別名です。")
WHY_SOMEBODY = Text(
    "{tenant}, {data_class}, {model}: may be served by {sites}.",
    "{tenant}・{data_class}・{model}: {sites} が処理できます。",
)
WHY_NOBODY = Text(
    "{tenant}, {data_class}, {model}: nobody may serve it [{code}].",
    "{tenant}・{data_class}・{model}: 処理できる拠点はありません [{code}]。",
)
COLUMN_VERDICT = Text("verdict", "判定")
COLUMN_REASONS = Text("reasons", "理由")
COLUMN_KEY = Text("key id", "キー ID")
COLUMN_TENANT = Text("tenant", "テナント")
COLUMN_SOURCE = Text("declared in", "定義元")
COLUMN_LABEL = Text("label", "ラベル")
KEY_LIVE = Text("live", "有効")
KEY_GONE = Text("revoked", "失効")
KEY_EXPIRED = Text("expired", "期限切れ")
COLUMN_EXPIRES = Text("expires", "有効期限")
KEY_CREATED = Text(
    "Key {id} for {tenant}. It is shown this once:",
    "{tenant} のキー {id} を作成しました。このキーが表示されるのは今回だけです。",
)
KEY_REVOKED = Text("Key {id} is revoked.", "キー {id} を失効させました。")
SUSPENDED = Text("Endpoint {id} is suspended.", "エンドポイント {id} を停止しました。")
RESUMED = Text("Endpoint {id} is in use again.", "エンドポイント {id} を再開しました。")

# Faults
FAULT = Text("error", "エラー")
NEXT_STEP = Text("next step", "次の手順")
# What a fault's code means, for the reader whose language is not that of the fact (facts are in English).
CODES = {
    "home.unusable": Text("The home directory can't be used.", "ホームディレクトリを使えません。"),
    "home.path_too_long": Text("The home directory's path is too long.", "ホームディレクトリのパスが長すぎます。"),
    "home.disk_full": Text("There is no room on the disk.", "ディスクの空きが足りません。"),
    "home.not_writable": Text("The home directory is not writable.", "ホームディレクトリに書き込めません。"),
    "home.other_owner": Text(
        "The home directory belongs to another user.", "ホームディレクトリの所有者が別のユーザーです。"
    ),
    "home.in_use": Text(
        "Another supervisor runs on this home.", "このホームディレクトリでは、別の Sekisho が動いています。"
    ),
    "home.secret_damaged": Text("A secret file is damaged.", "秘密情報のファイルが壊れています。"),
    "ready_file.not_writable": Text("The ready file can't be written.", "ready ファイルに書き込めません。"),
    "listen.unusable": Text("The address can't be listened on.", "このアドレスでは待ち受けできません。"),
    "listen.address": Text("This is not an address.", "アドレスの形式が正しくありません。"),
    "listen.in_use": Text("The port is in use.", "ポートは別のプロセスが使用中です。"),
    "listen.forbidden": Text("This user may not use the port.", "このユーザーにはポートを使う権限がありません。"),
    "listen.not_local": Text("The address is not of this machine.", "アドレスがこのマシンのものではありません。"),
    "config.not_waiting": Text(
        "No such configuration waits for an approval.", "承認を待っている設定の中に、該当するものがありません。"
    ),
    "config.refused": Text("The configuration has mistakes.", "設定に誤りがあります。"),
    "demo.unavailable": Text("The demonstration can't run here.", "デモ構成を実行できません。"),
    "demo.endpoint": Text("A simulated endpoint can't be run.", "模擬エンドポイントを実行できません。"),
    "start.refused": Text("A process refused to start.", "プロセスが起動を取りやめました。"),
    "up.not_running": Text("Sekisho is not running here.", "ここでは Sekisho は動いていません。"),
    "up.not_ready": Text("Sekisho is not ready yet.", "Sekisho はまだ準備中です。"),
    "down.timeout": Text("It did not end in time.", "時間内に終了しませんでした。"),
    "reload.timeout": Text("The reload was not answered.", "再読み込みの結果が返ってきませんでした。"),
    "reload.refused": Text("The new configuration was not taken.", "新しい設定は採用されませんでした。"),
    "ask.no_key": Text("There is no key to ask with.", "質問に使うキーがありません。"),
    "key.no_demo_key": Text("There is no such demonstration key.", "該当するデモ用キーはありません。"),
    "ask.unreachable": Text("The gateway can't be reached.", "ゲートウェイに接続できません。"),
    "control.unreachable": Text("The control plane can't be reached.", "コントロールプレーンに接続できません。"),
    "control.answer": Text(
        "The control plane's answer can't be read.", "コントロールプレーンの応答を解釈できません。"
    ),
}
