"""What `sekisho capacity` says, in both languages."""

from __future__ import annotations

from sekisho.cli.texts import Text

CAPACITY = Text(
    "What reservations are worth under real load: replay, profile.",
    "実際の負荷のもとで予約がどれだけ効くかを調べます（再生、計測）。",
)
REPLAY = Text(
    "Replay a trace (TIMESTAMP, ContextTokens, GeneratedTokens) against a simulated federation, without and with a "
    "reservation; with --live against a real endpoint.",
    "トレース（TIMESTAMP、ContextTokens、GeneratedTokens）を、予約なしと予約ありの模擬フェデレーションで再生します。"
    "--live では実際のエンドポイントに送ります。",
)
PROFILE = Text(
    "Measure what one slot of a real endpoint takes, for --profile.",
    "実際のエンドポイントの 1 枠あたりの所要時間を計測します（--profile 用）。",
)
OPTION_PROFILE = Text("File of `sekisho capacity profile`.", "`sekisho capacity profile` のファイル。")
OPTION_ENDPOINTS = Text("Simulated endpoints.", "模擬エンドポイントの数。")
OPTION_SLOTS = Text("Slots of each.", "各エンドポイントの枠の数。")
OPTION_GREEDY = Text("Greedy tenants.", "貪欲なテナントの数。")
OPTION_LOAD = Text("How many times all slots they ask for.", "全枠の何倍を求めるか。")
OPTION_RESERVED = Text("Slots that the owner reserves.", "予約者が予約する枠の数。")
OPTION_KEEP = Text("Seconds that its slots are kept ready.", "枠を空けておく秒数。")
OPTION_SLO = Text("The first token is due within so many seconds.", "最初のトークンまでの目標秒数。")
OPTION_SECONDS = Text("How long, in (virtual) seconds.", "再生する秒数（模擬では仮想時間）。")
OPTION_LIVE = Text(
    "Send to this endpoint (http://host:port/v1).", "このエンドポイントに送る（http://host:port/v1）。"
)
OPTION_MODEL = Text("Model to ask.", "呼び出すモデル。")
OPTION_SPEED = Text("So many times faster than in the trace.", "トレースの何倍の速さで送るか。")
OPTION_HOST = Text(
    "Allow this host; otherwise only this machine is asked.", "このホストへの送信を許可（既定はこのマシンのみ）。"
)
OPTION_KEY = Text("API key.", "API キー。")
SIMULATED = Text(
    "SIMULATION: {endpoints} × {slots} slots, greedy load {load:g} times that ({speed:.1f} times the trace's pace); "
    "service times from {source}",
    "【模擬】{endpoints} × {slots} 枠、負荷はその {load:g} 倍（トレースの {speed:.1f} 倍速）、"
    "所要時間の出典：{source}",
)
MADE_UP = Text("assumed figures, not measured", "仮定の値（計測値ではありません）")
BUSY = Text(
    "slots busy: {without:.0%} without the reservation, {kept:.0%} with it",
    "枠の使用率：予約なし {without:.0%}、予約あり {kept:.0%}",
)
COLUMN_TENANT = Text("tenant", "テナント")
COLUMN_REQUESTS = Text("requests", "リクエスト")
COLUMN_REFUSED = Text("refused: without → with", "拒否：予約なし → あり")
COLUMN_SLO = Text("SLO: without → with", "SLO 達成：予約なし → あり")
COLUMN_P99 = Text("p99 wait (s): without → with", "待ち p99（秒）：予約なし → あり")
LIVE = Text(
    "{requests} requests: {answered} answered, {refused} refused, {failed} failed; SLO {slo:.1%}; first token "
    "p50 {p50} s, p99 {p99} s",
    "リクエスト {requests} 件：応答 {answered}、拒否 {refused}、失敗 {failed}。SLO 達成 {slo:.1%}、"
    "最初のトークン p50 {p50} 秒、p99 {p99} 秒",
)
