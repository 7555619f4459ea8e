"""Keys that agents changed to are remembered: one that was given up must not come back at any site."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    site_key = op.create_table(
        "site_key",
        sa.Column("pin", sa.String(80), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("pin", name="pk_site_key"),
    )
    log = sa.table("change_log", *map(sa.column, ("id", "at_ms", "action", "subject", "detail")))
    rows = op.get_bind().execute(
        sa.select(log.c.at_ms, log.c.subject, log.c.detail)
        .where(log.c.action == "site.key_rotated")
        .order_by(log.c.id)
    )
    known = {
        json.loads(row.detail)["pin"]: {"site": row.subject.removeprefix("site/"), "at": row.at_ms / 1000}
        for row in rows
    }
    agent = sa.table("site_agent", *map(sa.column, ("pin", "site", "since")))
    for row in op.get_bind().execute(sa.select(agent.c.pin, agent.c.site, agent.c.since)):
        known.setdefault(row.pin, {"site": row.site, "at": row.since})
    if known:
        op.bulk_insert(site_key, [{"pin": pin, **values} for pin, values in known.items()])


def downgrade() -> None:
    op.drop_table("site_key")
