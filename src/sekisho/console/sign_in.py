"""Signing in and out."""

from __future__ import annotations

import math
import secrets

import msgspec
from litestar import Response, get, post

from sekisho.console.http import (
    FORM_COOKIE,
    ended_session,
    form_cookie,
    frame_of,
    local_path,
    page,
    query_of,
    redirect,
    session_cookie,
    signed_in,
)
from sekisho.console.inject import Asked, Form, TheAttempts, TheControl, TheSessions
from sekisho.console.render import View
from sekisho.console.session import COOKIE


class SignInView(View, frozen=True, kw_only=True):
    """`problem` is `wrong`, `stale` (the form was too old), `wait` or empty."""

    form: str
    next: str
    problem: str = ""
    wait_s: int = 0

    @property
    def template(self) -> str:
        return "sign_in.html"


class WrongForm(Exception):
    """A form that no page of this session made."""


def require_form(form: dict[str, str], request: Asked, control: TheControl, sessions: TheSessions) -> None:
    """The session, and a form that came from one of its pages; raises Elsewhere or WrongForm."""
    session = signed_in(request, control, sessions)
    if not sessions.form_fits(session, str(form.get("csrf", ""))):
        raise WrongForm


@get("/sign-in", include_in_schema=False)
async def sign_in_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    after = local_path(query_of(request).get("next", "/"))
    if sessions.open(request.cookies.get(COOKIE, ""), now=control.clock.now()) is not None:
        return redirect(after)
    return _form(request, control, sessions, after=after)


@post("/sign-in", include_in_schema=False)
async def sign_in(
    request: Asked, control: TheControl, sessions: TheSessions, attempts: TheAttempts, data: Form
) -> Response[bytes]:
    now = control.clock.now()
    after = local_path(str(data.get("next", "/")))
    address = request.client.host if request.client else ""
    wait_s = attempts.wait_s(address, now=now)
    fits = sessions.sign_in_fits(str(data.get("form", "")), request.cookies.get(FORM_COOKIE, ""), now=now)
    name = sessions.who(str(data.get("token", "")).strip()) if fits else None
    # The right token always opens: behind one proxy everybody has one address, and somebody's wrong guesses must not
    # lock the administrator out. Tokens have 256 random bits; the limit is for the log and the processor.
    if name is None and wait_s > 0:
        return _form(request, control, sessions, after=after, problem="wait", wait_s=math.ceil(wait_s))
    if not fits:
        return _form(request, control, sessions, after=after, problem="stale")
    if name is None:
        attempts.wrong(address, now=now)
        return _form(request, control, sessions, after=after, problem="wrong")
    return redirect(after, cookies=[session_cookie(request, sessions, now=now, name=name)])


@post("/sign-out", include_in_schema=False)
async def sign_out(request: Asked, control: TheControl, sessions: TheSessions, data: Form) -> Response[bytes]:
    require_form(data, request, control, sessions)
    return redirect("/sign-in", cookies=[ended_session(request)])


_STATUS = {"": 200, "wrong": 403, "stale": 403, "wait": 429}


def _form(
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    *,
    after: str,
    problem: str = "",
    wait_s: int = 0,
) -> Response[bytes]:
    value = sessions.sign_in_form(nonce=secrets.token_bytes(16), now=control.clock.now())
    view = SignInView(form=value, next=after, problem=problem, wait_s=wait_s)
    frame = msgspec.structs.replace(frame_of(request, control, None), section="sign-in")
    answer = page(view, frame, status=_STATUS[problem], cookies=[form_cookie(request, value)])
    if wait_s:
        answer.headers["Retry-After"] = str(wait_s)
    return answer
