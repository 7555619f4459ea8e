"""Operators, sites, endpoints as records with history; enrolment and agents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "federation_record",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("retired", sa.Boolean, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", "version", name="pk_federation_record"),
    )
    op.create_table(
        "site_invitation",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("operator", sa.String(64), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("replace", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_site_invitation"),
        sa.UniqueConstraint("sha256", name="uq_site_invitation_sha256"),
    )
    op.create_index("ix_site_invitation_site", "site_invitation", ["site"])
    op.create_table(
        "site_enrolment",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("operator", sa.String(64), nullable=False),
        sa.Column("spki", sa.Text, nullable=False),
        sa.Column("pin", sa.String(80), nullable=False),
        sa.Column("declaration", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("decided_at", sa.Float),
        sa.Column("decided_by", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_site_enrolment"),
    )
    op.create_index("ix_site_enrolment_site", "site_enrolment", ["site"])
    op.create_table(
        "site_agent",
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("enrolment", sa.String(12), nullable=False),
        sa.Column("spki", sa.Text, nullable=False),
        sa.Column("pin", sa.String(80), nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("heard_at", sa.Float),
        sa.Column("report", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("site", name="pk_site_agent"),
        sa.UniqueConstraint("pin", name="uq_site_agent_pin"),
    )
    op.create_table(
        "site_state",
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("suspended", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("site", name="pk_site_state"),
    )


def downgrade() -> None:
    for table in ("site_state", "site_agent", "site_enrolment", "site_invitation", "federation_record"):
        op.drop_table(table)
