"""SQL of evidence: challenges, what came of them, reference values, collateral, the register, and who may sign it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from sekisho.ledger import outbox
from sekisho.residency.attestation.references import Reference
from sekisho.residency.attestation.register import RegisterEntry, SignedEntry, Signer
from sekisho.runtime.database import metadata

EVIDENCE = "evidence"
MAX_LIVE_CHALLENGES = 16  # of one site

evidence_challenge = sa.Table(
    "evidence_challenge",
    metadata,
    sa.Column("nonce", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(64), nullable=False, index=True),
    # `attestation`, or `release` of a tenant's key: neither answers for the other
    sa.Column("purpose", sa.String(16), nullable=False),
    sa.Column("issued_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("used_at", sa.Float),
)

evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("site", sa.String(64), nullable=False),
    # `attestation`, `location`, or `release`: of a workload that asked for a tenant's key
    sa.Column("about", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("registered", sa.Boolean, nullable=False),
    sa.Column("margin_km", sa.Integer, nullable=False),
    # False: kept so that people can read why it was refused, but it proves nothing and displaces nothing.
    sa.Column("stands", sa.Boolean, nullable=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("key_digest", sa.String(64), nullable=False),
    sa.Column("appraisal", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
)
sa.Index("ix_evidence_site_about_seq", evidence.c.site, evidence.c.about, evidence.c.seq)

evidence_reference = sa.Table(
    "evidence_reference",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("approved_by", sa.String(64), nullable=False),
    sa.Column("approved_at", sa.Float, nullable=False),
    sa.Column("withdrawn_at", sa.Float),
)

evidence_collateral = sa.Table(
    "evidence_collateral",
    metadata,
    # the FMSPC of a TDX platform
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("imported_by", sa.String(64), nullable=False),
    sa.Column("imported_at", sa.Float, nullable=False),
)

hardware_register = sa.Table(
    "hardware_register",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("hardware_id", sa.String(160), nullable=False, index=True),
    sa.Column("site", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("imported_by", sa.String(64), nullable=False),
    sa.Column("imported_at", sa.Float, nullable=False),
    sa.Column("superseded_at", sa.Float),
)

register_signer = sa.Table(
    "register_signer",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("added_at", sa.Float, nullable=False),
)

tenant_data_key = sa.Table(
    "tenant_data_key",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence as it was taken. Times in Unix seconds; `appraisal` is JSON; `code` says why one that
    does not stand was refused; `margin_km` is of locations; `token` the signed result, empty where there is none."""

    id: str
    site: str
    about: str
    kind: str
    level: str
    registered: bool = False
    margin_km: int = 0
    stands: bool = True
    code: str = ""
    at: float
    until: float
    digest: str
    key_digest: str = ""
    appraisal: str = "{}"
    token: str = ""


class ApprovedReference(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a reference value, with who approved it and when."""

    reference: Reference
    version: int
    approved_by: str
    approved_at: float
    withdrawn_at: float | None = None


class CollateralRow(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    digest: str
    until: float
    imported_by: str
    imported_at: float


# -- challenges


def insert_challenge(
    connection: sa.Connection, *, nonce: str, site: str, purpose: str, now: float, expires_at: float
) -> None:
    """At most `MAX_LIVE_CHALLENGES` a site and purpose: the oldest unanswered go. Those of a day ago go too."""
    table = evidence_challenge
    connection.execute(table.delete().where(table.c.expires_at < now - 86_400))
    live = connection.scalars(
        sa.select(table.c.nonce)
        .where(table.c.site == site, table.c.purpose == purpose, table.c.used_at.is_(None))
        .order_by(table.c.issued_at.desc(), table.c.nonce)
        .offset(MAX_LIVE_CHALLENGES - 1)
    ).all()
    if live:
        connection.execute(table.delete().where(table.c.nonce.in_(live)))
    connection.execute(
        table.insert().values(nonce=nonce, site=site, purpose=purpose, issued_at=now, expires_at=expires_at)
    )


def find_challenge(
    connection: sa.Connection, *, nonce: str, site: str, purpose: str
) -> tuple[float, float | None] | None:
    """(expires_at, used_at) of a challenge that this site was given for this purpose."""
    table = evidence_challenge
    row = connection.execute(
        sa.select(table.c.expires_at, table.c.used_at).where(
            table.c.nonce == nonce, table.c.site == site, table.c.purpose == purpose
        )
    ).first()
    return (row.expires_at, row.used_at) if row else None


def use_challenge(connection: sa.Connection, *, nonce: str, site: str, now: float) -> bool:
    """False when somebody else was first."""
    table = evidence_challenge
    changed = connection.execute(
        table.update()
        .where(table.c.nonce == nonce, table.c.site == site, table.c.used_at.is_(None))
        .values(used_at=now)
    )
    return changed.rowcount == 1


# -- evidence


def insert_evidence(connection: sa.Connection, one: Evidence) -> None:
    """Keeps it, and logs what came of it; `digest` is what decisions name."""
    connection.execute(evidence.insert().values(**msgspec.structs.asdict(one)))
    outbox.append(
        connection,
        kind=EVIDENCE,
        at_ms=int(one.at * 1000),
        body={
            "evidence": one.id,
            "site": one.site,
            "about": one.about,
            "type": one.kind,
            "level": one.level,
            "registered": one.registered,
            "margin_km": one.margin_km,
            "stands": one.stands,
            "code": one.code,
            "until_ms": int(one.until * 1000),
            "digest": one.digest,
            "key_sha256": one.key_digest,
            "appraisal_sha256": hashlib.sha256(one.appraisal.encode()).hexdigest(),
        },
    )


def _evidence(row: sa.Row[tuple[object, ...]]) -> Evidence:
    values = dict(row._mapping)
    del values["seq"]
    return Evidence(**values)


def newest_standing(connection: sa.Connection) -> list[Evidence]:
    """For each site and subject the newest that counts, whether it has run out or not."""
    newest = (
        sa.select(sa.func.max(evidence.c.seq))
        .where(evidence.c.stands)
        .group_by(evidence.c.site, evidence.c.about)
        .scalar_subquery()
    )
    return [_evidence(row) for row in connection.execute(evidence.select().where(evidence.c.seq.in_(newest)))]


def evidence_of(connection: sa.Connection, site: str, *, limit: int) -> list[Evidence]:
    """The newest first; of all sites when none is named."""
    query = evidence.select().order_by(evidence.c.seq.desc()).limit(limit)
    if site:
        query = query.where(evidence.c.site == site)
    return [_evidence(row) for row in connection.execute(query)]


def find_evidence(connection: sa.Connection, evidence_id: str) -> Evidence | None:
    row = connection.execute(evidence.select().where(evidence.c.id == evidence_id)).first()
    return _evidence(row) if row else None


# -- reference values


def references(connection: sa.Connection) -> list[ApprovedReference]:
    """Every version ever approved, by name and version."""
    rows = connection.execute(
        evidence_reference.select().order_by(evidence_reference.c.name, evidence_reference.c.version)
    )
    return [
        ApprovedReference(
            reference=msgspec.json.decode(row.body, type=Reference),
            version=row.version,
            approved_by=row.approved_by,
            approved_at=row.approved_at,
            withdrawn_at=row.withdrawn_at,
        )
        for row in rows
    ]


def current_references(approved: Iterable[ApprovedReference]) -> tuple[Reference, ...]:
    """The newest version of each name, less what was withdrawn."""
    newest = {one.reference.name: one for one in approved}
    return tuple(one.reference for one in newest.values() if one.withdrawn_at is None)


def insert_reference(connection: sa.Connection, reference: Reference, *, now: float, actor: str) -> int:
    """The version that it got."""
    table = evidence_reference
    last = connection.scalar(sa.select(sa.func.max(table.c.version)).where(table.c.name == reference.name))
    version = int(last or 0) + 1
    connection.execute(
        table.insert().values(
            name=reference.name,
            version=version,
            body=msgspec.json.encode(reference, order="deterministic").decode(),
            approved_by=actor,
            approved_at=now,
        )
    )
    return version


def withdraw_reference(connection: sa.Connection, name: str, *, now: float) -> bool:
    table = evidence_reference
    changed = connection.execute(
        table.update().where(table.c.name == name, table.c.withdrawn_at.is_(None)).values(withdrawn_at=now)
    )
    return changed.rowcount > 0


# -- collateral


def put_collateral(connection: sa.Connection, row: CollateralRow, body: bytes) -> None:
    table = evidence_collateral
    connection.execute(table.delete().where(table.c.name == row.name))
    connection.execute(table.insert().values(**msgspec.structs.asdict(row), body=body))


def collateral_bodies(connection: sa.Connection) -> dict[str, bytes]:
    rows = connection.execute(sa.select(evidence_collateral.c.name, evidence_collateral.c.body))
    return {row.name: bytes(row.body) for row in rows}


def collateral_rows(connection: sa.Connection) -> list[CollateralRow]:
    columns = [evidence_collateral.c[name] for name in CollateralRow.__struct_fields__]
    rows = connection.execute(sa.select(*columns).order_by(evidence_collateral.c.name))
    return [CollateralRow(**row._mapping) for row in rows]


# -- the register


def put_entry(connection: sa.Connection, signed: SignedEntry, *, now: float, actor: str) -> None:
    """What was said of this hardware before stays, as superseded."""
    table = hardware_register
    entry = signed.entry
    connection.execute(
        table.update()
        .where(table.c.hardware_id == entry.hardware_id, table.c.superseded_at.is_(None))
        .values(superseded_at=now)
    )
    connection.execute(
        table.insert().values(
            hardware_id=entry.hardware_id,
            site=entry.site,
            body=msgspec.json.encode(signed, order="deterministic").decode(),
            imported_by=actor,
            imported_at=now,
        )
    )


def register_entries(connection: sa.Connection) -> list[SignedEntry]:
    """In force now, by hardware id."""
    table = hardware_register
    rows = connection.scalars(
        sa.select(table.c.body).where(table.c.superseded_at.is_(None)).order_by(table.c.hardware_id)
    )
    return [msgspec.json.decode(body, type=SignedEntry) for body in rows]


def entry_index(entries: Iterable[SignedEntry]) -> dict[str, RegisterEntry]:
    return {signed.entry.hardware_id: signed.entry for signed in entries}


def signers(connection: sa.Connection) -> list[Signer]:
    rows = connection.execute(register_signer.select().order_by(register_signer.c.role, register_signer.c.name))
    return [Signer(key=row.key, role=row.role, name=row.name) for row in rows]


def put_signer(connection: sa.Connection, signer: Signer, *, now: float) -> None:
    table = register_signer
    connection.execute(table.delete().where(table.c.key == signer.key, table.c.role == signer.role))
    connection.execute(table.insert().values(**msgspec.structs.asdict(signer), added_at=now))


def drop_signer(connection: sa.Connection, key: str) -> bool:
    return connection.execute(register_signer.delete().where(register_signer.c.key == key)).rowcount > 0


# -- tenants' data keys (sealed; see attestation/release.py)


def sealed_key(connection: sa.Connection, tenant: str) -> bytes | None:
    found = connection.scalar(sa.select(tenant_data_key.c.sealed).where(tenant_data_key.c.tenant == tenant))
    return bytes(found) if found is not None else None


def put_sealed_key(connection: sa.Connection, tenant: str, sealed: bytes, *, now: float) -> None:
    connection.execute(tenant_data_key.insert().values(tenant=tenant, sealed=sealed, created_at=now))
