"""Faults as pages: the same facts, codes and hints as the problem documents of the API."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response

from sekisho.console.http import frame_of, html, page
from sekisho.console.i18n import Translator
from sekisho.console.render import View, render_part
from sekisho.console.services import Control
from sekisho.console.session import COOKIE, Sessions
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.problems import Problem


class ErrorView(View, frozen=True, kw_only=True):
    status: int
    code: str
    detail: str
    hint: str

    @property
    def template(self) -> str:
        return "error.html"


def error_page(
    request: Request[Any, Any, Any], control: Control, sessions: Sessions, document: Problem
) -> Response[bytes]:
    session = sessions.open(request.cookies.get(COOKIE, ""), now=control.clock.now())
    frame = frame_of(request, control, session)
    ja = frame.language == "ja"
    view = ErrorView(
        status=document.status,
        code=document.code,
        detail=(document.detail_ja if ja else "") or document.detail,
        hint=(document.hint_ja if ja else "") or document.hint,
    )
    return page(view, frame, status=document.status)


def told(error: SekishoError, t: Translator) -> str:
    """A fault in the reader's language, where it has words in it, and its code."""
    fact, hint = error.fact, error.hint
    if t.language == "ja":
        fact, hint = error.fact_ja or fact, error.hint_ja or hint
    return f"{fact} [{error.code}]" + (f" — {hint}" if hint else "")


def signed_out_part(request: Request[Any, Any, Any], control: Control) -> Response[bytes]:
    """What stands in place of a part whose session has ended. 200: it is shown, and it is not the list."""
    view = ErrorView(status=401, code="auth.required", detail="", hint="")
    return html(render_part("parts/signed_out.html", view, frame_of(request, control, None)))
