"""PostgreSQL: the bookings of a call are looked at by one query, written by one statement a table, and guarded once.

Each statement takes a snapshot and an executor of its own, which cost more than its rows: a third of a decision.
What is promised stays the same: every booking is decided in its turn and sees those before it; the guard adds up the
rows again, under another lock and by another index, after everything is written.
"""

from __future__ import annotations

import importlib

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# The pools' rows first, in the order of their numbers; what follows sees what others committed before that.
_GUARD = """
CREATE FUNCTION capacity_guard_came() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  PERFORM FROM capacity_pool WHERE number IN (SELECT pool FROM fresh) ORDER BY number FOR NO KEY UPDATE;
  WITH counted AS (
    UPDATE capacity_pool p SET revision = p.revision + c.came
    FROM (SELECT pool, count(*) AS came FROM fresh GROUP BY pool) c WHERE p.number = c.pool
    RETURNING p.number, p.revision - c.came AS before
  )
  INSERT INTO capacity_change (pool, revision, first, until, gpus, rank)
    SELECT f.pool, counted.before + row_number() OVER (PARTITION BY f.pool ORDER BY f.id), f.first, f.until, f.gpus,
           f.rank
    FROM fresh f JOIN counted ON counted.number = f.pool;
  IF EXISTS (
    SELECT FROM fresh f JOIN capacity_pool p ON p.number = f.pool
    WHERE (
      SELECT max(used) FROM (
        SELECT sum(delta) OVER (ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS used FROM (
          SELECT CASE e.value WHEN 0 THEN greatest(a.first, f.first) ELSE a.until END AS at,
                 CASE e.value WHEN 0 THEN a.gpus ELSE -a.gpus END AS delta
          FROM capacity_allocation a CROSS JOIN (VALUES (0), (1)) e(value)
          WHERE int8range((a.pool::bigint << 32) + a.first, (a.pool::bigint << 32) + a.until)
             && int8range((f.pool::bigint << 32) + f.first, (f.pool::bigint << 32) + f.until)
        ) steps
      ) sums
    ) > p.gpus
  ) THEN
    RAISE EXCEPTION 'capacity_oversold' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END
$$
"""

# What was given and not written yet lies in arrays, a column each; `p_a…` are allocations, one a part.
_WRITE = """
CREATE FUNCTION capacity_write(
  p_at_ms bigint, p_ids text[], p_tenants text[], p_starts bigint[], p_bodies text[], p_whos text[], p_keys text[],
  p_digests text[], p_a_ids text[], p_a_tenants text[], p_a_pools integer[], p_a_firsts integer[],
  p_a_untils integer[], p_a_spans integer[], p_a_gpus integer[], p_a_ranks integer[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO capacity_allocation (reservation, tenant, pool, first, until, span, gpus, rank)
    SELECT * FROM unnest(p_a_ids, p_a_tenants, p_a_pools, p_a_firsts, p_a_untils, p_a_spans, p_a_gpus, p_a_ranks);
  INSERT INTO capacity_reservation (id, tenant, state, version, starts_ms, body)
    SELECT u.id, u.tenant, 'booked', 1, u.starts, u.body
    FROM unnest(p_ids, p_tenants, p_starts, p_bodies) u(id, tenant, starts, body);
  INSERT INTO capacity_version (reservation, version, at_ms, who, why, body)
    SELECT u.id, 1, p_at_ms, u.who, 'booked', u.body FROM unnest(p_ids, p_whos, p_bodies) u(id, who, body);
  IF array_to_string(p_keys, '') <> '' THEN
    INSERT INTO capacity_key (tenant, key, digest, reservation, at_ms)
      SELECT u.tenant, u.key, u.digest, u.id, p_at_ms
      FROM unnest(p_tenants, p_keys, p_digests, p_ids) u(tenant, key, digest, id) WHERE u.key <> '';
  END IF;
END
$$
"""

# Locks first, all of them: of idempotency keys by their hash, then of pools by their number. Everybody takes them in
# this order, so nobody waits in a circle. Then one query says of every booking what stands in its way in the tables;
# what the call itself has given meanwhile lies in `places`, and is written before a booking that touches it is asked
# about again.
_DECIDE = """
CREATE FUNCTION capacity_decide(p_at_ms bigint, p_batch jsonb) RETURNS text[] LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  answers text[] := '{}';
  answer text;
  asked record;
  locked record;
  has integer;
  share integer;
  divided boolean;
  taken bigint;
  earlier integer;
  place int8range;
  places int8multirange := '{}';  -- all pools on one line
  used_keys text[] := '{}';  -- tenant and key of each booking that was given
  used_digests text[] := '{}';
  used_ids text[] := '{}';
  ids text[] := '{}';
  tenants text[] := '{}';
  starts bigint[] := '{}';
  bodies text[] := '{}';
  whos text[] := '{}';
  keys text[] := '{}';
  digests text[] := '{}';
  a_ids text[] := '{}';
  a_tenants text[] := '{}';
  a_pools integer[] := '{}';
  a_firsts integer[] := '{}';
  a_untils integer[] := '{}';
  a_spans integer[] := '{}';
  a_gpus integer[] := '{}';
  a_ranks integer[] := '{}';
BEGIN
  FOR locked IN
    SELECT DISTINCT l.kind, l.number
    FROM jsonb_to_recordset(p_batch) AS b(tenant text, key text, pools integer[])
    CROSS JOIN LATERAL (
      SELECT 7307, hashtext(b.tenant || ' ' || b.key) WHERE b.key <> '' UNION ALL SELECT 7306, unnest(b.pools)
    ) l(kind, number)
    ORDER BY l.kind DESC, l.number
  LOOP
    PERFORM pg_advisory_xact_lock(locked.kind, locked.number);
  END LOOP;
  FOR asked IN
    SELECT b.*, k.digest AS key_digest, k.reservation AS key_reservation, c.gpus AS has, c.tenant_limit AS share,
           EXISTS (SELECT FROM capacity_quota q WHERE q.pool = c.number) AS divided, t.taken
    FROM ROWS FROM (jsonb_to_recordset(p_batch) AS (
      id text, tenant text, first integer, until integer, span integer, pools integer[], gpus integer[], rank integer,
      starts_ms bigint, body text, who text, key text, digest text)) WITH ORDINALITY AS b(
      id, tenant, first, until, span, pools, gpus, rank, starts_ms, body, who, key, digest, nth)
    LEFT JOIN capacity_pool c ON c.number = b.pools[1]
    LEFT JOIN capacity_key k ON b.key <> '' AND k.tenant = b.tenant AND k.key = b.key
    CROSS JOIN LATERAL (
      -- `capacity_taken` of the first part, in this query's own plan: to begin one costs more than to run it again
      SELECT coalesce(max(used), 0) AS taken FROM (
        SELECT sum(delta) OVER (ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS used FROM (
          SELECT CASE e.value WHEN 0 THEN greatest(a.first, b.first) ELSE a.until END AS at,
                 CASE e.value WHEN 0 THEN a.gpus ELSE -a.gpus END AS delta
          FROM capacity_span s
          CROSS JOIN LATERAL (
            SELECT x.first, x.until, x.gpus FROM capacity_allocation x
            WHERE x.pool = b.pools[1] AND x.span = s.span AND x.first > b.first - s.slots AND x.first < b.until
              AND x.until > b.first
            OFFSET 0
          ) a
          CROSS JOIN (VALUES (0), (1)) e(value)
        ) steps
      ) sums
    ) t
    ORDER BY b.nth
  LOOP
    answer := 'booked';
    IF asked.key <> '' THEN
      earlier := array_position(used_keys, asked.tenant || ' ' || asked.key);
      IF asked.key_digest IS NOT NULL THEN
        answer := CASE WHEN asked.key_digest = asked.digest THEN 'again ' || asked.key_reservation ELSE 'key' END;
      ELSIF earlier IS NOT NULL THEN
        answer := CASE WHEN used_digests[earlier] = asked.digest THEN 'again ' || used_ids[earlier] ELSE 'key' END;
      END IF;
    END IF;
    IF answer = 'booked' THEN
      FOR i IN 1 .. cardinality(asked.pools) LOOP
        IF i = 1 THEN
          has := asked.has;
          share := asked.share;
          divided := asked.divided;
          taken := asked.taken;
        ELSE
          SELECT gpus, tenant_limit INTO has, share FROM capacity_pool WHERE number = asked.pools[i];
          divided := EXISTS (SELECT FROM capacity_quota WHERE pool = asked.pools[i]);
          taken := NULL;
        END IF;
        IF has IS NULL THEN
          answer := 'unknown ' || asked.pools[i];
          EXIT;
        END IF;
        IF divided THEN
          answer := 'divided';
          EXIT;
        END IF;
        place := int8range(
          (asked.pools[i]::bigint << 32) + asked.first, (asked.pools[i]::bigint << 32) + asked.until);
        IF places && place THEN
          IF ids <> '{}' THEN
            PERFORM capacity_write(p_at_ms, ids, tenants, starts, bodies, whos, keys, digests, a_ids, a_tenants,
                                   a_pools, a_firsts, a_untils, a_spans, a_gpus, a_ranks);
            ids := '{}';
            tenants := '{}';
            starts := '{}';
            bodies := '{}';
            whos := '{}';
            keys := '{}';
            digests := '{}';
            a_ids := '{}';
            a_tenants := '{}';
            a_pools := '{}';
            a_firsts := '{}';
            a_untils := '{}';
            a_spans := '{}';
            a_gpus := '{}';
            a_ranks := '{}';
          END IF;
          taken := NULL;
        END IF;
        IF taken IS NULL THEN
          taken := capacity_taken(asked.pools[i], asked.first, asked.until, NULL);
        END IF;
        IF taken + asked.gpus[i] > has THEN
          answer := 'taken ' || asked.pools[i] || ' ' || (has - taken);
          EXIT;
        END IF;
        IF share < has THEN
          taken := capacity_taken(asked.pools[i], asked.first, asked.until, asked.tenant);
          IF taken + asked.gpus[i] > share THEN
            answer := 'limit ' || asked.pools[i] || ' ' || (share - taken);
            EXIT;
          END IF;
        END IF;
      END LOOP;
    END IF;
    IF answer = 'booked' THEN
      ids := ids || asked.id;
      tenants := tenants || asked.tenant;
      starts := starts || asked.starts_ms;
      bodies := bodies || asked.body;
      whos := whos || asked.who;
      keys := keys || asked.key;
      digests := digests || asked.digest;
      IF asked.key <> '' THEN
        used_keys := used_keys || (asked.tenant || ' ' || asked.key);
        used_digests := used_digests || asked.digest;
        used_ids := used_ids || asked.id;
      END IF;
      FOR i IN 1 .. cardinality(asked.pools) LOOP
        places := places + int8multirange(int8range(
          (asked.pools[i]::bigint << 32) + asked.first, (asked.pools[i]::bigint << 32) + asked.until));
        a_ids := a_ids || asked.id;
        a_tenants := a_tenants || asked.tenant;
        a_pools := a_pools || asked.pools[i];
        a_firsts := a_firsts || asked.first;
        a_untils := a_untils || asked.until;
        a_spans := a_spans || asked.span;
        a_gpus := a_gpus || asked.gpus[i];
        a_ranks := a_ranks || asked.rank;
      END LOOP;
    END IF;
    answers := answers || answer;
  END LOOP;
  IF ids <> '{}' THEN
    PERFORM capacity_write(p_at_ms, ids, tenants, starts, bodies, whos, keys, digests, a_ids, a_tenants, a_pools,
                           a_firsts, a_untils, a_spans, a_gpus, a_ranks);
  END IF;
  RETURN answers;
END
$$
"""


def _run(*statements: str) -> None:
    for statement in statements:
        op.execute(sa.text(statement.replace(":", r"\:")))


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    _run(
        "DROP FUNCTION capacity_decide(bigint, jsonb)",
        "DROP TRIGGER capacity_guard_changed ON capacity_allocation",
        _GUARD,
        _WRITE,
        _DECIDE,
        "CREATE TRIGGER capacity_guard_came AFTER INSERT ON capacity_allocation REFERENCING NEW TABLE AS fresh"
        " FOR EACH STATEMENT EXECUTE FUNCTION capacity_guard_came()",
        "CREATE TRIGGER capacity_guard_gone AFTER DELETE ON capacity_allocation"
        " FOR EACH ROW EXECUTE FUNCTION capacity_guard()",
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    before = importlib.import_module("sekisho.assembly.migrations.versions.0012_bookings_in_batches")
    _run(
        "DROP TRIGGER capacity_guard_gone ON capacity_allocation",
        "DROP TRIGGER capacity_guard_came ON capacity_allocation",
        "DROP FUNCTION capacity_decide(bigint, jsonb)",
        "DROP FUNCTION capacity_write",
        "DROP FUNCTION capacity_guard_came",
        before._DECIDE,
        "CREATE TRIGGER capacity_guard_changed AFTER INSERT OR DELETE ON capacity_allocation"
        " FOR EACH ROW EXECUTE FUNCTION capacity_guard()",
    )
