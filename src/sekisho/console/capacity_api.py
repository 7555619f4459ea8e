"""The API of reservations under /api/v1/reserve. Times: Unix seconds on the quarter of an hour; money: whole yen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeAlias

import msgspec
from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from sekisho.capacity.audit import Audit, audit
from sekisho.capacity.export import to_csv, to_icalendar
from sekisho.capacity.faults import WindowInvalid
from sekisho.capacity.grid import SLOT_S, slot_of, unix_s
from sekisho.capacity.model import Notice, Offer, Pool, Priority, Quota, Reservation, Waiting, Wanted
from sekisho.capacity.service import CapacityService
from sekisho.capacity.store import notices
from sekisho.capacity.survey import Survey
from sekisho.capacity.upkeep import Rehearsal, Upkeep
from sekisho.console.inject import TheActor, TheControl
from sekisho.kernel.classes import LABELS
from sekisho.residency.model import Denied, Reason, Verdict

NAME = r"^[A-Za-z0-9._-]{1,64}$"
_ID = r"^[A-Za-z0-9-]{1,32}$"
_ETAG = r'^(W/)?"?[0-9]{1,9}"?$'
_CLASS = f"^({'|'.join(LABELS)})$"
Name = Annotated[str, Meta(pattern=NAME)]
At = Annotated[float, Meta(gt=0, le=253_402_300_799)]  # the year 9999
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Id = Annotated[str, PathParameter(pattern=_ID)]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", pattern=_ETAG, required=False)]
DryRun = Annotated[bool, QueryParameter(name="dry_run", description="Say what it would become, and change nothing.")]
Key = Annotated[str | None, HeaderParameter(name="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,80}$", required=False)]


class ReserveOffice:
    """What the routes call; `assembly` makes it."""

    def __init__(
        self,
        *,
        capacity: CapacityService,
        life: Upkeep,
        rehearsal: Rehearsal,
        survey: Survey,
        verdicts: Callable[[str, str], dict[str, Verdict]],
    ) -> None:
        """`verdicts`: what residency says of a tenant's class at each site."""
        self.capacity = capacity
        self.life = life
        self.rehearsal = rehearsal
        self.survey = survey
        self.verdicts = verdicts

    def changing(self, dry_run: bool) -> Upkeep:
        """Who changes a reservation: the life itself, or its rehearsal."""
        return self.rehearsal if dry_run else self.life


TheOffice: TypeAlias = NamedDependency[ReserveOffice]


class WishBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`latest_start` None: at `start` or never. `gpus_min` None: all or nothing. `gpu`, `sites` empty: any."""

    tenant: Name
    data_class: Annotated[str, Meta(pattern=_CLASS)]
    gpus: Count
    start: At
    hours: Annotated[float, Meta(gt=0, le=40_000)]
    gpus_min: Count | None = None
    latest_start: At | None = None
    gpu: Annotated[tuple[Name, ...], Meta(max_length=20)] = ()
    sites: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()
    spread: bool = False
    priority: Priority = "standard"
    note: Annotated[str, Meta(max_length=200)] = ""

    def wanted(self) -> Wanted:
        first = slot_of(self.start, what="`start`")
        length_s = self.hours * 3600
        if length_s % SLOT_S:
            raise WindowInvalid("`hours` is not a multiple of a quarter of an hour", hint="give 0.25, 0.5, 1, 24 …")
        return Wanted(
            tenant=self.tenant,
            data_class=self.data_class,
            gpu_models=self.gpu,
            gpus=self.gpus,
            gpus_min=self.gpus if self.gpus_min is None else self.gpus_min,
            first=first,
            latest=first if self.latest_start is None else slot_of(self.latest_start, what="`latest_start`"),
            slots=int(length_s) // SLOT_S,
            sites=self.sites,
            spread=self.spread,
            priority=self.priority,
            note=self.note,
        )


class OfferBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tenant: Name
    offer: Annotated[str, Meta(pattern=_ID)]


class EndBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    end: At


class LessBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of them, or both."""

    end: At | None = None
    gpus: Count | None = None


class StartBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: At


class TenantBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tenant: Name


class PoolBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tenant_limit` None: one tenant may hold all."""

    gpus: Annotated[int, Meta(ge=0, le=1_000_000)]
    yen_per_gpu_hour: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    tenant_limit: Count | None = None


class BlockBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GPUs that are maintained or held back."""

    start: At
    end: At
    gpus: Count


class QuotaBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tenant: Name
    cohort: Name
    nominal: Annotated[int, Meta(ge=0, le=1_000_000)]
    lends: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    borrows: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class PartView(msgspec.Struct, frozen=True, kw_only=True):
    pool: str
    gpus: int


class ReservationView(msgspec.Struct, frozen=True, kw_only=True):
    """`version` is the ETag. `firmness`: firm, borrowed or backfill."""

    id: str
    version: int
    tenant: str
    state: str
    priority: str
    firmness: str
    data_class: str
    start: int
    end: int
    parts: tuple[PartView, ...]
    price_yen: int
    refund_yen: int
    claimed: bool
    note: str


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    who: str
    why: str
    reservation: ReservationView


class OfferView(msgspec.Struct, frozen=True, kw_only=True):
    """`differs`: nothing (it is what was asked), or later, shorter, fewer, site, gpu. Bookable for five minutes."""

    id: str
    start: int
    end: int
    parts: tuple[PartView, ...]
    price_yen: int
    differs: tuple[str, ...]


class WhereView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool's answer. `wished`: its site and GPU model are asked for. `allowed`: by the policy; `reasons`: why not.
    `free`: from `start` on, for all of the length. `fits_at`: the first time at which all of it fits within four
    years."""

    pool: str
    wished: bool
    allowed: bool
    free: int
    fits_at: int | None
    reasons: tuple[Reason, ...]


class WaitingView(msgspec.Struct, frozen=True, kw_only=True):
    """`place` is its turn: 1 is next."""

    id: str
    place: int
    tenant: str
    gpus: int
    start: int
    hours: float
    since: float


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """Reservations that were moved, paid back or put on the waitlist; each tenant has a notice."""

    reservations: tuple[str, ...]


_FIRMNESS = ("firm", "borrowed", "backfill")


class _Views:
    """Numbers of pools become names."""

    def __init__(self, pools: list[Pool]) -> None:
        self.pools = {pool.number: pool for pool in pools}

    def reservation(self, each: Reservation) -> ReservationView:
        body = each.body
        return ReservationView(
            id=each.id,
            version=each.version,
            tenant=body.tenant,
            state=body.state,
            priority=body.priority,
            firmness=_FIRMNESS[body.rank],
            data_class=body.data_class,
            start=unix_s(body.first),
            end=unix_s(body.until),
            parts=tuple(PartView(pool=self.pools[part.pool].id, gpus=part.gpus) for part in body.parts),
            price_yen=body.price_yen,
            refund_yen=body.refund_yen,
            claimed=body.claimed,
            note=body.note,
        )

    def offer(self, each: Offer) -> OfferView:
        return OfferView(
            id=each.id,
            start=unix_s(each.placement.first),
            end=unix_s(each.placement.until),
            parts=tuple(PartView(pool=self.pools[part.pool].id, gpus=part.gpus) for part in each.placement.parts),
            price_yen=each.price_yen,
            differs=each.differs,
        )


def reservation_view(made: Reservation, pools: list[Pool]) -> ReservationView:
    return _Views(pools).reservation(made)


def _answer(office: ReserveOffice, made: Reservation, *, status: int = 200) -> Response[ReservationView]:
    view = reservation_view(made, office.capacity.pools())
    return Response(view, status_code=status, headers={"ETag": f'"{made.version}"'})


def _version(etag: str | None) -> int | None:
    return None if etag is None else int(etag.removeprefix("W/").strip('"'))


@get("/pools", operation_id="pools", summary="GPUs that can be reserved", sync_to_thread=True)
def get_pools(reserve: TheOffice) -> list[Pool]:
    return reserve.capacity.pools()


@put("/pools/{site:str}/{gpu:str}", operation_id="setPool", summary="Make or change a pool", sync_to_thread=True)
def put_pool(
    reserve: TheOffice,
    actor: TheActor,
    site: Annotated[str, PathParameter(pattern=NAME)],
    gpu: Annotated[str, PathParameter(pattern=NAME)],
    data: JSONBody[PoolBody],
) -> Pool:
    return reserve.capacity.set_pool(
        site=site,
        gpu=gpu,
        gpus=data.gpus,
        tenant_limit=data.tenant_limit,
        yen_per_gpu_hour=data.yen_per_gpu_hour,
        who=actor,
    )


@post("/pools/{site:str}/{gpu:str}/blocks", operation_id="block", summary="Maintenance or hold-back; reservations in "
      "the way are planned anew", status_code=200, sync_to_thread=True)  # fmt: skip
def block(
    reserve: TheOffice,
    actor: TheActor,
    site: Annotated[str, PathParameter(pattern=NAME)],
    gpu: Annotated[str, PathParameter(pattern=NAME)],
    data: JSONBody[BlockBody],
) -> Touched:
    touched = reserve.life.block(
        f"{site}.{gpu}",
        first=slot_of(data.start, what="`start`"),
        until=slot_of(data.end, what="`end`"),
        gpus=data.gpus,
        who=actor,
    )
    return Touched(reservations=tuple(touched))


@put("/pools/{site:str}/{gpu:str}/quotas", operation_id="setQuota", summary="A tenant's part of a pool, and what it "
     "lends and borrows", status_code=204, sync_to_thread=True)  # fmt: skip
def put_quota(
    reserve: TheOffice,
    actor: TheActor,
    site: Annotated[str, PathParameter(pattern=NAME)],
    gpu: Annotated[str, PathParameter(pattern=NAME)],
    data: JSONBody[QuotaBody],
) -> None:
    quota = Quota(pool=0, **msgspec.structs.asdict(data))
    reserve.capacity.set_quota(quota, pool=f"{site}.{gpu}", who=actor)


@post("/sites/{site:str}/failed", operation_id="failSite", summary="The site is gone until then; its "
      "reservations are planned anew", status_code=200, sync_to_thread=True)  # fmt: skip
def fail_site(
    reserve: TheOffice,
    actor: TheActor,
    site: Annotated[str, PathParameter(pattern=NAME)],
    data: JSONBody[EndBody],
) -> Touched:
    touched = reserve.life.fail_site(site, until=slot_of(data.end, what="`end`"), who=actor)
    return Touched(reservations=tuple(touched))


@post("/find", operation_id="findWindows", summary="Ranked offers; nothing is held", status_code=200,
      sync_to_thread=True)  # fmt: skip
def find(reserve: TheOffice, data: JSONBody[WishBody]) -> list[OfferView]:
    found = reserve.capacity.find(data.wanted())
    views = _Views(reserve.capacity.pools())
    return [views.offer(each) for each in found]


@post("/where", operation_id="whereItFits", summary="Each pool's answer to a wish, and why not elsewhere; nothing is "
      "held", status_code=200, sync_to_thread=True)  # fmt: skip
def where(reserve: TheOffice, data: JSONBody[WishBody]) -> list[WhereView]:
    wanted = data.wanted()
    pools = {pool.number: pool for pool in reserve.capacity.pools()}
    verdicts = reserve.verdicts(wanted.tenant, wanted.data_class)
    found = []
    for fit in reserve.survey.where(wanted):
        pool = pools.get(fit.pool)
        if pool is None:
            continue  # it was made between two looks
        verdict = verdicts.get(pool.site)
        found.append(
            WhereView(
                pool=pool.id,
                wished=fit.wished,
                allowed=fit.allowed,
                free=fit.free,
                fits_at=None if fit.at is None else unix_s(fit.at),
                reasons=verdict.reasons if isinstance(verdict, Denied) else (),
            )
        )
    return found


@post("/reservations", operation_id="book", summary="Book a window, all or nothing unless `gpus_min` says otherwise",
      sync_to_thread=True)  # fmt: skip
def book(
    reserve: TheOffice, actor: TheActor, data: JSONBody[WishBody], idempotency_key: Key = None
) -> Response[ReservationView]:
    made = reserve.capacity.book(data.wanted(), who=actor, key=idempotency_key or "")
    return _answer(reserve, made, status=201)


@post("/offers", operation_id="bookOffer", summary="Book what was offered, at the price that was offered",
      sync_to_thread=True)  # fmt: skip
def book_offer(
    reserve: TheOffice, actor: TheActor, data: JSONBody[OfferBody], idempotency_key: Key = None
) -> Response[ReservationView]:
    made = reserve.capacity.book_offer(data.offer, tenant=data.tenant, who=actor, key=idempotency_key or "")
    return _answer(reserve, made, status=201)


def _chosen(
    office: ReserveOffice, tenant: str | None, reservation_state: str | None, after: str | None, limit: int
) -> list[Reservation]:
    return office.capacity.reservations(
        tenant=tenant or "", state=reservation_state or "", after=after or "", limit=limit
    )


Tenant = Annotated[str | None, QueryParameter(pattern=NAME)]
InState = Annotated[str | None, QueryParameter(name="state", pattern="^(booked|cancelled|displaced|no-show|ended)$")]
After = Annotated[str | None, QueryParameter(pattern=_ID)]
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


@get("/reservations", operation_id="reservations", summary="In the order of their beginnings", sync_to_thread=True)
def get_reservations(
    reserve: TheOffice,
    tenant: Tenant = None,
    in_state: InState = None,
    after: After = None,
    limit: Limit = 100,
) -> list[ReservationView]:
    views = _Views(reserve.capacity.pools())
    return [views.reservation(each) for each in _chosen(reserve, tenant, in_state, after, limit)]


@get("/reservations.csv", operation_id="reservationsCsv", summary="For spreadsheets", sync_to_thread=True)
def get_csv(reserve: TheOffice, tenant: Tenant = None, in_state: InState = None) -> Response[str]:
    pools = {pool.number: pool for pool in reserve.capacity.pools()}
    text = to_csv(_chosen(reserve, tenant, in_state, None, 100_000), pools)
    return Response(text, media_type="text/csv; charset=utf-8")


@get("/reservations.ics", operation_id="reservationsCalendar", summary="For calendars", sync_to_thread=True)
def get_calendar(
    reserve: TheOffice, control: TheControl, tenant: Tenant = None, in_state: InState = None
) -> Response[str]:
    pools = {pool.number: pool for pool in reserve.capacity.pools()}
    text = to_icalendar(_chosen(reserve, tenant, in_state, None, 100_000), pools, now=control.clock.now())
    return Response(text, media_type="text/calendar; charset=utf-8")


@get("/reservations/{name:str}", operation_id="reservation", summary="One, with its ETag", sync_to_thread=True)
def get_reservation(reserve: TheOffice, name: Id) -> Response[ReservationView]:
    return _answer(reserve, reserve.capacity.get(name))


@get("/reservations/{name:str}/versions", operation_id="reservationVersions", summary="Who changed what, and why",
     sync_to_thread=True)  # fmt: skip
def get_versions(reserve: TheOffice, name: Id) -> list[VersionView]:
    views = _Views(reserve.capacity.pools())
    return [
        VersionView(
            at=each.at_ms / 1000,
            who=each.who,
            why=each.why,
            reservation=views.reservation(Reservation(id=name, version=each.version, body=each.body)),
        )
        for each in reserve.capacity.history(name)
    ]


@post("/reservations/{name:str}/extend", operation_id="extend", summary="A later end", status_code=200,
      sync_to_thread=True)  # fmt: skip
def extend(
    *,
    reserve: TheOffice,
    actor: TheActor,
    name: Id,
    data: JSONBody[EndBody],
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response[ReservationView]:
    until = slot_of(data.end, what="`end`")
    return _answer(
        reserve, reserve.changing(dry_run).extend(name, until=until, version=_version(if_match), who=actor)
    )


@post("/reservations/{name:str}/shrink", operation_id="shrink", summary="An earlier end, fewer GPUs, or both",
      status_code=200, sync_to_thread=True)  # fmt: skip
def shrink(
    *,
    reserve: TheOffice,
    actor: TheActor,
    name: Id,
    data: JSONBody[LessBody],
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response[ReservationView]:
    until = None if data.end is None else slot_of(data.end, what="`end`")
    made = reserve.changing(dry_run).shrink(name, until=until, gpus=data.gpus, version=_version(if_match), who=actor)
    return _answer(reserve, made)


@post("/reservations/{name:str}/move", operation_id="move", summary="Another beginning", status_code=200,
      sync_to_thread=True)  # fmt: skip
def move(
    *,
    reserve: TheOffice,
    actor: TheActor,
    name: Id,
    data: JSONBody[StartBody],
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response[ReservationView]:
    first = slot_of(data.start, what="`start`")
    return _answer(reserve, reserve.changing(dry_run).move(name, first=first, version=_version(if_match), who=actor))


@post("/reservations/{name:str}/transfer", operation_id="transfer", summary="To another tenant", status_code=200,
      sync_to_thread=True)  # fmt: skip
def transfer(
    *,
    reserve: TheOffice,
    actor: TheActor,
    name: Id,
    data: JSONBody[TenantBody],
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response[ReservationView]:
    made = reserve.changing(dry_run).transfer(name, tenant=data.tenant, version=_version(if_match), who=actor)
    return _answer(reserve, made)


@post("/reservations/{name:str}/claim", operation_id="claim", summary="The owner has come", status_code=200,
      sync_to_thread=True)  # fmt: skip
def claim(reserve: TheOffice, actor: TheActor, name: Id) -> Response[ReservationView]:
    return _answer(reserve, reserve.life.claim(name, who=actor))


@post("/reservations/{name:str}/cancel", operation_id="cancel", summary="Give it up; the answer says the refund",
      status_code=200, sync_to_thread=True)  # fmt: skip
def cancel(
    reserve: TheOffice, actor: TheActor, name: Id, if_match: IfMatch = None, dry_run: DryRun = False
) -> Response[ReservationView]:
    return _answer(reserve, reserve.changing(dry_run).cancel(name, version=_version(if_match), who=actor))


@get("/waitlist", operation_id="waitlist", summary="In the order in which it is served", sync_to_thread=True)
def get_waitlist(reserve: TheOffice) -> list[WaitingView]:
    return [_waiting(each, place) for place, each in enumerate(reserve.life.waitlist(), 1)]


@post("/waitlist", operation_id="joinWaitlist", summary="Booked by itself as soon as it fits", sync_to_thread=True)
def join_waitlist(reserve: TheOffice, data: JSONBody[WishBody]) -> WaitingView:
    joined = reserve.life.join_waitlist(data.wanted())
    places = [each.id for each in reserve.life.waitlist()]
    return _waiting(joined, places.index(joined.id) + 1 if joined.id in places else 0)


def _waiting(each: Waiting, place: int) -> WaitingView:
    return WaitingView(
        id=each.id,
        place=place,
        tenant=each.wanted.tenant,
        gpus=each.wanted.gpus,
        start=unix_s(each.wanted.first),
        hours=each.wanted.slots * SLOT_S / 3600,
        since=each.at_ms / 1000,
    )


@delete("/waitlist/{name:str}", operation_id="leaveWaitlist", summary="Wait no longer", sync_to_thread=True)
def leave_waitlist(reserve: TheOffice, name: Id) -> None:
    reserve.life.leave_waitlist(name)


@get("/notices", operation_id="reserveNotices", summary="What tenants were told", sync_to_thread=True)
def get_notices(reserve: TheOffice, tenant: Tenant = None) -> list[Notice]:
    with reserve.capacity.database.read() as connection:
        return notices(connection, tenant=tenant or "")


@get("/audit", operation_id="reserveAudit", summary="Proves from the rows that nothing is sold twice")
async def get_audit(reserve: TheOffice) -> Audit:
    return await asyncio.to_thread(audit, reserve.capacity.database)


HANDLERS: list[HTTPRouteHandler] = [
    get_pools,
    put_pool,
    block,
    put_quota,
    fail_site,
    find,
    where,
    book,
    book_offer,
    get_reservations,
    get_csv,
    get_calendar,
    get_reservation,
    get_versions,
    extend,
    shrink,
    move,
    transfer,
    claim,
    cancel,
    get_waitlist,
    join_waitlist,
    leave_waitlist,
    get_notices,
    get_audit,
]
