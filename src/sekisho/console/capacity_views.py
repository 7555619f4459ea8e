"""What the screen Capacity shows. Pure: pools, levels and reservations in; typed views out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from zoneinfo import ZoneInfo

import msgspec

from sekisho.capacity.grid import SLOT_S, SLOTS_PER_DAY, current_slot, unix_s
from sekisho.capacity.model import Notice, Pool, Rank, Reservation, State, Waiting
from sekisho.capacity.survey import Fit, Level, Taken
from sekisho.console.gateway import Choices
from sekisho.console.i18n import Translator
from sekisho.console.render import View, with_query
from sekisho.console.services import TableState
from sekisho.console.timeline import Area, Bar, Span, lanes, path, peaks
from sekisho.console.wishes import Wish
from sekisho.console.zones import instant, midnight, ticks
from sekisho.residency.model import Denied, Reason, Verdict

STATES: tuple[State, ...] = ("booked", "cancelled", "displaced", "no-show", "ended")
DAYS: tuple[int, ...] = (1, 7, 28, 91, 366, 1461)
DEFAULT_DAYS = 28
PAGE_ROWS = 25
# More tenants than this in one picture help nobody; the list to choose from has all.
MOST_AREAS = 40
FIRMNESS = {int(Rank.FIRM): "firm", int(Rank.BORROWED): "borrowed", int(Rank.BACKFILL): "backfill"}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,130}")
_ID = re.compile(r"[A-Za-z0-9-]{1,32}")


class Names:
    """What sites and tenants are called, and pools by number."""

    def __init__(self, state: TableState | None, pools: Sequence[Pool]) -> None:
        federation = state.federation if state else None
        self.sites = {site.id: site.name for site in federation.sites} if federation else {}
        self.tenants = {tenant.id: tenant.name for tenant in federation.tenants} if federation else {}
        self.pools = {pool.number: pool for pool in pools}

    def site(self, site: str) -> str:
        return self.sites.get(site, site)

    def place(self, number: int) -> str:
        pool = self.pools.get(number)
        return pool.id if pool else str(number)


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """As the address has them, checked: what makes no sense is dropped, so an old link never breaks."""

    by: str = "pool"
    pool: str = ""
    tenant: str = ""
    gpu: str = ""
    state: State = "booked"
    start: str = ""
    days: int = DEFAULT_DAYS
    after: str = ""

    @classmethod
    def parse(cls, query: dict[str, str]) -> Filters:
        def word(name: str) -> str:
            return text if _NAME.fullmatch(text := query.get(name, "").strip()) else ""

        days = query.get("days", "")
        start = query.get("from", "").strip()
        return cls(
            by="tenant" if query.get("by") == "tenant" else "pool",
            pool=word("pool"),
            tenant=word("tenant"),
            gpu=word("gpu"),
            state=next((each for each in STATES if each == query.get("state")), "booked"),
            start=start if _is_date(start) else "",
            days=next((each for each in DAYS if str(each) == days), DEFAULT_DAYS),
            after=text if _ID.fullmatch(text := query.get("after", "")) else "",
        )

    def pairs(self) -> dict[str, str]:
        """Back to the address, without the place in the pages."""
        return {
            "by": self.by if self.by != "pool" else "",
            "pool": self.pool,
            "tenant": self.tenant,
            "gpu": self.gpu,
            "state": self.state if self.state != "booked" else "",
            "from": self.start,
            "days": str(self.days) if self.days != DEFAULT_DAYS else "",
        }

    def with_(self, **other: str) -> str:
        return with_query("/capacity", {**self.pairs(), **other})

    def span(self, now: float, zone: ZoneInfo) -> Span:
        """From the beginning of a day; the days of a longer window are 24 hours."""
        start = instant(self.start, zone) if self.start else None
        first = int((midnight(now, zone) if start is None else start) // SLOT_S)
        return Span(first=first, until=first + self.days * SLOTS_PER_DAY)

    def chosen(self, pools: Sequence[Pool]) -> tuple[Pool, ...]:
        return tuple(
            pool
            for pool in pools
            if (not self.pool or pool.id == self.pool) and (not self.gpu or pool.gpu == self.gpu)
        )


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and 2000 <= date.fromisoformat(text).year < 2200
    except ValueError:
        return False


class PoolRow(msgspec.Struct, frozen=True, kw_only=True):
    """A pool over the window: `taken` at the peak, `blocked` the most that is maintained or held back, `free`
    throughout."""

    pool: Pool
    site: str
    taken: int
    blocked: int
    free: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation in a list."""

    held: Reservation
    start: int
    end: int
    where: str
    firmness: str


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """`now` is where the present is, in per cent; None outside."""

    areas: tuple[Area, ...]
    ticks: tuple[tuple[float, str], ...]
    now: float | None
    zone: str


class CapacityView(View, frozen=True, kw_only=True):
    """`failed` says why there is nothing; `more`: the picture does not have all."""

    filters: Filters
    start: int
    end: int
    pools: tuple[PoolRow, ...]
    any_pool: bool
    pool_names: tuple[str, ...]
    gpu_names: tuple[str, ...]
    choices: Choices
    picture: Picture
    rows: tuple[Row, ...]
    bars: tuple[Bar, ...]
    bars_height: int
    next: str
    more: bool
    unlisted: int
    waiting: int
    failed: str

    @property
    def template(self) -> str:
        return "capacity.html"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A pool's answer to a wish. `kind`: `fits`, `later`, `never`, `other` (not among what was asked), `closed` (by
    the policy; `reasons` say why)."""

    pool: Pool
    site: str
    kind: str
    free: int
    at: int | None
    reasons: tuple[Reason, ...]


class OfferRow(msgspec.Struct, frozen=True, kw_only=True):
    """`differs`: how it differs from the wish, in words; `exact` when it does not."""

    id: str
    start: int
    end: int
    gpus: int
    where: str
    price_yen: int
    differs: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return not self.differs


class FindView(View, frozen=True, kw_only=True):
    """`offers` None: nothing was asked yet, or it `failed`. `until`: until when they can be booked (Unix s)."""

    wish: Wish
    zone: str
    offset: str
    choices: Choices
    gpu_names: tuple[str, ...]
    site_names: tuple[tuple[str, str], ...]
    offers: tuple[OfferRow, ...] | None
    answers: tuple[Answer, ...]
    until: float
    address: str
    commands: tuple[str, ...]
    failed: str
    any_pool: bool
    waiting: int

    @property
    def template(self) -> str:
        return "capacity_find.html"


class WaitingRow(msgspec.Struct, frozen=True, kw_only=True):
    """`why`: why it is not booked yet, in words."""

    waiting: Waiting
    place: int
    start: int
    hours: float
    gpu: str
    why: str
    again: str


class WaitlistView(View, frozen=True, kw_only=True):
    rows: tuple[WaitingRow, ...]
    asking: WaitingRow | None
    failed: str
    waiting: int

    @property
    def template(self) -> str:
        return "capacity_waitlist.html"


class NoticesView(View, frozen=True, kw_only=True):
    rows: tuple[Notice, ...]
    tenant: str
    choices: Choices
    waiting: int

    @property
    def template(self) -> str:
        return "capacity_notices.html"


def pool_rows(
    pools: Sequence[Pool], levels: Mapping[int, Level], blocks: Sequence[Taken], span: Span, names: Names
) -> tuple[PoolRow, ...]:
    found = []
    for pool in pools:
        level = levels.get(pool.number)
        free = level.least if level else pool.gpus
        blocked = max(peaks([each for each in blocks if each.pool == pool.number], span))
        found.append(
            PoolRow(pool=pool, site=names.site(pool.site), taken=pool.gpus - free, blocked=blocked, free=free)
        )
    return tuple(found)


def by_pool(
    pools: Sequence[Pool],
    levels: Mapping[int, Level],
    blocks: Sequence[Taken],
    *,
    span: Span,
    filters: Filters,
    t: Translator,
) -> tuple[Area, ...]:
    areas = []
    for pool in pools:
        level = levels.get(pool.number)
        taken = tuple(pool.gpus - free for free in level.columns) if level else ()
        blocked = peaks([each for each in blocks if each.pool == pool.number], span)
        peak = max(taken, default=0)
        areas.append(
            Area(
                name=pool.id,
                href=filters.with_(pool=pool.id),
                said=t(
                    "%(name)s: at most %(peak)s of %(all)s GPUs are taken", name=pool.id, peak=peak, all=pool.gpus
                ),
                whole=pool.gpus,
                peak=peak,
                taken=path(taken, pool.gpus),
                blocked=path(blocked, pool.gpus),
            )
        )
    return tuple(areas)


def by_tenant(
    taken: Sequence[Taken], pools: Sequence[Pool], span: Span, filters: Filters, t: Translator
) -> tuple[tuple[Area, ...], int]:
    """The tenants that hold most at their peak, all on one scale, and how many more there are."""
    of: dict[str, list[Taken]] = {}
    for each in taken:
        of.setdefault(each.tenant, []).append(each)
    columns = {tenant: peaks(rows, span) for tenant, rows in of.items()}
    ranked = sorted(columns.items(), key=lambda each: (-max(each[1]), each[0]))
    whole = max((max(values) for _, values in ranked), default=0)
    everything = sum(pool.gpus for pool in pools)
    areas = []
    for tenant, values in ranked[:MOST_AREAS]:
        peak = max(values)
        areas.append(
            Area(
                name=tenant,
                href=filters.with_(tenant=tenant),
                said=t(
                    "%(name)s: at most %(peak)s of %(all)s GPUs are taken", name=tenant, peak=peak, all=everything
                ),
                whole=whole,
                peak=peak,
                taken=path(values, whole),
                blocked="",
            )
        )
    return tuple(areas), len(ranked) - len(areas)


def picture(areas: tuple[Area, ...], span: Span, now: float, zone: ZoneInfo) -> Picture:
    here = current_slot(now)
    return Picture(
        areas=areas,
        ticks=tuple(ticks(unix_s(span.first), unix_s(span.until), zone)),
        now=span.percent(here) if span.first <= here < span.until else None,
        zone=zone.key,
    )


def row_of(held: Reservation, names: Names) -> Row:
    body = held.body
    return Row(
        held=held,
        start=unix_s(body.first),
        end=unix_s(body.until),
        where=", ".join(f"{part.gpus} × {names.place(part.pool)}" for part in body.parts),
        firmness=FIRMNESS[body.rank],
    )


def bars_of(rows: Sequence[Row], span: Span) -> tuple[tuple[Bar, ...], int]:
    return lanes(
        (
            (
                row.held,
                f"{row.held.body.gpus} · {row.held.body.tenant}",
                f"{row.held.body.gpus} · {row.held.body.tenant} · {row.where} · {row.held.id}",
                row.firmness,
            )
            for row in rows
        ),
        span,
    )


def answers(
    fits: Sequence[Fit], verdicts: Mapping[str, Verdict], wanted_latest: int, gpus: int, names: Names
) -> tuple[Answer, ...]:
    """What fits first, then what is asked for and fits later, never, or is closed; then the rest."""
    order = ("fits", "later", "never", "closed", "other")
    found = []
    for fit in fits:
        pool = names.pools.get(fit.pool)
        if pool is None:
            continue  # it was made between two looks
        verdict = verdicts.get(pool.site)
        reasons = verdict.reasons if isinstance(verdict, Denied) else ()
        if not fit.wished:
            kind = "other"
        elif not fit.allowed:
            kind = "closed"
        elif fit.at is None:
            kind = "never"
        else:
            kind = "fits" if fit.at <= wanted_latest else "later"
        found.append(
            Answer(
                pool=pool,
                site=names.site(pool.site),
                kind=kind,
                free=min(fit.free, pool.gpus),
                at=fit.at,
                reasons=reasons,
            )
        )
    return tuple(sorted(found, key=lambda each: (order.index(each.kind), each.at or 0, each.pool.id)))
