"""What `sekisho site locate|answer|landmark|measure` say, in both languages, side by side."""

from __future__ import annotations

from sekisho.cli.texts import Text

LOCATE = Text(
    "Where a site can be, as signed answers at the speed of light bound it; exit code 1 when it is contradicted.",
    "署名付き応答と光速から、拠点の所在の範囲を示します。申告と矛盾するときの終了コードは 1 です。",
)
ANSWER = Text(
    "Answer location challenges with the site's enrolled key, over UDP and TCP (on the site's machine).",
    "所在確認の質問に、拠点の登録済みの鍵で答えます（UDP と TCP、拠点のマシンで実行）。",
)
LANDMARK = Text(
    "Make a landmark: a key for a prober at a known place, and its entry for the register landmarks.json.",
    "ランドマークを作ります（位置の分かっている測定点の鍵と、登録簿 landmarks.json に書く項目）。",
)
MEASURE = Text(
    "Ask a site in a burst from a landmark, and sign the fastest answer (on the landmark's machine).",
    "ランドマークから拠点に続けて質問し、最も速い応答に署名します（ランドマークのマシンで実行）。",
)
OPTION_MAP = Text("draw it here, as SVG", "地図の出力先（SVG）")
OPTION_MEASUREMENT = Text(
    "a file of `sekisho site measure` to take in first (may be given more than once)",
    "先に取り込む `sekisho site measure` の出力ファイル（複数指定可）",
)
OPTION_ANSWER_LISTEN = Text("where challenges come in, UDP and TCP", "質問を受け付けるアドレス（UDP と TCP）")
OPTION_AT = Text("latitude,longitude in degrees", "緯度,経度（度）")
OPTION_ERROR = Text("how exactly the place is known, km", "位置の誤差（km）")
OPTION_LANDMARK_KEY = Text("file of the landmark's private key", "ランドマークの秘密鍵のファイル")
OPTION_LANDMARK = Text(
    "file with the landmark's entry, as `landmark` printed it", "`landmark` が出力した項目のファイル"
)
OPTION_ADDRESS = Text("where the site answers challenges, host:port", "拠点が質問に答えるアドレス（host:port）")
OPTION_SITE_KEY = Text(
    "the site's public key, as `sekisho site answer` prints it", "`sekisho site answer` が表示する拠点の公開鍵"
)
OPTION_TCP = Text("over TCP, where UDP is blocked", "UDP が通らないときは TCP を使う")
OPTION_MEASURE_OUT = Text("where the signed measurement goes", "署名付き測定結果の出力先")
OPTION_EVERY = Text(
    "again and again, at this interval and up to a fifth more", "この間隔（最大 2 割の揺らぎ）で測定を繰り返す"
)
ANSWERING = Text(
    "{site} answers challenges on {host}:{port}. Its public key: {key}",
    "{site} は {host}:{port} で質問に答えます。公開鍵: {key}",
)
STOPPED = Text(
    "{answered} answered; dropped: {malformed} malformed, {stale} stale, {other} for another site, {often} too often",
    "応答 {answered} 件、破棄: 不正 {malformed} 件、期限外 {stale} 件、別の拠点宛て {other} 件、頻度超過 {often} 件",
)
MEASURED = Text(
    "{site}: {rtt:.3f} ms ({answered} of {sent} answered) → {out}",
    "{site}: {rtt:.3f} ミリ秒（{sent} 回中 {answered} 回応答）→ {out}",
)
UNANSWERED = Text(
    "{site} gave no valid answer to {sent} questions: {why}",
    "{site} は {sent} 回の質問に有効な応答を返しませんでした: {why}",
)
DRAWN = Text("Drawn: {file}", "地図: {file}")
OPTION_NOW = Text(
    "have the landmarks among the sites measure it now, and wait for that (at most a minute)",
    "ランドマークである拠点に今すぐ測定させ、結果を待つ（最長 1 分）",
)
OPTION_CONTROL = Text(
    "hand each measurement in at this control plane", "測定結果を、このコントロールプレーンにその都度提出する"
)
ASKED = Text("Measuring from {site} …", "{site} から測定しています …")
NOTHING_NEW = Text(
    "No new measurement came within a minute: are the landmarks' agents running, and does the site answer them?",
    "1 分以内に新しい測定結果が届きませんでした。ランドマークのエージェントが動いているか、拠点が応答できるかを"
    "確認してください。",
)
HANDED_IN = Text("{site}: taken in, {verdict}", "{site}: 提出しました（判定: {verdict}）")
