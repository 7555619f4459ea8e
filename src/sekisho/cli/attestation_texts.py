"""What `sekisho attestation` says, in both languages, side by side."""

from __future__ import annotations

from sekisho.cli.texts import Text

ATTESTATION = Text(
    "Look at the evidence about sites, and keep what it is held against.",
    "拠点の証跡を表示し、検証の基準となる値や台帳を管理します。",
)
LIST = Text("List evidence, the newest first, refused ones included.", "証跡を新しい順に表示します（拒否も含む）。")
SHOW = Text(
    "Show one piece of evidence: every part, its measurements and what speaks against it.",
    "証跡ひとつを、構成要素、測定値、指摘とともに表示します。",
)
CHECK = Text(
    "Verify a bundle of evidence from a file, offline: what its hardware says, or why it is refused.",
    "ファイルの証跡をオフラインで検証し、ハードウェアの主張または拒否の理由を表示します。",
)
IMPORT = Text(
    "Keep collateral in this installation's cache: TDX collateral (JSON) or a VCEK (DER). Nothing is fetched.",
    "コラテラル（TDX の JSON または VCEK の DER）をキャッシュに取り込みます。外部からは何も取得しません。",
)
COLLATERAL = Text("List the cached collateral with its expiry.", "キャッシュ済みのコラテラルと期限を表示します。")
REFERENCES = Text("List approved values, every version.", "承認された基準値を、すべての版について表示します。")
APPROVE = Text(
    "Approve reference values from a JSON file; what stands is weighed anew at once.",
    "JSON ファイルの基準値を承認します。有効な証跡はただちに評価し直されます。",
)
WITHDRAW = Text("Withdraw approved values.", "承認した基準値を取り下げます。")
RIM = Text(
    "Print the reference values of NVIDIA RIM files (driver and VBIOS), ready for `approve`. Their XML signatures "
    "are not checked.",
    "NVIDIA の RIM ファイル（ドライバーと VBIOS）から、`approve` 用の基準値を出力します。XML 署名は検証しません。",
)
REGISTERED = Text(
    "List which hardware stands in which building.", "どのハードウェアがどの建物にあるかを一覧表示します。"
)
REGISTER = Text(
    "Import an entry of the hardware register that operator and auditor signed.",
    "事業者と監査人が署名した、ハードウェア台帳の記載を取り込みます。",
)
SIGN = Text(
    "Sign an entry for the register, offline; the file gets the signature added.",
    "台帳の記載にオフラインで署名し、ファイルに署名を追加します。",
)
SIGNERS = Text("List whose signatures count in the register.", "台帳で有効な署名者を一覧表示します。")
TRUST = Text("Trust the key of an operator or an auditor.", "事業者または監査人の鍵を信頼します。")
DISTRUST = Text("Trust a key no longer.", "鍵の信頼を取り消します。")

OPTION_SITE = Text("only of this site", "この拠点のみ")
OPTION_LIMIT = Text("at most so many", "最大件数")
OPTION_COLLATERAL = Text("TDX collateral to verify with", "検証に使う TDX コラテラル")
OPTION_AT = Text("the time to verify at, Unix seconds (default: now)", "検証する時刻（Unix 秒。省略時は現在）")
OPTION_NAME = Text("a name for the values", "基準値の名前")
OPTION_ROLE = Text("in which role", "署名者の役割")
OPTION_KEY = Text("file of the Ed25519 private key (PEM)", "Ed25519 秘密鍵のファイル（PEM）")
OPTION_SIGNER = Text("who it is; of an operator its id", "署名者の名前（事業者の場合はその ID）")

NOTHING = Text("There is none.", "ありません。")
APPROVED = Text("{name}, version {version}, is approved.", "{name} の第 {version} 版を承認しました。")
WITHDRAWN = Text("{name} is withdrawn.", "{name} を取り下げました。")
IMPORTED = Text("{name} is kept until {until}.", "{name} を取り込みました（期限 {until}）。")
ENTERED = Text(
    "{hardware} stands at site {site}: {building}.", "{hardware} を拠点 {site}（{building}）として登録しました。"
)
SIGNED = Text("Signed as {role} by {key}.", "{role} として {key} で署名しました。")
TRUSTED = Text("{name} may sign as {role}.", "{name} の署名（{role}）を信頼します。")
DISTRUSTED = Text("{key} counts no longer.", "{key} の信頼を取り消しました。")
REFUSED = Text("refused", "拒否")
STANDS = Text("stands", "有効")
OVER = Text("over", "期限切れ・旧版")
AGAINST = Text("against it", "指摘")
STEP = Text("next step", "次の対応")

COLUMN_AT = Text("at", "時刻")
COLUMN_SITE = Text("site", "拠点")
COLUMN_KIND = Text("kind", "種類")
COLUMN_LEVEL = Text("level", "評価")
COLUMN_UNTIL = Text("until", "期限")
COLUMN_CODE = Text("code", "コード")
COLUMN_ID = Text("id", "ID")
COLUMN_NAME = Text("name", "名前")
COLUMN_VERSION = Text("version", "版")
COLUMN_BY = Text("by", "担当")
COLUMN_STATE = Text("state", "状態")
COLUMN_HARDWARE = Text("hardware", "ハードウェア")
COLUMN_BUILDING = Text("building", "建物")
COLUMN_ROLE = Text("role", "役割")
COLUMN_KEY = Text("key", "鍵")
