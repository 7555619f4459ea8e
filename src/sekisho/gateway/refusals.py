"""Refusals: a value with a stable code, the rule ids, the reason in words (en, ja) and the way out.

On the wire an OpenAI-style error object with our fields beside the usual four, so that every OpenAI client raises its
usual exception. docs/reference/errors.md lists every code; a test keeps the two in step.
"""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request goes no further. `retry_after_s` is honest: the earliest moment at which it could pass."""

    status: int
    code: str
    en: str
    ja: str
    way_out: str
    way_out_ja: str
    rules: tuple[str, ...] = ()
    retry_after_s: float | None = None


def of(
    code: str,
    *,
    en: str = "",
    ja: str = "",
    way_out: str = "",
    way_out_ja: str = "",
    retry_after_s: float | None = None,
) -> Refusal:
    """The refusal with this code; words given here take the place of the usual ones."""
    usual = CATALOGUE[code]
    return Refusal(
        status=usual.status,
        code=code,
        en=en or usual.en,
        ja=ja or usual.ja,
        way_out=way_out or usual.way_out,
        way_out_ja=way_out_ja or usual.way_out_ja,
        rules=usual.rules,
        retry_after_s=retry_after_s if retry_after_s is not None else usual.retry_after_s,
    )


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def body_of(refusal: Refusal, decision: str) -> bytes:
    """The JSON body of the answer."""
    kind = _TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error")
    return msgspec.json.encode(
        {
            "error": {
                "message": f"{refusal.en} Way out: {refusal.way_out}",
                "message_ja": f"{refusal.ja}解決方法: {refusal.way_out_ja}。",
                "type": kind,
                "param": None,
                "code": refusal.code,
                "rules": refusal.rules,
                "way_out": refusal.way_out,
                "way_out_ja": refusal.way_out_ja,
                "decision": decision,
            }
        }
    )


def _entry(
    status: int,
    code: str,
    en: str,
    ja: str,
    way_out: str,
    way_out_ja: str,
    *rules: str,
    retry: float | None = None,
) -> Refusal:
    return Refusal(
        status=status, code=code, en=en, ja=ja, way_out=way_out, way_out_ja=way_out_ja, rules=rules,
        retry_after_s=retry,
    )  # fmt: skip


CATALOGUE: dict[str, Refusal] = {
    entry.code: entry
    for entry in (
        _entry(
            400,
            "http.malformed",
            "The request has no single reading.",
            "リクエストを一意に解釈できません。",
            "send well-formed HTTP/1.1",
            "HTTP/1.1 の仕様に沿ったリクエストを送ってください",
            "one-strict-reading",
        ),
        _entry(
            408,
            "http.timeout",
            "The request did not arrive in time.",
            "リクエストが時間内に届きませんでした。",
            "send the head and the body without long pauses",
            "ヘッダーと本文を、長い中断なしに送ってください",
            "bounded-time",
        ),
        _entry(
            431,
            "http.head_too_large",
            "The request head is too large.",
            "リクエストヘッダーが大きすぎます。",
            "send fewer or shorter headers",
            "ヘッダーの数を減らすか、短くしてください",
            "bounded-size",
        ),
        _entry(
            413,
            "http.body_too_large",
            "The body is larger than this gateway accepts.",
            "本文がこのゲートウェイの上限を超えています。",
            "shorten the prompt, or ask for a larger `max_body`",
            "プロンプトを短くするか、`max_body` の引き上げを管理者に依頼してください",
            "bounded-size",
        ),
        _entry(
            404,
            "http.not_found",
            "There is nothing at this path.",
            "このパスには何もありません。",
            "use /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/models"
            " or /v1/receipts/{decision}",
            "/v1/chat/completions、/v1/completions、/v1/embeddings、/v1/responses、/v1/models、"
            "/v1/receipts/{判定 ID} のいずれかを使ってください",
        ),
        _entry(
            405,
            "http.method_not_allowed",
            "This path does not take this method.",
            "このパスではこのメソッドは使えません。",
            "POST to the inference paths, GET /v1/models and /v1/receipts/{decision}",
            "推論パスには POST、/v1/models と /v1/receipts/{判定 ID} には GET を使ってください",
        ),
        _entry(
            400,
            "receipt.invalid",
            "The address names no decision, or a form of receipt that there is not.",
            "URL に判定 ID がないか、受領証の形式の指定が誤っています。",
            "GET /v1/receipts/{X-Sekisho-Decision of the answer}, with ?format=proof (the default) or ?format=cose",
            "GET /v1/receipts/{応答の X-Sekisho-Decision} に、"
            "?format=proof（既定）または ?format=cose を付けてください",
        ),
        _entry(
            404,
            "receipt.not_found",
            "This tenant has no decision with this id.",
            "このテナントにその ID の判定はありません。",
            "take the id from X-Sekisho-Decision of an answer that was given to a key of the same tenant",
            "同じテナントのキーに返された応答の X-Sekisho-Decision から ID を取ってください",
        ),
        _entry(
            503,
            "receipt.unavailable",
            "The control plane did not give the receipt.",
            "コントロールプレーンから受領証を取得できませんでした。",
            "ask again; the decision is in the journal and is not lost",
            "もう一度お試しください。判定はジャーナルに記録されており、失われることはありません",
            retry=2.0,
        ),
        _entry(
            429,
            "receipt.busy",
            "Too many receipts are asked for at this moment.",
            "現在、受領証の取得が集中しています。",
            "ask again a moment later",
            "少し待ってから、もう一度お試しください",
            retry=1.0,
        ),
        _entry(
            415,
            "http.unsupported_media_type",
            "The body is not declared as application/json.",
            "本文の形式が application/json ではありません。",
            "send `Content-Type: application/json`, uncompressed",
            "`Content-Type: application/json` を付け、圧縮せずに送ってください",
            "one-strict-reading",
        ),
        _entry(
            417,
            "http.expectation_failed",
            "Only `Expect: 100-continue` is understood.",
            "対応している Expect は 100-continue のみです。",
            "leave the Expect header out",
            "Expect ヘッダーを外してください",
            "one-strict-reading",
        ),
        _entry(
            401,
            "auth.key_missing",
            "The request carries no API key.",
            "リクエストに API キーがありません。",
            "send `Authorization: Bearer <key>`",
            "`Authorization: Bearer <キー>` を付けてください",
            "known-tenant",
        ),
        _entry(
            401,
            "auth.key_unknown",
            "The API key is unknown, revoked or expired.",
            "API キーが登録されていないか、失効済みか、期限切れです。",
            "check the key; an administrator makes a new one with `sekisho key create`",
            "キーを確認してください。新しいキーは管理者が `sekisho key create` で発行できます",
            "known-tenant",
        ),
        _entry(
            400,
            "class.invalid",
            "X-Sekisho-Class is not a data class.",
            "X-Sekisho-Class の値が正しくありません。",
            "use public, internal, confidential or restricted",
            "public、internal、confidential、restricted のいずれかを指定してください",
            "declared-class",
        ),
        _entry(
            404,
            "model.not_found",
            "There is no such model for this key.",
            "指定されたモデルは、このキーでは使えません。",
            "GET /v1/models lists what you may use",
            "使えるモデルは GET /v1/models で確認できます",
            "known-model",
        ),
        _entry(
            403,
            "residency.no_eligible_endpoint",
            "No endpoint may serve this data class.",
            "このデータ区分を処理できるエンドポイントがありません。",
            "ask for a site that satisfies the rules, or send data of a lower class",
            "規則を満たすサイトの追加を依頼するか、より低い区分のデータを送ってください",
        ),
        _entry(
            403,
            "residency.evidence_expired",
            "The evidence under this route has run out; the route is closed.",
            "経路の根拠となる証跡の有効期限が切れたため、経路は閉じています。",
            "renew the evidence of the sites (`sekisho status`); it opens again by itself",
            "サイトの証跡を更新してください（`sekisho status`）。更新されると経路は自動的に開きます",
            "evidence-fresh",
        ),
        _entry(
            429,
            "limit.requests",
            "The tenant's request limit is used up.",
            "テナントのリクエスト数の上限に達しました。",
            "wait as Retry-After says, or ask for a higher limit",
            "Retry-After の時間だけ待つか、上限の引き上げを依頼してください",
            "tenant-limits",
        ),
        _entry(
            429,
            "limit.tokens",
            "The tenant's token limit is used up.",
            "テナントのトークン数の上限に達しました。",
            "wait as Retry-After says, lower max_tokens, or ask for a higher limit",
            "Retry-After の時間だけ待つか、max_tokens を小さくするか、上限の引き上げを依頼してください",
            "tenant-limits",
        ),
        _entry(
            400,
            "limit.tokens_too_many",
            "The request alone is larger than the tenant's tokens a minute.",
            "このリクエストだけで、テナントの 1 分あたりのトークン数の上限を超えています。",
            "shorten the prompt, lower max_tokens, or ask for a higher limit",
            "プロンプトを短くするか、max_tokens を小さくするか、上限の引き上げを依頼してください",
            "tenant-limits",
        ),
        _entry(
            429,
            "limit.concurrency",
            "The tenant has as many requests under way as it may.",
            "テナントの同時実行数の上限に達しました。",
            "wait for a running request to end",
            "実行中のリクエストが終わるまでお待ちください",
            "tenant-limits",
        ),
        _entry(
            429,
            "limit.queue_full",
            "Too many requests wait already.",
            "待ち行列がいっぱいです。",
            "wait as Retry-After says",
            "Retry-After の時間だけお待ちください",
            "bounded-queue",
            retry=1.0,
        ),
        _entry(
            429,
            "limit.queue_timeout",
            "No slot became free in time.",
            "時間内に空きができませんでした。",
            "wait as Retry-After says, or reserve capacity",
            "Retry-After の時間だけ待つか、計算資源を予約してください",
            "bounded-queue",
            retry=1.0,
        ),
        _entry(
            503,
            "journal.unavailable",
            "The journal can't be written, and this data class never passes unrecorded.",
            "ジャーナルに記録できないため、このデータ区分のリクエストは通せません。",
            "an operator must free disk space or repair the disk; public data still passes",
            "運用者がディスクの空きを確保するか、ディスクを修理する必要があります。public のデータは引き続き通せます",
            "never-unrecorded",
            retry=5.0,
        ),
        _entry(
            503,
            "gateway.no_table",
            "The gateway has no route table yet.",
            "経路表がまだありません。",
            "wait for the control plane; see `sekisho status`",
            "コントロールプレーンの準備が整うまでお待ちください（`sekisho status` で確認できます）",
            "route-table",
            retry=1.0,
        ),
        _entry(
            503,
            "gateway.memory",
            "The gateway holds as many request bodies as it may.",
            "ゲートウェイが保持できるリクエスト本文の総量が上限に達しています。",
            "try again in a moment",
            "少し待ってから、もう一度お試しください",
            "bounded-size",
            retry=1.0,
        ),
        _entry(
            503,
            "upstream.unavailable",
            "No endpoint that may serve this request can be reached.",
            "このリクエストを処理できるエンドポイントに接続できません。",
            "wait; the gateway never goes outside the set that the rules allow",
            "しばらくお待ちください。規則が認める範囲の外へ送ることはありません",
            "inside-the-set",
            retry=1.0,
        ),
        _entry(
            502,
            "upstream.error",
            "The endpoint failed to answer.",
            "エンドポイントが正しく応答しませんでした。",
            "try again; the decision id helps the operator to find the cause",
            "もう一度お試しください。判定 ID を伝えると、運用者が原因を調べられます",
            "inside-the-set",
        ),
        _entry(
            504,
            "upstream.timeout",
            "The endpoint did not answer in time.",
            "エンドポイントが時間内に応答しませんでした。",
            "try again, or ask for a shorter answer",
            "もう一度お試しいただくか、より短い応答を求めてください",
            "inside-the-set",
        ),
        _entry(
            429,
            "upstream.busy",
            "Every endpoint that may serve this request is overloaded.",
            "このリクエストを処理できるエンドポイントはすべて混雑しています。",
            "wait as Retry-After says",
            "Retry-After の時間だけお待ちください",
            "inside-the-set",
            retry=1.0,
        ),
        _entry(
            404,
            "upstream.unsupported",
            "The endpoint does not offer this path for the model.",
            "このモデルのエンドポイントはこのパスに対応していません。",
            "use /v1/chat/completions",
            "/v1/chat/completions を使ってください",
            "inside-the-set",
        ),
        _entry(
            400,
            "request.invalid_json",
            "The body is not a JSON object.",
            "本文が JSON オブジェクトではありません。",
            "send one JSON object, in UTF-8",
            "UTF-8 の JSON オブジェクトを 1 つ送ってください",
            "one-strict-reading",
        ),
        _entry(
            400,
            "request.duplicate_key",
            "A key of the body is given twice.",
            "本文に同じキーが 2 回あります。",
            "send each key once",
            "各キーを 1 回だけ送ってください",
            "one-strict-reading",
        ),
        _entry(
            400,
            "request.escaped_key",
            "A key of the body is written with escapes.",
            "本文のキーがエスケープ表記になっています。",
            "write keys as plain text",
            "キーはエスケープせずに書いてください",
            "one-strict-reading",
        ),
        _entry(
            400,
            "request.too_many_keys",
            "The body has too many keys.",
            "本文のキーが多すぎます。",
            "send at most 256 top-level keys",
            "最上位のキーは 256 個以内にしてください",
            "bounded-size",
        ),
        _entry(
            400,
            "request.no_model",
            "The body names no model.",
            "本文に model がありません。",
            'add `"model": "…"`; GET /v1/models lists them',
            '`"model": "…"` を加えてください。使えるモデルは GET /v1/models で確認できます',
            "known-model",
        ),
        _entry(
            400,
            "request.invalid_model",
            "`model` is not the name of a model.",
            "model の値がモデル名ではありません。",
            "GET /v1/models lists what you may use",
            "使えるモデルは GET /v1/models で確認できます",
            "known-model",
        ),
        _entry(
            400,
            "request.invalid_stream",
            "`stream` is neither true nor false.",
            "stream の値が true でも false でもありません。",
            "send true or false",
            "true または false を送ってください",
            "one-strict-reading",
        ),
    )
}
