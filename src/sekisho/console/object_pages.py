"""The pages of a decision, a site and an endpoint, and the change that an endpoint's page can make."""

from __future__ import annotations

import asyncio
from typing import Annotated

from litestar import Response, get, post
from litestar.params import PathParameter

from sekisho.console.api import explanation, set_suspended
from sekisho.console.evidence import standing_of
from sekisho.console.facts import Facts, gather
from sekisho.console.gateway import current_matrix, matrix_rows, site_suspension, suspension
from sekisho.console.http import frame_of, left_cookie, page, query_of, redirect, signed_in
from sekisho.console.inject import Asked, Form, TheActor, TheControl, TheSessions
from sekisho.console.objects import (
    SITE_TABS,
    ClassVerdict,
    DecisionView,
    EndpointView,
    SiteView,
    curl,
    parse_tab,
    pretty,
    why_command,
)
from sekisho.console.sign_in import require_form
from sekisho.federation.errors import UnknownName
from sekisho.federation.store import suspended_endpoints
from sekisho.kernel.errors import SekishoError
from sekisho.kernel.jurisdictions import PREFECTURES
from sekisho.ledger.store import PassageFilter, PassageRow, find_passage, list_passages
from sekisho.residency.evidence_store import Evidence, evidence_of
from sekisho.residency.model import Allowed
from sekisho.runtime.changes import Change, changes

_EVENTS = 25
Id = Annotated[str, PathParameter(max_length=64)]


@get("/passages/{decision_id:str}", include_in_schema=False)
async def decision_page(
    request: Asked, control: TheControl, sessions: TheSessions, decision_id: Id
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")

    def find() -> DecisionView:
        with control.database.read() as connection:
            found = find_passage(connection, decision_id)
        if found is None:
            raise UnknownName(
                f"there is no decision {decision_id}",
                hint="the database keeps the last 200,000; the journals keep all",
            )
        decision = found.decision
        now_says = None
        if decision.tenant and decision.data_class and decision.model:
            try:
                now_says = explanation(
                    control, tenant=decision.tenant, data_class=decision.data_class, model=decision.model
                )
            except SekishoError:
                now_says = None  # the tenant is gone: the page says so
        state = control.table()
        commands = [curl(str(request.base_url), f"/api/v1/passages/{decision_id}")]
        if now_says:
            commands.append(why_command(decision.tenant, decision.data_class, decision.model))
        return DecisionView(
            tab=parse_tab(query_of(request).get("tab", "")),
            path=f"/passages/{decision_id}",
            raw=pretty(decision),
            commands=tuple(commands),
            decision=decision,
            worker=found.worker,
            now_says=now_says,
            there=state is not None and decision.site in {site.id for site in state.federation.sites},
        )

    return page(await asyncio.to_thread(find), frame, cookies=[left_cookie(request)])


@get("/sites/{site_id:str}", include_in_schema=False)
async def site_page(request: Asked, control: TheControl, sessions: TheSessions, site_id: Id) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="now")
    facts = await gather(control)
    live = facts.site(site_id)
    if live is None:
        raise UnknownName(f"there is no site {site_id!r}", hint="the screen Now lists the sites")
    subjects = (f"site/{site_id}", *(f"endpoint/{each.endpoint.id}" for each in live.endpoints))
    done, passed = await asyncio.to_thread(_events, control, subjects, PassageFilter(site=site_id))
    history, alone = await asyncio.to_thread(_site_records, control, site_id)
    standing = standing_of(facts, live)
    prefecture = next((each for each in PREFECTURES if each.code == live.site.prefecture), None)
    view = SiteView(
        tab=parse_tab(query_of(request).get("tab", ""), SITE_TABS),
        path=f"/sites/{site_id}",
        raw=pretty({"site": live.site, "operator": live.operator, "endpoints": [e.endpoint for e in live.endpoints]}),
        commands=(
            curl(str(request.base_url), f"/api/v1/sites/{site_id}"),
            f"sekisho site show {site_id}",
            f"sekisho site {'resume' if standing.suspended else 'suspend'} {site_id}",
        ),
        live=live,
        standing=standing,
        history=history,
        consequences=()
        if facts.state is None
        else site_suspension(facts.state, site_id, suspended=not standing.suspended, alone=alone, now=facts.now),
        prefecture=(prefecture.ja if frame.language == "ja" else prefecture.en) if prefecture else "",
        verdicts=tuple(
            ClassVerdict(data_class=row.data_class, cell=cell)
            for row in await asyncio.to_thread(matrix_rows, facts)
            for cell in row.cells
            if cell.site == site_id
        ),
        changes=done,
        passages=passed,
    )
    return page(view, frame, cookies=[left_cookie(request)])


@get("/endpoints/{endpoint_id:str}", include_in_schema=False)
async def endpoint_page(
    request: Asked, control: TheControl, sessions: TheSessions, endpoint_id: Id
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="now")
    facts = await gather(control)
    done, passed = await asyncio.to_thread(
        _events, control, (f"endpoint/{endpoint_id}",), PassageFilter(endpoint=endpoint_id)
    )
    view = _endpoint_view(request, facts, endpoint_id, done, passed)
    return page(view, frame, cookies=[left_cookie(request)])


@post("/endpoints/{endpoint_id:str}/suspend", include_in_schema=False)
async def suspend_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, endpoint_id: Id, data: Form
) -> Response[bytes]:
    """Then back to the page, which shows what came of it."""
    require_form(data, request, control, sessions)
    await set_suspended(control, endpoint_id, suspended=True, actor=actor)
    return redirect(f"/endpoints/{endpoint_id}")


@post("/endpoints/{endpoint_id:str}/resume", include_in_schema=False)
async def resume_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, endpoint_id: Id, data: Form
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    await set_suspended(control, endpoint_id, suspended=False, actor=actor)
    return redirect(f"/endpoints/{endpoint_id}")


def _endpoint_view(
    request: Asked,
    facts: Facts,
    endpoint_id: str,
    done: tuple[Change, ...],
    passed: tuple[PassageRow, ...],
) -> EndpointView:
    live = facts.endpoint(endpoint_id)
    if live is None or facts.state is None:
        raise UnknownName(f"there is no endpoint {endpoint_id!r}", hint="the screen Now lists the endpoints")
    site = facts.site(live.endpoint.site)
    assert site is not None  # noqa: S101 - facts put every endpoint under its site
    verdicts = []
    for data_class, rows in current_matrix(facts.state, now=facts.now).items():
        for row in rows:
            if row.endpoint == endpoint_id:
                rules = row.verdict.rules if isinstance(row.verdict, Allowed) else ()
                verdicts.append((data_class.label, row.reasons, rules))
    base = str(request.base_url)
    verb = "resume" if live.suspended else "suspend"
    return EndpointView(
        tab=parse_tab(query_of(request).get("tab", "")),
        path=f"/endpoints/{endpoint_id}",
        raw=pretty(live.endpoint),
        commands=(curl(base, "/api/v1/status"), f"sekisho endpoint {verb} {endpoint_id}"),
        live=live,
        site=site,
        verdicts=tuple(verdicts),
        changes=done,
        passages=passed,
        consequences=suspension(facts.state, endpoint_id, now=facts.now),
    )


def _site_records(control: TheControl, site_id: str) -> tuple[tuple[Evidence, ...], frozenset[str]]:
    """Its evidence, and the endpoints that are suspended on their own."""
    with control.database.read() as connection:
        return tuple(evidence_of(connection, site_id, limit=_EVENTS)), suspended_endpoints(connection)


def _events(
    control: TheControl, subjects: tuple[str, ...], wanted: PassageFilter
) -> tuple[tuple[Change, ...], tuple[PassageRow, ...]]:
    with control.database.read() as connection:
        # No subject means all of them to `changes`; here it means none.
        done = tuple(changes(connection, subjects=subjects, limit=_EVENTS)) if subjects else ()
        return done, tuple(list_passages(connection, wanted, limit=_EVENTS))
