"""Guaranteed throughput: sets of endpoints, commitments on them with their guard, versions.

The guard is a trigger: the sum of what is promised on one set of endpoints is never more than the slots that the set
has, whatever program writes. The first guard (capacity/throughput/flow.py) also sees sets that overlap.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# The highest sum at any moment of the new row's window: sums only grow where something begins.
_PEAK = """
SELECT max(total) FROM (
  SELECT (
    SELECT sum(b.slots) FROM throughput_commitment b
    WHERE b.pool = NEW.pool AND b.state = 'booked' AND b.first <= moment.at AND b.until > moment.at
  ) AS total
  FROM (
    SELECT NEW.first AS at
    UNION
    SELECT a.first FROM throughput_commitment a
    WHERE a.pool = NEW.pool AND a.state = 'booked' AND a.first > NEW.first AND a.first < NEW.until
  ) moment
) sums
"""

# S608: what is filled in is a text of this file
SQLITE = tuple(
    f"""
CREATE TRIGGER throughput_guard_{name} AFTER {event} ON throughput_commitment WHEN NEW.state = 'booked' BEGIN
  SELECT RAISE(ABORT, 'throughput_oversold')
    WHERE coalesce(({_PEAK}), 0) > (SELECT slots FROM throughput_pool WHERE id = NEW.pool);
END
"""  # noqa: S608
    for name, event in (("made", "INSERT"), ("changed", "UPDATE OF state, pool, first, until, slots"))
)

POSTGRESQL = (
    f"""
CREATE FUNCTION throughput_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  has integer;
BEGIN
  -- the set's row is the lock: two that book on it take turns here whatever locks they hold
  SELECT slots INTO has FROM throughput_pool WHERE id = NEW.pool FOR UPDATE;
  IF coalesce(({_PEAK}), 0) > has THEN
    RAISE EXCEPTION 'throughput_oversold' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$$
""",  # noqa: S608
    "CREATE TRIGGER throughput_guard AFTER INSERT OR UPDATE OF state, pool, first, until, slots"
    " ON throughput_commitment FOR EACH ROW WHEN (NEW.state = 'booked') EXECUTE FUNCTION throughput_guard()",
)


def upgrade() -> None:
    op.create_table(
        "throughput_pool",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("endpoints", sa.Text, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
    )
    op.create_table(
        "throughput_commitment",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("pool", sa.String(64), sa.ForeignKey("throughput_pool.id"), nullable=False),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("until", sa.Integer, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.CheckConstraint("until > first", name="window"),
        sa.CheckConstraint("slots > 0", name="slots"),
    )
    op.create_index("ix_throughput_commitment_tenant", "throughput_commitment", ["tenant"])
    op.create_index("ix_throughput_commitment_pool_state_first", "throughput_commitment", ["pool", "state", "first"])
    op.create_index("ix_throughput_commitment_state_until", "throughput_commitment", ["state", "until"])
    op.create_table(
        "throughput_version",
        sa.Column("commitment", sa.String(32), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("why", sa.String(200), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(sa.text(statement.replace(":", r"\:")))


def downgrade() -> None:
    op.drop_table("throughput_version")
    op.drop_table("throughput_commitment")
    op.drop_table("throughput_pool")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION throughput_guard()")
