"""Alembic's entry: runs on the connection that `sekisho.assembly.schema` hands in."""

from __future__ import annotations

from alembic import context

from sekisho.assembly.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite can't alter a column in place
    transaction_per_migration=False,
)
context.run_migrations()
