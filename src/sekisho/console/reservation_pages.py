"""The page of a reservation, and its changes: each shows what it would do before it is done."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Literal, assert_never
from zoneinfo import ZoneInfo

import msgspec
from litestar import Response, get, post
from litestar.params import PathParameter

from sekisho.capacity import decide
from sekisho.capacity.faults import ReserveFault
from sekisho.capacity.grid import SLOTS_PER_HOUR, current_slot, slot_of, unix_s
from sekisho.capacity.life import LifeService
from sekisho.capacity.model import Notice, Reservation, Version
from sekisho.capacity.store import notices
from sekisho.capacity.workloads.service import WorkloadService
from sekisho.console import capacity_views as views
from sekisho.console.capacity_api import ReserveOffice, TheOffice, reservation_view
from sekisho.console.capacity_views import Names, Row
from sekisho.console.errors import told
from sekisho.console.gateway import Choices, choices
from sekisho.console.http import frame_of, left_cookie, page, query_of, redirect, signed_in
from sekisho.console.i18n import Translator
from sekisho.console.inject import Asked, Form, TheActor, TheControl, TheSessions
from sekisho.console.objects import ObjectView, curl, parse_tab, pretty
from sekisho.console.sign_in import require_form
from sekisho.console.workload_api import TheWorkloads, WorkloadView, workloads_of
from sekisho.console.zones import field_value, instant, iso, zone_of
from sekisho.residency.model import Denied, Reason, Verdict

Id = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9-]{1,32}$")]
Doing = Literal["extend", "shrink", "move", "transfer", "claim", "cancel"]
DOINGS: tuple[Doing, ...] = ("extend", "shrink", "move", "transfer", "claim", "cancel")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change as its form has it. `end`, `start`: local times; `zone` says whose."""

    do: Doing
    end: str = ""
    start: str = ""
    gpus: str = ""
    tenant: str = ""
    zone: str = ""

    @classmethod
    def parse(cls, given: dict[str, str], zone: ZoneInfo) -> Change | None:
        do = next((each for each in DOINGS if each == given.get("do")), None)
        if do is None:
            return None
        texts = {name: given.get(name, "").strip()[:64] for name in ("end", "start", "gpus", "tenant")}
        return cls(do=do, zone=zone.key, **texts)


class Consequence(msgspec.Struct, frozen=True, kw_only=True):
    """What the change would make of it. `after` None: it is `refused`."""

    change: Change
    after: Row | None
    price_yen: int
    refund_yen: int
    refused: str


class SiteVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy says now of a site on which the reservation stands."""

    site: str
    name: str
    allowed: bool
    rules: tuple[str, ...]
    reasons: tuple[Reason, ...]


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A version with what changed against the one before."""

    version: Version
    row: Row
    why: str


class ReservationView(ObjectView, frozen=True, kw_only=True):
    row: Row
    open: bool
    running: bool
    refund_now: int
    rates: tuple[tuple[str, int, int], ...]
    percent: int
    hours: float
    sites: tuple[SiteVerdict, ...]
    past: tuple[Past, ...]
    notices: tuple[Notice, ...]
    workloads: tuple[WorkloadView, ...]
    consequence: Consequence | None
    failed: str
    choices: Choices
    fields: dict[str, str]
    zone: str
    curve: tuple[tuple[int, int], ...]
    waiting: int

    @property
    def template(self) -> str:
        return "reservation.html"


@get("/reservations/{reservation:str}", include_in_schema=False)
async def reservation_page(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    reserve: TheOffice,
    workloads: TheWorkloads,
    reservation: Id,
) -> Response[bytes]:
    return await _page(request, control, sessions, _Desk(reserve, workloads), reservation)


@post("/reservations/{reservation:str}", include_in_schema=False)
async def change_form(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    actor: TheActor,
    reserve: TheOffice,
    workloads: TheWorkloads,
    reservation: Id,
    data: Form,
) -> Response[bytes]:
    """Does what the consequence said, for the version of which it was said."""
    require_form(data, request, control, sessions)
    t = frame_of(request, control, None).translator
    version = data.get("version", "")
    change = Change.parse(data, zone_of(request, data))
    if change is None or not version.isdecimal() or len(version) > 9:
        return redirect(f"/reservations/{reservation}")
    try:
        await asyncio.to_thread(_apply, reserve.life, reservation, change, version=int(version), who=actor, t=t)
    except ReserveFault as error:
        return await _page(request, control, sessions, _Desk(reserve, workloads), reservation, failed=told(error, t))
    except _Unclear as error:
        return await _page(request, control, sessions, _Desk(reserve, workloads), reservation, failed=str(error))
    return redirect(f"/reservations/{reservation}")


class _Desk(msgspec.Struct, frozen=True):
    """The two services that the page is about."""

    reserve: ReserveOffice
    workloads: WorkloadService


class _Unclear(Exception):
    """A field that can't be read, in the reader's words."""


def _apply(
    life: LifeService, name: str, change: Change, *, version: int | None, who: str, t: Translator
) -> Reservation:
    zone = ZoneInfo(change.zone)

    def slot(text: str) -> int:
        at = instant(text, zone)
        if at is None:
            raise _Unclear(t("Give the time as a date and a time, such as 2027-06-01T09:00."))
        return slot_of(at, what=text)

    match change.do:
        case "extend":
            return life.extend(name, until=slot(change.end), version=version, who=who)
        case "shrink":
            if change.gpus and not (change.gpus.isascii() and change.gpus.isdecimal()):
                raise _Unclear(t("Give the number of GPUs as a whole number."))
            gpus = int(change.gpus[:7]) if change.gpus else None
            until = slot(change.end) if change.end else None
            return life.shrink(name, until=until, gpus=gpus, version=version, who=who)
        case "move":
            return life.move(name, first=slot(change.start), version=version, who=who)
        case "transfer":
            return life.transfer(name, tenant=change.tenant, version=version, who=who)
        case "claim":
            return life.claim(name, who=who)
        case "cancel":
            return life.cancel(name, version=version, who=who)
        case never:
            assert_never(never)


def _rehearsed(
    reserve: ReserveOffice, held: Reservation, change: Change, names: Names, *, who: str, t: Translator
) -> Consequence:
    after, refused = None, ""
    try:
        after = _apply(reserve.rehearsal, held.id, change, version=held.version, who=who, t=t)
    except ReserveFault as error:
        refused = told(error, t)
    except _Unclear as error:
        refused = str(error)
    return Consequence(
        change=change,
        after=views.row_of(after, names) if after else None,
        price_yen=after.body.price_yen - held.body.price_yen if after else 0,
        refund_yen=after.body.refund_yen - held.body.refund_yen if after else 0,
        refused=refused,
    )


async def _page(
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    desk: _Desk,
    name: str,
    *,
    failed: str = "",
) -> Response[bytes]:
    reserve = desk.reserve
    session = signed_in(request, control, sessions)
    frame = frame_of(request, control, session, section="capacity")
    t, query = frame.translator, query_of(request)
    zone = zone_of(request, query)
    change = Change.parse(query, zone) if request.method == "GET" else None

    def view() -> ReservationView:
        held = reserve.capacity.get(name)
        names = Names(control.table(), reserve.capacity.pools())
        body, row = held.body, views.row_of(held, names)
        with control.database.read() as connection:
            said = [each for each in notices(connection, tenant=body.tenant) if each.reservation == name]
        here, hours = current_slot(frame.now), (body.until - body.first) / SLOTS_PER_HOUR
        raw = reservation_view(held, list(names.pools.values()))
        extended = iso(unix_s(body.until + 4 * SLOTS_PER_HOUR), zone)
        return ReservationView(
            tab=parse_tab(query.get("tab", "")),
            path=f"/reservations/{name}",
            raw=pretty(raw),
            commands=(
                curl(str(request.base_url), f"/api/v1/reserve/reservations/{name}"),
                f"sekisho reserve extend {name} --end {extended}",
                f"sekisho reserve cancel {name}",
            ),
            row=row,
            open=body.state == "booked",
            running=body.first <= here < body.until,
            refund_now=decide.refund_yen(body, now=frame.now),
            rates=tuple(
                (
                    names.place(part.pool),
                    part.gpus,
                    names.pools[part.pool].yen_per_gpu_hour if part.pool in names.pools else 0,
                )
                for part in body.parts
            ),
            percent=decide.PRICE_PERCENT[body.priority],
            hours=hours,
            sites=_verdicts(reserve.verdicts(body.tenant, body.data_class), held, names),
            past=_past(reserve.capacity.history(name), names, t),
            notices=tuple(said),
            workloads=tuple(workloads_of(desk.workloads, name)),
            consequence=_rehearsed(reserve, held, change, names, who=session.name, t=t) if change else None,
            failed=failed,
            choices=choices(control.table()),
            fields={
                "start": field_value(unix_s(body.first), zone),
                "end": field_value(unix_s(body.until), zone),
                "offset": datetime.fromtimestamp(unix_s(body.first), zone).strftime("%z"),
            },
            zone=zone.key,
            curve=decide.REFUND_CURVE,
            waiting=len(reserve.life.waitlist()),
        )

    return page(
        await asyncio.to_thread(view),
        frame,
        status=409 if failed else 200,
        cookies=[left_cookie(request)] if request.method == "GET" and change is None else [],
    )


def _verdicts(found: dict[str, Verdict], held: Reservation, names: Names) -> tuple[SiteVerdict, ...]:
    sites = dict.fromkeys(names.pools[part.pool].site for part in held.body.parts if part.pool in names.pools)
    listed = []
    for site in sites:
        verdict = found.get(site)
        listed.append(
            SiteVerdict(
                site=site,
                name=names.site(site),
                allowed=verdict is not None and not isinstance(verdict, Denied),
                rules=verdict.rules if verdict else (),
                reasons=verdict.reasons if isinstance(verdict, Denied) else (),
            )
        )
    return tuple(listed)


def _past(versions: list[Version], names: Names, t: Translator) -> tuple[Past, ...]:
    return tuple(
        Past(
            version=each,
            row=views.row_of(Reservation(id="", version=each.version, body=each.body), names),
            why=why_words(each.why, t),
        )
        for each in reversed(versions)
    )


def why_words(why: str, t: Translator) -> str:
    """Why a version was made. What the service writes is English; a text that is not known stays as it is."""
    known = {
        "booked": t("booked"),
        "extended": t("extended"),
        "shrunk": t("shrunk"),
        "moved": t("moved"),
        "cancelled": t("cancelled"),
        "claimed": t("the use was claimed"),
        "from the waitlist": t("booked from the waitlist"),
        "its window ended": t("its window ended"),
        "nobody has come yet: warned": t("nobody has come yet: the tenant was warned"),
        "firm work needs the GPUs": t("firm work needs the GPUs"),
        "its site failed": t("its site failed"),
        "nobody came within two hours": t("nobody came within two hours"),
        "its pool is maintained": t("its pool is maintained"),
    }
    if why in known:
        return known[why]
    head, _, tail = why.partition(": ")
    if head == "re-planned" and tail in known:
        return t("re-planned: %(why)s", why=known[tail])
    if why.startswith("passed on by "):
        return t("passed on by %(tenant)s", tenant=why.removeprefix("passed on by "))
    return why
