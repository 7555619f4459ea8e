"""SQL of the federation: keys made or revoked at run time, and suspended endpoints."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from sekisho.federation.model import ApiKey
from sekisho.runtime.database import metadata

api_key = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("label", sa.String(120), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
)

endpoint_state = sa.Table(
    "endpoint_state",
    metadata,
    sa.Column("endpoint", sa.String(64), primary_key=True),
    sa.Column("suspended", sa.Boolean, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
)


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that the database knows: made here, or declared in the configuration and revoked here."""

    id: str
    tenant: str
    sha256: str
    label: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def as_api_key(self) -> ApiKey:
        return ApiKey(id=self.id, tenant=self.tenant, sha256=self.sha256, expires_at=self.expires_at)


def stored_keys(connection: sa.Connection) -> list[StoredKey]:
    rows = connection.execute(api_key.select().order_by(api_key.c.created_at.desc(), api_key.c.id))
    return [StoredKey(**row._mapping) for row in rows]


def insert_key(connection: sa.Connection, key: StoredKey) -> None:
    connection.execute(api_key.insert().values(**msgspec.structs.asdict(key)))


def mark_revoked(connection: sa.Connection, key_id: str, *, now: float) -> bool:
    """False when there is no such key here, or it was revoked before."""
    changed = connection.execute(
        api_key.update().where(api_key.c.id == key_id, api_key.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    return changed.rowcount == 1


def suspended_endpoints(connection: sa.Connection) -> frozenset[str]:
    rows = connection.execute(sa.select(endpoint_state.c.endpoint).where(endpoint_state.c.suspended))
    return frozenset(row.endpoint for row in rows)


def set_suspended(connection: sa.Connection, endpoint: str, suspended: bool, *, now: float) -> bool:
    """False when the endpoint was in that state already: nothing is written then."""
    current = connection.scalar(sa.select(endpoint_state.c.suspended).where(endpoint_state.c.endpoint == endpoint))
    if bool(current) is suspended:
        return False
    values = {"suspended": suspended, "changed_at": now}
    if current is None:
        connection.execute(endpoint_state.insert().values(endpoint=endpoint, **values))
    else:
        connection.execute(endpoint_state.update().where(endpoint_state.c.endpoint == endpoint).values(**values))
    return True
