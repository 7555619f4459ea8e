"""The tables of workloads."""

from __future__ import annotations

import sqlalchemy as sa

from sekisho.runtime.database import metadata

workload = sa.Table(
    "capacity_workload",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("reservation", sa.String(32), nullable=False, index=True),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

version = sa.Table(
    "capacity_workload_version",
    metadata,
    sa.Column("workload", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("why", sa.String(200), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

# What each site offered, and when it last said what it runs.
site = sa.Table(
    "capacity_workload_site",
    metadata,
    sa.Column("site", sa.String(64), primary_key=True),
    sa.Column("heard_at", sa.Float, nullable=False),
    sa.Column("offers", sa.Text, nullable=False),
)
