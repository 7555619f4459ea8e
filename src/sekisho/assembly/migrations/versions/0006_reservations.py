"""Reservations: pools, allocations with their guards, versions, offers, notices.

The guards are triggers, so that no program that writes here can sell a GPU twice. They are said once for SQLite and
once for PostgreSQL; src/sekisho/capacity/README.md tells how they work together with the first guard.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SPANS = 18

# The highest sum of GPUs at any moment in [lo, hi) of one pool. Each allocation that overlaps adds its GPUs when it
# begins (or at lo) and takes them away when it ends; at one moment ends come first.
_SQLITE_PEAK = """
SELECT max(used) FROM (
  SELECT sum(delta) OVER (ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS used FROM (
    SELECT CASE e.value WHEN 0 THEN max(a.first, {lo}) ELSE a.until END AS at,
           CASE e.value WHEN 0 THEN a.gpus ELSE -a.gpus END AS delta
    FROM capacity_span s
    CROSS JOIN capacity_allocation a
    CROSS JOIN (SELECT 0 AS value UNION ALL SELECT 1) e
    WHERE a.pool = {pool} AND a.span = s.span AND a.first > {lo} - s.slots AND a.first < {hi} AND a.until > {lo}
  )
)
"""

SQLITE = (
    # S608: what is filled in are column names of this file
    f"""
CREATE TRIGGER capacity_guard_taken AFTER INSERT ON capacity_allocation BEGIN
  UPDATE capacity_pool SET revision = revision + 1 WHERE number = NEW.pool;
  INSERT INTO capacity_change (pool, revision, first, until, gpus, rank)
    SELECT NEW.pool, revision, NEW.first, NEW.until, NEW.gpus, NEW.rank FROM capacity_pool WHERE number = NEW.pool;
  SELECT RAISE(ABORT, 'capacity_oversold')
    WHERE coalesce(({_SQLITE_PEAK.format(lo="NEW.first", hi="NEW.until", pool="NEW.pool")}), 0)
      > (SELECT gpus FROM capacity_pool WHERE number = NEW.pool);
END
""",  # noqa: S608
    """
CREATE TRIGGER capacity_guard_freed AFTER DELETE ON capacity_allocation BEGIN
  UPDATE capacity_pool SET revision = revision + 1 WHERE number = OLD.pool;
  INSERT INTO capacity_change (pool, revision, first, until, gpus, rank)
    SELECT OLD.pool, revision, OLD.first, OLD.until, -OLD.gpus, OLD.rank FROM capacity_pool WHERE number = OLD.pool;
END
""",
    """
CREATE TRIGGER capacity_guard_kept BEFORE UPDATE OF pool, first, until, gpus, span, rank ON capacity_allocation BEGIN
  SELECT RAISE(ABORT, 'capacity_replaced_only');
END
""",
    f"""
CREATE TRIGGER capacity_guard_pool BEFORE UPDATE OF gpus ON capacity_pool WHEN NEW.gpus < OLD.gpus BEGIN
  SELECT RAISE(ABORT, 'capacity_oversold')
    WHERE coalesce(({_SQLITE_PEAK.format(lo="0", hi="1000000000", pool="NEW.number")}), 0) > NEW.gpus;
END
""",
)

# Independent of `capacity_book`: another lock (the pool's row instead of an advisory one) and another index (GiST
# over ranges, all pools on one line, instead of classes of length).
POSTGRESQL = (
    """
CREATE FUNCTION capacity_guard_peak(p_pool integer, lo integer, hi integer) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT max(used) FROM (
    SELECT sum(delta) OVER (ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS used FROM (
      SELECT CASE e.value WHEN 0 THEN greatest(a.first, lo) ELSE a.until END AS at,
             CASE e.value WHEN 0 THEN a.gpus ELSE -a.gpus END AS delta
      FROM capacity_allocation a CROSS JOIN (VALUES (0), (1)) e(value)
      WHERE int8range((a.pool::bigint << 32) + a.first, (a.pool::bigint << 32) + a.until)
         && int8range((p_pool::bigint << 32) + lo, (p_pool::bigint << 32) + hi)
    ) steps
  ) sums
$$
""",
    """
CREATE FUNCTION capacity_guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  has integer;
  now_at bigint;
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE capacity_pool SET revision = revision + 1 WHERE number = NEW.pool
      RETURNING gpus, revision INTO has, now_at;
    INSERT INTO capacity_change (pool, revision, first, until, gpus, rank)
      VALUES (NEW.pool, now_at, NEW.first, NEW.until, NEW.gpus, NEW.rank);
    IF coalesce(capacity_guard_peak(NEW.pool, NEW.first, NEW.until), 0) > has THEN
      RAISE EXCEPTION 'capacity_oversold' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  ELSIF TG_OP = 'DELETE' THEN
    UPDATE capacity_pool SET revision = revision + 1 WHERE number = OLD.pool RETURNING revision INTO now_at;
    INSERT INTO capacity_change (pool, revision, first, until, gpus, rank)
      VALUES (OLD.pool, now_at, OLD.first, OLD.until, -OLD.gpus, OLD.rank);
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'capacity_replaced_only' USING ERRCODE = 'check_violation';
END
$$
""",
    """
CREATE FUNCTION capacity_guard_pool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.gpus < OLD.gpus AND coalesce(capacity_guard_peak(NEW.number, 0, 1000000000), 0) > NEW.gpus THEN
    RAISE EXCEPTION 'capacity_oversold' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$$
""",
    "CREATE INDEX ix_capacity_allocation_range ON capacity_allocation USING gist"
    " (int8range((pool::bigint << 32) + first, (pool::bigint << 32) + until))",
    "CREATE TRIGGER capacity_guard_changed AFTER INSERT OR DELETE ON capacity_allocation"
    " FOR EACH ROW EXECUTE FUNCTION capacity_guard()",
    "CREATE TRIGGER capacity_guard_kept BEFORE UPDATE OF pool, first, until, gpus, span, rank ON capacity_allocation"
    " FOR EACH ROW EXECUTE FUNCTION capacity_guard()",
    "CREATE TRIGGER capacity_guard_pool BEFORE UPDATE OF gpus ON capacity_pool"
    " FOR EACH ROW EXECUTE FUNCTION capacity_guard_pool()",
    # The first guard: one call decides and writes. Locks are taken in the order of pools, so that two bookings that
    # share pools can't wait for each other. Pools, firsts, untils and GPUs come as columns, sorted by pool.
    """
CREATE FUNCTION capacity_peak(p_pool integer, lo integer, hi integer, p_tenant text) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT coalesce(max(used), 0) FROM (
    SELECT sum(delta) OVER (ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS used FROM (
      SELECT CASE e.value WHEN 0 THEN greatest(a.first, lo) ELSE a.until END AS at,
             CASE e.value WHEN 0 THEN a.gpus ELSE -a.gpus END AS delta
      FROM capacity_span s
      CROSS JOIN LATERAL (
        SELECT b.first, b.until, b.gpus FROM capacity_allocation b
        WHERE b.pool = p_pool AND b.span = s.span AND b.first > lo - s.slots AND b.first < hi AND b.until > lo
          AND (p_tenant IS NULL OR b.tenant = p_tenant)
        OFFSET 0
      ) a
      CROSS JOIN (VALUES (0), (1)) e(value)
    ) steps
  ) sums
$$
""",
    """
CREATE FUNCTION capacity_book(
  p_id text, p_tenant text, p_first integer, p_until integer, p_span integer, p_pools integer[], p_gpus integer[],
  p_rank integer, p_starts_ms bigint, p_body text, p_at_ms bigint, p_who text, p_key text, p_digest text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  i integer;
  has integer;
  share integer;
  taken bigint;
  earlier record;
BEGIN
  IF p_key <> '' THEN
    INSERT INTO capacity_key (tenant, key, digest, reservation, at_ms)
      VALUES (p_tenant, p_key, p_digest, p_id, p_at_ms) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      SELECT digest, reservation INTO earlier FROM capacity_key WHERE tenant = p_tenant AND key = p_key;
      IF earlier.digest <> p_digest THEN RETURN 'key'; END IF;
      RETURN 'again ' || earlier.reservation;
    END IF;
  END IF;
  FOR i IN 1 .. array_length(p_pools, 1) LOOP
    PERFORM pg_advisory_xact_lock(7306, p_pools[i]);
  END LOOP;
  FOR i IN 1 .. array_length(p_pools, 1) LOOP
    SELECT gpus, tenant_limit INTO has, share FROM capacity_pool WHERE number = p_pools[i];
    IF NOT FOUND THEN
      DELETE FROM capacity_key WHERE p_key <> '' AND tenant = p_tenant AND key = p_key;
      RETURN 'unknown ' || p_pools[i];
    END IF;
    taken := capacity_peak(p_pools[i], p_first, p_until, NULL);
    IF taken + p_gpus[i] > has THEN
      DELETE FROM capacity_key WHERE p_key <> '' AND tenant = p_tenant AND key = p_key;
      RETURN 'taken ' || p_pools[i] || ' ' || (has - taken);
    END IF;
    IF share < has THEN
      taken := capacity_peak(p_pools[i], p_first, p_until, p_tenant);
      IF taken + p_gpus[i] > share THEN
        DELETE FROM capacity_key WHERE p_key <> '' AND tenant = p_tenant AND key = p_key;
        RETURN 'limit ' || p_pools[i] || ' ' || (share - taken);
      END IF;
    END IF;
  END LOOP;
  INSERT INTO capacity_reservation (id, tenant, state, version, starts_ms, body)
    VALUES (p_id, p_tenant, 'booked', 1, p_starts_ms, p_body);
  INSERT INTO capacity_version (reservation, version, at_ms, who, why, body)
    VALUES (p_id, 1, p_at_ms, p_who, 'booked', p_body);
  INSERT INTO capacity_allocation (reservation, tenant, pool, first, until, span, gpus, rank)
    SELECT p_id, p_tenant, part.pool, p_first, p_until, p_span, part.gpus, p_rank
    FROM unnest(p_pools, p_gpus) AS part(pool, gpus);
  RETURN 'booked';
END
$$
""",
)


def upgrade() -> None:
    _tables()
    spans = sa.table("capacity_span", sa.column("span", sa.Integer), sa.column("slots", sa.Integer))
    op.bulk_insert(spans, [{"span": span, "slots": 1 << span} for span in range(SPANS)])
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(sa.text(statement.replace(":", r"\:")))


def _tables() -> None:
    op.create_table(
        "capacity_span",
        sa.Column("span", sa.Integer, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("span", name="pk_capacity_span"),
    )
    op.create_table(
        "capacity_pool",
        sa.Column("number", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(130), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("gpu", sa.String(64), nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("tenant_limit", sa.Integer, nullable=False),
        sa.Column("yen_per_gpu_hour", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_capacity_pool"),
        sa.UniqueConstraint("id", name="uq_capacity_pool_id"),
        sa.CheckConstraint("gpus >= 0", name="ck_capacity_pool_gpus"),
    )
    op.create_table(
        "capacity_allocation",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("reservation", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("pool", sa.Integer, nullable=False),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("until", sa.Integer, nullable=False),
        sa.Column("span", sa.Integer, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_capacity_allocation"),
        sa.ForeignKeyConstraint(["pool"], ["capacity_pool.number"], name="fk_capacity_allocation_pool"),
        sa.CheckConstraint("first >= 0 AND until > first", name="ck_capacity_allocation_window"),
        sa.CheckConstraint("gpus > 0", name="ck_capacity_allocation_gpus"),
        sa.CheckConstraint(
            "span >= 0 AND span < 18 AND until - first <= (1 << span)", name="ck_capacity_allocation_span"
        ),
    )
    op.create_index("ix_capacity_allocation_pool_span_first", "capacity_allocation", ["pool", "span", "first"])
    op.create_index("ix_capacity_allocation_reservation", "capacity_allocation", ["reservation"])
    op.create_table(
        "capacity_change",
        sa.Column("pool", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("until", sa.Integer, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("pool", "revision", name="pk_capacity_change"),
    )
    op.create_table(
        "capacity_reservation",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("starts_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_capacity_reservation"),
    )
    op.create_index("ix_capacity_reservation_state_starts_ms", "capacity_reservation", ["state", "starts_ms"])
    op.create_index("ix_capacity_reservation_tenant_starts_ms", "capacity_reservation", ["tenant", "starts_ms"])
    op.create_table(
        "capacity_version",
        sa.Column("reservation", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("why", sa.String(200), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("reservation", "version", name="pk_capacity_version"),
    )
    op.create_table(
        "capacity_key",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("reservation", sa.String(32), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_capacity_key"),
    )
    op.create_table(
        "capacity_offer",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_capacity_offer"),
    )
    op.create_index("ix_capacity_offer_expires_ms", "capacity_offer", ["expires_ms"])
    op.create_table(
        "capacity_wait",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_capacity_wait"),
    )
    op.create_table(
        "capacity_notice",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("reservation", sa.String(32), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("en", sa.Text, nullable=False),
        sa.Column("ja", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_capacity_notice"),
    )
    op.create_index("ix_capacity_notice_tenant", "capacity_notice", ["tenant"])
    op.create_table(
        "capacity_quota",
        sa.Column("pool", sa.Integer, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("cohort", sa.String(64), nullable=False),
        sa.Column("nominal", sa.Integer, nullable=False),
        sa.Column("lends", sa.Integer, nullable=False),
        sa.Column("borrows", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("pool", "tenant", name="pk_capacity_quota"),
        sa.ForeignKeyConstraint(["pool"], ["capacity_pool.number"], name="fk_capacity_quota_pool"),
    )


def downgrade() -> None:
    for table in (
        "quota",
        "notice",
        "wait",
        "offer",
        "key",
        "version",
        "reservation",
        "change",
        "allocation",
        "pool",
    ):
        op.drop_table(f"capacity_{table}")
    if op.get_bind().dialect.name != "sqlite":
        for function in ("guard", "guard_pool", "guard_peak", "peak", "book"):
            op.execute(f"DROP FUNCTION capacity_{function}")
