"""Policy versions, proposals and approvals; what tables were compiled from; named administrators."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_version",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("bundle", sa.String(64), nullable=False),
        sa.Column("jurisdiction", sa.String(2), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("files", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_policy_version"),
    )
    op.create_index("ix_policy_version_bundle", "policy_version", ["bundle"])
    op.create_table(
        "policy_proposal",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("bundle", sa.String(64), nullable=False),
        sa.Column("base", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("note", sa.String(400), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("difference", sa.Text, nullable=False),
        sa.Column("approved_by", sa.String(64), nullable=False),
        sa.Column("approved_at", sa.Float),
        sa.Column("closed_by", sa.String(64), nullable=False),
        sa.Column("closed_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_policy_proposal"),
    )
    op.create_table(
        "policy_in_force",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("bundle", sa.String(64), nullable=False),
        sa.Column("configured", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_policy_in_force"),
    )
    op.create_table(
        "table_source",
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("evidence_validity_s", sa.Float, nullable=False),
        sa.Column("federation", sa.String(64), nullable=False),
        sa.Column("standing", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_table_source"),
    )
    op.create_index("ix_table_source_at", "table_source", ["at"])
    op.create_table(
        "table_source_part",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_table_source_part"),
    )
    op.create_table(
        "admin",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("revoked_at", sa.Float),
        sa.PrimaryKeyConstraint("name", name="pk_admin"),
        sa.UniqueConstraint("sha256", name="uq_admin_sha256"),
    )


def downgrade() -> None:
    for table in (
        "admin",
        "table_source_part",
        "table_source",
        "policy_in_force",
        "policy_proposal",
        "policy_version",
    ):
        op.drop_table(table)
