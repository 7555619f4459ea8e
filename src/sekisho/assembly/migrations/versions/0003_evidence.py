"""Evidence, the hardware register, reference values, challenges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evidence_challenge",
        sa.Column("nonce", sa.String(64), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("issued_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float),
        sa.PrimaryKeyConstraint("nonce", name="pk_evidence_challenge"),
    )
    op.create_index("ix_evidence_challenge_site", "evidence_challenge", ["site"])
    op.create_table(
        "evidence",
        sa.Column("seq", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("about", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("registered", sa.Boolean, nullable=False),
        sa.Column("margin_km", sa.Integer, nullable=False),
        sa.Column("stands", sa.Boolean, nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("key_digest", sa.String(64), nullable=False),
        sa.Column("appraisal", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_evidence"),
        sa.UniqueConstraint("id", name="uq_evidence_id"),
    )
    op.create_index("ix_evidence_site_about_seq", "evidence", ["site", "about", "seq"])
    op.create_table(
        "evidence_reference",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("approved_by", sa.String(64), nullable=False),
        sa.Column("approved_at", sa.Float, nullable=False),
        sa.Column("withdrawn_at", sa.Float),
        sa.PrimaryKeyConstraint("name", "version", name="pk_evidence_reference"),
    )
    op.create_table(
        "evidence_collateral",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("imported_by", sa.String(64), nullable=False),
        sa.Column("imported_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_evidence_collateral"),
    )
    op.create_table(
        "hardware_register",
        sa.Column("seq", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("hardware_id", sa.String(160), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("imported_by", sa.String(64), nullable=False),
        sa.Column("imported_at", sa.Float, nullable=False),
        sa.Column("superseded_at", sa.Float),
        sa.PrimaryKeyConstraint("seq", name="pk_hardware_register"),
    )
    op.create_index("ix_hardware_register_hardware_id", "hardware_register", ["hardware_id"])
    op.create_table(
        "register_signer",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("added_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("key", "role", name="pk_register_signer"),
    )
    op.create_table(
        "tenant_data_key",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_tenant_data_key"),
    )


def downgrade() -> None:
    for table in (
        "tenant_data_key",
        "register_signer",
        "hardware_register",
        "evidence_collateral",
        "evidence_reference",
        "evidence",
        "evidence_challenge",
    ):
        op.drop_table(table)
