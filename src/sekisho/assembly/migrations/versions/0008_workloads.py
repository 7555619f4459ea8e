"""Workloads in reservations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "capacity_workload",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("reservation", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_capacity_workload"),
    )
    for column in ("reservation", "tenant", "state"):
        op.create_index(f"ix_capacity_workload_{column}", "capacity_workload", [column])
    op.create_table(
        "capacity_workload_version",
        sa.Column("workload", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("why", sa.String(200), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workload", "version", name="pk_capacity_workload_version"),
    )
    op.create_table(
        "capacity_workload_site",
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("heard_at", sa.Float, nullable=False),
        sa.Column("offers", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("site", name="pk_capacity_workload_site"),
    )


def downgrade() -> None:
    for table in ("site", "version"):
        op.drop_table(f"capacity_workload_{table}")
    op.drop_table("capacity_workload")
