"""The tables of reservations; migration 0006 makes them, with the triggers that guard them."""

from __future__ import annotations

import sqlalchemy as sa

from sekisho.runtime.database import metadata

span = sa.Table(
    "capacity_span",
    metadata,
    sa.Column("span", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slots", sa.Integer, nullable=False),
)

pool = sa.Table(
    "capacity_pool",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(130), nullable=False, unique=True),
    sa.Column("site", sa.String(64), nullable=False),
    sa.Column("gpu", sa.String(64), nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("tenant_limit", sa.Integer, nullable=False),
    sa.Column("yen_per_gpu_hour", sa.Integer, nullable=False),
    # Counts the changes of its allocations: an index that has this revision is the database's own state.
    sa.Column("revision", sa.BigInteger, nullable=False),
    # The digest of what configuration or inventory declared when it was last adopted; empty: made by hand.
    sa.Column("declared", sa.String(16), nullable=False, server_default=""),
    sa.CheckConstraint("gpus >= 0", name="gpus"),
)

# What is taken now and later. Rows come and go and are never changed: the guard is asked at each coming.
allocation = sa.Table(
    "capacity_allocation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("reservation", sa.String(32), nullable=False, index=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("pool", sa.Integer, sa.ForeignKey("capacity_pool.number"), nullable=False),
    sa.Column("first", sa.Integer, nullable=False),
    sa.Column("until", sa.Integer, nullable=False),
    sa.Column("span", sa.Integer, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.CheckConstraint("first >= 0 AND until > first", name="window"),
    sa.CheckConstraint("gpus > 0", name="gpus"),
    sa.CheckConstraint("span >= 0 AND span < 18 AND until - first <= (1 << span)", name="span"),
    sa.Index(None, "pool", "span", "first"),
)

# Written by the triggers; an index catches up from here.
change = sa.Table(
    "capacity_change",
    metadata,
    sa.Column("pool", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("first", sa.Integer, nullable=False),
    sa.Column("until", sa.Integer, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
)

reservation = sa.Table(
    "capacity_reservation",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("starts_ms", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index(None, "state", "starts_ms"),
    sa.Index(None, "tenant", "starts_ms"),
)

version = sa.Table(
    "capacity_version",
    metadata,
    sa.Column("reservation", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("why", sa.String(200), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    # whether the transparency log has it (`log.py`): a booking costs no second row for that
    sa.Column("logged", sa.Boolean, nullable=False, server_default=sa.false()),
)
sa.Index(
    "ix_capacity_version_unlogged",
    version.c.at_ms,
    sqlite_where=sa.text("logged = 0"),
    postgresql_where=sa.text("NOT logged"),
)

key = sa.Table(
    "capacity_key",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(80), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("reservation", sa.String(32), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

offer = sa.Table(
    "capacity_offer",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
)

wait = sa.Table(
    "capacity_wait",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

notice = sa.Table(
    "capacity_notice",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("reservation", sa.String(32), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("en", sa.Text, nullable=False),
    sa.Column("ja", sa.Text, nullable=False),
)

quota = sa.Table(
    "capacity_quota",
    metadata,
    sa.Column("pool", sa.Integer, sa.ForeignKey("capacity_pool.number"), primary_key=True, autoincrement=False),
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("cohort", sa.String(64), nullable=False),
    sa.Column("nominal", sa.Integer, nullable=False),
    sa.Column("lends", sa.Integer, nullable=False),
    sa.Column("borrows", sa.Integer, nullable=False),
)
