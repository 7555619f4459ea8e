"""What `sekisho evidence pack` and `verify` say, in both languages."""

from __future__ import annotations

from sekisho.cli.texts import Text

EVIDENCE = Text(
    "Evidence for auditors: packs, attestation, registers.", "監査のための証跡：パック、アテステーション、登録簿。"
)
PACK = Text(
    "Make an evidence pack: a sample drawn with the auditor's seed, each decision proven and made again.",
    "証拠パックを作ります。監査人のシードで判定を抽出し、受領証を添え、判定をやり直します。",
)
VERIFY = Text(
    "Verify an evidence pack from its file and the trust policy alone.",
    "証拠パックを、ファイルと信頼ポリシーだけで検証します。",
)
OPTION_TENANT = Text("The tenant whose passages are stated.", "対象のテナント。")
OPTION_FROM = Text(
    "First day or instant (UTC), as 2026-11-01 or 2026-11-01T09:00.", "開始の日付または時刻（UTC）。例：2026-11-01"
)
OPTION_TO = Text("Day or instant after the last (UTC).", "終了の日付または時刻（UTC、その時刻は含みません）。")
OPTION_SEED = Text("What the auditor chose, after the period.", "監査人が期間の後に決めた文字列。")
OPTION_SAMPLE = Text("Decisions to draw, at most 500.", "抽出する判定の数（500 まで）。")
OPTION_OUT = Text("File to write.", "書き出すファイル。")
OPTION_POLICY = Text(
    "Trust policy of the installation that made it (default: this one's).",
    "作成元の信頼ポリシー（既定：この環境のもの）。",
)
WRITTEN = Text("{file}: {size:,} bytes", "{file}：{size:,} バイト")
PROVEN = Text(
    "Proven: signed by {by}; {passages:,} passages of {tenant} stated, {receipts} receipts verified, "
    "{replayed} decisions made again with the stated result.",
    "検証済み：署名 {by}。テナント {tenant} の通過 {passages:,} 件の申告、受領証 {receipts} 通を検証、"
    "{replayed} 件の判定をやり直し、申告どおりでした。",
)
FINDING = Text(
    "  {state}  {title} ({exceptions} of {checked})", "  {state}  {title}（{checked} 件中 例外 {exceptions} 件）"
)
STATES = {
    "satisfied": Text("satisfied     ", "適合　"),
    "not-satisfied": Text("NOT satisfied ", "不適合"),
    "not-assessed": Text("not assessed  ", "未評価"),
}
NOT_PROVEN = Text(
    "Not proven by a pack alone: that no passage is missing. The log up to the stated size proves that.",
    "パックだけでは、漏れがないことは証明されません。申告された件数までのログを読めば確認できます。",
)
