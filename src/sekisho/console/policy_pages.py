"""Policies on pages: read, edited, compared, proposed; approved by a second person, put in force, withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from litestar import Response, get, post
from litestar.params import PathParameter

from sekisho.console.http import frame_of, page, query_of, redirect, signed_in
from sekisho.console.inject import Asked, Form, TheActor, TheControl, TheSessions
from sekisho.console.policies import (
    SHOWN_VERSIONS,
    Edited,
    EditView,
    PoliciesView,
    RuleFilter,
    card_of,
    edit_view,
    rule_groups,
)
from sekisho.console.policy_api import MAX_POLICY_BYTES
from sekisho.console.services import Control
from sekisho.console.session import Sessions
from sekisho.console.sign_in import require_form
from sekisho.residency.policy.bundle import PolicyRefused, bundle_of
from sekisho.residency.policy.read import examine
from sekisho.residency.policy.service import Proposal, ProposalRefused, ProposalUnknown

# A form writes a Japanese character of 3 bytes in 9 (`%E3%81%82`).
MAX_FORM_BYTES = 3 * MAX_POLICY_BYTES
Number = Annotated[int, PathParameter(ge=1, le=1 << 31)]


@get("/policies", include_in_schema=False)
async def policies_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    return await _policies(request, control, sessions)


@get("/policies/edit", include_in_schema=False)
async def edit_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    """The files in force, or (`from`) those of an older version."""
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")
    wanted = query_of(request).get("from", "")

    def view() -> EditView:
        current = control.policies.current().bundle
        bundle = control.policies.files(wanted) if wanted else current
        return edit_view({file.name: file.text for file in bundle.files}, current)

    return page(await asyncio.to_thread(view), frame)


@post("/policies/edit", include_in_schema=False, request_max_body_size=MAX_FORM_BYTES)
async def edit_form(
    request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, data: Form
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    edited = Edited.parse({name: str(text) for name, text in data.items()})
    proposed, view = await asyncio.to_thread(_edited, control, edited, actor)
    if proposed is None:
        frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")
        return page(view, frame, status=422 if view.failed or view.mistakes else 200)
    if proposed.state == "applied":
        await control.changed()
    return redirect(f"/policies?proposal={proposed.id}")


def _edited(control: Control, edited: Edited, actor: str) -> tuple[Proposal | None, EditView]:
    current = control.policies.current().bundle
    mistakes, difference, failed, proposed = None, None, "", None
    try:
        bundle = bundle_of(edited.kept)
        mistakes = examine(bundle)[1]
        if not mistakes and edited.wanted != "check":
            now = control.clock.now()
            if bundle.hash == current.hash:
                raise ProposalRefused("these are the files in force", hint="change something first")
            if edited.wanted == "propose":
                proposed = control.policies.propose(edited.kept, note=edited.note, actor=actor, now=now)
            else:
                difference = control.policies.examine(edited.kept, now=now)
    except (PolicyRefused, ProposalRefused) as error:
        failed = str(error)
    view = edit_view(edited.texts, current, edited=edited, mistakes=mistakes, difference=difference, failed=failed)
    return proposed, view


@post("/policies/proposals/{number:int}/approve", include_in_schema=False)
async def approve_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, number: Number, data: Form
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    return await _step(
        request=request, control=control, sessions=sessions, actor=actor, number=number, step=control.policies.approve
    )


@post("/policies/proposals/{number:int}/apply", include_in_schema=False)
async def apply_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, number: Number, data: Form
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    return await _step(
        request=request, control=control, sessions=sessions, actor=actor, number=number, step=control.policies.apply
    )


@post("/policies/proposals/{number:int}/withdraw", include_in_schema=False)
async def withdraw_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, number: Number, data: Form
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    return await _step(
        request=request,
        control=control,
        sessions=sessions,
        actor=actor,
        number=number,
        step=control.policies.withdraw,
    )


async def _step(
    *,
    request: Asked,
    control: Control,
    sessions: Sessions,
    actor: str,
    number: int,
    step: Callable[..., Proposal],
) -> Response[bytes]:
    """Back to the proposal; a step that is refused shows why, on the same page."""
    try:
        made = await asyncio.to_thread(step, number, actor=actor, now=control.clock.now())
    except (ProposalRefused, PolicyRefused) as error:
        return await _policies(request, control, sessions, failed=str(error), number=number)
    if made.state == "applied":
        await control.changed()
    return redirect(f"/policies?proposal={number}")


async def _policies(
    request: Asked, control: Control, sessions: Sessions, *, failed: str = "", number: int = 0
) -> Response[bytes]:
    session = signed_in(request, control, sessions)
    frame = frame_of(request, control, session, section="gateway")
    query = query_of(request)
    asked = query.get("proposal", "")
    wanted = number or (int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 10 else 0)

    def view() -> PoliciesView:
        t = frame.translator
        policy = control.policies.current()
        chosen = RuleFilter.parse(query, policy.bundle.profiles)
        tenants: dict[str, int] = {}
        state = control.table()
        for tenant in state.federation.tenants if state else ():
            for name in tenant.profiles:
                tenants[name] = tenants.get(name, 0) + 1
        cards = [
            card_of(each, reader=session.name, account_since=lambda name: _since(control, name), t=t)
            for each in control.policies.waiting()
        ]
        shown = next((card for card in cards if card.proposal.id == wanted), None)
        if wanted and shown is None:
            found = _find(control, wanted)
            shown = card_of(found, reader=session.name, account_since=lambda _: None, t=t) if found else None
        return PoliciesView(
            hash=policy.hash,
            jurisdiction=policy.jurisdiction,
            groups=rule_groups(policy, chosen, t, tenants),
            total=len(policy.rules),
            chosen=chosen,
            profiles=policy.bundle.profiles,
            cards=tuple(card for card in cards if card is not shown),
            shown=shown,
            versions=tuple(control.policies.versions()[:SHOWN_VERSIONS]),
            failed=failed,
        )

    return page(await asyncio.to_thread(view), frame, status=409 if failed else 200)


def _since(control: Control, name: str) -> float | None:
    found = control.admins.find(name)
    return found.created_at if found else None


def _find(control: Control, number: int) -> Proposal | None:
    try:
        return control.policies.proposal(number)
    except ProposalUnknown:
        return None
