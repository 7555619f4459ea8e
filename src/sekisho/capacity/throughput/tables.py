"""The tables of guaranteed throughput; a migration makes them, with the trigger that guards them."""

from __future__ import annotations

import sqlalchemy as sa

from sekisho.runtime.database import metadata

# A set of endpoints, by the digest of its members, with the slots that it had when somebody last booked on it.
pool = sa.Table(
    "throughput_pool",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("endpoints", sa.Text, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
)

commitment = sa.Table(
    "throughput_commitment",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("pool", sa.String(64), sa.ForeignKey("throughput_pool.id"), nullable=False),
    sa.Column("first", sa.Integer, nullable=False),
    sa.Column("until", sa.Integer, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.CheckConstraint("until > first", name="window"),
    sa.CheckConstraint("slots > 0", name="slots"),
    sa.Index(None, "pool", "state", "first"),
    sa.Index(None, "state", "until"),
)

version = sa.Table(
    "throughput_version",
    metadata,
    sa.Column("commitment", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("why", sa.String(200), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
