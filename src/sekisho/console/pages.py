"""The screens Now and Gateway."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from litestar import Response, get

from sekisho.console.api import explanation
from sekisho.console.facts import gather
from sekisho.console.gateway import (
    PAGE_ROWS,
    DryRunAsked,
    DryRunView,
    Filters,
    GatewayView,
    PassageList,
    WhyAsked,
    WhyView,
    choices,
    dry_run,
    matrix_rows,
    profile_choices,
)
from sekisho.console.http import (
    SignedOut,
    frame_of,
    left_cookie,
    left_paths,
    page,
    part,
    query_of,
    signed_in,
)
from sekisho.console.i18n import Translator
from sekisho.console.inject import Asked, TheControl, TheSessions
from sekisho.console.now import Left, now_view
from sekisho.console.objects import why_command
from sekisho.console.render import with_query
from sekisho.console.session import COOKIE
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.store import list_passages
from sekisho.residency.model import ANYBODY, TenantFacts


@get("/", include_in_schema=False)
async def now_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="now")
    facts = await gather(control)
    t = frame.translator
    left = tuple(Left(label=left_label(path, t), href=path) for path in left_paths(request))
    return page(now_view(facts, t, left), frame)


@get("/gateway", include_in_schema=False)
async def gateway_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")
    filters = Filters.parse(query_of(request))
    facts, listed = await asyncio.gather(gather(control), asyncio.to_thread(passage_list, control, filters))
    policy = await asyncio.to_thread(control.policies.current)
    profiles = profile_choices(facts.state, policy.bundle.profiles)
    profile = filters.profiles if any(name == filters.profiles for name, _ in profiles) else ""
    tenant = TenantFacts(profiles=tuple(profile.split(","))) if profile else ANYBODY
    view = GatewayView(
        profiles=profiles,
        profile=profile,
        passages=listed,
        sites=facts.sites,
        matrix=await asyncio.to_thread(matrix_rows, facts, tenant),
        choices=choices(facts.state),
        asked=WhyAsked(),
    )
    return page(view, frame, cookies=[left_cookie(request)] if filters.any else [])


@get("/gateway/passages", include_in_schema=False)
async def passages_part(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    """The list alone, for the refresh in place."""
    session = sessions.open(request.cookies.get(COOKIE, ""), now=control.clock.now())
    if session is None:
        raise SignedOut
    listed = await asyncio.to_thread(passage_list, control, Filters.parse(query_of(request)))
    return part(listed.template, listed, frame_of(request, control, session))


@get("/gateway/why", include_in_schema=False)
async def why_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")
    asked = WhyAsked.parse(query_of(request))
    found, failed = None, ""
    if asked.complete:
        try:
            found = await asyncio.to_thread(
                explanation, control, tenant=asked.tenant, data_class=asked.data_class, model=asked.model
            )
        except SekishoError as error:
            failed = str(error)
    view = WhyView(
        choices=choices(control.table()),
        asked=asked,
        found=found,
        failed=failed,
        command=why_command(asked.tenant, asked.data_class, asked.model) if asked.complete else "",
    )
    return page(view, frame, cookies=[left_cookie(request)] if found else [])


@get("/gateway/dry-run", include_in_schema=False)
async def dry_run_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")
    asked = DryRunAsked.parse(query_of(request))
    facts = await gather(control)
    chosen = facts.site(asked.site)
    changes = None
    if facts.state is not None:
        changes = await asyncio.to_thread(dry_run, facts.state, asked, now=facts.now)
    view = DryRunView(
        asked=asked,
        choices=choices(facts.state),
        sites=facts.sites,
        chosen=chosen,
        changes=changes,
        also=tuple(
            live.site.name
            for live in facts.sites
            if asked.law and chosen and live.operator.id == chosen.operator.id and live.site.id != chosen.site.id
        ),
    )
    return page(view, frame, cookies=[left_cookie(request)] if changes is not None else [])


def passage_list(control: TheControl, filters: Filters) -> PassageList:
    """One page of decisions; a database that does not answer gives a list that says so, not an empty one."""
    now = control.clock.now()
    journal = control.journal()
    failed = journal.fault.fact if journal.fault else ""
    rows = []
    try:
        with control.database.read() as connection:
            rows = list_passages(
                connection,
                filters.wanted(now=now),
                limit=PAGE_ROWS + 1,
                before=filters.before,
                after="" if filters.before else filters.after,
            )
    except SekishoError as error:
        failed = str(error)
    more = len(rows) > PAGE_ROWS
    if filters.after and not filters.before:
        # One page upwards: what is left over stands above.
        shown = rows[-PAGE_ROWS:]
        newer = shown[0].id if more else ""
        older = shown[-1].id if shown else ""
    else:
        shown = rows[:PAGE_ROWS]
        newer = shown[0].id if shown and filters.before else ""
        older = shown[-1].id if more else ""
    pairs = filters.pairs()
    newest = with_query("/gateway", pairs)
    return PassageList(
        filters=filters,
        rows=tuple(shown),
        newer=with_query("/gateway", {**pairs, "after": newer}) if newer else (newest if filters.after else ""),
        older=with_query("/gateway", {**pairs, "before": older}) if older else "",
        failed=failed,
        behind=journal.behind,
        read_at=journal.checked_at or 0.0,
    )


def left_label(path: str, t: Translator) -> str:
    """What a page is called in "where you left off"."""
    place, _, query = path.partition("?")
    parts = place.strip("/").split("/")
    label = place
    match parts:
        case ["passages", decision]:
            label = t("Decision %(id)s", id=f"…{decision[-8:]}")
        case ["sites", site]:
            label = t("Site %(id)s", id=site)
        case ["endpoints", endpoint]:
            label = t("Endpoint %(id)s", id=endpoint)
        case ["reservations", reservation]:
            label = t("Reservation %(id)s", id=reservation)
        case ["pools", pool]:
            label = t("Pool %(name)s", name=pool)
        case ["capacity"]:
            label = t("Reservations: %(what)s", what=_values(query))
        case ["capacity", "find"]:
            asked = dict(parse_qsl(query))
            what = " · ".join(asked[name] for name in ("gpus", "gpu", "tenant") if asked.get(name))
            label = t("GPUs: %(what)s", what=what)
        case ["gateway", "why"]:
            label = t("Why? %(what)s", what=_values(query))
        case ["gateway", "dry-run"]:
            label = t("Dry run: %(what)s", what=_values(query))
        case ["gateway"]:
            label = t("Passages: %(what)s", what=_values(query))
        case _:
            pass
    return label


def _values(query: str) -> str:
    return " · ".join(value for pair in query.split("&") if (value := pair.partition("=")[2]))
