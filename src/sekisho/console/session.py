"""Signing in: by the admin token or an administrator's own, kept in a signed cookie.

Pure but for the clock and randomness that are passed in. A session is `<expiry>.<nonce>[.<name>].<signature>`:
nothing is stored, a new admin token ends every session, because the signing key comes from it, and an administrator
who is revoked has none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from typing import Protocol

import msgspec

COOKIE = "sekisho_session"
SESSION_S = 12 * 3600.0
# A form that somebody left open over lunch still works.
SIGN_IN_FORM_S = 3600.0
# What is signed after the nonce is whose session it is; nothing for the administrator `admin`.
_TOKEN = re.compile(r"(\d{1,12})\.([0-9a-f]{32}(?:\.[a-z0-9][a-z0-9._-]{0,63})?)\.([0-9a-f]{64})")
BOOTSTRAP = "admin"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has shown a token. `csrf` goes into every form; `name` is who it is, for the change log."""

    expires_at: int
    nonce: str
    csrf: str
    name: str = BOOTSTRAP


class NamedAdmins(Protocol):
    """The administrators with a token of their own."""

    def name_of(self, token: str) -> str | None: ...
    def stands(self, name: str) -> bool: ...


class _Nobody:
    def name_of(self, _token: str) -> str | None:
        return None

    def stands(self, _name: str) -> bool:
        return False


class Sessions:
    """Makes and checks cookies and form tokens. The keys are derived from the admin token, one for each use."""

    def __init__(self, admin_token: str, admins: NamedAdmins | None = None) -> None:
        self._token = admin_token.encode()
        self._admins = admins or _Nobody()
        self._session_key = self._derive(b"session")
        self._csrf_key = self._derive(b"csrf")
        self._sign_in_key = self._derive(b"sign-in")

    def _derive(self, use: bytes) -> bytes:
        return hmac.digest(self._token, b"sekisho/console/v1/" + use, "sha256")

    def is_admin(self, given: str) -> bool:
        """Whether this is the admin token; takes as long for every wrong one of any length."""
        # Digests first: compare_digest itself shows the length of what it compares.
        return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(self._token).digest())

    def who(self, given: str) -> str | None:
        """The name of the administrator whose token this is; None when it is nobody's."""
        return BOOTSTRAP if self.is_admin(given) else self._admins.name_of(given)

    def start(self, *, nonce: bytes, now: float, name: str = BOOTSTRAP) -> str:
        """A new session's cookie. `nonce`: 16 random bytes."""
        whose = "" if name == BOOTSTRAP else f".{name}"
        return _signed(self._session_key, int(now + SESSION_S), nonce.hex() + whose)

    def open(self, cookie: str, *, now: float) -> Session | None:
        found = _checked(self._session_key, cookie, now=now)
        if found is None:
            return None
        expires_at, nonce = found
        name = nonce.partition(".")[2] or BOOTSTRAP
        if name != BOOTSTRAP and not self._admins.stands(name):
            return None
        csrf = hmac.digest(self._csrf_key, nonce.encode(), "sha256").hex()
        return Session(expires_at=expires_at, nonce=nonce, csrf=csrf, name=name)

    def form_fits(self, session: Session, given: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(given.encode(), session.csrf.encode())

    def sign_in_form(self, *, nonce: bytes, now: float) -> str:
        """The token of a sign-in form; the same value goes into a cookie (double submit: there is no session yet)."""
        return _signed(self._sign_in_key, int(now + SIGN_IN_FORM_S), nonce.hex())

    def sign_in_fits(self, form: str, cookie: str, *, now: float) -> bool:
        same = hmac.compare_digest(form.encode(), cookie.encode())
        return same and _checked(self._sign_in_key, form, now=now) is not None


def _signed(key: bytes, expires_at: int, nonce: str) -> str:
    body = f"{expires_at}.{nonce}"
    return f"{body}.{hmac.digest(key, body.encode(), 'sha256').hex()}"


def _checked(key: bytes, text: str, *, now: float) -> tuple[int, str] | None:
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    expected = _signed(key, int(match[1]), match[2])
    if not hmac.compare_digest(expected.encode(), text.encode()) or int(match[1]) <= now:
        return None
    return int(match[1]), match[2]


class Attempts:
    """Limits wrong sign-ins: by address, and in all (an attacker with many addresses). Belongs to one event loop."""

    def __init__(
        self, *, per_address: int = 5, in_all: int = 100, window_s: float = 60.0, addresses: int = 10_000
    ) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._window_s = window_s
        self._addresses = addresses
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self._all: list[float] = []

    def wait_s(self, address: str, *, now: float) -> float:
        """0 when an attempt may be made now, else the seconds until one may."""
        self._all = [at for at in self._all if at > now - self._window_s]
        own = [at for at in self._wrong.get(address, ()) if at > now - self._window_s]
        waits = [0.0]
        if len(own) >= self._per_address:
            waits.append(own[-self._per_address] + self._window_s - now)
        if len(self._all) >= self._in_all:
            waits.append(self._all[-self._in_all] + self._window_s - now)
        return max(waits)

    def wrong(self, address: str, *, now: float) -> None:
        own = [at for at in self._wrong.pop(address, ()) if at > now - self._window_s]
        self._wrong[address] = [*own, now]
        self._all.append(now)
        while len(self._wrong) > self._addresses:
            self._wrong.popitem(last=False)
