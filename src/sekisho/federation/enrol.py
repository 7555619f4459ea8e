"""Enrolment: from an operator's key to an approved site. One transaction a call, the record in the same transaction.

The life of a site: (1) an administrator registers the operator's key and invites a site with a one-time token; (2)
the agent makes its key and hands in key, proof and the declaration that the operator signed; (3) an administrator
compares the key's fingerprint and approves, which pins the key; (4) heart-beats keep its evidence fresh; (5) it is
suspended in one step, or its agent is replaced by another invitation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec
import sqlalchemy as sa

from sekisho.federation import enrolments as sql
from sekisho.federation.countries import is_country
from sekisho.federation.declare import SignedDeclaration, encode_signed, is_signed_by, read_signed
from sekisho.federation.enrolments import Agent, Enrolment, Invitation
from sekisho.federation.errors import Conflict, EnrolmentRefused, UnknownName
from sekisho.federation.model import Endpoint, Federation, Operator
from sekisho.federation.records import Record, append_version, current, history
from sekisho.federation.signing import agent_signed, enrolment_text, parse_operator_key, parse_spki, pin_of_spki
from sekisho.federation.tokens import control_key_of, hash_token
from sekisho.federation.views import NewInvitation, OperatorView
from sekisho.kernel.ids import NAME
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

INVITATION_S = 24 * 3600.0
MAX_INVITATION_S = 30 * 86_400.0
# With a token in hand one may err; not for ever.
MAX_REFUSED = 20


class OperatorKey(msgspec.Struct, frozen=True, kw_only=True):
    """Hex of the Ed25519 key with which an operator signs its declarations."""

    key: str


class EnrolmentService:
    """`federation` gives the configuration as it is now: it wins over records of the same id."""

    def __init__(self, database: Database, federation: Callable[[], Federation]) -> None:
        self._database = database
        self._federation = federation

    # -- operators

    def operators(self) -> list[OperatorView]:
        with self._database.read() as connection:
            made = stored_operators(connection)
            keys = operator_keys(connection)
        declared = self._federation().operators
        views = [_operator_view(each, "configuration", keys) for each in declared]
        known = {each.id for each in declared}
        return views + [_operator_view(each, "enrolment", keys) for each in made.values() if each.id not in known]

    def add_operator(self, operator: Operator, *, now: float, actor: str) -> None:
        for code in (operator.country, operator.law):
            if not is_country(code):
                raise EnrolmentRefused(
                    f"{code!r} is no country code", code="enrol.country", hint="use ISO 3166-1, as in JP, US or GB"
                )
        if operator.id in {each.id for each in self._federation().operators}:
            raise Conflict(
                f"the configuration has an operator {operator.id!r}",
                hint="change it there, and reload the configuration",
            )
        with self._database.write() as connection:
            if append_version(connection, kind="operator", id=operator.id, body=operator, now=now, actor=actor):
                record_change(
                    connection,
                    now=now,
                    actor=actor,
                    action="operator.recorded",
                    subject=f"operator/{operator.id}",
                    detail={"country": operator.country, "law": operator.law},
                )

    def set_operator_key(self, operator: str, key: str, *, now: float, actor: str) -> bool:
        """False when it was this key before. Sites that are approved stay so; later declarations need the new key."""
        if parse_operator_key(key) is None:
            raise EnrolmentRefused(
                "that is no operator key (64 lower-case hex digits)",
                code="enrol.operator_key",
                hint="make one with `sekisho operator key new` and send its public half",
            )
        with self._database.write() as connection:
            self._operator(connection, operator)
            body = OperatorKey(key=key)
            changed = append_version(connection, kind="operator-key", id=operator, body=body, now=now, actor=actor)
            if changed:
                record_change(
                    connection,
                    now=now,
                    actor=actor,
                    action="operator.key_set",
                    subject=f"operator/{operator}",
                    detail={"key": key},
                )
        return changed

    # -- invitations

    def invite(
        self, *, operator: str, site: str, token: str, expires_in_s: float, replace: bool, now: float, actor: str
    ) -> NewInvitation:
        """`token`: `new_token(…)`, fresh. `replace`: for a site whose agent lost its key."""
        if not NAME.fullmatch(site):
            raise EnrolmentRefused(
                f"{site!r} is no site id",
                code="enrol.site_id",
                hint="use a-z, 0-9, `.`, `_`, `-`, up to 64 characters",
            )
        if not 0 < expires_in_s <= MAX_INVITATION_S:
            raise EnrolmentRefused(
                "an invitation holds for more than no time and at most 30 days",
                code="enrol.expiry",
                hint="leave `expires_in_s` out for a day",
            )
        sha256 = hash_token(token)
        made = Invitation(
            id=sha256[:12],
            sha256=sha256,
            operator=operator,
            site=site,
            replace=replace,
            created_at=now,
            created_by=actor,
            expires_at=now + expires_in_s,
            used_at=None,
            refused=0,
        )
        with self._database.write() as connection:
            self._operator(connection, operator)
            if operator not in operator_keys(connection):
                raise EnrolmentRefused(
                    f"no key of operator {operator!r} is known, so nobody could check its declaration",
                    code="enrol.operator_key_unknown",
                    hint=f"`sekisho operator trust {operator} KEY` first",
                )
            self._free(connection, site, replace=replace)
            sql.withdraw_invitations(connection, site, now=now)
            sql.insert_invitation(connection, made)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="site.invited",
                subject=f"site/{site}",
                detail={"operator": operator, "invitation": made.id, "replace": str(replace).lower()},
            )
        return NewInvitation(id=made.id, operator=operator, site=site, token=token, expires_at=made.expires_at)

    def invitations(self, *, now: float) -> list[Invitation]:
        """Those that can still be used."""
        with self._database.read() as connection:
            return sql.open_invitations(connection, now=now)

    # -- handing in

    def enrol(self, *, token: str, spki: str, proof: bytes, declaration: bytes, now: float) -> Enrolment:
        """What an agent hands in with its token; `declaration` is a SignedDeclaration in JSON. It waits for
        approval."""
        if control_key_of(token) is None:
            raise EnrolmentRefused(
                "that is no invitation's token", code="enrol.token_unknown", hint="ask who runs the control plane"
            )
        signed = read_signed(declaration)
        refused: EnrolmentRefused | None = None
        with self._database.write() as connection:
            invitation = sql.find_invitation(connection, hash_token(token))
            if invitation is None:
                raise EnrolmentRefused(
                    "nobody was invited with this token",
                    code="enrol.token_unknown",
                    hint="ask for another invitation",
                )
            try:
                return self._hand_in(connection, invitation, signed, token=token, spki=spki, proof=proof, now=now)
            except (EnrolmentRefused, Conflict) as error:
                refused = EnrolmentRefused(error.fact, code=error.code, hint=error.hint)
                if invitation.refused < MAX_REFUSED:
                    sql.count_refusal(connection, invitation.id)
                    record_change(
                        connection,
                        now=now,
                        actor=f"site/{invitation.site}"[:64],
                        action="site.enrolment_refused",
                        subject=f"site/{invitation.site}",
                        detail={"code": error.code, "invitation": invitation.id},
                    )
        raise refused

    def _hand_in(
        self,
        connection: sa.Connection,
        invitation: Invitation,
        signed: SignedDeclaration,
        *,
        token: str,
        spki: str,
        proof: bytes,
        now: float,
    ) -> Enrolment:
        site, declared = invitation.site, signed.declaration
        if invitation.used_at is not None:
            raise EnrolmentRefused(
                "this token was used before",
                code="enrol.token_used",
                hint="if it was not you who used it, have that enrolment rejected and ask for another invitation",
            )
        if invitation.expires_at <= now:
            raise EnrolmentRefused(
                "this token has run out", code="enrol.token_expired", hint="ask for another invitation"
            )
        if invitation.refused >= MAX_REFUSED:
            raise EnrolmentRefused(
                f"this token was refused {MAX_REFUSED} times and is closed",
                code="enrol.token_closed",
                hint="ask for another invitation",
            )
        if (declared.site, declared.operator) != (site, invitation.operator):
            raise EnrolmentRefused(
                f"the declaration is about {declared.site} of {declared.operator}; "
                f"{site} of {invitation.operator} was invited",
                code="enrol.other_site",
                hint="declare the site that was invited",
            )
        key = parse_spki(spki)
        if key is None or not agent_signed(
            key, proof, enrolment_text(token=token, spki=spki, declaration=declared.canonical())
        ):
            raise EnrolmentRefused(
                "the agent's key is no P-256 key, or did not sign this token and this declaration",
                code="enrol.proof",
                hint="run `sekisho site enrol` again; it makes the key and the proof",
            )
        trusted = operator_keys(connection).get(invitation.operator, "")
        operator_key = parse_operator_key(trusted)
        if operator_key is None or signed.operator_key != trusted or not is_signed_by(signed, operator_key):
            raise EnrolmentRefused(
                f"the declaration is not signed by operator {invitation.operator}, or was changed since",
                code="enrol.signature",
                hint="`sekisho site declare` signs it with the operator's key",
            )
        if declared.valid_until <= now:
            raise EnrolmentRefused(
                "the declaration has run out", code="enrol.declaration_expired", hint="sign a new one"
            )
        self._free(connection, site, replace=invitation.replace)
        pin = pin_of_spki(spki)
        if sql.pin_in_use(connection, pin):
            raise EnrolmentRefused(
                "this key was handed in before",
                code="enrol.key_used",
                hint="run `sekisho site enrol` with a new --dir",
            )
        if not sql.use_invitation(connection, invitation.id, now=now):
            raise Conflict("this token was used a moment ago", hint="ask for another invitation")
        made = Enrolment(
            id=hashlib.sha256(f"{invitation.id}\n{pin}".encode()).hexdigest()[:12],
            site=site,
            operator=invitation.operator,
            spki=spki,
            pin=pin,
            declaration=encode_signed(signed).decode(),
            at=now,
            state="waiting",
        )
        sql.insert_enrolment(connection, made)
        record_change(
            connection,
            now=now,
            actor=f"site/{site}"[:64],
            action="site.enrolled",
            subject=f"site/{site}",
            detail={"enrolment": made.id, "pin": pin, "invitation": invitation.id},
        )
        return made

    def _free(self, connection: sa.Connection, site: str, *, replace: bool) -> None:
        """Refuses a site id that is taken."""
        if site in {each.id for each in self._federation().sites}:
            raise EnrolmentRefused(
                f"the configuration has a site {site!r}",
                code="enrol.site_clash",
                hint="choose another id, or take the site out of the configuration first",
            )
        if sql.enrolments(connection, site=site, state="waiting"):
            raise EnrolmentRefused(
                f"an enrolment of {site!r} waits for approval",
                code="enrol.second",
                hint="approve or reject it first",
            )
        there = sql.find_agent(connection, site) is not None
        if there and not replace:
            raise EnrolmentRefused(
                f"site {site!r} is enrolled",
                code="enrol.second",
                hint="its agent changes its key with `sekisho site rotate`; for a lost key, invite with --replace",
            )

    # -- deciding

    def approve(self, site: str, *, pin: str | None, now: float, actor: str) -> Enrolment:
        """Pins the key of the enrolment that waits. `pin`: the fingerprint that the agent showed, compared when
        given."""
        with self._database.write() as connection:
            waiting = self._waiting(connection, site)
            if pin is not None and pin != waiting.pin:
                raise Conflict(
                    f"the key that waits for {site} has the fingerprint {waiting.pin}, not the one given",
                    hint="somebody else may have used the token: reject it and invite again",
                )
            signed = read_signed(waiting.declaration.encode())
            if signed.declaration.valid_until <= now:
                raise Conflict("the declaration ran out while it waited", hint="reject it and ask for a new one")
            if site in {each.id for each in self._federation().sites}:
                raise Conflict(f"the configuration now has a site {site!r}", hint="reject the enrolment")
            replaced = sql.find_agent(connection, site)
            if replaced is not None:
                sql.set_state(connection, replaced.enrolment, old="approved", new="replaced", now=now, actor=actor)
            sql.set_state(connection, waiting.id, old="waiting", new="approved", now=now, actor=actor)
            sql.put_agent(
                connection,
                Agent(
                    site=site,
                    enrolment=waiting.id,
                    spki=waiting.spki,
                    pin=waiting.pin,
                    counter=0,
                    since=now,
                    heard_at=None,
                    report="",
                ),
            )
            append_version(connection, kind="site", id=site, body=signed.declaration, now=now, actor=actor)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="site.approved",
                subject=f"site/{site}",
                detail={"enrolment": waiting.id, "pin": waiting.pin},
            )
        return msgspec.structs.replace(waiting, state="approved", decided_at=now, decided_by=actor)

    def reject(self, site: str, *, now: float, actor: str) -> Enrolment:
        with self._database.write() as connection:
            waiting = self._waiting(connection, site)
            sql.set_state(connection, waiting.id, old="waiting", new="rejected", now=now, actor=actor)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="site.rejected",
                subject=f"site/{site}",
                detail={"enrolment": waiting.id, "pin": waiting.pin},
            )
        return msgspec.structs.replace(waiting, state="rejected", decided_at=now, decided_by=actor)

    def retire(self, site: str, *, now: float, actor: str) -> Enrolment:
        """Ends an enrolled site: its agent is nobody any more, its endpoints and its declaration are records of the
        past. It may be invited again."""
        with self._database.write() as connection:
            agent = sql.find_agent(connection, site)
            if agent is None:
                raise UnknownName(
                    f"no agent of {site!r} is enrolled",
                    hint="`sekisho site list` names them; a configured site is taken out of the configuration",
                )
            found = next(each for each in sql.enrolments(connection, site=site) if each.id == agent.enrolment)
            sql.set_state(connection, found.id, old="approved", new="retired", now=now, actor=actor)
            sql.remove_agent(connection, site)
            for name, record in current(connection, "endpoint").items():
                endpoint = msgspec.json.decode(record.body, type=Endpoint)
                if endpoint.site == site:
                    append_version(
                        connection, kind="endpoint", id=name, body=endpoint, now=now, actor=actor, retired=True
                    )
            declared = read_signed(found.declaration.encode()).declaration
            append_version(connection, kind="site", id=site, body=declared, now=now, actor=actor, retired=True)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="site.retired",
                subject=f"site/{site}",
                detail={"enrolment": found.id, "pin": agent.pin},
            )
        return msgspec.structs.replace(found, state="retired", decided_at=now, decided_by=actor)

    def waiting(self) -> list[Enrolment]:
        """What an administrator has to decide, the newest first."""
        with self._database.read() as connection:
            return sql.enrolments(connection, state="waiting")

    def enrolments(self, site: str) -> list[Enrolment]:
        """Everything that was ever handed in for a site, the newest first."""
        with self._database.read() as connection:
            return sql.enrolments(connection, site=site)

    def versions(self, site: str) -> list[Record]:
        """What was declared of a site, the newest first: who approved it, and when."""
        with self._database.read() as connection:
            return history(connection, "site", site)

    def _waiting(self, connection: sa.Connection, site: str) -> Enrolment:
        found = sql.enrolments(connection, site=site, state="waiting")
        if not found:
            raise UnknownName(
                f"no enrolment of {site!r} waits for a decision", hint="`sekisho site list` says what waits"
            )
        return found[0]

    def _operator(self, connection: sa.Connection, operator: str) -> None:
        known = {each.id for each in self._federation().operators} | set(stored_operators(connection))
        if operator not in known:
            raise UnknownName(f"there is no operator {operator!r}", hint="`sekisho operator list` names them")


def stored_operators(connection: sa.Connection) -> dict[str, Operator]:
    records = current(connection, "operator")
    return {record.id: msgspec.json.decode(record.body, type=Operator) for record in records.values()}


def operator_keys(connection: sa.Connection) -> dict[str, str]:
    records = current(connection, "operator-key")
    return {record.id: msgspec.json.decode(record.body, type=OperatorKey).key for record in records.values()}


def _operator_view(operator: Operator, source: str, keys: Mapping[str, str]) -> OperatorView:
    return OperatorView(
        id=operator.id,
        name=operator.name,
        country=operator.country,
        law=operator.law,
        source=source,
        key=keys.get(operator.id, ""),
    )
