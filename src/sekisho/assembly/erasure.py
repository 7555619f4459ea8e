"""Destroys a tenant's salt, where it lies: in the database, its write-ahead log, and its free pages."""

from __future__ import annotations

from sekisho.federation.errors import UnknownName
from sekisho.ledger import outbox
from sekisho.residency.store import destroy_salt
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database


def erase(database: Database, tenant: str, *, now: float, actor: str) -> None:
    """One transaction: the salt goes, and change log and transparency log say so. UnknownName when there is none.

    The next route table has to be made at once: it gets a fresh salt, and with it the old one leaves the gateways.
    PostgreSQL overwrites the old row at its next VACUUM; copies of the database are for their keeper to destroy.
    """
    sqlite = database.engine.dialect.name == "sqlite"
    with database.write() as connection:
        if sqlite:
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
        if not destroy_salt(connection, tenant):
            raise UnknownName(f"the tenant {tenant!r} has no salt", hint="`sekisho status` lists the tenants")
        record_change(connection, now=now, actor=actor, action="tenant.salt_destroyed", subject=f"tenant/{tenant}")
        outbox.append(connection, kind="salt.destroyed", body={"tenant": tenant}, at_ms=int(now * 1000))
    if sqlite:
        # Outside of any transaction: what the write-ahead log still has of the old page goes, too.
        raw = database.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()
