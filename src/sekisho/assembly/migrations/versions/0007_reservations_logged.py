"""Versions of reservations know whether the transparency log has them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("capacity_version", sa.Column("logged", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index(
        "ix_capacity_version_unlogged",
        "capacity_version",
        ["at_ms"],
        sqlite_where=sa.text("logged = 0"),
        postgresql_where=sa.text("NOT logged"),
    )


def downgrade() -> None:
    op.drop_index("ix_capacity_version_unlogged", "capacity_version")
    op.drop_column("capacity_version", "logged")
