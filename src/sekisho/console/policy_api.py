"""The API of policies and administrators, under /api/v1."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import Router, delete, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter

from sekisho.console.api import admin_only
from sekisho.console.inject import TheActor, TheControl
from sekisho.federation.errors import UnknownName
from sekisho.kernel.classes import DataClass
from sekisho.ledger.store import find_passage
from sekisho.residency.policy.bundle import PolicyFile
from sekisho.residency.policy.change import Difference
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.holding import Waiting
from sekisho.residency.policy.service import PolicyVersion, Proposal
from sekisho.residency.policy.source import Passage, Replay, replay
from sekisho.runtime.admins import AdminView, NewAdmin

# Twenty times the default files.
MAX_POLICY_BYTES = 1 << 20
_HASH = r"^[0-9a-f]{8,64}$"
_NAME = r"^[A-Za-z0-9._-]{1,64}$"
_DECISION = "^[0-9a-f]{32}$"
# Read as text, so that whoever may not ask is told so first, whatever the path says.
Number = Annotated[str, PathParameter(pattern="^[1-9][0-9]{0,8}$")]


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as people read it; `profile` is empty for those that hold for everybody."""

    id: str
    effect: str
    profile: str
    classes: tuple[str, ...]
    file: str
    line: int
    reason_en: str
    reason_ja: str
    source: str


class PolicyInForce(msgspec.Struct, frozen=True, kw_only=True):
    """`hash` is what decisions name."""

    hash: str
    bundle: str
    jurisdiction: str
    profiles: tuple[str, ...]
    rules: tuple[RuleView, ...]
    waiting: tuple[Proposal, ...]


class PolicyFiles(msgspec.Struct, frozen=True, kw_only=True):
    bundle: str
    files: tuple[PolicyFile, ...]


class PolicyWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All files of the new policy: name → Cedar text."""

    files: dict[str, str]
    note: Annotated[str, msgspec.Meta(max_length=400)] = ""


class ConfigurationApproval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`wanted`: the digest of what waits, so that nothing is approved that changed since somebody looked."""

    wanted: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class ConfigurationWaiting(msgspec.Struct, frozen=True, kw_only=True):
    """What of the configuration is not in force; None: all of it is."""

    waiting: Waiting | None


class AdminWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


@get(
    "/configuration/waiting",
    operation_id="configurationWaiting",
    summary="What of the configuration would let guarded work reach more, and is not in force",
    sync_to_thread=False,
)
def get_waiting(control: TheControl) -> ConfigurationWaiting:
    return ConfigurationWaiting(waiting=control.configuration.waiting)


@post(
    "/configuration/approve",
    operation_id="approveConfiguration",
    summary="Put in force what waits of the configuration",
    status_code=200,
)
async def approve_configuration(
    control: TheControl, actor: TheActor, data: JSONBody[ConfigurationApproval]
) -> ConfigurationWaiting:
    await control.approve_configuration(data.wanted, actor=actor)
    return ConfigurationWaiting(waiting=control.configuration.waiting)


@get("/policies", operation_id="policy", summary="The policy in force, rule by rule", sync_to_thread=True)
def get_policy(control: TheControl) -> PolicyInForce:
    policy = control.policies.current()
    return PolicyInForce(
        hash=policy.hash,
        bundle=policy.bundle.hash,
        jurisdiction=policy.jurisdiction,
        profiles=policy.bundle.profiles,
        rules=rules_of(policy),
        waiting=tuple(control.policies.waiting()),
    )


def rules_of(policy: CedarPolicy) -> tuple[RuleView, ...]:
    return tuple(
        RuleView(
            id=rule.id,
            effect=rule.effect,
            profile=rule.profile,
            classes=tuple(each.label for each in DataClass if each in rule.classes),
            file=rule.file,
            line=rule.line,
            reason_en=rule.reason_en,
            reason_ja=rule.reason_ja,
            source=rule.source,
        )
        for rule in policy.rules
    )


@get("/policies/files", operation_id="policyFiles", summary="The files of a policy", sync_to_thread=True)
def get_files(
    control: TheControl, version: Annotated[str | None, QueryParameter(pattern=_HASH)] = None
) -> PolicyFiles:
    bundle = control.policies.current().bundle if version is None else control.policies.files(version)
    return PolicyFiles(bundle=bundle.hash, files=bundle.files)


@get("/policies/history", operation_id="policyHistory", summary="Every version there was", sync_to_thread=True)
def get_history(control: TheControl) -> list[PolicyVersion]:
    return control.policies.versions()


@post(
    "/policies/examine",
    operation_id="examinePolicy",
    summary="What these files would change; nothing is kept",
    status_code=200,
    request_max_body_size=MAX_POLICY_BYTES,
)
async def examine(control: TheControl, data: JSONBody[PolicyWanted]) -> Difference:
    return await asyncio.to_thread(control.policies.examine, data.files, now=control.clock.now())


@get("/policies/proposals", operation_id="proposals", summary="The newest first", sync_to_thread=True)
def get_proposals(control: TheControl) -> list[Proposal]:
    return control.policies.proposals()


@get("/policies/proposals/{number:str}", operation_id="proposal", summary="One proposal", sync_to_thread=True)
def get_proposal(control: TheControl, number: Number) -> Proposal:
    return control.policies.proposal(int(number))


@post(
    "/policies/proposals",
    operation_id="proposePolicy",
    summary="Propose files; in force at once unless guarded work could reach more",
    request_max_body_size=MAX_POLICY_BYTES,
)
async def propose(control: TheControl, actor: TheActor, data: JSONBody[PolicyWanted]) -> Proposal:
    made = await asyncio.to_thread(
        control.policies.propose, data.files, note=data.note, actor=actor, now=control.clock.now()
    )
    if made.state == "applied":
        await control.changed()
    return made


@post(
    "/policies/proposals/{number:str}/approve",
    operation_id="approvePolicy",
    summary="By another person than its proposer",
    status_code=200,
)
async def approve(control: TheControl, actor: TheActor, number: Number) -> Proposal:
    return await asyncio.to_thread(control.policies.approve, int(number), actor=actor, now=control.clock.now())


@post(
    "/policies/proposals/{number:str}/apply",
    operation_id="applyPolicy",
    summary="Put an approved proposal in force",
    status_code=200,
)
async def apply(control: TheControl, actor: TheActor, number: Number) -> Proposal:
    applied = await asyncio.to_thread(control.policies.apply, int(number), actor=actor, now=control.clock.now())
    await control.changed()
    return applied


@post(
    "/policies/proposals/{number:str}/withdraw",
    operation_id="withdrawPolicy",
    summary="Say no to a proposal",
    status_code=200,
)
async def withdraw(control: TheControl, actor: TheActor, number: Number) -> Proposal:
    return await asyncio.to_thread(control.policies.withdraw, int(number), actor=actor, now=control.clock.now())


@get(
    "/policies/replay/{decision_id:str}",
    operation_id="replay",
    summary="Decide an old passage again, by the rules and facts of its time",
    sync_to_thread=True,
)
def get_replay(control: TheControl, decision_id: Annotated[str, PathParameter(pattern=_DECISION)]) -> Replay:
    with control.database.read() as connection:
        found = find_passage(connection, decision_id)
        if found is None:
            raise UnknownName(
                f"there is no decision {decision_id}",
                hint="older ones may have left the database; the journal has all",
            )
        decision = found.decision
        return replay(
            connection,
            Passage(
                id=decision.id,
                at=decision.at_ms / 1000,
                table=decision.table,
                policy=decision.policy,
                tenant=decision.tenant,
                data_class=decision.data_class,
                model=decision.served_model or decision.model,
                endpoint=decision.endpoint,
                code=decision.code,
                rules=tuple(decision.rules),
            ),
        )


@get("/admins", operation_id="admins", summary="Administrators with a token of their own", sync_to_thread=True)
def get_admins(control: TheControl) -> list[AdminView]:
    return control.admins.all()


@post("/admins", operation_id="addAdmin", summary="Make one; the answer is the only time that the token is seen")
async def add_admin(control: TheControl, actor: TheActor, data: JSONBody[AdminWanted]) -> NewAdmin:
    return await asyncio.to_thread(control.admins.add, data.name, now=control.clock.now(), actor=actor)


@delete("/admins/{name:str}", operation_id="revokeAdmin", summary="End a token and its sessions")
async def revoke_admin(
    control: TheControl, actor: TheActor, name: Annotated[str, PathParameter(pattern=_NAME)]
) -> None:
    await asyncio.to_thread(control.admins.revoke, name, now=control.clock.now(), actor=actor)


def policy_router() -> Router:
    return Router(
        "/api/v1",
        route_handlers=[
            get_waiting,
            approve_configuration,
            get_policy,
            get_files,
            get_history,
            examine,
            get_proposals,
            get_proposal,
            propose,
            approve,
            apply,
            withdraw,
            get_replay,
            get_admins,
            add_admin,
            revoke_admin,
        ],
        guards=[admin_only],
        security=[{"admin": []}],
        tags=["policy"],
    )
