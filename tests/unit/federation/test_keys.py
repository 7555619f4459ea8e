"""Keys: random, hashed, never repeated in words."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.federation.keys import hash_key, key_fault, key_id, new_key, parse_key_hash


def test_new_keys_are_long_random_and_usable() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert re.fullmatch(r"sk-sekisho-[A-Za-z0-9_-]{43}", key)
        assert key_fault(key) is None


def test_a_hash_is_sha256_of_the_key_and_its_id_the_beginning() -> None:
    digest = hashlib.sha256(b"sk-sekisho-example").hexdigest()
    assert hash_key("sk-sekisho-example") == f"sha256:{digest}"
    assert key_id(digest) == digest[:12]


def test_a_hash_is_read_back_in_either_case() -> None:
    text = hash_key("x")
    assert parse_key_hash(text) == text.removeprefix("sha256:")
    assert parse_key_hash(text.upper()) == text.removeprefix("sha256:")


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "g" * 64])
def test_what_is_no_hash_is_none(text: str) -> None:
    assert parse_key_hash(text) is None
    assert parse_key_hash(text + "\n") is None


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "characters other than printable"),
        ("short", "fewer than 20"),
        ("x" * 19, "fewer than 20"),
        ("has a space in the middle", "printable ASCII"),
        ("日本語のキーは使えませんよねえ、たぶん。", "printable ASCII"),
        ("x" * 30 + "\n", "printable ASCII"),
        ("x" * 30 + "\x7f", "printable ASCII"),
        ("sha256:abc", "no key hash"),
        ("0123456789abcdef" * 4, "without `sha256:`"),
    ],
)
def test_what_cannot_be_a_key_is_said_in_words(key: str, words: str) -> None:
    fault = key_fault(key)
    assert fault is not None
    assert words in fault


@given(st.text(min_size=8, max_size=40))
def test_words_about_a_key_never_repeat_it(key: str) -> None:
    fault = key_fault(key)
    assert fault is None or key not in fault or key in ("characters", "printable")
