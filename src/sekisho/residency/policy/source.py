"""What a route table was compiled from, kept so that any decision under it can be made again.

A table's sources stay for KEEP_S after it was made; policies stay for ever. Parts are kept by content: a table that
differs from the one before in one site's evidence adds that evidence and a row.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Literal

import msgspec
import sqlalchemy as sa

from sekisho.federation.model import Federation
from sekisho.kernel.classes import DataClass
from sekisho.kernel.errors import SekishoError
from sekisho.residency.model import Allowed, SiteEvidence
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.store import find_version, parts, save_part, table_source
from sekisho.residency.why import Explanation, explain

# Longer than a business year and the audit after it.
KEEP_S = 400 * 86_400.0


class SourceMissing(SekishoError):
    """The sources of a table, or its policy, are not there any more, or never were."""

    code = "policy.source_missing"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a table's verdicts follow from. `federation` has no keys: they decide nothing here."""

    version: int
    at: float
    policy: str
    evidence_validity_s: float
    federation: Federation
    evidence: dict[str, SiteEvidence]
    suspended: frozenset[str]


class _Standing(msgspec.Struct, frozen=True, kw_only=True):
    evidence: dict[str, SiteEvidence]
    suspended: tuple[str, ...]


class Keeper:
    """Writes the sources of tables; what did not change since the last one is not packed again."""

    def __init__(self) -> None:
        self._federation: tuple[Federation, str, bytes] | None = None

    def keep(
        self,
        connection: sa.Connection,
        *,
        version: int,
        now: float,
        policy: str,
        evidence_validity_s: float,
        federation: Federation,
        evidence: Mapping[str, SiteEvidence],
        suspended: frozenset[str],
    ) -> None:
        """In the transaction that takes the table's version: no table goes out whose sources are not there."""
        packed = self._packed(federation)
        standing = _pack(_Standing(evidence=dict(sorted(evidence.items())), suspended=tuple(sorted(suspended))))
        for name, data in (packed, standing):
            save_part(connection, name, data)
        connection.execute(
            table_source.insert().values(
                version=version,
                at=now,
                policy=policy,
                evidence_validity_s=evidence_validity_s,
                federation=packed[0],
                standing=standing[0],
            )
        )

    def _packed(self, federation: Federation) -> tuple[str, bytes]:
        bare = msgspec.structs.replace(federation, keys=())
        if self._federation is None or self._federation[0] != bare:
            self._federation = (bare, *_pack(bare))
        return self._federation[1:]


def _pack(value: msgspec.Struct) -> tuple[str, bytes]:
    data = msgspec.msgpack.encode(value)
    return hashlib.sha256(data).hexdigest(), zlib.compress(data, level=1)


def find_source(connection: sa.Connection, version: int) -> Source:
    """The sources of this table version; SourceMissing when they are not there."""
    row = connection.execute(table_source.select().where(table_source.c.version == version)).first()
    if row is None:
        raise SourceMissing(
            f"what route table {version} was compiled from is not there",
            hint=f"sources are kept for {KEEP_S / 86400:.0f} days after a table was made",
        )
    found = parts(connection, (row.federation, row.standing))
    standing = msgspec.msgpack.decode(zlib.decompress(found[row.standing]), type=_Standing)
    return Source(
        version=version,
        at=row.at,
        policy=row.policy,
        evidence_validity_s=row.evidence_validity_s,
        federation=msgspec.msgpack.decode(zlib.decompress(found[row.federation]), type=Federation),
        evidence=standing.evidence,
        suspended=frozenset(standing.suspended),
    )


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay needs of a decision record."""

    id: str
    at: float
    table: int
    policy: str
    tenant: str
    data_class: str
    model: str
    endpoint: str
    code: str
    rules: tuple[str, ...]


Outcome = Literal["same", "different", "not-residency"]


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome`: `same` when deciding again gives what the record says; `not-residency` when the record's refusal has
    another cause (a limit, a missing endpoint …), which the explanation can't confirm."""

    decision: str
    table: int
    policy: str
    outcome: Outcome
    differences: tuple[str, ...]
    explanation: Explanation


RESIDENCY_CODES = frozenset({"residency.no_eligible_endpoint", "residency.evidence_expired", "model.not_found"})


def replay(connection: sa.Connection, passage: Passage) -> Replay:
    """Decides an old passage again, with the rules and the facts of its route table.

    Raises SourceMissing when those are not there any more.
    """
    source = find_source(connection, passage.table)
    found = find_version(connection, passage.policy)
    if found is None or source.policy != passage.policy:
        raise SourceMissing(
            f"the policy {passage.policy[:12]} of decision {passage.id} is not there",
            hint="was the record written by another installation?",
        )
    bundle, jurisdiction = found
    return decide_again(source, CedarPolicy(bundle, jurisdiction=jurisdiction), passage)


def decide_again(source: Source, policy: CedarPolicy, passage: Passage) -> Replay:
    """The same from values. Pure. Raises SourceMissing when the source has no such tenant."""
    data_class = DataClass.parse(passage.data_class)
    if data_class is None:
        raise SourceMissing(
            f"decision {passage.id} has no data class: it was refused before one counted",
            hint="nothing of it follows from a policy",
        )
    told = explain(
        source.federation,
        policy,
        tenant=passage.tenant,
        data_class=data_class,
        model=passage.model,
        evidence=source.evidence,
        issued_at=source.at,
        now=passage.at,
        evidence_validity_s=source.evidence_validity_s,
        suspended=source.suspended,
    )
    if told is None:
        raise SourceMissing(
            f"the federation of route table {passage.table} has no tenant {passage.tenant!r}",
            hint="was the record written by another installation?",
        )
    outcome, differences = _compared(passage, told)
    return Replay(
        decision=passage.id,
        table=passage.table,
        policy=passage.policy,
        outcome=outcome,
        differences=differences,
        explanation=told,
    )


def _compared(passage: Passage, told: Explanation) -> tuple[Outcome, tuple[str, ...]]:
    differences: list[str] = []
    if passage.code in RESIDENCY_CODES:
        if told.code != passage.code:
            differences.append(f"code: the record says {passage.code}, again it is {told.code or 'allowed'}")
    elif told.code:
        differences.append(f"code: the record says {passage.code or 'allowed'}, again it is {told.code}")
    serving = {row.endpoint for row in told.endpoints if isinstance(row.verdict, Allowed)}
    if passage.endpoint and passage.endpoint not in serving:
        differences.append(f"endpoint: {passage.endpoint} served, again it may not")
    # A record has the rules of the refusal's own cause when that is another one.
    comparable = passage.code in ("", "residency.no_eligible_endpoint")
    if comparable and passage.rules and set(passage.rules) != set(told.verdict.rules):
        differences.append(f"rules: the record says {list(passage.rules)}, again it is {list(told.verdict.rules)}")
    if differences:
        return "different", tuple(differences)
    if passage.code and passage.code not in RESIDENCY_CODES and not passage.endpoint:
        return "not-residency", ()
    return "same", ()
