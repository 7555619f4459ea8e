"""Pools on pages: what there is, who has a part of it, maintenance and hold-back, a site that failed."""

from __future__ import annotations

import asyncio
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from litestar import Response, get, post
from litestar.params import PathParameter

from sekisho.capacity import store
from sekisho.capacity.faults import NameUnknown, ReserveFault
from sekisho.capacity.grid import HORIZON_SLOTS, current_slot, slot_of, unix_s
from sekisho.capacity.model import Pool, Quota
from sekisho.capacity.upkeep import Upkeep
from sekisho.console import capacity_views as views
from sekisho.console.capacity_api import ReserveOffice, TheOffice
from sekisho.console.capacity_views import Filters, Names
from sekisho.console.errors import told
from sekisho.console.gateway import Choices, choices
from sekisho.console.http import frame_of, left_cookie, page, query_of, redirect, signed_in
from sekisho.console.i18n import Translator
from sekisho.console.inject import Asked, Form, TheActor, TheControl, TheSessions
from sekisho.console.objects import ObjectView, curl, parse_tab, pretty
from sekisho.console.render import View
from sekisho.console.sign_in import require_form
from sekisho.console.timeline import COLUMNS, Bar
from sekisho.console.zones import field_value, instant, zone_of
from sekisho.kernel.classes import LABELS
from sekisho.residency.model import Denied, Reason
from sekisho.runtime.changes import Change, changes

Name = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9._-]{1,130}$")]
_EVENTS = 25


class _Unclear(Exception):
    """A field that can't be read, in the reader's words."""


class PoolsView(View, frozen=True, kw_only=True):
    """`asked` with `touched`: what a failure of that site until then would move."""

    pools: tuple[views.PoolRow, ...]
    sites: tuple[tuple[str, str], ...]
    site: str
    until: str
    zone: str
    touched: tuple[str, ...] | None
    failed: str
    waiting: int

    @property
    def template(self) -> str:
        return "capacity_pools.html"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    start: int
    end: int
    gpus: int


class Blocking(msgspec.Struct, frozen=True, kw_only=True):
    """Maintenance as its form has it, and the reservations that it would touch (None: it is `refused`)."""

    start: str
    end: str
    gpus: str
    touched: tuple[str, ...] | None
    refused: str


class ClassSays(msgspec.Struct, frozen=True, kw_only=True):
    data_class: str
    allowed: bool
    rules: tuple[str, ...]
    reasons: tuple[Reason, ...]


class PoolView(ObjectView, frozen=True, kw_only=True):
    pool: Pool
    site: str
    now: views.PoolRow
    picture: views.Picture
    rows: tuple[views.Row, ...]
    bars: tuple[Bar, ...]
    bars_height: int
    quotas: tuple[Quota, ...]
    blocks: tuple[Block, ...]
    blocking: Blocking | None
    says: tuple[ClassSays, ...]
    tenant: str
    choices: Choices
    changes: tuple[Change, ...]
    zone: str
    soon: str
    failed: str
    waiting: int

    @property
    def template(self) -> str:
        return "pool.html"


@get("/capacity/pools", include_in_schema=False)
async def pools_page(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: TheOffice
) -> Response[bytes]:
    return await _pools(request, control, sessions, reserve)


@post("/capacity/pools", include_in_schema=False)
async def pools_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, actor: TheActor, reserve: TheOffice, data: Form
) -> Response[bytes]:
    """A new pool, or a site that failed."""
    require_form(data, request, control, sessions)
    t = frame_of(request, control, None).translator
    zone = zone_of(request, data)

    def act() -> str:
        if data.get("do") == "fail":
            reserve.life.fail_site(data.get("site", ""), until=_slot(data.get("until", ""), zone, t), who=actor)
            return "/capacity/notices"
        made = reserve.capacity.set_pool(
            site=data.get("site", ""),
            gpu=_gpu(data.get("gpu", ""), t),
            gpus=_count(data.get("gpus", ""), t),
            tenant_limit=_count(data["limit"], t) if data.get("limit", "").strip() else None,
            yen_per_gpu_hour=_count(data.get("yen", "") or "0", t),
            who=actor,
        )
        return f"/pools/{made.id}"

    try:
        return redirect(await asyncio.to_thread(act))
    except ReserveFault as error:
        return await _pools(request, control, sessions, reserve, failed=told(error, t))
    except _Unclear as error:
        return await _pools(request, control, sessions, reserve, failed=str(error))


@get("/pools/{pool:str}", include_in_schema=False)
async def pool_page(
    *, request: Asked, control: TheControl, sessions: TheSessions, reserve: TheOffice, pool: Name
) -> Response[bytes]:
    return await _pool(request, control, sessions, reserve, pool)


@post("/pools/{pool:str}", include_in_schema=False)
async def pool_form(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    actor: TheActor,
    reserve: TheOffice,
    pool: Name,
    data: Form,
) -> Response[bytes]:
    """`do`: `set`, `quota` or `block`."""
    require_form(data, request, control, sessions)
    t = frame_of(request, control, None).translator
    zone = zone_of(request, data)

    def act() -> None:
        found = _of(reserve, pool)
        match data.get("do", ""):
            case "set":
                reserve.capacity.set_pool(
                    site=found.site,
                    gpu=found.gpu,
                    gpus=_count(data.get("gpus", ""), t),
                    tenant_limit=_count(data.get("limit", ""), t),
                    yen_per_gpu_hour=_count(data.get("yen", ""), t),
                    who=actor,
                )
            case "quota":
                quota = Quota(
                    pool=found.number,
                    tenant=data.get("tenant", "").strip()[:64],
                    cohort=_gpu(data.get("cohort", ""), t),
                    nominal=_count(data.get("nominal", ""), t),
                    lends=_count(data.get("lends", "") or "0", t),
                    borrows=_count(data.get("borrows", "") or "0", t),
                )
                reserve.capacity.set_quota(quota, pool=found.id, who=actor)
            case "block":
                _block(reserve.life, pool, data, zone, who=actor, t=t)
            case _:
                pass

    try:
        await asyncio.to_thread(act)
    except ReserveFault as error:
        return await _pool(request, control, sessions, reserve, pool, failed=told(error, t))
    except _Unclear as error:
        return await _pool(request, control, sessions, reserve, pool, failed=str(error))
    return redirect(f"/pools/{pool}")


def _of(reserve: ReserveOffice, name: str) -> Pool:
    found = next((pool for pool in reserve.capacity.pools() if pool.id == name), None)
    if found is None:
        raise NameUnknown(
            f"there is no pool {name!r}",
            hint="the screen Capacity lists the pools",
            fact_ja=f"プール {name} はありません",
            hint_ja="画面「容量」にプールの一覧があります",
        )
    return found


def _block(life: Upkeep, pool: str, data: dict[str, str], zone: ZoneInfo, *, who: str, t: Translator) -> list[str]:
    return life.block(
        pool,
        first=_slot(data.get("start", ""), zone, t),
        until=_slot(data.get("end", ""), zone, t),
        gpus=_count(data.get("gpus", ""), t),
        who=who,
    )


def _slot(text: str, zone: ZoneInfo, t: Translator) -> int:
    at = instant(text, zone)
    if at is None:
        raise _Unclear(t("Give the time as a date and a time, such as 2027-06-01T09:00."))
    return slot_of(at, what=text)


def _count(text: str, t: Translator) -> int:
    text = text.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise _Unclear(t("Give whole numbers, 0 or more."))
    return int(text)


def _gpu(text: str, t: Translator) -> str:
    text = text.strip()
    if not 0 < len(text) <= 64 or not all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in text):
        raise _Unclear(t("A name is 1 to 64 letters, digits, dots, dashes and underscores."))
    return text


async def _pools(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: ReserveOffice, *, failed: str = ""
) -> Response[bytes]:
    session = signed_in(request, control, sessions)
    frame = frame_of(request, control, session, section="capacity")
    query = query_of(request) if request.method == "GET" else {}
    zone, t = zone_of(request, query), frame.translator

    def view() -> PoolsView:
        problem = failed
        pools = reserve.capacity.pools()
        names = Names(control.table(), pools)
        span = Filters().span(frame.now, zone)
        numbers = tuple(pool.number for pool in pools)
        levels = reserve.survey.levels(span.first, span.until, columns=COLUMNS)
        blocks, _ = reserve.survey.taken(span.first, span.until, pools=numbers, blocks=True)
        touched = None
        if query.get("fail") and not problem:
            try:
                until = _slot(query.get("until", ""), zone, t)
                touched = tuple(reserve.rehearsal.fail_site(query["fail"], until=until, who=session.name))
            except ReserveFault as error:
                problem = told(error, t)
            except _Unclear as error:
                problem = str(error)
        return PoolsView(
            pools=views.pool_rows(pools, levels, blocks, span, names),
            sites=tuple(names.sites.items()),
            site=query.get("fail", "")[:64],
            until=query.get("until", "")[:32] or field_value((current_slot(frame.now) + 96) * 900, zone),
            zone=zone.key,
            touched=touched,
            failed=problem,
            waiting=len(reserve.life.waitlist()),
        )

    return page(await asyncio.to_thread(view), frame, status=409 if failed else 200)


async def _pool(
    request: Asked, control: TheControl, sessions: TheSessions, reserve: ReserveOffice, name: str, *, failed: str = ""
) -> Response[bytes]:
    session = signed_in(request, control, sessions)
    frame = frame_of(request, control, session, section="capacity")
    query = query_of(request) if request.method == "GET" else {}
    zone, t = zone_of(request, query), frame.translator

    def view() -> PoolView:
        pool = _of(reserve, name)
        names = Names(control.table(), [pool])
        filters = Filters(pool=name)
        span, here = filters.span(frame.now, zone), current_slot(frame.now)
        levels = reserve.survey.levels(span.first, span.until, columns=COLUMNS)
        blocks, _ = reserve.survey.taken(here, here + HORIZON_SLOTS, pools=(pool.number,), blocks=True)
        held = reserve.survey.reservations(span.first, span.until, pools=(pool.number,), limit=views.PAGE_ROWS)
        rows = tuple(views.row_of(each, names) for each in held)
        bars, height = views.bars_of(rows, span)
        with control.database.read() as connection:
            quotas = tuple(store.quotas(connection, pool.number))
            events = tuple(changes(connection, subjects=(f"pool/{name}"[:160],), limit=_EVENTS))
        said = choices(control.table())
        tenant = query.get("tenant", "") or (said.tenants[0][0] if said.tenants else "")
        return PoolView(
            tab=parse_tab(query.get("tab", "")),
            path=f"/pools/{name}",
            raw=pretty(pool),
            commands=(
                f"sekisho reserve pool {pool.site} {pool.gpu} {pool.gpus} --yen {pool.yen_per_gpu_hour} "
                f"--tenant-limit {pool.tenant_limit}",
                curl(str(request.base_url), "/api/v1/reserve/pools"),
            ),
            pool=pool,
            site=names.site(pool.site),
            now=views.pool_rows((pool,), levels, blocks, span, names)[0],
            picture=views.picture(
                views.by_pool((pool,), levels, blocks, span=span, filters=filters, t=t), span, frame.now, zone
            ),
            rows=rows,
            bars=bars,
            bars_height=height,
            quotas=quotas,
            blocks=tuple(Block(start=unix_s(each.first), end=unix_s(each.until), gpus=each.gpus) for each in blocks),
            blocking=_blocking(reserve, name, query, zone, who=session.name, t=t),
            says=_says(reserve, tenant, pool),
            tenant=tenant[:64],
            choices=said,
            changes=events,
            zone=zone.key,
            soon=field_value(unix_s(here + 4), zone),
            failed=failed,
            waiting=len(reserve.life.waitlist()),
        )

    return page(
        await asyncio.to_thread(view),
        frame,
        status=409 if failed else 200,
        cookies=[left_cookie(request)] if request.method == "GET" else [],
    )


def _blocking(
    reserve: ReserveOffice, pool: str, query: dict[str, str], zone: ZoneInfo, *, who: str, t: Translator
) -> Blocking | None:
    if query.get("do") != "block":
        return None
    touched, refused = None, ""
    try:
        touched = tuple(_block(reserve.rehearsal, pool, query, zone, who=who, t=t))
    except ReserveFault as error:
        refused = told(error, t)
    except _Unclear as error:
        refused = str(error)
    texts = {field: query.get(field, "")[:32] for field in ("start", "end", "gpus")}
    return Blocking(touched=touched, refused=refused, **texts)


def _says(reserve: ReserveOffice, tenant: str, pool: Pool) -> tuple[ClassSays, ...]:
    found = []
    for data_class in LABELS:
        verdict = reserve.verdicts(tenant, data_class).get(pool.site)
        found.append(
            ClassSays(
                data_class=data_class,
                allowed=verdict is not None and not isinstance(verdict, Denied),
                rules=verdict.rules if verdict else (),
                reasons=verdict.reasons if isinstance(verdict, Denied) else (),
            )
        )
    return tuple(found)
