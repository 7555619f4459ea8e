"""Errors on the wire: RFC 9457 problem documents, from one place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from sekisho.kernel.errors import SekishoError

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)

_CODES = {
    400: "request.invalid",
    401: "auth.required",
    403: "auth.forbidden",
    404: "path.not_found",
    405: "path.method",
    413: "request.too_large",
    429: "auth.too_many_attempts",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457 §3. `code` and `hint` are ours: a stable name of the fault, and the next step. `…_ja`: in Japanese,
    empty where there are no such words."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    detail_ja: str = ""
    hint_ja: str = ""


def problem(
    status: int, *, code: str, detail: str, hint: str = "", detail_ja: str = "", hint_ja: str = ""
) -> Problem:
    return Problem(
        type=f"urn:sekisho:error:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        hint=hint,
        detail_ja=detail_ja,
        hint_ja=hint_ja,
    )


def problem_of(error: Exception, statuses: Mapping[type[SekishoError], int]) -> tuple[Problem, dict[str, str]]:
    """The document of a fault, and the headers that belong to it. An unknown fault is logged, never shown."""
    headers: dict[str, str] = {}
    match error:
        case SekishoError():
            status = next((status for kind, status in statuses.items() if isinstance(error, kind)), 500)
            document = problem(
                status,
                code=error.code,
                detail=error.fact,
                hint=error.hint,
                detail_ja=error.fact_ja,
                hint_ja=error.hint_ja,
            )
        case HTTPException() if error.status_code < 500:
            status = error.status_code
            headers = dict(error.headers or {})
            document = problem(
                status,
                code=_CODES.get(status, "request.invalid"),
                detail=_detail(error),
                hint=_HINTS.get(status, ""),
                detail_ja=_JA.get(status, ("", ""))[0],
                hint_ja=_JA.get(status, ("", ""))[1],
            )
        case RecursionError():
            # Our own code does not recurse; the JSON decoder does, as deep as a body is nested.
            status = 400
            document = problem(400, code=_CODES[400], detail="the body is nested too deeply")
        case _:
            status = 500
            document = problem(
                500, code="internal", detail="the control plane failed", hint="look at logs/control.log"
            )
    if status >= 500:
        _log.error("a request failed: %s", document.code, exc_info=error)
    if status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")  # RFC 9110 §11.6.1
    return document, headers


# Fact and next step. A 400 says which field: that stays as it is.
_JA = {
    401: ("認証が必要です", "管理トークンを `Authorization: Bearer …` で送るか、/ でサインインしてください"),
    403: ("この操作は許可されていません", ""),
    404: ("このアドレスには何もありません", "アドレスの一覧は /api/docs にあります"),
    405: ("このアドレスでは使えないメソッドです", "メソッドの一覧は /api/docs にあります"),
    413: ("リクエストが大きすぎます", ""),
}
_HINTS = {
    401: "send the admin token as `Authorization: Bearer …`, or sign in at /",
    404: "the paths are listed at /api/docs",
    405: "the methods are listed at /api/docs",
}


def _detail(error: HTTPException) -> str:
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        parts = [f"{item.get('key', '')}: {item.get('message', '')}".strip(": ") for item in error.extra]
        if parts:
            return "; ".join(parts)
    return error.detail


def problem_response(_request: Request[Any, Any, Any], document: Problem, headers: dict[str, str]) -> Response[bytes]:
    return Response(
        content=msgspec.json.encode(document),
        status_code=document.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )
