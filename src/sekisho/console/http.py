"""What every page's route needs: who asks, in which language, and an answer with the right headers."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from litestar import Request, Response
from litestar.datastructures import Cookie

from sekisho.console.i18n import Language, negotiate, parse_language
from sekisho.console.render import Frame, View, render, render_part, with_query
from sekisho.console.services import Control
from sekisho.console.session import COOKIE, SESSION_S, Session, Sessions

LANGUAGE_COOKIE = "sekisho_lang"
LEFT_COOKIE = "sekisho_left"
FORM_COOKIE = "sekisho_form"
_YEAR_S = 365 * 86_400
_KEEP_LEFT = 5


class Elsewhere(Exception):
    """This request is answered by a redirect: sign in first, or the same page in the language that was chosen."""

    def __init__(self, location: str, *, language: Language | None = None) -> None:
        super().__init__(location)
        self.location = location
        self.language = language


class SignedOut(Exception):
    """A part of a page was asked for without a session."""


def query_of(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The last value of each name, in the order of the address."""
    return dict(parse_qsl(request.url.query, keep_blank_values=True))


def language_of(request: Request[Any, Any, Any]) -> Language:
    cookie = request.cookies.get(LANGUAGE_COOKIE, "")
    return negotiate(cookie, request.headers.get("Accept-Language", ""))


def frame_of(
    request: Request[Any, Any, Any], control: Control, session: Session | None, *, section: str = ""
) -> Frame:
    """The frame of a page; raises Elsewhere when the query chooses a language (which goes into a cookie)."""
    query = query_of(request)
    path = request.url.path
    chosen = parse_language(query.pop("lang", ""))
    if chosen is not None and request.method == "GET":
        raise Elsewhere(with_query(local_path(path), query), language=chosen)
    return Frame(
        language=language_of(request),
        path=path,
        query=tuple(query.items()),
        csrf=session.csrf if session else "",
        section=section,
        demonstration=control.demonstration,
        now=control.clock.now(),
    )


def signed_in(request: Request[Any, Any, Any], control: Control, sessions: Sessions) -> Session:
    """The session, or the way to the sign-in page and back."""
    session = sessions.open(request.cookies.get(COOKIE, ""), now=control.clock.now())
    if session is None:
        here = with_query(local_path(request.url.path), query_of(request)) if request.method == "GET" else "/"
        raise Elsewhere(with_query("/sign-in", {"next": here if here != "/" else ""}))
    return session


def page(view: View, frame: Frame, *, status: int = 200, cookies: list[Cookie] | None = None) -> Response[bytes]:
    return html(render(view, frame), status=status, cookies=cookies)


def part(template: str, view: View, frame: Frame) -> Response[bytes]:
    return html(render_part(template, view, frame))


def html(content: bytes, *, status: int = 200, cookies: list[Cookie] | None = None) -> Response[bytes]:
    return Response(
        content,
        status_code=status,
        media_type="text/html; charset=utf-8",
        headers={"Cache-Control": "no-store", "Vary": "Cookie, Accept-Language"},
        cookies=cookies or [],
    )


def redirect(location: str, *, cookies: list[Cookie] | None = None) -> Response[bytes]:
    """303: the next request is a GET, whatever this one was (RFC 9110 §15.4.4)."""
    return Response(b"", status_code=303, headers={"Location": location}, cookies=cookies or [])


def local_path(text: str) -> str:
    """A path of this console, or `/`: a link from elsewhere must not send people away after they sign in."""
    parts = urlsplit(text)
    plain = text.isascii() and text.isprintable() and "\\" not in text and len(text) <= 500
    safe = plain and not parts.scheme and not parts.netloc and text.startswith("/") and not text.startswith("//")
    return text if safe else "/"


def _cookie(request: Request[Any, Any, Any], name: str, value: str, *, max_age_s: int, hidden: bool = True) -> Cookie:
    return Cookie(
        key=name,
        value=value,
        max_age=max_age_s,
        path="/",
        httponly=hidden,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def session_cookie(request: Request[Any, Any, Any], sessions: Sessions, *, now: float, name: str) -> Cookie:
    value = sessions.start(nonce=secrets.token_bytes(16), now=now, name=name)
    return _cookie(request, COOKIE, value, max_age_s=int(SESSION_S))


def ended_session(request: Request[Any, Any, Any]) -> Cookie:
    return _cookie(request, COOKIE, "", max_age_s=0)


def form_cookie(request: Request[Any, Any, Any], value: str) -> Cookie:
    return _cookie(request, FORM_COOKIE, value, max_age_s=3600)


def language_cookie(request: Request[Any, Any, Any], language: Language) -> Cookie:
    return _cookie(request, LANGUAGE_COOKIE, language, max_age_s=_YEAR_S)


def left_paths(request: Request[Any, Any, Any]) -> tuple[str, ...]:
    """Pages that this browser looked at last, the newest first; anything odd in the cookie is dropped."""
    text = request.cookies.get(LEFT_COOKIE, "")
    paths = [local_path(part) for part in text.split("|")[:_KEEP_LEFT]]
    return tuple(dict.fromkeys(path for path in paths if path != "/"))


def left_cookie(request: Request[Any, Any, Any]) -> Cookie:
    """Remembers this page. Only a path and its filters: what the reader's own history has, too."""
    here = quote(with_query(request.url.path, query_of(request)), safe="/?=&%-._~+:@")
    rest = [path for path in left_paths(request) if path.split("?")[0] != here.split("?")[0]]
    return _cookie(request, LEFT_COOKIE, "|".join([here, *rest][:_KEEP_LEFT]), max_age_s=_YEAR_S)
