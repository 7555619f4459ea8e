"""The border ledger in the database: SQL of `border_service`."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from sekisho.federation.border import SignedStatement, Statement
from sekisho.runtime.database import metadata

border_post = sa.Table(
    "border_post",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("trusted_by", sa.String(64), nullable=False),
    sa.Column("trusted_at", sa.Float, nullable=False),
)
border_statement = sa.Table(
    "border_statement",
    metadata,
    sa.Column("border", sa.String(64), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("to_ms", sa.BigInteger, nullable=False),
    sa.Column("finding", sa.String(16), nullable=False),
    sa.Column("entry_id", sa.String(32), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("ix_border_statement_to_ms", "border", "to_ms"),
)


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """Whose statements about a border count: an Ed25519 key in hexadecimal."""

    name: str
    key: str
    trusted_by: str
    trusted_at: float


def posts(connection: sa.Connection) -> list[Post]:
    return [Post(**row._mapping) for row in connection.execute(border_post.select().order_by(border_post.c.name))]


def find_post(connection: sa.Connection, name: str) -> Post | None:
    row = connection.execute(border_post.select().where(border_post.c.name == name)).first()
    return None if row is None else Post(**row._mapping)


def put_post(connection: sa.Connection, post: Post) -> None:
    connection.execute(border_post.insert().values(**msgspec.structs.asdict(post)))


def last(connection: sa.Connection, border: str) -> Statement | None:
    """The newest statement of a border."""
    body = connection.scalar(
        sa.select(border_statement.c.body)
        .where(border_statement.c.border == border)
        .order_by(border_statement.c.sequence.desc())
        .limit(1)
    )
    return None if body is None else _read(body).statement


def insert(connection: sa.Connection, signed: SignedStatement, *, entry_id: str) -> None:
    made = signed.statement
    connection.execute(
        border_statement.insert().values(
            border=made.border,
            sequence=made.sequence,
            to_ms=made.to_ms,
            finding=made.finding,
            entry_id=entry_id,
            body=msgspec.json.encode(signed),
        )
    )


def statements(
    connection: sa.Connection, border: str, *, since_ms: int = 0, limit: int | None = None
) -> list[SignedStatement]:
    """In their order; with `limit` the newest so many. `since_ms`: those that end after it."""
    query = border_statement.select().where(border_statement.c.border == border, border_statement.c.to_ms > since_ms)
    if limit is not None:
        query = query.order_by(border_statement.c.sequence.desc()).limit(limit)
        return [_read(row.body) for row in reversed(connection.execute(query).all())]
    return [_read(row.body) for row in connection.execute(query.order_by(border_statement.c.sequence))]


def counts(connection: sa.Connection, border: str) -> dict[str, int]:
    """How many statements there are of each finding."""
    rows = connection.execute(
        sa.select(border_statement.c.finding, sa.func.count())
        .where(border_statement.c.border == border)
        .group_by(border_statement.c.finding)
    )
    return {row[0]: int(row[1]) for row in rows}


def _read(body: bytes) -> SignedStatement:
    return msgspec.json.decode(body, type=SignedStatement)
