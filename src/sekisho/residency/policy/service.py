"""Policies change here: proposed, approved by a second person where guarded work would get more, put in force.

The life of a change: (1) files are proposed, by a person or by the configuration; (2) the difference to the policy
in force is computed; (3) what gives guarded work nothing more is in force at once; (4) anything else waits until
somebody other than its proposer approves it; (5) it is put in force, if it is still the same change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import sqlalchemy as sa

from sekisho.kernel.errors import SekishoError
from sekisho.ledger import outbox
from sekisho.residency.policy.bundle import Bundle, bundle_of
from sekisho.residency.policy.change import Difference, Standing, difference
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.store import (
    find_bundle,
    in_force,
    policy_proposal,
    policy_version,
    put_in_force,
    save_version,
)
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

_log = logging.getLogger(__name__)
CONFIGURATION = "configuration"
APPLIED = "policy.applied"
State = Literal["waiting", "approved", "applied", "withdrawn"]


class ProposalRefused(SekishoError):
    """A step that a proposal can't take in its present state, or that this person may not take."""

    code = "policy.proposal"


class ProposalUnknown(SekishoError):
    """There is no such proposal or policy version."""

    code = "policy.unknown"


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Times in Unix seconds. `widens`: guarded work could reach more, so a second person must approve."""

    id: int
    bundle: str
    base: str
    at: float
    actor: str
    note: str
    state: State
    widens: bool
    difference: Difference
    approved_by: str = ""
    approved_at: float | None = None
    closed_by: str = ""
    closed_at: float | None = None


class PolicyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """`hash` is what decisions name; `bundle` names the files alone."""

    hash: str
    bundle: str
    jurisdiction: str
    at: float
    in_force: bool


class PolicyService:
    """`standing` gives what holds now, `jurisdiction` that part of it alone (it is asked often), `created_at` when an
    administrator's account was made (None: from the start).

    Blocking. One for each control plane: it keeps the policy in force with all its answers.
    """

    def __init__(
        self,
        database: Database,
        *,
        standing: Callable[[], Standing],
        jurisdiction: Callable[[], str],
        created_at: Callable[[str], float | None],
    ) -> None:
        self._database = database
        self._standing = standing
        self._jurisdiction = jurisdiction
        self._created_at = created_at
        self._current: CedarPolicy | None = None

    # -- what is in force

    def current(self) -> CedarPolicy:
        """The policy in force, for the jurisdiction that is configured now. `adopt` comes before."""
        jurisdiction = self._jurisdiction()
        kept = self._current
        if kept is not None and kept.jurisdiction == jurisdiction:
            return kept
        with self._database.read() as connection:
            state = in_force(connection)
            bundle = None if state is None else find_bundle(connection, state[0])
        if bundle is None:
            raise ProposalUnknown("no policy is in force yet", hint="look at logs/control.log")
        self._current = CedarPolicy(bundle, jurisdiction=jurisdiction)
        return self._current

    def adopt(self, configured: Bundle, *, now: float) -> Proposal | None:
        """The configuration's files: in force when nothing was yet, else a proposal once they have changed.

        Returns that proposal. Raises PolicyRefused for files with mistakes; what was in force stays.
        """
        with self._database.write() as connection:
            state = in_force(connection)
            if state is not None and state[1] == configured.hash:
                return None
            policy = CedarPolicy(configured, jurisdiction=self._jurisdiction())
            if state is None:
                save_version(
                    connection, policy=policy.hash, bundle=configured, jurisdiction=policy.jurisdiction, now=now
                )
                put_in_force(connection, bundle=configured.hash, configured=configured.hash)
                _applied(connection, policy, now=now, actor=CONFIGURATION)
                self._current = policy
                return None
        made = self._propose(configured, note="the configuration's files changed", actor=CONFIGURATION, now=now)
        with self._database.write() as connection:
            put_in_force(connection, configured=configured.hash)
        return made

    # -- changes

    def examine(self, texts: Mapping[str, str], *, now: float) -> Difference:
        """What these files would change; nothing is kept. Raises PolicyRefused."""
        new = CedarPolicy(bundle_of(texts), jurisdiction=self._standing().jurisdiction)
        return difference(self.current(), new, self._standing(), now=now)

    def propose(self, texts: Mapping[str, str], *, note: str, actor: str, now: float) -> Proposal:
        """Keeps the files; in force at once unless guarded work could reach more. Raises PolicyRefused."""
        return self._propose(bundle_of(texts), note=note, actor=actor, now=now)

    def _propose(self, bundle: Bundle, *, note: str, actor: str, now: float) -> Proposal:
        standing = self._standing()
        current = self.current()
        policy = CedarPolicy(bundle, jurisdiction=standing.jurisdiction)
        told = difference(current, policy, standing, now=now)
        with self._database.write() as connection:
            save_version(connection, policy=policy.hash, bundle=bundle, jurisdiction=policy.jurisdiction, now=now)
            inserted = connection.execute(
                policy_proposal.insert().values(
                    bundle=bundle.hash,
                    base=current.bundle.hash,
                    at=now,
                    actor=actor,
                    note=note,
                    state="waiting",
                    difference=msgspec.json.encode(told).decode(),
                    approved_by="",
                    closed_by="",
                )
            )
            number = int(inserted.inserted_primary_key[0])  # type: ignore[index]
            record_change(
                connection,
                now=now,
                actor=actor,
                action="policy.proposed",
                subject=f"policy/{number}",
                detail={"bundle": bundle.hash, "widens": str(told.widens).lower()},
            )
        if not told.widens:
            return self.apply(number, actor=actor, now=now)
        _log.warning("policy proposal %d waits for a second person: guarded work could reach more", number)
        return self.proposal(number)

    def approve(self, number: int, *, actor: str, now: float) -> Proposal:
        """By somebody other than its proposer, whose account was there when it was proposed."""
        found = self.proposal(number)
        if found.state != "waiting":
            raise ProposalRefused(
                f"proposal {number} is {found.state}, not waiting", hint="`sekisho policy list` shows what waits"
            )
        if found.actor == actor:
            raise ProposalRefused(
                f"proposal {number} was made by {actor}: it needs the approval of another person",
                code="policy.two_persons",
                hint="let another administrator approve it (`sekisho admin add NAME` makes one, before the proposal)",
            )
        since = self._created_at(actor)
        if since is not None and since >= found.at:
            raise ProposalRefused(
                f"the account {actor} is younger than proposal {number}: one person could have made both",
                code="policy.two_persons",
                hint="let an administrator approve it whose account is older, or propose it again",
            )
        with self._database.write() as connection:
            self._move(connection, number, {"waiting"}, state="approved", approved_by=actor, approved_at=now)
            record_change(
                connection, now=now, actor=actor, action="policy.approved", subject=f"policy/{number}", detail={}
            )
        return self.proposal(number)

    def apply(self, number: int, *, actor: str, now: float) -> Proposal:
        """Puts it in force. What widens needs its approval, and that it is still the same change."""
        found = self.proposal(number)
        standing = self._standing()
        current = self.current()
        with self._database.read() as connection:
            bundle = find_bundle(connection, found.bundle)
        if bundle is None:
            raise ProposalUnknown(f"the files of proposal {number} are not there", hint="propose them again")
        policy = CedarPolicy(bundle, jurisdiction=standing.jurisdiction)
        # Asked again: federation, evidence and policy in force may have moved since it was proposed.
        told = difference(current, policy, standing, now=now)
        if told.widens and found.state != "approved":
            raise ProposalRefused(
                f"proposal {number} lets guarded work reach more, and nobody has approved it",
                code="policy.two_persons",
                hint=f"another administrator runs `sekisho policy approve {number}`",
            )
        if told.widens and found.base != current.bundle.hash:
            raise ProposalRefused(
                f"proposal {number} was approved as a change of another policy than the one in force now",
                code="policy.base_changed",
                hint="propose the files again",
            )
        with self._database.write() as connection:
            state = in_force(connection)
            if state is None or state[0] != current.bundle.hash:
                raise ProposalRefused(
                    "another policy was put in force in this moment", code="policy.base_changed", hint="look again"
                )
            self._move(connection, number, {"waiting", "approved"}, state="applied", closed_by=actor, closed_at=now)
            save_version(connection, policy=policy.hash, bundle=bundle, jurisdiction=policy.jurisdiction, now=now)
            put_in_force(connection, bundle=bundle.hash)
            _applied(connection, policy, now=now, actor=actor, proposal=found)
        self._current = policy
        return self.proposal(number)

    def withdraw(self, number: int, *, actor: str, now: float) -> Proposal:
        """Anybody may say no."""
        with self._database.write() as connection:
            self._move(connection, number, {"waiting", "approved"}, state="withdrawn", closed_by=actor, closed_at=now)
            record_change(
                connection, now=now, actor=actor, action="policy.withdrawn", subject=f"policy/{number}", detail={}
            )
        return self.proposal(number)

    def _move(self, connection: sa.Connection, number: int, states: set[str], **values: object) -> None:
        changed = connection.execute(
            policy_proposal.update()
            .where(policy_proposal.c.id == number, policy_proposal.c.state.in_(states))
            .values(**values)
        )
        if changed.rowcount == 0:
            raise ProposalRefused(
                f"proposal {number} is not {' or '.join(sorted(states))} any more",
                hint="`sekisho policy list` shows where it is",
            )

    # -- what there is

    def proposal(self, number: int) -> Proposal:
        with self._database.read() as connection:
            row = connection.execute(policy_proposal.select().where(policy_proposal.c.id == number)).first()
        if row is None:
            raise ProposalUnknown(f"there is no policy proposal {number}", hint="`sekisho policy list` shows them")
        return _proposal(row)

    def proposals(self, *, limit: int = 50) -> list[Proposal]:
        """The newest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                policy_proposal.select().order_by(policy_proposal.c.id.desc()).limit(limit)
            ).all()
        return [_proposal(row) for row in rows]

    def waiting(self) -> list[Proposal]:
        """What needs somebody: proposals that are neither in force nor withdrawn."""
        return [each for each in self.proposals() if each.state in ("waiting", "approved")]

    def versions(self) -> list[PolicyVersion]:
        """Every policy that a decision can name, the newest first."""
        current = self.current().hash
        columns = policy_version.c
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(columns.hash, columns.bundle, columns.jurisdiction, columns.at).order_by(columns.at.desc())
            ).all()
        return [PolicyVersion(**row._mapping, in_force=row.hash == current) for row in rows]

    def files(self, name: str) -> Bundle:
        """The files of the version (or bundle) whose hash begins with `name`, at least 8 digits."""
        if len(name) < 8:
            raise ProposalUnknown("that is too short for a hash", hint="give at least 8 of its digits")
        with self._database.read() as connection:
            columns = policy_version.c
            either = columns.hash.startswith(name, autoescape=True) | columns.bundle.startswith(name, autoescape=True)
            found = set(connection.scalars(sa.select(columns.bundle).where(either)))
            bundle = find_bundle(connection, found.pop()) if len(found) == 1 else None
        if bundle is None:
            raise ProposalUnknown(
                f"there is no policy version {name[:64]!r}", hint="`sekisho policy history` shows them"
            )
        return bundle


def _proposal(row: sa.Row[tuple[object, ...]]) -> Proposal:
    values: dict[str, object] = {str(name): value for name, value in row._mapping.items()}
    told = msgspec.json.decode(str(values.pop("difference")), type=Difference)
    return msgspec.convert(values | {"difference": told, "widens": told.widens}, Proposal)


def _applied(
    connection: sa.Connection, policy: CedarPolicy, *, now: float, actor: str, proposal: Proposal | None = None
) -> None:
    """In the change log, and in the transparency log: from now on this is in force, and who wanted it."""
    hashes = {"policy": policy.hash, "bundle": policy.bundle.hash}
    record_change(
        connection,
        now=now,
        actor=actor,
        action=APPLIED,
        subject="policy" if proposal is None else f"policy/{proposal.id}",
        detail=hashes,
    )
    body: dict[str, object] = {**hashes, "jurisdiction": policy.jurisdiction, "actor": actor}
    if proposal is not None:
        body |= {"proposal": proposal.id, "proposed_by": proposal.actor, "approved_by": proposal.approved_by}
    outbox.append(connection, kind=APPLIED, at_ms=int(now * 1000), body=body)
