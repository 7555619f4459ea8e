"""The facts of the configuration that are in force, and what was approved of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "configuration_in_force",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("approved", sa.String(64), nullable=False),
        sa.Column("told", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_configuration_in_force"),
    )


def downgrade() -> None:
    op.drop_table("configuration_in_force")
