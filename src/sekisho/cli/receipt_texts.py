"""What `sekisho receipt` and `sekisho witness` say, in both languages."""

from __future__ import annotations

from sekisho.cli.texts import Text

RECEIPT = Text("Get receipts of passages, and verify them offline.", "通過の受領証を取得し、オフラインで検証します。")
GET = Text(
    "Get the receipt of a decision and write it into a file.",
    "判定の受領証を取得し、ファイルに書き出します。",
)
VERIFY = Text(
    "Verify a receipt from its file alone: no network, no database. "
    "Exit code 0 when it proves what it says, 2 when not.",
    "受領証をファイルだけで検証します（ネットワークもデータベースも使いません）。"
    "内容が証明されれば終了コード 0、されなければ 2 です。",
)
OPTION_OUT = Text("Write the receipt here.", "受領証の書き出し先。")
OPTION_FORMAT = Text(
    "`proof` is text (c2sp.org/tlog-proof@v1), `cose` is RFC 9942.",
    "`proof` はテキスト（c2sp.org/tlog-proof@v1）、`cose` は RFC 9942 形式。",
)
OPTION_WAIT = Text(
    "Seconds to wait until a quorum of witnesses has cosigned.", "立会人の定足数が連署するまで待つ秒数。"
)
OPTION_POLICY = Text(
    "Trust policy (c2sp.org/tlog-policy): which logs and witnesses count. Without it, this installation's.",
    "信頼ポリシー（c2sp.org/tlog-policy）：どのログと立会人を信頼するか。省略時はこの環境のもの。",
)
OPTION_IGNORE_UNKNOWN = Text(
    "Leave out signatures by keys that the policy does not know, instead of refusing them.",
    "ポリシーにない鍵の署名を、拒否せずに無視します。",
)
WRITTEN = Text("{file}: {size} bytes", "{file}：{size} バイト")

PROVEN = Text("This receipt holds.", "この受領証は正当です。")
SERVED = Text(
    "Served by {site} of {operator} in {country}, on endpoint {endpoint}.",
    "処理した拠点は {site}（事業者 {operator}、国 {country}）、エンドポイントは {endpoint} です。",
)
REFUSED = Text(
    "The checkpoint refused this passage [{code}]; nothing was sent to a site.",
    "関所はこの通過を拒否しました [{code}]。拠点には何も送られていません。",
)
OTHER = Text("The outcome was `{outcome}` [{code}].", "結果は `{outcome}` です [{code}]。")
RECORD = Text("A record of the kind {kind}.", "種類 {kind} の記録です。")
PASSAGE = Text(
    "Decision {id} of {at}: tenant {tenant}, class {data_class}, model {model}.",
    "判定 {id}（{at}）：テナント {tenant}、データ区分 {data_class}、モデル {model}。",
)
RULES = Text("Rules: {rules}; policy {policy}.", "ルール：{rules}。ポリシー {policy}。")
EVIDENCE = Text("Evidence: {evidence}.", "証跡：{evidence}。")
EVIDENCE_UNTIL = Text(
    "The evidence under this route held until {until}.", "この経路の根拠となる証跡の有効期限は {until} でした。"
)
NO_EXPIRY = Text("No evidence that expires was asked for.", "期限のある証跡は求められていません。")
COMMITMENTS = Text(
    "Commitments: request {request}, answer {response}.", "コミットメント：リクエスト {request}、応答 {response}。"
)
LOGGED = Text(
    "Logged as entry {index} of {size} in {origin}.",
    "ログ {origin} の全 {size} 件中、番号 {index} として記録されています。",
)
COSIGNED = Text("Cosigned by {name} ({algorithm}) on {at}.", "{name} が {at} に連署しました（{algorithm}）。")
NOT_COSIGNED = Text(
    "Nobody cosigned it: the policy asks for the log's own signature only.",
    "連署はありません。ポリシーが求めるのはログ自身の署名だけです。",
)
PROVES_NOT = Text(
    "It does not prove what the answer said; keep the answer and the tenant's salt for that.",
    "応答の内容までは証明しません。そのためには応答とテナントのソルトを保管してください。",
)

WITNESS = Text(
    "Run a witness: it cosigns checkpoints of logs.", "立会人を動かします。ログのチェックポイントに連署します。"
)
WITNESS_RUN = Text(
    "Answer add-checkpoint (c2sp.org/tlog-witness) until Ctrl-C. "
    "The operator of each site runs one, elsewhere than the log.",
    "Ctrl-C まで add-checkpoint（c2sp.org/tlog-witness）に応答します。"
    "各拠点の事業者が、ログとは別の場所で動かします。",
)
WITNESS_NEW_KEY = Text(
    "Make the two keys of a witness (Ed25519, ML-DSA-44) and print its vkeys for policies.",
    "立会人の鍵を 2 種類（Ed25519、ML-DSA-44）作り、ポリシーに書く vkey を出力します。",
)
OPTION_NAME = Text(
    "Name of the witness, a URL without scheme that is its operator's.",
    "立会人の名前（事業者が持つ、スキームなしの URL）。",
)
OPTION_KEYS = Text("Directory of the witness's keys.", "立会人の鍵のディレクトリ。")
OPTION_STATE = Text(
    "Directory of its memory; never lose it, never share it.", "記憶のディレクトリ。失わず、共有しないこと。"
)
OPTION_LOG = Text("vkey of a log to witness; may be repeated.", "立会人となるログの vkey。複数指定できます。")
OPTION_LISTEN = Text("Address to listen on.", "待ち受けるアドレス。")
WITNESS_READY = Text("{name} answers on {url}", "{name} が {url} で応答しています")

CODES = {
    "receipt.malformed": Text("This is not a receipt.", "受領証の形式ではありません。"),
    "receipt.forged": Text("The receipt was changed or forged.", "受領証は改変または偽造されています。"),
    "receipt.quorum": Text("Too few witnesses cosigned.", "連署した立会人の数が足りません。"),
    "receipt.other_log": Text("The receipt is of another log.", "別のログの受領証です。"),
    "receipt.unknown_signature": Text(
        "A signature is by a key that the policy does not know.", "ポリシーにない鍵の署名が含まれています。"
    ),
    "receipt.time": Text("The times contradict each other.", "時刻に矛盾があります。"),
    "receipt.no_policy": Text("There is no policy to verify with.", "検証に使うポリシーがありません。"),
    "receipt.unreadable": Text("The file can't be read.", "ファイルを読めません。"),
    "receipt.pending": Text("The receipt is not ready yet.", "受領証はまだ準備中です。"),
    "policy.malformed": Text("This is not a trust policy.", "信頼ポリシーの形式ではありません。"),
}
