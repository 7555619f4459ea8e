"""The API of the federation under /api/v1: operators, sites, enrolment, GPUs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from sekisho.console.api import admin_only
from sekisho.console.inject import TheActor, TheControl
from sekisho.federation.declare import SignedDeclaration
from sekisho.federation.enrol import INVITATION_S, MAX_INVITATION_S, EnrolmentService
from sekisho.federation.errors import UnknownName
from sekisho.federation.model import Operator, Pool
from sekisho.federation.sites import SiteService
from sekisho.federation.tokens import new_token
from sekisho.federation.views import (
    Decided,
    EnrolmentView,
    NewInvitation,
    OperatorView,
    SiteChanged,
    SiteDetail,
    SiteView,
    VersionView,
)
from sekisho.kernel.ids import NAME
from sekisho.runtime.problems import Problem

_NAME = f"^{NAME.pattern}$"
SiteName = Annotated[str, PathParameter(pattern=_NAME)]
_COUNTRY = r"^[A-Z]{2}$"


def _refusals(**why: str) -> dict[int, ResponseSpec]:
    """`s404="…"` → the refusal that a caller must expect, for the OpenAPI document."""
    return {
        int(status[1:]): ResponseSpec(
            Problem, description=text, media_type="application/problem+json", generate_examples=False
        )
        for status, text in why.items()
    }


class OperatorWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern=_NAME)]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    country: Annotated[str, Meta(pattern=_COUNTRY)]
    law: Annotated[str, Meta(pattern=_COUNTRY)]


class KeyOfOperator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hex of the Ed25519 public key (64 digits)."""

    key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class InvitationWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`replace`: the site is enrolled, and its agent has lost its key."""

    operator: Annotated[str, Meta(pattern=_NAME)]
    site: Annotated[str, Meta(pattern=_NAME)]
    expires_in_s: Annotated[float, Meta(gt=0, le=MAX_INVITATION_S)] = INVITATION_S
    replace: bool = False


class Approval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`pin`: the fingerprint that the agent showed on its own machine; compared when it is given."""

    pin: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None


class FederationOffice:
    """What these routes call. `control_key`: hex of the key that signs what agents are told."""

    def __init__(self, *, enrolment: EnrolmentService, sites: SiteService, control_key: Callable[[], str]) -> None:
        self.enrolment = enrolment
        self.sites = sites
        self.control_key = control_key


TheOffice: TypeAlias = NamedDependency[FederationOffice]


@get("/operators", operation_id="operators", summary="Who runs sites", sync_to_thread=True)
def get_operators(office: TheOffice) -> list[OperatorView]:
    return office.enrolment.operators()


@post(
    "/operators",
    operation_id="addOperator",
    summary="Record an operator, or a new version of it",
    status_code=200,
    sync_to_thread=True,
    responses=_refusals(s403="enrol.country: no such country", s409="state.conflict: the configuration has it"),
)
def add_operator(
    control: TheControl, actor: TheActor, office: TheOffice, data: JSONBody[OperatorWanted]
) -> list[OperatorView]:
    operator = Operator(id=data.id, name=data.name, country=data.country, law=data.law)
    office.enrolment.add_operator(operator, now=control.clock.now(), actor=actor)
    return office.enrolment.operators()


@post(
    "/operators/{operator_id:str}/key",
    operation_id="trustOperator",
    summary="The key with which an operator signs its declarations",
    status_code=200,
    sync_to_thread=True,
    responses=_refusals(s403="enrol.operator_key: no Ed25519 key", s404="name.unknown: no such operator"),
)
def set_operator_key(
    control: TheControl, actor: TheActor, office: TheOffice, operator_id: SiteName, data: JSONBody[KeyOfOperator]
) -> list[OperatorView]:
    office.enrolment.set_operator_key(operator_id, data.key, now=control.clock.now(), actor=actor)
    return office.enrolment.operators()


@get("/sites", operation_id="sites", summary="Configured, enrolled and waiting sites", sync_to_thread=True)
def get_sites(control: TheControl, office: TheOffice) -> list[SiteView]:
    return office.sites.views(now=control.clock.now())


@get(
    "/sites/{site_id:str}",
    operation_id="site",
    summary="One site with all that was handed in for it",
    sync_to_thread=True,
    responses=_refusals(s404="name.unknown: no such site"),
)
def get_site(control: TheControl, office: TheOffice, site_id: SiteName) -> SiteDetail:
    found = [view for view in office.sites.views(now=control.clock.now()) if view.id == site_id]
    if not found:
        raise UnknownName(f"there is no site {site_id!r}", hint="GET /api/v1/sites names them")
    return SiteDetail(
        site=found[0],
        enrolments=tuple(
            EnrolmentView(
                id=each.id,
                state=each.state,
                pin=each.pin,
                at=each.at,
                decided_at=each.decided_at,
                decided_by=each.decided_by,
                declaration=msgspec.json.decode(each.declaration, type=SignedDeclaration),
            )
            for each in office.enrolment.enrolments(site_id)
        ),
        versions=tuple(
            VersionView(version=each.version, at=each.at, actor=each.actor)
            for each in office.enrolment.versions(site_id)
        ),
    )


@post(
    "/sites",
    operation_id="inviteSite",
    summary="Invite a site; the answer is the only time that its token is seen",
    sync_to_thread=True,
    responses=_refusals(
        s403="enrol.operator_key_unknown, enrol.site_clash, enrol.second: what is in the way",
        s404="name.unknown: no such operator",
    ),
)
def invite_site(
    control: TheControl, actor: TheActor, office: TheOffice, data: JSONBody[InvitationWanted]
) -> NewInvitation:
    return office.enrolment.invite(
        operator=data.operator,
        site=data.site,
        token=new_token(secrets.token_urlsafe(32), control=office.control_key()),
        expires_in_s=data.expires_in_s,
        replace=data.replace,
        now=control.clock.now(),
        actor=actor,
    )


@post(
    "/sites/{site_id:str}/approve",
    operation_id="approveSite",
    summary="Pin the key of the enrolment that waits",
    status_code=200,
    responses=_refusals(s404="name.unknown: nothing waits", s409="state.conflict: another key, or it ran out"),
)
async def approve_site(
    control: TheControl, actor: TheActor, office: TheOffice, site_id: SiteName, data: JSONBody[Approval]
) -> Decided:
    made = await asyncio.to_thread(
        office.enrolment.approve, site_id, pin=data.pin, now=control.clock.now(), actor=actor
    )
    await control.changed()
    return Decided(site=site_id, state=made.state, pin=made.pin)


@post(
    "/sites/{site_id:str}/reject",
    operation_id="rejectSite",
    summary="Refuse the enrolment that waits; its key stays out",
    status_code=200,
    sync_to_thread=True,
    responses=_refusals(s404="name.unknown: nothing waits"),
)
def reject_site(control: TheControl, actor: TheActor, office: TheOffice, site_id: SiteName) -> Decided:
    made = office.enrolment.reject(site_id, now=control.clock.now(), actor=actor)
    return Decided(site=site_id, state=made.state, pin=made.pin)


@post(
    "/sites/{site_id:str}/retire",
    operation_id="retireSite",
    summary="End an enrolled site for good; its history stays",
    status_code=200,
    responses=_refusals(s404="name.unknown: no agent of it is enrolled"),
)
async def retire_site(control: TheControl, actor: TheActor, office: TheOffice, site_id: SiteName) -> Decided:
    made = await asyncio.to_thread(office.enrolment.retire, site_id, now=control.clock.now(), actor=actor)
    await control.changed()
    return Decided(site=site_id, state=made.state, pin=made.pin)


@post(
    "/sites/{site_id:str}/suspend",
    operation_id="suspendSite",
    summary="Take a site with all its endpoints out of every route",
    status_code=200,
    responses=_refusals(s404="name.unknown: no such site"),
)
async def suspend_site(control: TheControl, actor: TheActor, office: TheOffice, site_id: SiteName) -> SiteChanged:
    return await change_site(control, office, site_id, suspended=True, actor=actor)


@post(
    "/sites/{site_id:str}/resume",
    operation_id="resumeSite",
    summary="Put it back",
    status_code=200,
    responses=_refusals(s404="name.unknown: no such site"),
)
async def resume_site(control: TheControl, actor: TheActor, office: TheOffice, site_id: SiteName) -> SiteChanged:
    return await change_site(control, office, site_id, suspended=False, actor=actor)


async def change_site(
    control: TheControl, office: FederationOffice, site: str, *, suspended: bool, actor: str
) -> SiteChanged:
    """In one step, and in a new route table before the answer."""
    changed = await asyncio.to_thread(
        office.sites.set_suspended, site, suspended, now=control.clock.now(), actor=actor
    )
    if changed:
        await control.changed()
    table = control.publisher.current
    return SiteChanged(site=site, suspended=suspended, changed=changed, table_version=table.version if table else 0)


@get("/pools", operation_id="gpus", summary="GPUs of each site: model and count", sync_to_thread=True)
def get_pools(control: TheControl) -> list[Pool]:
    return list(control.federation.effective(now=control.clock.now()).pools)


def federation_router() -> Router:
    handlers: list[Any] = [
        get_operators,
        add_operator,
        set_operator_key,
        get_sites,
        get_site,
        invite_site,
        approve_site,
        reject_site,
        retire_site,
        suspend_site,
        resume_site,
        get_pools,
    ]
    return Router(
        "/api/v1", route_handlers=handlers, guards=[admin_only], security=[{"admin": []}], tags=["federation"]
    )
