"""SQL of the route table: its version, and the salts of the tenants' commitments."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import sqlalchemy as sa

from sekisho.runtime.database import metadata

SALT_BYTES = 32

tenant_salt = sa.Table(
    "tenant_salt",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("salt", sa.LargeBinary(SALT_BYTES), nullable=False),
)

# One row. `last` is taken before a table is published, so a version is never given to two tables.
table_version = sa.Table(
    "table_version",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)


def next_version(connection: sa.Connection, *, at_least: int = 1) -> int:
    """Takes the next version, at least `at_least`; it stays taken when the table is never published."""
    last = connection.scalar(sa.select(table_version.c.last))
    version = max(at_least, (last or 0) + 1)
    if last is None:
        connection.execute(table_version.insert().values(id=1, last=version))
    else:
        connection.execute(table_version.update().values(last=version))
    return version


def destroy_salt(connection: sa.Connection, tenant: str) -> bool:
    """Forgets a tenant's salt for good: no commitment that was made with it can be opened any more."""
    return connection.execute(tenant_salt.delete().where(tenant_salt.c.tenant == tenant)).rowcount > 0


def salts_for(connection: sa.Connection, tenants: Iterable[str]) -> dict[str, bytes]:
    """Every tenant's salt; one that has none gets one, until it is destroyed: old commitments stay comparable."""
    known: dict[str, bytes] = {row.tenant: row.salt for row in connection.execute(tenant_salt.select())}
    missing = [tenant for tenant in tenants if tenant not in known]
    if missing:
        fresh = {tenant: secrets.token_bytes(SALT_BYTES) for tenant in missing}
        connection.execute(tenant_salt.insert(), [{"tenant": tenant, "salt": salt} for tenant, salt in fresh.items()])
        known |= fresh
    return known
