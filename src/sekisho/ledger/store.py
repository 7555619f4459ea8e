"""SQL of the passages: what the console may ask of the journals.

The journals are the truth; these tables are a projection that can be thrown away and made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sekisho.ledger.model import Decision
from sekisho.runtime.database import metadata

BUCKET_MS = 60_000

passage = sa.Table(
    "passage",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),  # sorted by time to the millisecond
    sa.Column("at_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("worker", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("data_class", sa.String(16), nullable=False),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("site", sa.String(64), nullable=False),
    sa.Column("endpoint", sa.String(64), nullable=False),
    sa.Column("country", sa.String(2), nullable=False),
    sa.Column("tokens_in", sa.BigInteger, nullable=False),
    sa.Column("tokens_out", sa.BigInteger, nullable=False),
    sa.Column("first_byte_us", sa.BigInteger, nullable=False),
    sa.Column("duration_us", sa.BigInteger, nullable=False),
    sa.Column("record", sa.LargeBinary, nullable=False),  # the payload of the journal, byte for byte
)

# Counts by the minute survive the retention of `passage`, so that "in 24 hours" is true under any load.
passage_count = sa.Table(
    "passage_count",
    metadata,
    sa.Column("minute", sa.BigInteger, primary_key=True),
    sa.Column("outcome", sa.String(16), primary_key=True),
    sa.Column("site", sa.String(64), primary_key=True),
    sa.Column("data_class", sa.String(16), primary_key=True),
    sa.Column("code", sa.String(64), primary_key=True),
    sa.Column("passages", sa.BigInteger, nullable=False),
)

journal_segment = sa.Table(
    "journal_segment",
    metadata,
    sa.Column("path", sa.String(200), primary_key=True),  # relative to the journal directory: `w0/00000003.journal`
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("finished", sa.Boolean, nullable=False),
)


class PassageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list. Times in Unix milliseconds, durations in microseconds."""

    id: str
    at_ms: int
    worker: str
    outcome: str
    status: int
    code: str
    tenant: str
    data_class: str
    model: str
    site: str
    endpoint: str
    country: str
    tokens_in: int
    tokens_out: int
    first_byte_us: int
    duration_us: int


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, and the bytes that the gateway wrote."""

    decision: Decision
    worker: str
    record: bytes


class PassageFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All given fields must hold. `verdict` is `allowed` or `refused`; times in Unix ms, `until` excluded."""

    site: str = ""
    endpoint: str = ""
    tenant: str = ""
    data_class: str = ""
    verdict: str = ""
    outcome: str = ""
    code: str = ""
    since_ms: int | None = None
    until_ms: int | None = None


_EQUAL = ("site", "endpoint", "tenant", "data_class", "outcome", "code")
_LIST_COLUMNS = [passage.c[name] for name in PassageRow.__struct_fields__]


def list_passages(
    connection: sa.Connection, wanted: PassageFilter, *, limit: int, before: str = "", after: str = ""
) -> list[PassageRow]:
    """The newest first. `before` and `after` are decision ids (keyset: a page never shifts under new rows)."""
    query = sa.select(*_LIST_COLUMNS)
    for name in _EQUAL:
        if value := getattr(wanted, name):
            query = query.where(passage.c[name] == value)
    if wanted.verdict:
        refused = passage.c.outcome == "refused"
        query = query.where(refused if wanted.verdict == "refused" else sa.not_(refused))
    if wanted.since_ms is not None:
        query = query.where(passage.c.at_ms >= wanted.since_ms)
    if wanted.until_ms is not None:
        query = query.where(passage.c.at_ms < wanted.until_ms)
    if before:
        query = query.where(passage.c.id < before)
    if after:
        # The page just above `after`: the nearest rows, so they are taken upwards and turned round.
        rows = connection.execute(query.where(passage.c.id > after).order_by(passage.c.id).limit(limit))
        return [PassageRow(**row._mapping) for row in rows][::-1]
    rows = connection.execute(query.order_by(passage.c.id.desc()).limit(limit))
    return [PassageRow(**row._mapping) for row in rows]


def find_passage(connection: sa.Connection, decision_id: str) -> Passage | None:
    row = connection.execute(
        sa.select(passage.c.record, passage.c.worker).where(passage.c.id == decision_id)
    ).one_or_none()
    if row is None:
        return None
    return Passage(decision=msgspec.json.decode(row.record, type=Decision), worker=row.worker, record=row.record)


def insert_decisions(connection: sa.Connection, worker: str, decisions: Sequence[tuple[Decision, bytes]]) -> int:
    """Adds those that are not there yet (by id), counts them by the minute, and says how many they were."""
    if not decisions:
        return 0
    rows = [_row(worker, decision, record) for decision, record in decisions]
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(passage).on_conflict_do_nothing(index_elements=["id"]).returning(passage.c.id)
    added = {row.id for row in connection.execute(statement, rows)}
    counts: dict[tuple[int, str, str, str, str], int] = {}
    for decision, _ in decisions:
        # `discard` semantics: a record that stands twice in one batch is counted once.
        if decision.id in added:
            added.discard(decision.id)
            at = (
                decision.at_ms // BUCKET_MS,
                decision.outcome,
                decision.site,
                decision.data_class,
                decision.code,
            )
            counts[at] = counts.get(at, 0) + 1
    if counts:
        upsert = insert(passage_count)
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=["minute", "outcome", "site", "data_class", "code"],
                set_={"passages": passage_count.c.passages + upsert.excluded.passages},
            ),
            [
                {
                    "minute": minute,
                    "outcome": outcome,
                    "site": site,
                    "data_class": data_class,
                    "code": code,
                    "passages": passages,
                }
                for (minute, outcome, site, data_class, code), passages in counts.items()
            ],
        )
    return sum(counts.values())


def _row(worker: str, decision: Decision, record: bytes) -> dict[str, object]:
    return {
        "id": decision.id,
        "at_ms": decision.at_ms,
        "worker": worker,
        "outcome": decision.outcome,
        "status": decision.status,
        "code": decision.code,
        "tenant": decision.tenant,
        "data_class": decision.data_class,
        "model": decision.model,
        "site": decision.site,
        "endpoint": decision.endpoint,
        "country": decision.country,
        "tokens_in": decision.tokens_in,
        "tokens_out": decision.tokens_out,
        "first_byte_us": decision.first_byte_us,
        "duration_us": decision.duration_us,
        "record": record,
    }


def segment_offsets(connection: sa.Connection) -> dict[str, tuple[int, bool]]:
    """Path → (bytes that were taken over, whether nothing more can come)."""
    return {row.path: (row.offset, row.finished) for row in connection.execute(journal_segment.select())}


def save_segment(connection: sa.Connection, path: str, offset: int, *, finished: bool) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = {"offset": offset, "finished": finished}
    connection.execute(
        insert(journal_segment)
        .values(path=path, **values)
        .on_conflict_do_update(index_elements=["path"], set_=values)
    )


def forget_segments(connection: sa.Connection, paths: Iterable[str]) -> None:
    connection.execute(journal_segment.delete().where(journal_segment.c.path.in_(list(paths))))


def keep_last(connection: sa.Connection, rows: int, *, now_ms: int, counts_ms: int) -> int:
    """Drops all but the newest `rows` passages, and counts older than `counts_ms`; says how many rows went."""
    cut = connection.scalar(sa.select(passage.c.id).order_by(passage.c.id.desc()).offset(rows).limit(1))
    connection.execute(passage_count.delete().where(passage_count.c.minute < (now_ms - counts_ms) // BUCKET_MS))
    if cut is None:
        return 0
    return connection.execute(passage.delete().where(passage.c.id <= cut)).rowcount


class PassageCount(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    data_class: str
    outcome: str
    code: str
    passages: int


def count_passages(connection: sa.Connection, *, since_ms: int) -> list[PassageCount]:
    """Sums by site, class, outcome and code since a time, exact to the minute."""
    columns = (
        passage_count.c.site,
        passage_count.c.data_class,
        passage_count.c.outcome,
        passage_count.c.code,
    )
    rows = connection.execute(
        sa.select(*columns, sa.func.sum(passage_count.c.passages).label("passages"))
        .where(passage_count.c.minute >= since_ms // BUCKET_MS)
        .group_by(*columns)
    )
    return [PassageCount(**{**row._mapping, "passages": int(row.passages)}) for row in rows]


def newest_at_ms(connection: sa.Connection) -> int | None:
    """When the newest passage that was taken over began; None when there is none."""
    newest = connection.scalar(sa.select(sa.func.max(passage.c.at_ms)))
    return int(newest) if newest is not None else None
