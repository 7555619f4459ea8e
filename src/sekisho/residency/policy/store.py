"""SQL of policies: every version, proposals, what is in force, and what each route table was compiled from."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from sekisho.ledger import outbox
from sekisho.residency.policy.bundle import Bundle
from sekisho.runtime.database import metadata

VERSION = "policy.version"

# Every policy under which a table was ever made or that was ever proposed; never deleted.
policy_version = sa.Table(
    "policy_version",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("bundle", sa.String(64), nullable=False, index=True),
    sa.Column("jurisdiction", sa.String(2), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("files", sa.LargeBinary, nullable=False),
)

policy_proposal = sa.Table(
    "policy_proposal",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("base", sa.String(64), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.String(64), nullable=False),
    sa.Column("note", sa.String(400), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("difference", sa.Text, nullable=False),
    sa.Column("approved_by", sa.String(64), nullable=False),
    sa.Column("approved_at", sa.Float),
    sa.Column("closed_by", sa.String(64), nullable=False),
    sa.Column("closed_at", sa.Float),
)

# One row: the bundle in force, and the files that the configuration had when it was last looked at.
policy_in_force = sa.Table(
    "policy_in_force",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("configured", sa.String(64), nullable=False),
)

table_source = sa.Table(
    "table_source",
    metadata,
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("policy", sa.String(64), nullable=False),
    sa.Column("evidence_validity_s", sa.Float, nullable=False),
    sa.Column("federation", sa.String(64), nullable=False),
    sa.Column("standing", sa.String(64), nullable=False),
)

# Parts by content: what did not change between two tables is there once.
table_source_part = sa.Table(
    "table_source_part",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


def save_version(connection: sa.Connection, *, policy: str, bundle: Bundle, jurisdiction: str, now: float) -> None:
    """Keeps the files of this policy, and logs what they are; one that is there stays as it is."""
    known = connection.scalar(sa.select(policy_version.c.hash).where(policy_version.c.hash == policy))
    if known is None:
        connection.execute(
            policy_version.insert().values(
                hash=policy,
                bundle=bundle.hash,
                jurisdiction=jurisdiction,
                at=now,
                files=zlib.compress(msgspec.msgpack.encode(bundle)),
            )
        )
        outbox.append(
            connection,
            kind=VERSION,
            at_ms=int(now * 1000),
            body={
                "policy": policy,
                "bundle": bundle.hash,
                "jurisdiction": jurisdiction,
                "files": {file.name: hashlib.sha256(file.text.encode()).hexdigest() for file in bundle.files},
            },
        )


def find_version(connection: sa.Connection, policy: str) -> tuple[Bundle, str] | None:
    """The bundle and the jurisdiction of the policy with this hash."""
    row = connection.execute(policy_version.select().where(policy_version.c.hash == policy)).first()
    return None if row is None else (_bundle(row.files), row.jurisdiction)


def find_bundle(connection: sa.Connection, bundle: str) -> Bundle | None:
    row = connection.execute(policy_version.select().where(policy_version.c.bundle == bundle).limit(1)).first()
    return None if row is None else _bundle(row.files)


def _bundle(files: bytes) -> Bundle:
    return msgspec.msgpack.decode(zlib.decompress(files), type=Bundle)


def in_force(connection: sa.Connection) -> tuple[str, str] | None:
    """The hash of the bundle in force, and of the configured files that were last looked at."""
    row = connection.execute(policy_in_force.select()).first()
    return None if row is None else (row.bundle, row.configured)


def put_in_force(connection: sa.Connection, *, bundle: str | None = None, configured: str | None = None) -> None:
    values = {name: value for name, value in (("bundle", bundle), ("configured", configured)) if value is not None}
    if connection.execute(policy_in_force.update().values(**values)).rowcount == 0:
        connection.execute(policy_in_force.insert().values(id=1, **values))


def save_part(connection: sa.Connection, sha256: str, data: bytes) -> None:
    known = connection.scalar(sa.select(table_source_part.c.sha256).where(table_source_part.c.sha256 == sha256))
    if known is None:
        connection.execute(table_source_part.insert().values(sha256=sha256, data=data))


def parts(connection: sa.Connection, names: Iterable[str]) -> dict[str, bytes]:
    rows = connection.execute(table_source_part.select().where(table_source_part.c.sha256.in_(list(names))))
    return {row.sha256: row.data for row in rows}


def prune_sources(connection: sa.Connection, *, before: float) -> int:
    """Deletes the sources of tables made before, and the parts that no table has any more. How many tables."""
    gone = connection.execute(table_source.delete().where(table_source.c.at < before)).rowcount
    if gone:
        used = sa.select(table_source.c.federation).union(sa.select(table_source.c.standing))
        connection.execute(table_source_part.delete().where(table_source_part.c.sha256.not_in(used)))
    return gone
