"""What `sekisho site`, `sekisho operator` and `sekisho pool` say, in both languages, side by side."""

from __future__ import annotations

from sekisho.cli.texts import Text

SITE = Text(
    "Sites: invite, approve, suspend; declare, enrol and run them.", "拠点の招待、承認、停止、申告、登録、稼働。"
)
OPERATOR = Text("Operators and the keys with which they sign.", "事業者と、その署名鍵。")
OPERATOR_KEY = Text("The key with which an operator signs declarations.", "事業者が申告に署名する鍵。")
POOL = Text("GPUs of the federation.", "連合の GPU。")

LIST = Text(
    "List sites: configured, enrolled and waiting for approval.",
    "拠点の一覧（設定済み、登録済み、承認待ち）を表示します。",
)
SHOW = Text("Show a site, its declaration and its history.", "拠点の状態、申告の内容、履歴を表示します。")
INVITE = Text(
    "Invite a site: prints a one-time token, which is shown only now.",
    "拠点を招待します。一度だけ使えるトークンを表示します（再表示はできません）。",
)
APPROVE = Text("Approve the enrolment that waits, and pin its key.", "承認待ちの登録を承認し、その鍵を固定します。")
REJECT = Text(
    "Reject the enrolment that waits; its key stays out.", "承認待ちの登録を却下します。その鍵は以後使えません。"
)
RETIRE = Text(
    "End an enrolled site for good. Its history stays; it may be invited again.",
    "登録済みの拠点を終了します。履歴は残り、改めて招待することもできます。",
)
OPTION_YES = Text("do not ask", "確認しません")
ASK_RETIRE = Text(
    "Its endpoints leave every route now, and its key is never taken again. Go on?",
    "エンドポイントはただちにすべての経路から外れ、この鍵は二度と使えません。続けますか",
)
SUSPEND = Text(
    "Take a site with all its endpoints out of every route, within a second.",
    "拠点とそのすべてのエンドポイントを、1 秒以内に全経路から外します。",
)
RESUME = Text("Put a suspended site back.", "停止中の拠点を元に戻します。")
DECLARE = Text(
    "Sign a declaration about a site with the operator's key (on the operator's machine).",
    "拠点についての申告に、事業者の鍵で署名します（事業者のマシンで実行）。",
)
ENROL = Text(
    "Make the agent's key and hand it in with token and declaration (on the site's machine).",
    "エージェントの鍵を作り、トークンと申告とともに提出します（拠点のマシンで実行）。",
)
RUN = Text(
    "Run the site's agent: heart-beats, and TLS in front of the model servers; stays until Ctrl-C.",
    "拠点のエージェントを動かします（ハートビートと、モデルサーバーの前の TLS）。Ctrl-C で止まります。",
)
ROTATE = Text(
    "Change the agent's key; an agent that runs goes on with the new one.",
    "エージェントの鍵を交換します。稼働中のエージェントは新しい鍵で続行します。",
)
OPERATOR_LIST = Text("List operators and their keys.", "事業者とその鍵の一覧を表示します。")
OPERATOR_ADD = Text("Record an operator that the configuration does not have.", "設定にない事業者を登録します。")
OPERATOR_TRUST = Text(
    "Say with which key an operator signs (64 hex digits).", "事業者の署名鍵（16 進 64 桁）を登録します。"
)
OPERATOR_KEY_NEW = Text(
    "Make an operator's key: the private half goes into a file, the public half is printed.",
    "事業者の鍵を作ります。秘密鍵はファイルに書き、公開鍵を表示します。",
)
POOL_LIST = Text("List GPUs by site and model.", "GPU を拠点と機種ごとに表示します。")

OPTION_OPERATOR = Text("id of the operator", "事業者の ID")
OPTION_SITE = Text("id of the site", "拠点の ID")
OPTION_EXPIRES = Text("how long the token holds, as in 24h", "トークンの有効期間（例：24h）")
OPTION_REPLACE = Text(
    "the site is enrolled and its agent lost its key", "登録済みの拠点で、エージェントが鍵を失った場合"
)
OPTION_PIN = Text(
    "fingerprint that the agent showed; another one is not approved",
    "エージェントが表示したフィンガープリント。一致しなければ承認しません",
)
OPTION_KEY = Text("the operator's private key (PEM)", "事業者の秘密鍵（PEM）")
OPTION_OUT = Text("file to write", "書き出すファイル")
OPTION_VALID = Text("how long the declaration holds", "申告の有効期間")
OPTION_CONTROL = Text("address of the control plane, https://…", "コントロールプレーンのアドレス（https://…）")
OPTION_TOKEN_FILE = Text(
    "file with the token (default: standard input or a hidden prompt)",
    "トークンのファイル（省略時は標準入力、または画面に出ない入力）",
)
OPTION_DECLARATION = Text("file of `sekisho site declare`", "`sekisho site declare` が書いたファイル")
OPTION_DIR = Text("the agent's directory", "エージェントのディレクトリ")
OPTION_CA = Text(
    "authority that signed the control plane's certificate (PEM)", "コントロールプレーンの証明書の認証局（PEM）"
)
OPTION_NAME = Text("name for people", "表示名")
OPTION_COUNTRY = Text("country (ISO 3166-1)", "国（ISO 3166-1）")
OPTION_LAW = Text("country whose law governs it", "適用される法の国")
OPTION_ATTEST = Text("how this machine attests", "このマシンの証明の方法")
ASK_TOKEN = Text("Token (it is not shown)", "トークン（画面には出ません）")

INVITED = Text(
    "{site} of {operator} is invited until {until}. Its token, shown only now:",
    "{operator} の {site} を {until} まで招待しました。トークン（再表示はできません）：",
)
APPROVED = Text("{site} is approved; its key is pinned: {pin}", "{site} を承認し、鍵を固定しました：{pin}")
REJECTED = Text("The enrolment of {site} is rejected.", "{site} の登録を却下しました。")
RETIRED = Text("{site} is retired.", "{site} を終了しました。")
SUSPENDED = Text(
    "{site} is suspended; route table {version} obeys it.", "{site} を停止しました。経路表 {version} から有効です。"
)
RESUMED = Text(
    "{site} is back; route table {version} obeys it.", "{site} を再開しました。経路表 {version} から有効です。"
)
AS_BEFORE = Text("{site} was so before.", "{site} は既にその状態です。")
DECLARED = Text(
    "Signed by {key}. Send {file} to whoever runs the site.",
    "{key} で署名しました。{file} を拠点の担当者に渡してください。",
)
HANDED_IN = Text(
    "{site} waits for approval. Tell the administrator this fingerprint by another way:\n{pin}",
    "{site} は承認待ちです。次のフィンガープリントを、別の手段で管理者に伝えてください：\n{pin}",
)
NEXT_RUN = Text(
    "Then write {file} and run `sekisho site run --dir {dir}`.",
    "続いて {file} を書き、`sekisho site run --dir {dir}` を実行してください。",
)
ROTATED = Text("The key of {site} is now {pin}", "{site} の鍵は {pin} になりました")
TRUSTED = Text("{operator} signs with {key}.", "{operator} の署名鍵は {key} です。")
RECORDED = Text("Operator {operator} is recorded.", "事業者 {operator} を登録しました。")

COLUMN_SITE = Text("site", "拠点")
COLUMN_OPERATOR = Text("operator", "事業者")
COLUMN_COUNTRY = Text("country", "国")
COLUMN_STATE = Text("state", "状態")
COLUMN_SOURCE = Text("from", "由来")
COLUMN_ENDPOINTS = Text("endpoints", "エンドポイント")
COLUMN_HEARD = Text("heard", "最終連絡")
COLUMN_NAME = Text("name", "名前")
COLUMN_LAW = Text("law", "法")
COLUMN_ANSWERS = Text("answers landmarks", "所在確認の応答先")
COLUMN_KEY = Text("key", "鍵")
COLUMN_POOL = Text("pool", "プール")
COLUMN_GPU = Text("GPU", "GPU")
COLUMN_COUNT = Text("count", "数")
COLUMN_MEMORY = Text("memory", "メモリ")
SIMULATED = Text("simulated", "模擬")
STATES = {
    "configured": Text("configured", "設定済み"),
    "approved": Text("approved", "承認済み"),
    "waiting": Text("waiting for approval", "承認待ち"),
    "stale": Text("no heart-beat", "連絡なし"),
    "suspended": Text("suspended", "停止中"),
}
SOURCES = {"configuration": Text("configuration", "設定"), "enrolment": Text("enrolment", "登録")}
FIELDS = {
    "operator": COLUMN_OPERATOR,
    "country": COLUMN_COUNTRY,
    "law": Text("law of the contract", "契約の準拠法"),
    "court": Text("court", "管轄裁判所"),
    "owner_country": Text("owner's country", "支配者の国"),
    "foreign_owned_percent": Text("foreign-owned %", "外国資本比率（%）"),
    "foreign_laws": Text("foreign laws", "及びうる外国法"),
    "operator_can_read": Text("operator can read memory", "事業者がメモリを読めるか"),
    "readers": Text("who can", "読める者"),
    "key_custody": Text("keys held by", "鍵の保管者"),
    "personnel": Text("personnel", "要員の審査"),
    "subcontractors": Text("subcontractors", "再委託先"),
    "log_retention_days": Text("logs kept, days", "ログ保存日数"),
}

# What the refusals of enrolment and of agents are called; the fact itself follows in English.
CODES = {
    "agent.clock": Text("The site's clock is wrong.", "拠点の時計がずれています。"),
    "agent.endpoint_clash": Text("An endpoint's id is taken.", "エンドポイントの ID が既に使われています。"),
    "agent.rejected": Text("The enrolment was rejected.", "登録は却下されました。"),
    "agent.replayed": Text("A request came twice.", "同じ要求が二度届きました。"),
    "agent.report": Text("The report can't be so.", "報告の内容が正しくありません。"),
    "agent.rotation": Text("The change of keys is not signed.", "鍵の交換に正しい署名がありません。"),
    "agent.signature": Text("This key was not approved.", "承認された鍵による署名ではありません。"),
    "agent.unknown": Text("Nobody enrolled this site.", "この拠点は登録されていません。"),
    "agent.waiting": Text("The site waits for approval.", "拠点は承認待ちです。"),
    "declaration.unreadable": Text("The declaration can't be taken.", "申告を受け付けられません。"),
    "enrol.country": Text("There is no such country.", "その国コードは存在しません。"),
    "enrol.declaration_expired": Text("The declaration has run out.", "申告の期限が切れています。"),
    "enrol.expiry": Text("The time of the invitation can't be so.", "招待の有効期間が正しくありません。"),
    "enrol.key_used": Text("This key was handed in before.", "この鍵は以前に提出されています。"),
    "enrol.operator_key": Text("That is no operator key.", "事業者の公開鍵の形式ではありません。"),
    "enrol.operator_key_unknown": Text("The operator has no key here.", "事業者の鍵が登録されていません。"),
    "enrol.other_site": Text("The declaration is about another site.", "申告は別の拠点についてのものです。"),
    "enrol.proof": Text("The agent did not prove its key.", "エージェントの鍵の証明が正しくありません。"),
    "enrol.second": Text("The site is enrolled, or waits.", "拠点は既に登録済みか、承認待ちです。"),
    "enrol.signature": Text("The operator did not sign this.", "事業者の正しい署名がありません。"),
    "enrol.site_clash": Text("The configuration has this site.", "同じ ID の拠点が設定にあります。"),
    "enrol.site_id": Text("That is no site id.", "拠点の ID の形式が正しくありません。"),
    "enrol.token_closed": Text("The token was refused too often.", "トークンは拒否が重なり、無効になりました。"),
    "enrol.token_expired": Text("The token has run out.", "トークンの期限が切れています。"),
    "enrol.token_unknown": Text("Nobody was invited with this token.", "このトークンによる招待はありません。"),
    "enrol.token_used": Text("The token was used.", "トークンは使用済みです。"),
    "operator.key_file": Text("The key file can't be used.", "鍵ファイルを使えません。"),
    "site.control_away": Text("The control plane does not answer.", "コントロールプレーンが応答しません。"),
    "site.control_unbelieved": Text(
        "This is not the control plane that invited us.", "招待したコントロールプレーンではありません。"
    ),
    "site.control_url": Text("The address is not https.", "アドレスが https ではありません。"),
    "site.file": Text("A file can't be used.", "ファイルを使えません。"),
    "site.listen": Text("The agent can't listen there.", "エージェントがそのアドレスで待ち受けできません。"),
    "site.unusable": Text("The agent's directory can't be used.", "エージェントのディレクトリを使えません。"),
}
