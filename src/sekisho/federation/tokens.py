"""Invitations as text: a secret, and the key of the control plane that invites."""

from __future__ import annotations

import hashlib
import re

TOKEN_PREFIX = "sk-site-"  # noqa: S105 - how a token begins, not one
_TOKEN = re.compile(r"sk-site-[A-Za-z0-9_-]{43}\.[0-9a-f]{64}")


def new_token(secret: str, *, control: str) -> str:
    """`secret`: `secrets.token_urlsafe(32)`. `control`: hex of the key with which the control plane signs what it
    tells agents, so that whoever was invited knows whom to believe."""
    return f"{TOKEN_PREFIX}{secret}.{control}"


def control_key_of(token: str) -> str | None:
    """The control plane's key in a token; None for what is no token."""
    return token.rpartition(".")[2] if _TOKEN.fullmatch(token) else None


def hash_token(token: str) -> str:
    """SHA-256 (hex): tokens are 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()
