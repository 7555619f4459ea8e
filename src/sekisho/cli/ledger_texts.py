"""What `sekisho ledger` says, in both languages, side by side."""

from __future__ import annotations

from sekisho.cli.texts import Text

LEDGER = Text("Look at the transparency log, check it, look after it.", "証跡の透明性ログを表示、検査、管理します。")
STATUS = Text(
    "Show the logs and what the sequencer is doing; exit code 0 only when all is well.",
    "ログの一覧とシーケンサーの状態を表示します。正常なときに限り、終了コードは 0 です。",
)
FSCK = Text(
    "Derive a log anew from its entries and name the first file that says something else.",
    "エントリからログ全体を計算し直し、最初に食い違うファイルを示します。",
)
SHOW = Text("Print an entry by its decision id or its index.", "判定 ID または番号で、エントリを表示します。")
ARCHIVE = Text(
    "Move old entries and their tiles to an archive directory; the log stays whole.",
    "古いエントリとタイルを保管用ディレクトリに移します。ログ全体の検証は引き続き可能です。",
)
ERASE = Text(
    "Destroy a tenant's salt: what was logged of its contents says nothing any more, and the log stays valid.",
    "テナントのソルトを破棄します。内容のコミットメントは意味を失いますが、ログは有効なままです。",
)
SHIP = Text(
    "Send this machine's journals to the control plane on another machine; stay until Ctrl-C.",
    "このマシンのジャーナルを、別のマシンのコントロールプレーンへ送り続けます。Ctrl-C で止まります。",
)
OPTION_YEAR = Text("year of the log (default: the newest)", "ログの年（省略時は最新）")
OPTION_LOG = Text("a log's directory, instead of one below --home", "--home の代わりに使う、ログのディレクトリ")
OPTION_TO = Text("the archive's directory", "保管先のディレクトリ")
OPTION_KEEP = Text("how many of the newest entries stay", "手元に残す最新エントリの数")
OPTION_YES = Text("do not ask", "確認せずに実行します")
OPTION_URL = Text("address of the control plane, https://…", "コントロールプレーンのアドレス（https://…）")
OPTION_TOKEN = Text("file with the gateway token", "ゲートウェイトークンのファイル")
OPTION_NAME = Text("name of this gateway, at most 12 letters", "このゲートウェイの名前（12 文字まで）")
OPTION_JOURNAL = Text("the journals (default: HOME/journal)", "ジャーナルのディレクトリ（省略時は HOME/journal）")
OPTION_CA = Text("authority that signed the control plane's certificate (PEM)", "サーバー証明書の認証局（PEM）")
OPTION_CERT = Text("our certificate (PEM), for mutual TLS", "相互 TLS で使うこちらの証明書（PEM）")
OPTION_KEY = Text("its private key (PEM)", "証明書の秘密鍵（PEM）")
OPTION_ONCE = Text("send what is there now, and end", "いまある分だけを送って終了します")
NO_LOG = Text("There is no log yet.", "まだログはありません。")
ONE_LOG = Text("{origin}: {size} entries", "{origin}: エントリ {size} 件")
SEQUENCER = Text(
    "Sequencer: process {pid}, {added} logged since its start, last lag {lag_ms} ms",
    "シーケンサー: プロセス {pid}、起動後の記録 {added} 件、直近の遅れ {lag_ms} ミリ秒",
)
SILENT = Text("The sequencer does not answer.", "シーケンサーが応答しません。")
FAULTY = Text("The log is not written: {fault}", "ログに書き込めていません: {fault}")
UNREADABLE = Text(
    "{count} journal records could not be logged (written by a later version).",
    "ジャーナルの {count} 件を記録できませんでした（新しい版が書いたものです）。",
)
SOUND = Text(
    "{origin} is sound: {entries} entries and {tiles} tiles lead to the root {root}.",
    "{origin} は健全です。エントリ {entries} 件とタイル {tiles} 個から、ルート {root} が得られました。",
)
DIFFERENT = Text("{file}: {fact}", "{file}: {fact}")
FROM_ENTRY = Text("This concerns entries from index {index} on.", "番号 {index} 以降のエントリに関わります。")
MOVED = Text(
    "{files} files moved; entries below index {index} are in the archive.",
    "{files} 個のファイルを移しました。番号 {index} より前のエントリは保管先にあります。",
)
REALLY = Text(
    "Destroy the salt of {tenant}? Nobody can ever again show that a text belongs to one of its passages.",
    "{tenant} のソルトを破棄しますか。以後、どの通過がどの内容だったかは誰にも示せなくなります。",
)
ERASED = Text(
    "The salt of {tenant} is destroyed, and the log says so. A new route table has a fresh one.",
    "{tenant} のソルトを破棄し、そのことをログに記録しました。新しい経路表には新しいソルトが入ります。",
)
SHIPPED = Text("Sent {count} bytes of journals so far.", "これまでに送ったジャーナル: {count} バイト")
