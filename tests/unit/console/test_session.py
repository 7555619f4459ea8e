"""Signing in: what opens the console, for how long, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.console.session import SESSION_S, SIGN_IN_FORM_S, Attempts, Sessions

TOKEN = "sk-admin-0123456789"
NONCE = bytes(range(16))
NOW = 1_795_000_000.0
sessions = Sessions(TOKEN)


def test_a_session_opens_until_it_ends() -> None:
    cookie = sessions.start(nonce=NONCE, now=NOW)
    session = sessions.open(cookie, now=NOW + SESSION_S - 1)
    assert session is not None
    assert sessions.form_fits(session, session.csrf)
    assert sessions.open(cookie, now=NOW + SESSION_S + 1) is None


@given(position=st.integers(0, 200), replacement=st.characters(codec="utf-8"))
def test_a_cookie_with_any_other_character_opens_nothing(position: int, replacement: str) -> None:
    cookie = sessions.start(nonce=NONCE, now=NOW)
    at = position % len(cookie)
    changed = cookie[:at] + replacement + cookie[at + 1 :]
    assert (sessions.open(changed, now=NOW) is not None) == (changed == cookie)


@given(text=st.text())
def test_no_text_opens_a_session_or_is_the_token(text: str) -> None:
    assert sessions.open(text, now=NOW) is None
    assert not sessions.is_admin(text)
    assert not sessions.sign_in_fits(text, text, now=NOW)


def test_a_new_admin_token_ends_every_session() -> None:
    assert Sessions("sk-admin-another").open(sessions.start(nonce=NONCE, now=NOW), now=NOW) is None


def test_a_form_of_another_session_does_not_fit() -> None:
    one = sessions.open(sessions.start(nonce=NONCE, now=NOW), now=NOW)
    two = sessions.open(sessions.start(nonce=bytes(16), now=NOW), now=NOW)
    assert one is not None
    assert two is not None
    assert not sessions.form_fits(one, two.csrf)
    assert not sessions.form_fits(one, "")


def test_a_sign_in_form_needs_its_own_cookie_and_grows_old() -> None:
    form = sessions.sign_in_form(nonce=NONCE, now=NOW)
    assert sessions.sign_in_fits(form, form, now=NOW)
    assert not sessions.sign_in_fits(form, sessions.sign_in_form(nonce=bytes(16), now=NOW), now=NOW)
    assert not sessions.sign_in_fits(form, form, now=NOW + SIGN_IN_FORM_S + 1)
    # The keys are derived for one use each: a form's token is no session.
    assert sessions.open(form, now=NOW) is None


def test_only_the_token_is_the_token() -> None:
    assert sessions.is_admin(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + "0", TOKEN.upper()):
        assert not sessions.is_admin(wrong)


def test_wrong_attempts_are_limited_by_address() -> None:
    attempts = Attempts(per_address=3, window_s=60)
    for second in range(3):
        assert attempts.wait_s("a", now=NOW + second) == 0
        attempts.wrong("a", now=NOW + second)
    assert attempts.wait_s("a", now=NOW + 3) == pytest.approx(57)
    assert attempts.wait_s("b", now=NOW + 3) == 0
    assert attempts.wait_s("a", now=NOW + 60.5) == 0  # honest: the wait that was told is enough


def test_wrong_attempts_are_limited_in_all_and_forgotten() -> None:
    attempts = Attempts(per_address=3, in_all=10, window_s=60, addresses=4)
    for number in range(10):
        attempts.wrong(f"address-{number}", now=NOW)
    assert attempts.wait_s("fresh", now=NOW + 1) == pytest.approx(59)
    assert attempts.wait_s("fresh", now=NOW + 61) == 0


class Sato:
    """One administrator, who can be revoked."""

    stands_now = True

    def name_of(self, token: str) -> str | None:
        return "sato" if self.stands_now and token == "sk-admin-of-sato" else None

    def stands(self, name: str) -> bool:
        return self.stands_now and name == "sato"


def test_a_session_has_the_name_of_whoever_signed_in_and_ends_with_them() -> None:
    sato = Sato()
    named = Sessions(TOKEN, sato)
    assert (named.who("sk-admin-of-sato"), named.who(TOKEN), named.who("x")) == ("sato", "admin", None)
    cookie = named.start(nonce=NONCE, now=NOW, name="sato")
    session = named.open(cookie, now=NOW)
    assert session is not None
    assert session.name == "sato"
    assert named.form_fits(session, session.csrf)
    bare = named.open(named.start(nonce=NONCE, now=NOW), now=NOW)
    assert bare is not None
    assert bare.name == "admin"
    assert not named.form_fits(bare, session.csrf)
    assert named.open(cookie.replace(".sato.", ".suzuki."), now=NOW) is None
    assert named.open(cookie.replace(".sato.", "."), now=NOW) is None
    sato.stands_now = False
    assert named.open(cookie, now=NOW) is None
