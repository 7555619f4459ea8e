"""The change log of the control plane: who changed what, and when, in the transaction of the change itself."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from sekisho.runtime.database import metadata

change_log = sa.Table(
    "change_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("actor", sa.String(64), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    # `endpoint/ishikari-1`, `key/1f2e…`, `site/…`: what the Events tab of that object asks for
    sa.Column("subject", sa.String(160), nullable=False, index=True),
    sa.Column("detail", sa.Text, nullable=False),
)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log. `detail` holds names and values, never a secret."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: dict[str, str]


def record_change(
    connection: sa.Connection,
    *,
    now: float,
    actor: str,
    action: str,
    subject: str,
    detail: dict[str, str] | None = None,
) -> None:
    """Writes the line in the caller's transaction, so that neither exists without the other."""
    connection.execute(
        change_log.insert().values(
            at_ms=int(now * 1000),
            actor=actor,
            action=action,
            subject=subject,
            detail=msgspec.json.encode(detail or {}).decode(),
        )
    )


def changes(connection: sa.Connection, *, subjects: tuple[str, ...] = (), limit: int = 50) -> list[Change]:
    """The newest first; all subjects when none is named."""
    query = change_log.select().order_by(change_log.c.id.desc()).limit(limit)
    if subjects:
        query = query.where(change_log.c.subject.in_(subjects))
    return [
        Change(
            id=row.id,
            at_ms=row.at_ms,
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            detail=msgspec.json.decode(row.detail, type=dict[str, str]),
        )
        for row in connection.execute(query)
    ]
