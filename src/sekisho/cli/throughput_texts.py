"""What `sekisho reserve throughput` says, in both languages."""

from __future__ import annotations

from sekisho.cli.texts import Text

THROUGHPUT = Text(
    "Guaranteed throughput: find, book, list, use, change, cancel, endpoints, audit.",
    "スループットを保証します（検索、予約、一覧、利用状況、変更、取消、エンドポイント、監査）。",
)
FIND = Text(
    "Say whether it can be had, and what can be had instead; nothing is held. Exit code 1 when it can't.",
    "予約できるかどうかと代案を表示します。枠は確保しません。予約できないときの終了コードは 1 です。",
)
BOOK = Text(
    "Reserve requests at a time, or tokens a second, for a model and a data class; all of it or nothing.",
    "モデルとデータ区分に対して、同時リクエスト数または毎秒トークン数を予約します（全量のみ）。",
)
LIST = Text("List throughput reservations.", "スループットの予約を一覧表示します。")
USE = Text(
    "Show what is in force now: where, what was used of it in the last day, and when it would be used up.",
    "現在有効な予約について、配置、直近 1 日の利用状況、使い切る時期の予測を表示します。",
)
CHANGE = Text("Reserve more or less, or give it another end.", "予約量または終了時刻を変更します。")
CANCEL = Text("Give a reservation up.", "予約を取り消します。")
ENDPOINTS = Text(
    "Show what each endpoint can do: slots, and tokens a second of one slot as the gateways metered it.",
    "各エンドポイントの能力（枠の数と、ゲートウェイの実測による 1 枠あたりの毎秒トークン数）を表示します。",
)
AUDIT = Text(
    "Prove from the database's rows that all promises can be met at every moment; exit code 1 when they can't.",
    "すべての予約をどの時点でも満たせることをデータベースの行から証明します。満たせなければ終了コードは 1 です。",
)
OPTION_TENANT = Text("For whom.", "予約するテナント。")
OPTION_MODEL = Text("Model (or an alias of it).", "モデル（別名も可）。")
OPTION_CLASS = Text("Data class of the requests that it counts for.", "対象となるリクエストのデータ区分。")
OPTION_CONCURRENCY = Text("Requests at a time.", "同時リクエスト数。")
OPTION_TOKENS = Text("Generated tokens a second.", "毎秒の生成トークン数。")
OPTION_START = Text(
    "Beginning, 2027-06-01T09:00+09:00 (default: this quarter of an hour).",
    "開始時刻（例：2027-06-01T09:00+09:00。既定：現在の 15 分枠）。",
)
OPTION_HOURS = Text("How long, in hours (a multiple of 0.25).", "時間数（0.25 の倍数）。")
OPTION_KEEP = Text(
    "For so many seconds what was just used is kept ready for the owner; 0 lends it at once.",
    "直前まで使っていた枠を予約者のために空けておく秒数。0 ならすぐに貸し出します。",
)
OPTION_NOTE = Text("A note.", "メモ。")
OPTION_STATE = Text("Only those in this state.", "この状態の予約だけを表示。")
OPTION_END = Text("The new end.", "新しい終了時刻。")
ONE_OF = Text(
    "give either --concurrency or --tokens-per-s", "--concurrency か --tokens-per-s のどちらか一方を指定してください"
)
FITS = Text("Yes: {needed} at a time, on {endpoints}.", "予約できます：同時 {needed} 件（{endpoints}）。")
FITS_NOT = Text(
    "No: {needed} at a time are needed, {most} can be had.",
    "予約できません：必要なのは同時 {needed} 件ですが、確保できるのは {most} 件です。",
)
INSTEAD = Text("  instead: {what} ({start} – {end})", "  代案：{what}（{start} – {end}）")
BOOKED = Text(
    "{id} is booked: {held} at a time with {model} for {tenant}, {start} – {end}",
    "{id} を予約しました：{tenant} の {model}、同時 {held} 件、{start} – {end}",
)
CHANGED = Text("{id}: {held} at a time until {end}", "{id}：同時 {held} 件、{end} まで")
CANCELLED = Text("{id} is cancelled.", "{id} を取り消しました。")
NOTHING = Text("Nothing is in force now.", "現在有効な予約はありません。")
SHORT = Text(
    "{id}: {missing} of {held} can't be met at present", "{id}：{held} 件のうち {missing} 件を現在満たせません"
)
AUDIT_GOOD = Text(
    "All agrees: {commitments} reservations, at most {peak} slots promised at a time.",
    "すべて整合しています：予約 {commitments} 件、同時に約束している枠は最大 {peak}。",
)
COLUMN_ID = Text("id", "ID")
COLUMN_TENANT = Text("tenant", "テナント")
COLUMN_MODEL = Text("model", "モデル")
COLUMN_CLASS = Text("class", "区分")
COLUMN_STATE = Text("state", "状態")
COLUMN_WHEN = Text("when", "期間")
COLUMN_HELD = Text("reserved", "予約")
COLUMN_USED = Text("used (busiest minute)", "利用（最も多い 1 分）")
COLUMN_TOKENS = Text("tokens/s", "トークン/秒")
COLUMN_REFUSED = Text("refused", "拒否")
COLUMN_QUEUE = Text("p99 wait (ms)", "待ち p99 (ms)")
COLUMN_WHERE = Text("where", "場所")
COLUMN_UNTIL = Text("used up", "使い切る時期")
COLUMN_ENDPOINT = Text("endpoint", "エンドポイント")
COLUMN_SITE = Text("site", "拠点")
COLUMN_SLOTS = Text("slots", "枠")
COLUMN_RATE = Text("tokens/s of a slot", "1 枠あたりトークン/秒")
