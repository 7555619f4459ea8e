"""Brings the database to the form that this version of the program needs."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import sqlalchemy as sa

from sekisho.capacity import tables as _capacity
from sekisho.capacity.throughput import tables as _throughput
from sekisho.capacity.workloads import tables as _workloads

# Imported for the tables that they declare on the common metadata.
from sekisho.federation import border_store as _border
from sekisho.federation import enrolments as _enrolments
from sekisho.federation import records as _records
from sekisho.federation import store as _federation
from sekisho.kernel.errors import SekishoError
from sekisho.ledger import outbox as _outbox
from sekisho.ledger import store as _ledger
from sekisho.residency import evidence_store as _evidence
from sekisho.residency import store as _residency
from sekisho.residency.policy import holding as _holding
from sekisho.residency.policy import store as _policy
from sekisho.runtime import admins as _admins
from sekisho.runtime import changes as _changes
from sekisho.runtime.database import Database, metadata

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["DatabaseTooNew", "metadata", "migrate"]
_DECLARED = (
    _admins,
    _evidence,
    _capacity,
    _workloads,
    _throughput,
    _policy,
    _border,
    _changes,
    _enrolments,
    _federation,
    _holding,
    _records,
    _ledger,
    _outbox,
    _residency,
)


class DatabaseTooNew(SekishoError):
    """The database was written by a later version of Sekisho."""

    code = "database.too_new"


def alembic_config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - seldom, and slow

    config = Config()
    config.set_main_option("script_location", "sekisho.assembly:migrations")
    return config


def revisions() -> list[str]:
    """The forms that this version knows, the oldest first: their files begin with them."""
    folder = resources.files("sekisho.assembly.migrations") / "versions"
    return sorted(file.name[:4] for file in folder.iterdir() if file.name[:4].isdigit() and file.name.endswith(".py"))


def migrate(database: Database) -> None:
    """Runs what is missing, all in one transaction; refuses a database of a later version.

    Alembic is imported only when there is something to run: it takes a third of a second of each start.
    """
    known = revisions()
    with database.write() as connection:
        current = _current(connection)
        if current == known[-1]:
            return
        if current is not None and current not in known:
            raise DatabaseTooNew(
                f"the database has the form {current!r}, which this version does not know",
                hint="start the version that wrote it, or move control.sqlite away (keys made at run time are lost)",
            )
        from alembic import command  # noqa: PLC0415 - seldom, and slow

        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _current(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found
