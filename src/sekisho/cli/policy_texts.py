"""What `sekisho policy` and `sekisho admin` say, in both languages."""

from __future__ import annotations

from sekisho.cli.texts import Text

POLICY = Text(
    "Check, test, compare and change the policies that decide who may serve what.",
    "どの処理をどの拠点に許すかを決めるポリシーの検査、テスト、比較、変更を行います。",
)
CHECK = Text(
    "Check policy files (without DIR, the default ones); each mistake is a line with its place.",
    "ポリシーファイルを検査し（DIR 省略時は既定のもの）、誤りを位置とともに 1 行ずつ示します。",
)
TEST = Text(
    "Run the policy tests in DIR/tests (without any, the ones that come with the default policies).",
    "DIR/tests にあるポリシーのテストを実行します（なければ既定のポリシーに付属するテスト）。",
)
DIFF = Text(
    "Say which tenants would gain and lose which endpoints under the files in DIR; nothing is changed.",
    "DIR のファイルにした場合に、どのテナントがどのエンドポイントを得て失うかを示します。何も変更しません。",
)
EXPLAIN = Text(
    "Say why a tenant, class and model may be served where, rule by rule, in both languages and with sources.",
    "テナント・データ区分・モデルをどこで処理できるかを、ルールごとに両言語と出典つきで説明します。",
)
LIST = Text("List the rules in force, and proposals that wait.", "有効なルールと、承認待ちの提案を一覧表示します。")
SHOW = Text(
    "Print the files of the policy in force, or of an older version.",
    "有効なポリシー（または以前の版）のファイルを表示します。",
)
PROPOSE = Text(
    "Propose the files in DIR; they are in force at once unless guarded work could reach more.",
    "DIR のファイルを提案します。機密以上のデータの行き先が広がらない変更は直ちに有効になります。",
)
APPROVE = Text(
    "Approve somebody else's proposal. Your own token comes from SEKISHO_ADMIN_TOKEN.",
    "他の人の提案を承認します。自分の管理トークンは SEKISHO_ADMIN_TOKEN で渡します。",
)
APPLY = Text("Put an approved proposal in force.", "承認済みの提案を有効にします。")
WITHDRAW = Text("Say no to a proposal.", "提案を取り下げます。")
HISTORY = Text("List every version of the policy.", "ポリシーのすべての版を一覧表示します。")
REPLAY = Text(
    "Decide an old passage again, by the rules and facts of its time; exit code 1 when it comes out otherwise.",
    "過去の判定を当時のルールと事実でやり直します。結果が異なれば終了コードは 1 です。",
)
ADMIN = Text(
    "Make, list and revoke administrators with names of their own.",
    "名前を持つ管理者の追加、一覧表示、失効を行います。",
)
ADMIN_ADD = Text(
    "Make an administrator; the token is shown once, and only its hash is kept.",
    "管理者を追加します。管理トークンの表示は一度だけで、保存されるのはハッシュのみです。",
)
ADMIN_LIST = Text("List the administrators.", "管理者を一覧表示します。")
ADMIN_REVOKE = Text("End an administrator's token and sessions.", "管理者のトークンとセッションを失効させます。")

OPTION_CONFIG = Text(
    "compare on this configuration (without it, on the running control plane)",
    "この設定の上で比較します（省略時は稼働中のコントロールプレーン）",
)
OPTION_NOTE = Text("why, for whoever approves it", "承認する人のための理由")

FINE = Text(
    "{count} rules in {files} files, {profiles} profiles: no mistakes.",
    "ルール {count} 件、ファイル {files} 件、プロファイル {profiles} 件。誤りはありません。",
)
LEAVES = Text(
    "warning: {data_class} work may leave the jurisdiction: {example}",
    "警告: {data_class} の処理が管轄の外に出ることがあります: {example}",
)
NOT_PROVEN = Text("can't be ruled out (too many combinations)", "否定できません（組み合わせが多すぎます）")
PASSED = Text("{passed} of {all} cases passed", "{all} 件中 {passed} 件が合格")
NO_CHANGE = Text(
    "No tenant gains or loses an endpoint now.",
    "今のところ、エンドポイントを得るテナントも失うテナントもありません。",
)
RULE_ADDED = Text("+ rule {rule}", "+ ルール {rule}")
RULE_REMOVED = Text("- rule {rule}", "- ルール {rule}")
CHANGED = Text("{data_class} · {tenants}", "{data_class} · {tenants}")
GAINS = Text("  gains {endpoints}", "  得る: {endpoints}")
LOSES = Text("  loses {endpoints} ({left} left)", "  失う: {endpoints}（残り {left}）")
WIDENS = Text(
    "Guarded work could reach more: another person must approve this.",
    "機密以上のデータの行き先が広がり得るため、別の人の承認が必要です。",
)
NARROWS = Text(
    "Guarded work can reach nothing more: no approval is needed.",
    "機密以上のデータの行き先は広がりません。承認は不要です。",
)
EXAMPLE = Text("  {data_class}{kind}: {example}", "  {data_class}{kind}: {example}")
PROPOSAL = Text("proposal {id} · {state} · by {actor} · {bundle}", "提案 {id} · {state} · 提案者 {actor} · {bundle}")
NEXT_APPROVE = Text(
    "next: another administrator runs `sekisho policy approve {id}`, then `sekisho policy apply {id}`",
    "次の手順: 別の管理者が `sekisho policy approve {id}` を、続いて `sekisho policy apply {id}` を実行します",
)
REPLAY_SAME = Text("Decided again: the same. {code}", "やり直した結果は同じです。{code}")
REPLAY_OTHER = Text(
    "The refusal has another cause than residency ({code}); the rules of its time are above.",
    "拒否の理由は所在のルール以外（{code}）です。当時のルールは上のとおりです。",
)
REPLAY_DIFFERENT = Text("Decided again: DIFFERENT.", "やり直した結果が異なります。")
SOURCE = Text("source: {source}", "出典: {source}")
ADMIN_MADE = Text(
    "{name} is an administrator. The token is shown only now:",
    "{name} を管理者にしました。管理トークンの表示は今回だけです:",
)
ADMIN_GONE = Text("{name} is no administrator any more.", "{name} は管理者ではなくなりました。")
COLUMN_RULE = Text("Rule", "ルール")
COLUMN_EFFECT = Text("Effect", "効果")
COLUMN_PROFILE = Text("Profile", "プロファイル")
COLUMN_CLASSES = Text("Classes", "データ区分")
COLUMN_FILE = Text("File", "ファイル")
COLUMN_VERSION = Text("Version", "版")
COLUMN_NAME = Text("Name", "名前")
COLUMN_SINCE = Text("Since", "開始")
COLUMN_BY = Text("By", "追加者")
COLUMN_STATE = Text("State", "状態")
IN_FORCE = Text("in force", "有効")
ENDED = Text("revoked", "失効")
