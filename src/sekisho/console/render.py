"""From a view-model and a template to bytes. Templates get one typed value (`v`), the page's frame and `_`."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from urllib.parse import urlencode

import jinja2
import msgspec
from markupsafe import Markup, escape

from sekisho.console.i18n import LANGUAGES, Language, Translator, translator

# A strict policy: nothing inline, nothing from elsewhere, nothing framed.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What is around every page. `query` are the filters, kept by the language switch."""

    language: Language
    path: str
    query: tuple[tuple[str, str], ...]
    csrf: str
    section: str
    demonstration: bool
    now: float

    @property
    def translator(self) -> Translator:
        return translator(self.language)

    def in_language(self, language: Language) -> str:
        return self.path + "?" + urlencode([*self.query, ("lang", language)])


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every view-model; `template` names its file."""

    @property
    def template(self) -> str:
        raise NotImplementedError


@cache
def _static_version(name: str) -> str:
    data = (resources.files("sekisho.console") / "static" / name).read_bytes()
    return hashlib.sha256(data).hexdigest()[:12]


def static(name: str) -> str:
    """The address of a static file; it changes with the content, so that browsers may keep it for ever."""
    return f"/static/{name}?v={_static_version(name)}"


def moment(at_s: float) -> Markup:
    """A time: UTC in the page, the viewer's zone where JavaScript runs, and UTC on hover either way."""
    try:
        at = datetime.fromtimestamp(at_s, UTC)
    except (OverflowError, OSError, ValueError):
        return escape(at_s)
    text = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<local-time><time datetime="{}" title="{}">{}</time></local-time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ"), text, text
    )


def minute(at_s: float) -> Markup:
    """A time on the grid of reservations: always with its date, without seconds; UTC as in `moment`."""
    at = datetime.fromtimestamp(at_s, UTC)
    text = at.strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<local-time data-minutes><time datetime="{}" title="{}">{}</time></local-time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ"), text, text
    )


def with_query(path: str, pairs: dict[str, str]) -> str:
    """The path with those of the pairs that say something."""
    kept = {name: value for name, value in pairs.items() if value}
    return f"{path}?{urlencode(kept)}" if kept else path


def count(n: float) -> str:
    return f"{n:,.0f}"


def milliseconds(us: int) -> str:
    """Microseconds as people compare them: `0.84 ms`, `132 ms`, `12.4 s`; a dash for none."""
    if us <= 0:
        return "–"
    ms = us / 1000
    if ms < 10:
        return f"{ms:.2f} ms"
    return f"{ms:,.0f} ms" if ms < 10_000 else f"{ms / 1000:,.1f} s"


def duration(seconds: float, t: Translator) -> str:
    """Whole units, the largest that fits: `42 s`, `5 min`, `3 h`, `12 d`."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return t("%(n)s s", n=f"{seconds:.0f}")
    if seconds < 5400:
        return t("%(n)s min", n=f"{seconds / 60:.0f}")
    if seconds < 172_800:
        return t("%(n)s h", n=f"{seconds / 3600:.0f}")
    return t("%(n)s d", n=f"{seconds / 86400:.0f}")


def length(seconds: float, t: Translator) -> str:
    """A length to its last minute: `14 d`, `10 d 12 h`, `45 min`."""
    minutes = round(seconds / 60)
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [
        text
        for n, text in (
            (days, t("%(n)s d", n=f"{days:,}")),
            (hours, t("%(n)s h", n=hours)),
            (rest, t("%(n)s min", n=rest)),
        )
        if n
    ]
    return " ".join(parts) or t("%(n)s min", n=0)


@cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("sekisho.console", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static=static, moment=moment, minute=minute, with_query=with_query, languages=LANGUAGES)
    made.filters.update(count=count, milliseconds=milliseconds)
    return made


def render(view: View, frame: Frame) -> bytes:
    return _render(view.template, view, frame)


def render_part(template: str, view: View, frame: Frame) -> bytes:
    """A part of a page, for a refresh in place."""
    return _render(template, view, frame)


def _render(template: str, view: View, frame: Frame) -> bytes:
    t = frame.translator
    return (
        environment()
        .get_template(template)
        .render(
            v=view,
            frame=frame,
            _=t,
            many=t.many,
            duration=lambda seconds: duration(seconds, t),
            length=lambda seconds: length(seconds, t),
        )
        .encode()
    )
