"""Faults as pages: the same facts, codes and hints as the problem documents of the API."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response

from sekisho.console.http import frame_of, html, page
from sekisho.console.render import View, render_part
from sekisho.console.services import Control
from sekisho.console.session import COOKIE, Sessions
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
    view = ErrorView(status=document.status, code=document.code, detail=document.detail, hint=document.hint)
    return page(view, frame_of(request, control, session), status=document.status)


def signed_out_part(request: Request[Any, Any, Any], control: Control) -> Response[bytes]:
    """What stands in place of a part whose session has ended. 200: it is shown, and it is not the list."""
    view = ErrorView(status=401, code="auth.required", detail="", hint="")
    return html(render_part("parts/signed_out.html", view, frame_of(request, control, None)))
