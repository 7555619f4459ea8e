"""What `sekisho lab` says, in both languages (see texts.py)."""

from __future__ import annotations

from sekisho.cli.texts import Text

LAB = Text(
    "The laboratory: an Internet of Japan on this machine (needs root and /dev/net/tun).",
    "実験室：このマシンの上に作る、日本のインターネット（root 権限と /dev/net/tun が必要）。",
)
RUN = Text(
    "Run a scenario, or all of them, and report. Exit code 0 only when every promise held.",
    "シナリオを一つ、またはすべて実行して報告します。すべての約束が守られたときに限り、終了コードは 0 です。",
)
FIDELITY = Text(
    "Measure the laboratory itself: the error of its round trips, and what goes through one of its lines.",
    "実験室そのものを測ります：往復時間の誤差と、一本の回線を通る速度。",
)
OPTION_OUT = Text("Folder for reports, captures and charts.", "報告、キャプチャ、図表を置くフォルダー。")
OPTION_SHORT = Text(
    "Take less time: fewer questions, shorter faults.", "短い時間で：質問を減らし、障害を短くします。"
)
OPTION_PINGS = Text("Pings on each line.", "回線ごとの ping の回数。")
OPTION_ROUNDS = Text(
    "Repetitions; the best round counts, all are shown.", "繰り返し回数。最良の回を採り、すべて表示します。"
)
STARTS = Text("{title}: starting …", "{title}：開始します …")
HELD = Text("held", "守られた")
BROKEN = Text("BROKEN", "破れた")
FILES = Text("  files: {folder}", "  ファイル：{folder}")
ALL_HELD = Text("Every promise held.", "すべての約束が守られました。")
NOT_HELD = Text("{count} promises did not hold.", "守られなかった約束：{count} 件。")
COLUMN_LINE = Text("line", "回線")
COLUMN_SET = Text("set (ms)", "設定 (ms)")
COLUMN_P50 = Text("error p50", "誤差 p50")
COLUMN_P99 = Text("error p99", "誤差 p99")
COLUMN_MAX = Text("error max", "誤差 最大")
COLUMN_LOST = Text("lost", "喪失")
COLUMN_VERDICT = Text("≤ 0.5 ms", "0.5 ms 以下")
THROUGHPUT = Text(
    "{mbit:g} Mbit/s through a line of {delay_ms:g} ms one way ({cpu:g} µs of the router's CPU a packet): {verdict}",
    "片道 {delay_ms:g} ms の回線で {mbit:g} Mbit/s（ルーターの CPU は 1 パケットあたり {cpu:g} µs）：{verdict}",
)
