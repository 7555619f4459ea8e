"""Named administrators: who may change things, and under which name the change log has it.

The token of the home directory is the administrator `admin`; everybody else has a token of their own, kept as its
SHA-256 (tokens are random: 256 bits, so no slow hash is needed).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from sekisho.kernel.errors import SekishoError
from sekisho.kernel.ids import NAME
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database, metadata

BOOTSTRAP = "admin"
CONFIGURATION = "configuration"
# Names that the change log uses for what is no person.
_RESERVED = frozenset({BOOTSTRAP, CONFIGURATION, "signal", "system", "agent"})
PREFIX = "sk-admin-"

admin = sa.Table(
    "admin",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("revoked_at", sa.Float),
)


class AdminRefused(SekishoError):
    """A name that nobody can have, or that is taken."""

    code = "admin.refused"


class AdminUnknown(SekishoError):
    """There is no such administrator."""

    code = "admin.unknown"


class AdminView(msgspec.Struct, frozen=True, kw_only=True):
    """Times in Unix seconds."""

    name: str
    created_at: float
    created_by: str
    revoked_at: float | None = None


class NewAdmin(msgspec.Struct, frozen=True, kw_only=True):
    """The only time that the token is seen."""

    name: str
    token: str


class Admins:
    """Blocking; the lookups are answered from memory, which every change keeps up to date.

    A name is never given twice: what the change log says of it must go on to mean the same person.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_hash: Mapping[str, str] = {}
        self._refresh()

    def name_of(self, token: str) -> str | None:
        """Whose token this is. A lookup by digest: how long it takes says nothing about any token."""
        return self._by_hash.get(_digest(token))

    def stands(self, name: str) -> bool:
        return name in self._by_hash.values()

    def find(self, name: str) -> AdminView | None:
        return next((each for each in self.all() if each.name == name), None)

    def all(self) -> list[AdminView]:
        """Revoked ones included, by name."""
        with self._database.read() as connection:
            rows = connection.execute(admin.select().order_by(admin.c.name)).all()
        return [
            AdminView(name=row.name, created_at=row.created_at, created_by=row.created_by, revoked_at=row.revoked_at)
            for row in rows
        ]

    def add(self, name: str, *, now: float, actor: str) -> NewAdmin:
        if not NAME.fullmatch(name) or name in _RESERVED:
            raise AdminRefused(
                f"{name[:64]!r} can't be the name of an administrator",
                hint="use a-z, 0-9, `.`, `_` and `-`, and a name of a person, as in sato",
            )
        token = PREFIX + secrets.token_urlsafe(32)
        with self._database.write() as connection:
            if connection.scalar(sa.select(admin.c.name).where(admin.c.name == name)) is not None:
                raise AdminRefused(f"there is or was an administrator {name!r}", hint="choose another name")
            connection.execute(
                admin.insert().values(name=name, sha256=_digest(token), created_at=now, created_by=actor)
            )
            record_change(connection, now=now, actor=actor, action="admin.added", subject=f"admin/{name}")
        self._refresh()
        return NewAdmin(name=name, token=token)

    def revoke(self, name: str, *, now: float, actor: str) -> None:
        with self._database.write() as connection:
            changed = connection.execute(
                admin.update().where(admin.c.name == name, admin.c.revoked_at.is_(None)).values(revoked_at=now)
            )
            if changed.rowcount == 0:
                raise AdminUnknown(
                    f"there is no administrator {name[:64]!r}, or not any more",
                    hint="`sekisho admin list` names them",
                )
            record_change(connection, now=now, actor=actor, action="admin.revoked", subject=f"admin/{name}")
        self._refresh()

    def _refresh(self) -> None:
        with self._database.read() as connection:
            rows = connection.execute(sa.select(admin.c.name, admin.c.sha256).where(admin.c.revoked_at.is_(None)))
            self._by_hash = {row.sha256: row.name for row in rows}


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
