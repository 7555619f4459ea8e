"""The screen Capacity: the timeline, what-if and offers, the waitlist, what tenants were told."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

from litestar import Response, get, post
from litestar.params import PathParameter

from sekisho.capacity import decide
from sekisho.capacity.faults import ReserveFault
from sekisho.capacity.grid import SLOT_S, unix_s
from sekisho.capacity.model import Offer, Pool, Waiting, Wanted
from sekisho.capacity.store import notices
from sekisho.console import capacity_views as views
from sekisho.console.capacity_api import ReserveOffice, TheOffice
from sekisho.console.capacity_views import Filters, FindView, Names, WaitingRow
from sekisho.console.errors import told
from sekisho.console.gateway import choices
from sekisho.console.http import frame_of, left_cookie, page, query_of, redirect, signed_in
from sekisho.console.i18n import Translator
from sekisho.console.inject import Asked, Form, TheActor, TheControl, TheSessions
from sekisho.console.render import Frame, length
from sekisho.console.services import Control
from sekisho.console.sign_in import require_form
from sekisho.console.timeline import COLUMNS, Area
from sekisho.console.wishes import Wish, WishUnclear, command, gpu_models, wish_again
from sekisho.console.zones import zone_of
from sekisho.kernel.errors import SekishoError

Id = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9-]{1,32}$")]


@get("/capacity", include_in_schema=False)
async def capacity_page(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: TheOffice
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="capacity")
    query = query_of(request)
    filters, zone = Filters.parse(query), zone_of(request, query)
    view = await asyncio.to_thread(_overview, control, reserve, filters, zone, frame)
    return page(view, frame, cookies=[left_cookie(request)] if any(filters.pairs().values()) else [])


@get("/capacity/find", include_in_schema=False)
async def find_page(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: TheOffice
) -> Response[bytes]:
    """An answer holds nothing, so asking is a GET: the question can be sent to a colleague."""
    frame = frame_of(request, control, signed_in(request, control, sessions), section="capacity")
    wish = Wish.parse(parse_qsl(request.url.query, keep_blank_values=True))
    view = await asyncio.to_thread(_found, control, reserve, wish, zone_of(request, query_of(request)), frame)
    return page(view, frame, cookies=[left_cookie(request)] if view.offers else [])


@post("/capacity/find", include_in_schema=False)
async def book_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, reserve: TheOffice, data: Form
) -> Response[bytes]:
    """Books an offer, or puts the wish on the waitlist. What is refused is said above a new answer."""
    require_form(data, request, control, sessions)
    frame = frame_of(request, control, signed_in(request, control, sessions), section="capacity")
    pairs = parse_qsl(data.get("wish", ""), keep_blank_values=True)
    wish, zone = Wish.parse(pairs), zone_of(request, dict(pairs))
    offer = data.get("offer", "")[:32]

    def act() -> str:
        if offer:
            # The offer's id is the key: a form that is sent twice books once.
            made = reserve.capacity.book_offer(offer, tenant=wish.tenant, who=actor, key=f"offer-{offer}")
            return f"/reservations/{made.id}"
        joined = reserve.life.join_waitlist(wish.wanted(zone, frame.translator))
        return f"/capacity/waitlist#{joined.id}"

    try:
        return redirect(await asyncio.to_thread(act))
    except ReserveFault as error:
        failed = told(error, frame.translator)
    except WishUnclear as error:
        failed = str(error)
    view = await asyncio.to_thread(_found, control, reserve, wish, zone, frame, failed=failed)
    return page(view, frame, status=409)


@get("/capacity/waitlist", include_in_schema=False)
async def waitlist_page(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: TheOffice
) -> Response[bytes]:
    return await _waitlist(request, control, sessions, reserve)


@post("/capacity/waitlist/{waiting_id:str}/leave", include_in_schema=False)
async def leave_form(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    reserve: TheOffice,
    waiting_id: Id,
    data: Form,
) -> Response[bytes]:
    require_form(data, request, control, sessions)
    try:
        await asyncio.to_thread(reserve.life.leave_waitlist, waiting_id)
    except ReserveFault as error:
        frame = frame_of(request, control, signed_in(request, control, sessions), section="capacity")
        return await _waitlist(request, control, sessions, reserve, failed=told(error, frame.translator))
    return redirect("/capacity/waitlist")


@get("/capacity/notices", include_in_schema=False)
async def notices_page(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: TheOffice
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="capacity")
    tenant = Filters.parse(query_of(request)).tenant

    def view() -> views.NoticesView:
        with control.database.read() as connection:
            rows = notices(connection, tenant=tenant)
        waiting = len(reserve.life.waitlist())
        return views.NoticesView(rows=tuple(rows), tenant=tenant, choices=choices(control.table()), waiting=waiting)

    return page(await asyncio.to_thread(view), frame)


def _overview(
    control: Control, reserve: ReserveOffice, filters: Filters, zone: ZoneInfo, frame: Frame
) -> views.CapacityView:
    t, span = frame.translator, filters.span(frame.now, zone)
    pools: list[Pool] = []
    chosen: tuple[Pool, ...] = ()
    rows: tuple[views.Row, ...] = ()
    pool_rows: tuple[views.PoolRow, ...] = ()
    areas: tuple[Area, ...] = ()
    more, unlisted, failed, waiting, following = False, 0, "", 0, ""
    names = Names(control.table(), pools)
    try:
        pools = reserve.capacity.pools()
        names, chosen = Names(control.table(), pools), filters.chosen(pools)
        numbers = tuple(pool.number for pool in chosen)
        levels = reserve.survey.levels(span.first, span.until, columns=COLUMNS)
        blocks, _ = reserve.survey.taken(span.first, span.until, pools=numbers, blocks=True)
        pool_rows = views.pool_rows(chosen, levels, blocks, span, names)
        if filters.by == "tenant" or filters.tenant:
            taken, more = reserve.survey.taken(span.first, span.until, pools=numbers, tenant=filters.tenant)
            areas, unlisted = views.by_tenant(taken, chosen, span, filters, t)
        else:
            areas = views.by_pool(chosen, levels, blocks, span=span, filters=filters, t=t)
        held = reserve.survey.reservations(
            span.first,
            span.until,
            pools=numbers,
            tenant=filters.tenant,
            state=filters.state,
            after=filters.after,
            limit=views.PAGE_ROWS + 1,
        )
        rows = tuple(views.row_of(each, names) for each in held[: views.PAGE_ROWS])
        following = filters.with_(after=rows[-1].held.id) if len(held) > views.PAGE_ROWS else ""
        waiting = len(reserve.life.waitlist())
    except SekishoError as error:
        failed = told(error, t)
    bars, height = views.bars_of(rows, span)
    return views.CapacityView(
        filters=filters,
        start=unix_s(span.first),
        end=unix_s(span.until),
        pools=pool_rows,
        any_pool=bool(pools),
        pool_names=tuple(pool.id for pool in pools),
        gpu_names=gpu_models(pools),
        choices=choices(control.table()),
        picture=views.picture(areas, span, frame.now, zone),
        rows=rows,
        bars=bars,
        bars_height=height,
        next=following,
        more=more,
        unlisted=unlisted,
        waiting=waiting,
        failed=failed,
    )


def _found(
    control: Control, reserve: ReserveOffice, wish: Wish, zone: ZoneInfo, frame: Frame, *, failed: str = ""
) -> FindView:
    t = frame.translator
    pools = reserve.capacity.pools()
    names = Names(control.table(), pools)
    offers: tuple[views.OfferRow, ...] | None = None
    answers: tuple[views.Answer, ...] = ()
    commands: tuple[str, ...] = ()
    if wish.asked and pools:
        try:
            wanted = wish.wanted(zone, t)
            commands = (command("find", wanted, zone), command("waitlist", wanted, zone))
            verdicts = reserve.verdicts(wanted.tenant, wanted.data_class)
            fits = reserve.survey.where(wanted)
            answers = views.answers(fits, verdicts, wanted.latest, wanted.gpus, names)
            offers = tuple(_offer_row(each, wanted, names, t) for each in reserve.capacity.find(wanted))
        except WishUnclear as error:
            failed = failed or str(error)
        except ReserveFault as error:
            failed = failed or told(error, t)
    sites = sorted({pool.site for pool in pools})
    return FindView(
        wish=wish,
        zone=zone.key,
        offset=_offset(frame.now, zone),
        choices=choices(control.table()),
        gpu_names=gpu_models(pools),
        site_names=tuple((site, names.site(site)) for site in sites),
        offers=offers,
        answers=answers,
        until=frame.now + decide.OFFER_S,
        address=urlencode(wish.pairs(zone)),
        commands=commands,
        failed=failed,
        any_pool=bool(pools),
        waiting=len(reserve.life.waitlist()),
    )


def _offset(now: float, zone: ZoneInfo) -> str:
    """`UTC+09:00`."""
    text = datetime.fromtimestamp(now, zone).strftime("%z")
    return f"UTC{text[:3]}:{text[3:5]}"


def _offer_row(offer: Offer, wanted: Wanted, names: Names, t: Translator) -> views.OfferRow:
    placed = offer.placement
    differs = []
    slots = placed.until - placed.first
    for kind in offer.differs:
        match kind:
            case "later":
                late_s = (placed.first - wanted.latest) * SLOT_S
                differs.append(t("begins %(time)s later", time=length(late_s, t)))
            case "shorter":
                short, whole = length(slots * SLOT_S, t), length(wanted.slots * SLOT_S, t)
                differs.append(t("%(short)s instead of %(whole)s", short=short, whole=whole))
            case "fewer":
                differs.append(t("%(few)s GPUs instead of %(all)s", few=placed.gpus, all=wanted.gpus))
            case "site":
                differs.append(t("another site"))
            case _:
                differs.append(t("another GPU model"))
    return views.OfferRow(
        id=offer.id,
        start=unix_s(placed.first),
        end=unix_s(placed.until),
        gpus=placed.gpus,
        where=", ".join(f"{part.gpus} × {names.place(part.pool)}" for part in placed.parts),
        price_yen=offer.price_yen,
        differs=tuple(differs),
    )


async def _waitlist(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: ReserveOffice, *, failed: str = ""
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="capacity")
    query = query_of(request)
    zone = zone_of(request, query)

    def view() -> views.WaitlistView:
        t = frame.translator
        names = Names(control.table(), reserve.capacity.pools())
        rows = tuple(
            _waiting_row(each, place, reserve, names, zone=zone, t=t)
            for place, each in enumerate(reserve.life.waitlist(), 1)
        )
        asking = next((row for row in rows if row.waiting.id == query.get("leave")), None)
        return views.WaitlistView(rows=rows, asking=asking, failed=failed, waiting=len(rows))

    return page(await asyncio.to_thread(view), frame, status=409 if failed else 200)


def _waiting_row(
    each: Waiting, place: int, reserve: ReserveOffice, names: Names, *, zone: ZoneInfo, t: Translator
) -> WaitingRow:
    wanted = each.wanted
    return WaitingRow(
        waiting=each,
        place=place,
        start=unix_s(wanted.first),
        hours=wanted.slots * SLOT_S / 3600,
        gpu=", ".join(wanted.gpu_models),
        why=_why_waiting(wanted, reserve, names, t),
        again="/capacity/find?" + urlencode(wish_again(wanted, zone).pairs(zone)),
    )


def _why_waiting(wanted: Wanted, reserve: ReserveOffice, names: Names, t: Translator) -> str:
    try:
        fits = [each for each in reserve.survey.where(wanted) if each.wished]
    except ReserveFault as error:
        return told(error, t)
    allowed = [each for each in fits if each.allowed]
    if not fits:
        return t("No pool has such GPUs at such a site.")
    if not allowed:
        return t("The policy allows none of the sites that have such GPUs.")
    best = max(allowed, key=lambda each: (each.free, -each.pool))
    soonest = min((each.at for each in allowed if each.at is not None), default=None)
    if soonest is not None and soonest <= wanted.latest:
        return t("It fits now: the next round, within a minute, books it.")
    said = t(
        "Of %(wanted)s GPUs %(free)s are free in that time (%(pool)s).",
        wanted=wanted.gpus,
        free=best.free,
        pool=names.place(best.pool),
    )
    if soonest is None:
        return said + " " + t("It fits nowhere within four years.")
    days = length((soonest - wanted.first) * SLOT_S, t)
    return said + " " + t("All of it would fit %(time)s later.", time=days)
