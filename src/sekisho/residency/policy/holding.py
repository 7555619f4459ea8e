"""What is in force of the configuration's facts: kept in the database, so that a restart can't widen them unseen.

The life of a change: (1) a configuration is read, at the start or by a reload; (2) its facts are compared with those
in force; (3) what lets guarded work reach no more is in force at once, the rest waits and everybody is told; (4) an
administrator approves it by its digest, which is what the comparison was made of.
"""

from __future__ import annotations

import logging

import msgspec
import sqlalchemy as sa

from sekisho.federation.model import Federation
from sekisho.kernel.errors import SekishoError
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.hold import Facts, Held, apply, digest, facts_in, hold
from sekisho.residency.policy.store import find_bundle, in_force
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database, metadata

_log = logging.getLogger(__name__)
CONFIGURATION = "configuration"

# One row. `approved`: the digest of the facts that somebody approved; `told`: of those that were last found waiting.
configuration_in_force = sa.Table(
    "configuration_in_force",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("approved", sa.String(64), nullable=False),
    sa.Column("told", sa.String(64), nullable=False),
)


class HoldRefused(SekishoError):
    """An approval of something that does not wait."""

    code = "config.not_waiting"


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What of the configuration is not in force yet. `wanted`: the digest to approve; `since` in Unix seconds."""

    wanted: str
    since: float
    held: tuple[Held, ...]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force of a configuration."""

    federation: Federation
    jurisdiction: str


class ConfigurationHold:
    """One for each control plane. Blocking."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: Waiting | None = None

    @property
    def waiting(self) -> Waiting | None:
        return self._waiting

    def take(self, federation: Federation, jurisdiction: str, *, now: float) -> Taken:
        """What holds of it now; the first configuration of an installation holds as it is."""
        wanted = facts_in(federation, jurisdiction=jurisdiction)
        name = digest(wanted)
        with self._database.write() as connection:
            row = connection.execute(configuration_in_force.select()).first()
            if row is None:
                self._waiting = None
                _save(connection, first=True, at=now, facts=wanted, approved="", told="")
                return Taken(federation=federation, jurisdiction=jurisdiction)
            before = msgspec.json.decode(row.facts, type=Facts)
            if name in (digest(before), row.approved):
                self._waiting = None
                if before != wanted:
                    _save(connection, at=now, facts=wanted, approved="", told="")
                return Taken(federation=federation, jurisdiction=jurisdiction)
            policy = _policy(connection, before.jurisdiction)
            if policy is None:  # no table was ever made, so nothing was ever in force
                self._waiting = None
                _save(connection, at=now, facts=wanted, approved="", told="")
                return Taken(federation=federation, jurisdiction=jurisdiction)
            judged = hold(before, wanted, policy)
            told = name if judged.held else ""
            since = row.at if row.told == name else now
            _save(connection, at=since, facts=judged.in_force, approved="", told=told)
            if judged.held and row.told != name:
                record_change(
                    connection,
                    now=now,
                    actor=CONFIGURATION,
                    action="config.waits",
                    subject="config",
                    detail={
                        "wanted": name,
                        **{f"{each.kind}/{each.id}": ", ".join(each.classes) for each in judged.held},
                    },
                )
        self._waiting = Waiting(wanted=name, since=since, held=judged.held) if judged.held else None
        if self._waiting is not None:
            _log.warning("%s", in_words(self._waiting))
        return Taken(federation=apply(federation, judged.in_force), jurisdiction=judged.in_force.jurisdiction)

    def approve(self, wanted: str, *, actor: str, now: float) -> Waiting:
        """Lets what waits be in force, from the next `take` on. Raises HoldRefused when something else waits."""
        found = self._waiting
        if found is None or found.wanted != wanted:
            raise HoldRefused(
                "no configuration with this digest waits", hint="`sekisho config waiting` shows what waits now"
            )
        with self._database.write() as connection:
            connection.execute(configuration_in_force.update().values(approved=wanted))
            record_change(
                connection,
                now=now,
                actor=actor,
                action="config.approved",
                subject="config",
                detail={
                    "wanted": wanted,
                    **{f"{each.kind}/{each.id}": ", ".join(each.classes) for each in found.held},
                },
            )
        return found


def in_words(waiting: Waiting) -> str:
    """One sentence for logs and faults."""
    what = "; ".join(
        f"{each.kind} {each.id} ({', '.join(each.classes)}{': out until then' if each.closed else ''})"
        for each in waiting.held
    )
    return f"the configuration would let guarded work reach more and waits for an administrator: {what}"


def _detail(wanted: str, held: tuple[Held, ...]) -> dict[str, str]:
    return {"wanted": wanted, **{f"{each.kind}/{each.id}": ", ".join(each.classes) for each in held}}


def _policy(connection: sa.Connection, jurisdiction: str) -> CedarPolicy | None:
    state = in_force(connection)
    bundle = None if state is None else find_bundle(connection, state[0])
    return None if bundle is None else CedarPolicy(bundle, jurisdiction=jurisdiction)


def _save(
    connection: sa.Connection, *, at: float, facts: Facts, approved: str, told: str, first: bool = False
) -> None:
    values = {"at": at, "facts": msgspec.json.encode(facts).decode(), "approved": approved, "told": told}
    if first:
        connection.execute(configuration_in_force.insert().values(id=1, **values))
    else:
        connection.execute(configuration_in_force.update().values(**values))
