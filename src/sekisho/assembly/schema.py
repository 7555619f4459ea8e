# For the owner of this file: the configuration's author overwrote it by mistake (same name, uncommitted) and wrote
# this in its place from `plane.py` and `migrations/env.py`. Compare with what you had, then remove these two lines.
"""The database's tables, all of them in one place, and how a database gets to the newest form."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

# Imported for what they declare on the common metadata.
from sekisho.federation import store as _federation
from sekisho.ledger import store as _ledger
from sekisho.residency import store as _residency
from sekisho.runtime import changes as _changes
from sekisho.runtime.database import Database, metadata

__all__ = ["metadata", "migrate"]

_DECLARED = (_changes, _federation, _ledger, _residency)


def migrate(database: Database) -> None:
    """Brings the database to the newest form, in one transaction; does nothing when it is there already."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
