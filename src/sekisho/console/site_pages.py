"""Sites and their evidence on pages: who waits for approval, what stands until when, suspended in one step."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.params import PathParameter

from sekisho.console.evidence import evidence_view
from sekisho.console.facts import gather
from sekisho.console.federation_api import TheOffice, change_site
from sekisho.console.http import frame_of, page, redirect, signed_in
from sekisho.console.inject import Asked, Form, TheActor, TheControl, TheSessions
from sekisho.console.render import View
from sekisho.console.services import Control
from sekisho.console.session import Sessions
from sekisho.console.sign_in import require_form
from sekisho.federation.declare import SignedDeclaration, SiteDeclaration
from sekisho.federation.enrolments import Enrolment, Invitation
from sekisho.federation.errors import Conflict, UnknownName
from sekisho.federation.views import SiteView
from sekisho.kernel.jurisdictions import PREFECTURES

Id = Annotated[str, PathParameter(max_length=64)]


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What was handed in for a site. `replaces`: the site has an agent, whose key this one replaces."""

    enrolment: Enrolment
    declared: SiteDeclaration
    operator: str
    prefecture: str
    replaces: str


class SitesView(View, frozen=True, kw_only=True):
    waiting: tuple[Waiting, ...]
    invited: tuple[Invitation, ...]
    sites: tuple[SiteView, ...]
    failed: str
    now: float

    @property
    def template(self) -> str:
        return "sites.html"


@get("/evidence", include_in_schema=False)
async def evidence_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")
    return page(evidence_view(await gather(control)), frame)


@get("/sites", include_in_schema=False)
async def sites_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    return await _sites(request, control, sessions)


@post("/sites/{site_id:str}/approve", include_in_schema=False)
async def approve_site_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, site_id: Id, data: Form
) -> Response[bytes]:
    """`pin` is what the page showed: whoever handed in another key since then is not approved by this click."""
    require_form(data, request, control, sessions)
    try:
        await asyncio.to_thread(
            control.enrolment.approve, site_id, pin=str(data.get("pin", "")), now=control.clock.now(), actor=actor
        )
    except (Conflict, UnknownName) as error:
        return await _sites(request, control, sessions, failed=str(error))
    await control.changed()
    return redirect("/sites")


@post("/sites/{site_id:str}/reject", include_in_schema=False)
async def reject_site_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, site_id: Id, data: Form
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    try:
        await asyncio.to_thread(control.enrolment.reject, site_id, now=control.clock.now(), actor=actor)
    except UnknownName as error:
        return await _sites(request, control, sessions, failed=str(error))
    return redirect("/sites")


@post("/sites/{site_id:str}/suspend", include_in_schema=False)
async def suspend_site_form(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    office: TheOffice,
    actor: TheActor,
    site_id: Id,
    data: Form,
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    await change_site(control, office, site_id, suspended=True, actor=actor)
    return redirect(f"/sites/{site_id}")


@post("/sites/{site_id:str}/resume", include_in_schema=False)
async def resume_site_form(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    office: TheOffice,
    actor: TheActor,
    site_id: Id,
    data: Form,
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    await change_site(control, office, site_id, suspended=False, actor=actor)
    return redirect(f"/sites/{site_id}")


async def _sites(request: Asked, control: Control, sessions: Sessions, *, failed: str = "") -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")

    def view() -> SitesView:
        listed = control.sites.views(now=frame.now)
        pins = {each.id: each.pin for each in listed if each.state != "waiting"}
        names = {each.id: each.name for each in control.enrolment.operators()}
        prefectures = {each.code: each.ja if frame.language == "ja" else each.en for each in PREFECTURES}
        waiting = []
        for enrolment in control.enrolment.waiting():
            declared = msgspec.json.decode(enrolment.declaration, type=SignedDeclaration).declaration
            waiting.append(
                Waiting(
                    enrolment=enrolment,
                    declared=declared,
                    operator=names.get(enrolment.operator, enrolment.operator),
                    prefecture=prefectures.get(declared.prefecture or 0, ""),
                    replaces=pins.get(enrolment.site, ""),
                )
            )
        return SitesView(
            waiting=tuple(waiting),
            invited=tuple(control.enrolment.invitations(now=frame.now)),
            sites=tuple(each for each in listed if each.state != "waiting"),
            failed=failed,
            now=frame.now,
        )

    return page(await asyncio.to_thread(view), frame, status=409 if failed else 200)
