"""What `sekisho workload …` and `sekisho reserve run` say, in both languages."""

from __future__ import annotations

from sekisho.cli.texts import Text

WORKLOAD = Text(
    "What runs in reserved windows: offers, list, show, start, stop.",
    "予約した時間帯に動かすワークロードを扱います（提供一覧、一覧、詳細、開始、停止）。",
)
RUN = Text(
    "Serve a model in a reservation's window: replicas start when it begins and end when it ends.",
    "予約した時間帯にモデルを提供します。レプリカは時間帯の開始とともに起動し、終了とともに停止します。",
)
OFFERS = Text(
    "List the models and engines that the operators of sites offer.",
    "各拠点の事業者が提供するモデルとエンジンを一覧表示します。",
)
LIST = Text("List workloads, the newest first.", "ワークロードを新しい順に一覧表示します。")
SHOW = Text("Show a workload: its replicas, and what happened to it.", "ワークロードのレプリカと経緯を表示します。")
START = Text(
    "Run a workload again that was stopped, if its window is still open.",
    "停止したワークロードを、時間帯が残っていれば再び開始します。",
)
STOP = Text(
    "Stop a workload: no new requests, and it ends when the running ones are done.",
    "ワークロードを停止します。新しいリクエストは受け付けず、処理中のものが終わりしだい終了します。",
)
OPTION_MODEL = Text("Model, as the site offers it.", "拠点が提供するモデル。")
OPTION_ENGINE = Text("Engine that serves it.", "モデルを提供するエンジン。")
OPTION_NAME = Text(
    "Name that clients ask for (yours alone: nobody else's model has it).",
    "クライアントが指定するモデル名（他のモデルと重複しない名前）。",
)
OPTION_REPLICAS = Text("How many replicas.", "レプリカの数。")
OPTION_GPUS = Text("GPUs of each replica.", "レプリカ 1 つあたりの GPU の数。")
OPTION_SLOTS = Text("Requests that a replica works on at a time.", "レプリカが同時に処理するリクエストの数。")
OPTION_CONTEXT = Text("Tokens that all slots share.", "全スロットで共有するトークン数。")
OPTION_GRACE = Text(
    "Seconds that running requests have when the window ends.",
    "時間帯の終了時に、処理中のリクエストに与える猶予（秒）。",
)
OPTION_RESERVATION = Text("Only those of this reservation.", "この予約のワークロードだけを表示。")
OPTION_TENANT = Text("Only those of this tenant.", "このテナントのワークロードだけを表示。")
DEFINED = Text(
    "{id} serves {model} as {name} in the window of {reservation}.",
    "{id} は予約 {reservation} の時間帯に {model} を {name} として提供します。",
)
NOW = Text("{id}: {state}", "{id}：{state}")
NO_OFFERS = Text("No site offers anything yet.", "提供している拠点はまだありません。")
COLUMN_ID = Text("id", "ID")
COLUMN_RESERVATION = Text("reservation", "予約")
COLUMN_TENANT = Text("tenant", "テナント")
COLUMN_STATE = Text("state", "状態")
COLUMN_NAME = Text("name", "名前")
COLUMN_MODEL = Text("model", "モデル")
COLUMN_ENGINE = Text("engine", "エンジン")
COLUMN_READY = Text("ready", "稼働数")
COLUMN_SITE = Text("site", "拠点")
COLUMN_RESTARTS = Text("restarts", "再起動")
COLUMN_LAST = Text("last exit", "直前の終了")
COLUMN_WHEN = Text("when", "時刻")
COLUMN_WHO = Text("who", "実行者")
COLUMN_WHY = Text("why", "理由")
STATES = {
    "planned": Text("planned", "開始前"),
    "starting": Text("starting", "起動中"),
    "serving": Text("serving", "提供中"),
    "down": Text("down", "停止（障害）"),
    "stopped": Text("stopped", "停止"),
    "draining": Text("draining", "終了処理中"),
    "ended": Text("ended", "終了"),
    "ready": Text("ready", "稼働中"),
    "waiting": Text("waiting to start again", "再起動待ち"),
    "gone": Text("gone", "終了"),
}
CODES = {
    "workload.unknown": Text("There is no such workload.", "そのワークロードはありません。"),
    "workload.refused": Text(
        "The workload does not fit its reservation, or its name is taken.",
        "予約に収まらないか、名前がすでに使われています。",
    ),
    "workload.engine": Text(
        "A site of the reservation does not offer this model on this engine.",
        "予約先の拠点は、このモデルをこのエンジンで提供していません。",
    ),
}
