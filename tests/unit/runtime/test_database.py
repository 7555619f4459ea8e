"""The database: durable, consistent, and never half-written."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from sekisho.assembly.schema import DatabaseTooNew, alembic_config, migrate
from sekisho.federation.enrolments import site_key
from sekisho.runtime.changes import change_log, changes, record_change
from sekisho.runtime.database import Database, DatabaseUnavailable, metadata, sqlite_url
from sekisho.runtime.database import postgresql_url as address


def test_pragmas_that_the_promises_rest_on(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "control.sqlite"))
    with database.read() as connection:
        said = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert said == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_failure_undoes_all_of_a_transaction(database: Database) -> None:
    with pytest.raises(RuntimeError, match="half-way"), database.write() as connection:  # noqa: PT012 - the two belong together
        record_change(connection, now=1.0, actor="test", action="a", subject="x/1")
        raise RuntimeError("half-way")
    with database.read() as connection:
        assert changes(connection) == []


def test_a_read_writes_nothing(database: Database) -> None:
    with database.read() as connection:
        record_change(connection, now=1.0, actor="test", action="a", subject="x/1")
    with database.read() as connection:
        assert changes(connection) == []


def test_writers_wait_for_each_other_instead_of_failing(database: Database) -> None:
    """Each adds one to what it read in the same transaction: a lost update or a busy error would show in the sum."""
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO table_version (id, last) VALUES (1, 0)"))
    faults: list[BaseException] = []

    def add() -> None:
        try:
            for _ in range(20):
                with database.write() as connection:
                    last = connection.scalar(sa.text("SELECT last FROM table_version"))
                    connection.execute(sa.text("UPDATE table_version SET last = :n"), {"n": (last or 0) + 1})
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT last FROM table_version")) == 80


def test_migrations_make_the_tables_that_the_code_declares(database: Database) -> None:
    inspector = sa.inspect(database.engine)
    assert set(inspector.get_table_names()) == {*metadata.tables, "alembic_version"}
    for name, table in metadata.tables.items():
        dialect = database.engine.dialect
        found = {
            column["name"]: (_type(column["type"], dialect), column["nullable"])
            for column in inspector.get_columns(name)
        }
        wanted = {column.name: (_type(column.type, dialect), bool(column.nullable)) for column in table.columns}
        assert found == wanted, name
        assert inspector.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
        # PostgreSQL shows the index of a unique constraint too, and that of an exclusion constraint by its expression
        indexes = [
            index
            for index in inspector.get_indexes(name)
            if "duplicates_constraint" not in index and None not in index["column_names"]
        ]
        assert {tuple(index["column_names"]) for index in indexes} == {
            tuple(column.name for column in index.columns) for index in table.indexes
        }


def _type(declared: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> str:
    """Its name in the database; PostgreSQL says `double precision` where FLOAT was asked for (8.1.3)."""
    return declared.compile(dialect).replace("DOUBLE PRECISION", "FLOAT")


def test_migrating_twice_changes_nothing(database: Database) -> None:
    with database.write() as connection:
        record_change(connection, now=1.0, actor="test", action="a", subject="x/1")
    migrate(database)
    with database.read() as connection:
        assert len(changes(connection)) == 1


def test_keys_that_agents_had_changed_to_are_remembered_from_the_log(database: Database) -> None:
    config = alembic_config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0012")
        for now in (1.0, 2.0):
            record_change(
                connection, now=now, actor="site/a", action="site.key_rotated", subject="site/a",
                detail={"old": "sha256:0", "pin": f"sha256:{now:.0f}"},
            )  # fmt: skip
    migrate(database)
    with database.read() as connection:
        assert [tuple(row) for row in connection.execute(site_key.select().order_by(site_key.c.at))] == [
            ("sha256:1", "a", 1.0), ("sha256:2", "a", 2.0),
        ]  # fmt: skip


def test_a_database_of_a_later_version_is_left_alone(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew) as refused:
        migrate(database)
    assert refused.value.code == "database.too_new"
    assert refused.value.hint


def test_an_unreadable_database_is_a_fault_with_a_next_step(tmp_path: Path) -> None:
    broken = Database(sqlite_url(tmp_path / "no" / "such" / "directory.sqlite"))
    with pytest.raises(DatabaseUnavailable) as refused:
        broken.ready()
    assert refused.value.hint


def test_a_server_that_is_not_there_is_a_fault_with_a_next_step(tmp_path: Path) -> None:
    for query in ({"unix_sock": str(tmp_path / "nobody")}, {}):
        url = sa.URL.create("postgresql", username="u", host="127.0.0.1", port=9, database="d", query=query)
        with pytest.raises(DatabaseUnavailable) as refused:
            Database(address(url.render_as_string())).ready()
        assert refused.value.hint


def test_a_database_that_the_server_does_not_have_is_a_fault_too(postgresql_url: sa.URL) -> None:
    with pytest.raises(DatabaseUnavailable):
        Database(postgresql_url.set(database="nobody_made_it")).ready()


@pytest.mark.parametrize(
    "text", ["", "nonsense", "mysql://u:secret@h/d", "postgresql://u:secret@h", "postgresql://["]
)
def test_an_address_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(DatabaseUnavailable) as refused:
        address(text)
    assert "secret" not in str(refused.value)


def test_a_pool_that_is_used_up_is_a_fault_with_a_next_step(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "pool.sqlite"))
    database.engine = sa.create_engine(database.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with database.read(), pytest.raises(DatabaseUnavailable, match="in use"):
        database.ready()
    database.ready()
    database.close()


@pytest.mark.parametrize("write", [False, True])
def test_a_server_that_hangs_up_is_the_databases_fault_and_a_callers_own_error_is_not(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, write: bool
) -> None:
    use = database.write if write else database.read
    with pytest.raises(OSError, match="mine"), use():
        raise BrokenPipeError("mine")

    def hangs_up() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(database.engine, "connect", hangs_up)
    with pytest.raises(DatabaseUnavailable, match="Broken pipe"), use():
        pass


def test_a_mistake_in_our_own_sql_is_no_unavailable_database(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError), database.read() as connection:
        connection.exec_driver_sql("SELECT nothing FROM nowhere AS x WHERE y")


def test_changes_are_found_by_what_they_are_about(database: Database) -> None:
    with database.write() as connection:
        for number in range(3):
            record_change(connection, now=number, actor="test", action="a", subject=f"x/{number}", detail={"k": "v"})
    with database.read() as connection:
        assert [change.subject for change in changes(connection)] == ["x/2", "x/1", "x/0"]
        found = changes(connection, subjects=("x/1",))
        assert [(change.subject, change.at_ms, change.detail) for change in found] == [("x/1", 1000, {"k": "v"})]
        assert connection.scalar(sa.select(sa.func.count()).select_from(change_log)) == 3
