"""The control plane's database: one engine, short transactions, and the tables' common metadata.

SQLite by default (write-ahead log, foreign keys on, a busy timeout instead of an error); any SQLAlchemy URL with
a PostgreSQL driver works through the same functions. Concepts declare their tables on `metadata` in their own
`store.py`; the migrations in `sekisho.assembly.migrations` make them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from sekisho.kernel.errors import SekishoError

BUSY_TIMEOUT_MS = 5_000
_WRITERS = 0x5EC1540  # the advisory lock of all writers of an installation
# connection lost · authorisation refused · no such database · out of resources · shutting down · system error
_UNAVAILABLE = ("08", "28", "3D", "53", "57", "58")

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


def postgresql_url(text: str) -> sa.URL:
    """`postgresql://user:password@host/database` as SQLAlchemy wants it. Raises DatabaseUnavailable."""
    try:
        url = sa.make_url(text.strip())
    except sa.exc.ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql" or not url.database:
        # The text itself may hold a password: it is not repeated.
        raise DatabaseUnavailable(
            "the address of the database is not `postgresql://user:password@host:port/database`",
            hint="write such an address into the file or variable that [control] database names",
        )
    return url.set(drivername="postgresql+pg8000")


class Database:
    """Blocking on purpose: an asyncio process calls it in a thread. Safe to share among threads.

    Writers take turns on both databases, also those of other processes: what was read in a transaction that writes
    is still so when it commits. On PostgreSQL that is an advisory lock, held until the transaction ends.
    """

    def __init__(self, url: str | sa.URL) -> None:
        try:
            self.engine = sa.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError:
            raise DatabaseUnavailable(
                "the driver for PostgreSQL is not installed", hint="install sekisho with the extra `postgres`"
            ) from None
        self._postgresql = self.engine.dialect.name == "postgresql"
        if not self._postgresql:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def write(self, *, alone: bool = True, on: sa.Connection | None = None) -> Iterator[sa.Connection]:
        """One transaction that may write: all of it or nothing. `alone` False (PostgreSQL only): beside other
        writers, for a caller that brings finer locks of its own. `on`: a connection that the caller keeps."""
        try:
            with self._connect() if on is None else nullcontext(on) as connection, connection.begin():
                if self._postgresql and alone:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
                yield connection
        except sa.exc.DBAPIError as error:
            raise _told(error) from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent snapshot; nothing that is written in it stays."""
        try:
            with self._connect() as raw:
                if self._postgresql:
                    connection = raw.execution_options(isolation_level="REPEATABLE READ")
                else:
                    connection = raw.execution_options(sekisho_read=True)
                try:
                    yield connection
                finally:
                    connection.rollback()
        except sa.exc.DBAPIError as error:
            raise _told(error) from error

    def _connect(self) -> sa.Connection:
        """A connection of the pool. What goes wrong here, not in the caller's own work, is the database's fault."""
        try:
            return self.engine.connect()
        except sa.exc.TimeoutError as error:
            raise DatabaseUnavailable(
                "every connection to the database is in use", hint="ask again in a moment"
            ) from error
        except OSError as error:  # a server that hangs up while it is greeted: the driver has no words for that
            raise DatabaseUnavailable(
                f"the database did not answer: {error.strerror or error}", hint="look at the database's server"
            ) from error

    def keep(self) -> sa.Connection:
        """A connection for one thread that writes all the time; the caller closes it. To take one of the pool, with a
        question whether it still lives, costs as much as a small transaction."""
        try:
            return self._connect()
        except sa.exc.DBAPIError as error:
            raise _told(error) from error

    def ready(self) -> None:
        """Returns when a query is answered; DatabaseUnavailable otherwise."""
        with self.read() as connection:
            connection.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def _told(error: sa.exc.DBAPIError) -> Exception:
    """The fault of a database that can't be reached or does not answer; any other error as it is."""
    mistake = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR  # in our SQL
    if mistake or not (isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) or _away(error.orig)):
        return error
    return DatabaseUnavailable(
        f"the database did not answer: {_fact(error.orig)}",
        hint="look at the database's server, or at the free space and the owner of the home directory;"
        " the gateways go on without it",
    )


def _away(error: object) -> bool:
    """Whether PostgreSQL says with its error that it can't serve (class of SQLSTATE, PostgreSQL 18 appendix A)."""
    said = error.args[0] if isinstance(error, Exception) and error.args else None
    state = str(said.get("C", "")) if isinstance(said, dict) else ""
    return state.startswith(_UNAVAILABLE)


def _fact(error: object) -> str:
    said = error.args[0] if isinstance(error, Exception) and error.args else error
    return str(said.get("M", "?")) if isinstance(said, dict) else str(said)


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
