"""Where the control plane's database lies."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from sekisho.assembly.home import Home
from sekisho.federation.model import SecretRef
from sekisho.runtime.database import DatabaseUnavailable, postgresql_url, sqlite_url


def database_url(home: Home, place: SecretRef | None) -> str | sa.URL:
    """SQLite in the home directory, or the PostgreSQL whose address lies at `place`."""
    if place is None:
        return sqlite_url(home.root / "control.sqlite")
    try:
        text = os.environ[place.env] if place.env is not None else Path(place.file or "").read_text()
    except (KeyError, OSError, UnicodeDecodeError):
        raise DatabaseUnavailable(
            f"the address of the database can't be read from {place.env or place.file}",
            hint="put it there, or take [control] database out for SQLite",
        ) from None
    return postgresql_url(text)
