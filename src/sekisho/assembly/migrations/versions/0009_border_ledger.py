"""The border ledger: whose statements count, and the statements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "border_post",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("trusted_by", sa.String(64), nullable=False),
        sa.Column("trusted_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_border_post"),
    )
    op.create_table(
        "border_statement",
        sa.Column("border", sa.String(64), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("to_ms", sa.BigInteger, nullable=False),
        sa.Column("finding", sa.String(16), nullable=False),
        sa.Column("entry_id", sa.String(32), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("border", "sequence", name="pk_border_statement"),
    )
    op.create_index("ix_border_statement_to_ms", "border_statement", ["border", "to_ms"])


def downgrade() -> None:
    op.drop_table("border_statement")
    op.drop_table("border_post")
