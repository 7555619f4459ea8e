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
