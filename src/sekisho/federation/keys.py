"""API keys: made at random, kept as a hash only."""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "sk-sekisho-"
HASH_PREFIX = "sha256:"
MIN_KEY_CHARACTERS = 20

_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_BARE_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_PRINTABLE = re.compile(r"[!-~]+")  # printable ASCII without the space: what an HTTP header carries unchanged


def new_key() -> str:
    """A new key: `sk-sekisho-` and 43 URL-safe characters, 256 bits from the system's random source."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """The form that configuration and database keep: `sha256:<64 hex digits>`.

    A plain SHA-256 is enough because keys are random; a slow hash protects guessable passwords only.
    """
    return HASH_PREFIX + hashlib.sha256(key.encode()).hexdigest()


def key_id(sha256_hex: str) -> str:
    """The name of a key in records and pages: the first 12 hex digits of its hash."""
    return sha256_hex[:12]


def parse_key_hash(text: str) -> str | None:
    """`sha256:<64 hex digits>` → the digits; None for anything else."""
    match = _HASH.fullmatch(text.lower())
    return match[1] if match else None


def key_fault(key: str) -> str | None:
    """What is wrong with a plain key, in words that never repeat it; None when it can be used."""
    if key.lower().startswith(HASH_PREFIX):
        return "starts with `sha256:` but is no key hash (64 hex digits)"
    if _BARE_DIGEST.fullmatch(key):
        return "is 64 hex digits without `sha256:` in front: a hash or a key, nobody can tell"
    if not _PRINTABLE.fullmatch(key):
        return "has characters other than printable ASCII without spaces"
    if len(key) < MIN_KEY_CHARACTERS:
        return f"has {len(key)} characters, fewer than {MIN_KEY_CHARACTERS}"
    return None
