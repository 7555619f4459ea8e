"""What `sekisho border …` says, in both languages (see texts.py)."""

from __future__ import annotations

from sekisho.cli.texts import Text

BORDER = Text(
    "The border ledger: signed statements of what crossed a border, counted three times, zeros included.",
    "国境台帳：国境を越えたものを三通りに数えた、署名付きの記載（ゼロも含む）。",
)
KEY = Text(
    "Make the key of a border post, and print its public half.", "国境の計測点の鍵を作り、公開鍵を表示します。"
)
TRUST = Text(
    "From now on statements about this border count when this key signed them.",
    "この鍵で署名された、この国境についての記載を、以後有効とします。",
)
STATE = Text(
    "State what three counters added since the last statement, sign it, and hand it in (on the post's machine).",
    "前回の記載以降に三つの計数が増えた分を記載し、署名して提出します（計測点のマシンで実行）。",
)
LIST = Text("Borders, and what was counted at them.", "国境の一覧と、そこで数えられたもの。")
EXPORT = Text(
    "Write out a border's statements as JSON or CSV, zeros included.",
    "国境の記載を JSON または CSV で書き出します（ゼロも含む）。",
)
VERIFY = Text(
    "Check a chain of statements with the public key alone; exit code 1 when something crossed.",
    "公開鍵だけで記載の連鎖を検証します。通過の記載があるときの終了コードは 1 です。",
)
OPTION_KEY_OUT = Text("where the private key goes", "秘密鍵の出力先")
OPTION_KEY = Text("file of the post's private key", "計測点の秘密鍵のファイル")
OPTION_NAME = Text("name of the border", "国境の名前")
OPTION_READINGS = Text(
    "file with the three counters of every line since they were set up (JSON; `-`: standard input)",
    "各回線の三つの計数（設定時からの累計）のファイル（JSON。`-` は標準入力）",
)
OPTION_CHAIN = Text("file with the chain so far; it is written anew", "これまでの連鎖のファイル（更新されます）")
OPTION_CONTROL = Text("hand statements in at this control plane", "記載をこのコントロールプレーンに提出する")
OPTION_CA = Text("file with the authority of its TLS certificate", "TLS 証明書の認証局のファイル")
OPTION_FORMAT = Text("form of the file", "ファイルの形式")
OPTION_OUT = Text("where it goes (default: standard output)", "出力先（既定：標準出力）")
OPTION_SINCE = Text(
    "only what ends after this instant (Unix milliseconds)", "この時刻（Unix ミリ秒）より後に終わるもののみ"
)
OPTION_PUBLIC = Text("the post's public key, 64 hex digits", "計測点の公開鍵（16 進 64 桁）")
TRUSTED = Text(
    "Statements about {border} count when {key} signed them.", "{border} の記載は、{key} の署名があれば有効です。"
)
STATED = Text(
    "{border}: statement {sequence}, {finding}; guarded {guarded} packets, canary {canary}",
    "{border}：記載 {sequence}、{finding}。保護対象 {guarded} パケット、カナリア {canary} パケット",
)
HANDED_IN = Text("{taken} handed in", "{taken} 件を提出しました")
VERIFIED = Text(
    "{statements} statements, signed and chained without a gap: {findings}",
    "{statements} 件の記載。署名と連鎖は正しく、欠けはありません：{findings}",
)
NOTHING = Text(
    "No border is known. `sekisho border trust` makes one known.",
    "国境は登録されていません。`sekisho border trust` で登録します。",
)
COLUMN_BORDER = Text("border", "国境")
COLUMN_WAY = Text("line", "回線")
COLUMN_CLASS = Text("class", "データ区分")
COLUMN_LINE = Text("line counter", "回線の計数")
COLUMN_INTERFACE = Text("interface", "インターフェース")
COLUMN_CAPTURE = Text("capture", "キャプチャ")
COLUMN_FINDING = Text("newest", "最新の判定")
COLUMN_STATEMENTS = Text("statements", "記載")
CANARY = Text("canary", "カナリア")
FINDINGS: dict[str, Text] = {
    "clean": Text("clean", "異常なし"),
    "crossed": Text("CROSSED", "通過あり"),
    "disagreement": Text("the counters disagree", "計数が不一致"),
    "blind": Text("blind: no canary was seen", "確認不能：カナリアが観測されず"),
}
