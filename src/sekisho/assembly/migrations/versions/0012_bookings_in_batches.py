"""Bookings are decided many to a call and a commit; a pool that is divided into quotas is left to the caller."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# What is taken of a pool at the fullest moment of [lo, hi), by all or by one tenant: the same sum as in migration
# 0006, in a language that keeps its plans for the session.
_TAKEN = """
CREATE FUNCTION capacity_taken(p_pool integer, lo integer, hi integer, p_tenant text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (
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
  );
END
$$
"""

# Locks first, all of them: of idempotency keys by their hash, then of pools by their number. Everybody takes them in
# this order, so nobody waits in a circle. Then each booking is decided in its turn and sees those before it.
_DECIDE = """
CREATE FUNCTION capacity_decide(p_at_ms bigint, p_batch jsonb) RETURNS text[] LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  answers text[] := '{}';
  answer text;
  asked record;
  part record;
  earlier record;
  locked integer;
  has integer;
  share integer;
  taken bigint;
BEGIN
  FOR locked IN
    SELECT DISTINCT hashtext((b ->> 'tenant') || ' ' || (b ->> 'key')) FROM jsonb_array_elements(p_batch) b
    WHERE b ->> 'key' <> '' ORDER BY 1
  LOOP
    PERFORM pg_advisory_xact_lock(7307, locked);
  END LOOP;
  FOR locked IN
    SELECT DISTINCT (p ->> 0)::integer
    FROM jsonb_array_elements(p_batch) b CROSS JOIN jsonb_array_elements(b -> 'parts') p ORDER BY 1
  LOOP
    PERFORM pg_advisory_xact_lock(7306, locked);
  END LOOP;
  FOR asked IN
    SELECT * FROM jsonb_to_recordset(p_batch) AS b(
      id text, tenant text, first integer, until integer, span integer, parts jsonb, rank integer, starts_ms bigint,
      body text, who text, key text, digest text)
  LOOP
    answer := 'booked';
    IF asked.key <> '' THEN
      SELECT digest, reservation INTO earlier FROM capacity_key WHERE tenant = asked.tenant AND key = asked.key;
      IF FOUND THEN
        answer := CASE WHEN earlier.digest = asked.digest THEN 'again ' || earlier.reservation ELSE 'key' END;
      END IF;
    END IF;
    IF answer = 'booked' THEN
      FOR part IN
        SELECT (p ->> 0)::integer AS pool, (p ->> 1)::integer AS gpus FROM jsonb_array_elements(asked.parts) p
      LOOP
        SELECT gpus, tenant_limit INTO has, share FROM capacity_pool WHERE number = part.pool;
        IF NOT FOUND THEN
          answer := 'unknown ' || part.pool;
          EXIT;
        END IF;
        IF EXISTS (SELECT FROM capacity_quota WHERE pool = part.pool) THEN
          answer := 'divided';
          EXIT;
        END IF;
        taken := capacity_taken(part.pool, asked.first, asked.until, NULL);
        IF taken + part.gpus > has THEN
          answer := 'taken ' || part.pool || ' ' || (has - taken);
          EXIT;
        END IF;
        IF share < has THEN
          taken := capacity_taken(part.pool, asked.first, asked.until, asked.tenant);
          IF taken + part.gpus > share THEN
            answer := 'limit ' || part.pool || ' ' || (share - taken);
            EXIT;
          END IF;
        END IF;
      END LOOP;
    END IF;
    IF answer = 'booked' THEN
      INSERT INTO capacity_allocation (reservation, tenant, pool, first, until, span, gpus, rank)
        SELECT asked.id, asked.tenant, (p ->> 0)::integer, asked.first, asked.until, asked.span, (p ->> 1)::integer,
               asked.rank
        FROM jsonb_array_elements(asked.parts) p;
      INSERT INTO capacity_reservation (id, tenant, state, version, starts_ms, body)
        VALUES (asked.id, asked.tenant, 'booked', 1, asked.starts_ms, asked.body);
      INSERT INTO capacity_version (reservation, version, at_ms, who, why, body)
        VALUES (asked.id, 1, p_at_ms, asked.who, 'booked', asked.body);
      IF asked.key <> '' THEN
        INSERT INTO capacity_key (tenant, key, digest, reservation, at_ms)
          VALUES (asked.tenant, asked.key, asked.digest, asked.id, p_at_ms);
      END IF;
    END IF;
    answers := answers || answer;
  END LOOP;
  RETURN answers;
END
$$
"""


def upgrade() -> None:
    op.add_column("capacity_pool", sa.Column("declared", sa.String(16), nullable=False, server_default=""))
    if op.get_bind().dialect.name == "sqlite":
        return
    for statement in (_TAKEN, _DECIDE):
        op.execute(sa.text(statement.replace(":", r"\:")))
    op.execute("DROP FUNCTION capacity_book")
    op.execute("DROP FUNCTION capacity_peak")


def downgrade() -> None:
    op.drop_column("capacity_pool", "declared")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION capacity_decide")
        op.execute("DROP FUNCTION capacity_taken")
