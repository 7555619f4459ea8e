"""What `sekisho reserve` says, in both languages."""

from __future__ import annotations

from sekisho.cli.texts import Text

RESERVE = Text(
    "Reserve GPUs (find, book, list, extend, cancel, waitlist, audit) and guaranteed throughput.",
    "GPU（検索、予約、一覧、延長、取消、キャンセル待ち、監査）とスループットの保証を予約します。",
)
POOLS = Text("List the pools of GPUs that can be reserved.", "予約できる GPU のプールを一覧表示します。")
POOL = Text(
    "Make or change a pool: so many GPUs of one model at a site.",
    "プール（ある拠点の同一機種の GPU 群）を作成または変更します。",
)
FIND = Text(
    "Show what can be had: exactly that, or at least six alternatives, each bookable by its id for five minutes.",
    "予約できる枠を提案します。希望どおりの枠がなければ、6 件以上の代案を示します。"
    "どの提案も 5 分間、その ID で予約できます。",
)
WHERE = Text(
    "Say for each pool whether a wish fits there, when first, and why not.",
    "プールごとに、希望が収まるか、最も早く収まる時期、収まらない理由を示します。",
)
BOOK = Text(
    "Book an offer by its id (--offer), or the window that the options describe.",
    "提案の ID（--offer）、またはオプションで示した枠を予約します。",
)
LIST = Text("List reservations in the order of their beginnings.", "予約を開始順に一覧表示します。")
EXTEND = Text("Give a reservation a later end.", "予約の終了時刻を遅らせます。")
CANCEL = Text("Give a reservation up; says how much is refunded.", "予約を取り消し、返金額を表示します。")
WAITLIST = Text(
    "Show the waitlist in the order in which it is served; with --tenant, join it.",
    "キャンセル待ちを割り当て順に表示します。--tenant を付けるとキャンセル待ちに登録します。",
)
AUDIT = Text(
    "Prove from the database's rows that no GPU is sold twice; exit code 1 when something does not agree.",
    "GPU が二重に販売されていないことをデータベースの行から証明します。不整合があれば終了コードは 1 です。",
)
OPTION_TENANT = Text("For whom.", "予約するテナント。")
OPTION_CLASS = Text("Data class of the work.", "処理するデータ区分。")
OPTION_GPUS = Text("How many GPUs.", "GPU の数。")
OPTION_GPUS_MIN = Text("Be content with so many.", "最低限必要な GPU の数。")
OPTION_GPU = Text("GPU model (several: any of them).", "GPU の機種（複数指定時はいずれか）。")
OPTION_START = Text("Earliest start, 2027-06-01T09:00+09:00.", "最も早い開始時刻（例：2027-06-01T09:00+09:00）。")
OPTION_LATEST = Text("Latest start (default: the earliest).", "最も遅い開始時刻（既定：最も早い開始時刻）。")
OPTION_HOURS = Text("How long, in hours (a multiple of 0.25).", "時間数（0.25 の倍数）。")
OPTION_SITE = Text("Only at this site (several: any of them).", "拠点を限定（複数指定時はいずれか）。")
OPTION_SPREAD = Text("Pools may be combined.", "複数のプールに分けてもよい。")
OPTION_PRIORITY = Text("How firmly it holds.", "優先度。")
OPTION_OFFER = Text("Id of an offer of `reserve find`.", "`reserve find` が示した提案の ID。")
OPTION_STATE = Text("Only those in this state.", "この状態の予約だけを表示。")
OPTION_END = Text("The new end.", "新しい終了時刻。")
OPTION_YEN = Text("Price of a GPU for an hour, in yen.", "GPU 1 基 1 時間の料金（円）。")
OPTION_LIMIT = Text("The most that one tenant may hold (default: all).", "1 テナントの上限（既定：全数）。")
OPTION_DRY_RUN = Text(
    "Say what it would become, and change nothing.", "変更後の内容と料金・返金額だけを表示し、実際には変更しません。"
)
BAD_TIME = Text("is not a time: write 2027-06-01T09:00+09:00", "は時刻として読めません。例：2027-06-01T09:00+09:00")
NEEDS = Text("{options} are needed", "{options} を指定してください")
BAD_COUNT = Text("a number of GPUs is 1 or more", "GPU の数は 1 以上で指定してください")
NO_RESERVATION = Text("No reservation fits.", "条件に合う予約はありません。")
NOBODY_WAITS = Text("Nobody waits.", "キャンセル待ちはありません。")
BOOKED = Text("{id} is booked: {what}", "{id} を予約しました：{what}")
CANCELLED = Text("{id} is cancelled; {yen} yen are refunded.", "{id} を取り消しました。返金額は {yen} 円です。")
EXTENDED = Text(
    "{id} ends {end} now; it costs {yen} yen.", "{id} の終了時刻は {end} になりました。料金は {yen} 円です。"
)
WOULD_CANCEL = Text(
    "{id} would be cancelled; {yen} yen would be refunded. Nothing was changed.",
    "{id} を取り消すと、返金額は {yen} 円になります（まだ変更していません）。",
)
WOULD_EXTEND = Text(
    "{id} would end {end} and cost {yen} yen. Nothing was changed.",
    "{id} を延長すると、終了は {end}、料金は {yen} 円になります（まだ変更していません）。",
)
NOTHING = Text("Nothing can be had.", "予約できる枠はありません。")
WAITING = Text("{id} is on the waitlist, place {place}.", "{id} をキャンセル待ちに登録しました（順位 {place}）。")
AUDIT_POOL = Text(
    "{pool}: at most {peak} of {gpus} GPUs are taken at a time ({allocations} allocations)",
    "{pool}：同時使用は最大 {peak} / {gpus} 基（割り当て {allocations} 件）",
)
AUDIT_GOOD = Text("All agrees: nothing is sold twice.", "すべて整合しています。二重販売はありません。")
COLUMN_ID = Text("id", "ID")
COLUMN_TENANT = Text("tenant", "テナント")
COLUMN_STATE = Text("state", "状態")
COLUMN_WHEN = Text("when", "期間")
COLUMN_WHERE = Text("where", "場所")
COLUMN_YEN = Text("yen", "料金（円）")
COLUMN_DIFFERS = Text("differs", "希望との違い")
COLUMN_PLACE = Text("place", "順位")
COLUMN_GPUS = Text("GPUs", "GPU 数")
COLUMN_ALLOWED = Text("policy allows", "ポリシー")
COLUMN_FREE = Text("free then", "期間中の空き")
COLUMN_FITS = Text("fits first", "最も早く収まる時期")
COLUMN_WHY = Text("why not", "理由")
YES = Text("yes", "許可")
NO = Text("no", "不可")
NOT_ASKED = Text("another site or GPU model than was asked for", "希望した拠点または GPU の機種ではありません")
COLUMN_POOL = Text("pool", "プール")
DIFFERS = {
    "later": Text("later", "開始が遅い"),
    "shorter": Text("shorter", "短い"),
    "fewer": Text("fewer", "GPU が少ない"),
    "site": Text("other site", "別の拠点"),
    "gpu": Text("other GPU", "別の GPU"),
}
SHRINK = Text(
    "Give a part of a reservation back: an earlier end, fewer GPUs, or both.",
    "予約の一部を返します（終了時刻を早める、GPU を減らす、またはその両方）。",
)
MOVE = Text("Give a reservation another beginning.", "予約の開始時刻を変更します。")
TRANSFER = Text("Pass a reservation on to another tenant.", "予約を別のテナントに譲渡します。")
CLAIM = Text(
    "Say that the owner has come: it is not reclaimed as a no-show.",
    "利用の開始を申告します。申告した予約は、未利用として回収されません。",
)
HISTORY = Text("Show who changed a reservation, when and why.", "予約の変更履歴（変更者、日時、理由）を表示します。")
NOTICES = Text("Show what tenants were told.", "テナントへの通知を表示します。")
EXPORT = Text(
    "Write reservations as a calendar (iCalendar) or a table (CSV).",
    "予約をカレンダー形式（iCalendar）または表形式（CSV）で出力します。",
)
BLOCK = Text(
    "Take GPUs out of a pool for maintenance; reservations in the way are planned anew.",
    "保守のためにプールの GPU を販売対象から外します。影響を受ける予約は再計画されます。",
)
BLOCKS = Text("Show what is maintained or held back.", "保守中または確保中の GPU を表示します。")
UNBLOCK = Text("End a block: its GPUs can be sold again.", "ブロックを解除し、GPU を再び販売対象にします。")
RESIZE = Text(
    "Set how many GPUs a pool has, also when more are sold: what no longer fits is planned anew.",
    "プールの GPU 数を設定します。販売済みの数を下回る場合、収まらない予約は再計画されます。",
)
QUOTA = Text(
    "Give a tenant a part of a pool, or take it away (--remove).",
    "プールの一部をテナントに割り当てます。--remove で割り当てを取り消します。",
)
QUOTAS = Text("Show who has which part of a pool.", "プールの割り当てを表示します。")
FAIL_SITE = Text(
    "Say that a site is gone until a time; its reservations are planned anew.",
    "拠点が指定の時刻まで使えないことを記録します。その拠点の予約は再計画されます。",
)
OPTION_NEW_START = Text("The new beginning.", "新しい開始時刻。")
OPTION_TO = Text("The tenant that gets it.", "譲渡先のテナント。")
OPTION_FORMAT = Text("Calendar or table.", "出力形式。")
OPTION_BLOCK_GPUS = Text("How many GPUs are taken out.", "対象から外す GPU の数。")
OPTION_BLOCK_START = Text("From when.", "開始時刻。")
OPTION_UNTIL = Text("Until when.", "終了時刻。")
OPTION_COHORT = Text("Tenants of one cohort lend to each other.", "互いに GPU を融通するテナントの融通グループ。")
OPTION_NOMINAL = Text("GPUs that are the tenant's own.", "テナント固有の GPU 数。")
OPTION_LENDS = Text("How many of them it lends.", "そのうち貸し出す数。")
OPTION_BORROWS = Text("How many it borrows at most.", "借りられる上限。")
OPTION_REMOVE = Text("Take the part away.", "割り当てを取り消す。")
CHANGED = Text(
    "{id} is now: {what} (version {version}, {yen} yen)",
    "{id} は次のとおりになりました：{what}（第 {version} 版、{yen} 円）",
)
TRANSFERRED = Text("{id} belongs to {tenant} now.", "{id} は {tenant} の予約になりました。")
CLAIMED = Text("{id} is claimed.", "{id} の利用開始を記録しました。")
TOUCHED = Text(
    "{count} reservations were planned anew; their tenants were told: {names}",
    "{count} 件の予約を再計画し、テナントに通知しました：{names}",
)
NONE_TOUCHED = Text("Done; no reservation was in the way.", "完了しました。影響を受けた予約はありません。")
DONE = Text("Done.", "完了しました。")
COLUMN_WHO = Text("who", "変更者")
COLUMN_WHY = Text("why", "理由")
COLUMN_AT = Text("at", "日時")
COLUMN_VERSION = Text("version", "版")
COLUMN_TOLD = Text("what was told", "通知の内容")
COLUMN_COHORT = Text("cohort", "融通グループ")
COLUMN_NOMINAL = Text("own", "固有")
COLUMN_LENDS = Text("lends", "貸出")
COLUMN_BORROWS = Text("borrows", "借入")
