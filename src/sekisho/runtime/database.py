"""The control plane's database: one engine, short transactions, and the tables' common metadata.

SQLite by default (write-ahead log, foreign keys on, a busy timeout instead of an error); any SQLAlchemy URL with
a PostgreSQL driver works through the same functions. Concepts declare their tables on `metadata` in their own
`store.py`; the migrations in `sekisho.assembly.migrations` make them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from sekisho.kernel.errors import SekishoError

BUSY_TIMEOUT_MS = 5_000

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class DatabaseUnavailable(SekishoError):
    """The database can't be opened, or stays locked for longer than the busy timeout."""

    code = "database.unavailable"


def sqlite_url(path: Path) -> str:
    return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


class Database:
    """Blocking on purpose: an asyncio process calls it in a thread. Safe to share among threads."""

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url)
        if self.engine.dialect.name == "sqlite":
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that may write: all of it or nothing."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            raise _unavailable(error) from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent snapshot; nothing that is written in it stays."""
        try:
            with self.engine.connect() as raw:
                connection = raw.execution_options(sekisho_read=True)
                try:
                    yield connection
                finally:
                    connection.rollback()
        except sa.exc.OperationalError as error:
            raise _unavailable(error) from error

    def ready(self) -> None:
        """Returns when a query is answered; DatabaseUnavailable otherwise."""
        with self.read() as connection:
            connection.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def _unavailable(error: sa.exc.OperationalError) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"the database did not answer: {error.orig}",
        hint="look at the free space and the owner of the home directory; the gateways go on without it",
    )


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver's own implicit BEGIN comes too late for a consistent read and takes a write lock too late to wait
    # for it; `_begin_sqlite` says BEGIN itself (https://docs.sqlalchemy.org/en/20/dialects/sqlite.html, "pysqlite").
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None
    cursor = connection.cursor()
    try:
        # The timeout first: switching to WAL itself needs a lock that another process may hold.
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # In WAL mode a commit under NORMAL is durable only at the next checkpoint: a revoked key that comes back
        # after a power cut would break law 5.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # IMMEDIATE waits for the write lock under the busy timeout; a deferred transaction that turns into a writer
    # half-way gets SQLITE_BUSY at once when somebody else wrote in between.
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN" if options.get("sekisho_read") else "BEGIN IMMEDIATE")
