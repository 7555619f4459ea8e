"""SQL of the federation's records with history: each change is a new version, nothing is overwritten.

A record is an operator, an operator's key, a site or an endpoint that did not come from the configuration. Its last
version is what holds; `retired` ends it without forgetting it.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import sqlalchemy as sa

from sekisho.runtime.database import metadata

Kind = Literal["operator", "operator-key", "site", "endpoint", "pool"]

federation_record = sa.Table(
    "federation_record",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.String(64), nullable=False),
    sa.Column("retired", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One version: who wrote it, and when (Unix seconds). `body` is JSON."""

    kind: str
    id: str
    version: int
    at: float
    actor: str
    retired: bool
    body: str


def append_version(
    connection: sa.Connection,
    *,
    kind: Kind,
    id: str,
    body: msgspec.Struct,
    now: float,
    actor: str,
    retired: bool = False,
) -> bool:
    """A new version when it differs from the last; False when it does not."""
    table = federation_record
    text = msgspec.json.encode(body, order="deterministic").decode()
    last = connection.execute(
        sa.select(table.c.version, table.c.body, table.c.retired)
        .where(table.c.kind == kind, table.c.id == id)
        .order_by(table.c.version.desc())
        .limit(1)
    ).first()
    if last is not None and last.body == text and last.retired is retired:
        return False
    connection.execute(
        table.insert().values(
            kind=kind,
            id=id,
            version=1 if last is None else last.version + 1,
            at=now,
            actor=actor,
            retired=retired,
            body=text,
        )
    )
    return True


def current(connection: sa.Connection, kind: Kind) -> dict[str, Record]:
    """What holds now of this kind, by id, retired ones left out."""
    table = federation_record
    last = (
        sa.select(table.c.id, sa.func.max(table.c.version).label("version"))
        .where(table.c.kind == kind)
        .group_by(table.c.id)
        .subquery()
    )
    rows = connection.execute(
        sa.select(table)
        .join(last, sa.and_(table.c.id == last.c.id, table.c.version == last.c.version))
        .where(table.c.kind == kind, sa.not_(table.c.retired))
        .order_by(table.c.id)
    )
    return {row.id: Record(**row._mapping) for row in rows}


def history(connection: sa.Connection, kind: Kind, record_id: str) -> list[Record]:
    """Every version, the newest first."""
    table = federation_record
    rows = connection.execute(
        table.select().where(table.c.kind == kind, table.c.id == record_id).order_by(table.c.version.desc())
    )
    return [Record(**row._mapping) for row in rows]
