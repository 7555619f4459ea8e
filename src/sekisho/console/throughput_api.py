"""The API of guaranteed throughput, /api/v1/reserve/throughput. Times: Unix seconds on the quarter of an hour."""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeAlias

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from sekisho.capacity.faults import WindowInvalid
from sekisho.capacity.grid import SLOT_S, slot_of, unix_s
from sekisho.capacity.throughput.audit import Audit
from sekisho.capacity.throughput.meter import Use
from sekisho.capacity.throughput.model import Answer, Commitment, Measured, Placed, Terms
from sekisho.capacity.throughput.service import ThroughputService
from sekisho.console.api import admin_only
from sekisho.console.capacity_api import After, At, Id, IfMatch, Key, Limit, Name, Tenant
from sekisho.console.inject import TheActor, TheControl
from sekisho.kernel.classes import LABELS
from sekisho.kernel.ids import MODEL

TheThroughput: TypeAlias = NamedDependency[ThroughputService]
Slots = Annotated[int, Meta(ge=1, le=100_000)]
Rate = Annotated[float, Meta(gt=0, le=1e9)]
InState = Annotated[str | None, QueryParameter(name="state", pattern="^(booked|cancelled|ended)$")]


class ThroughputWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`concurrency` (requests at a time) or `tokens_per_s` (generated tokens a second). What the owner has used
    in the last `keep_warm_s` is kept ready for it; 0 lends it at once."""

    tenant: Name
    model: Annotated[str, Meta(pattern=f"^{MODEL.pattern}$")]
    data_class: Annotated[str, Meta(pattern=f"^({'|'.join(LABELS)})$")]
    start: At
    hours: Annotated[float, Meta(gt=0, le=40_000)]
    concurrency: Slots | None = None
    tokens_per_s: Rate | None = None
    keep_warm_s: Annotated[float, Meta(ge=0, le=60)] = 2.0
    note: Annotated[str, Meta(max_length=200)] = ""

    def terms(self) -> Terms:
        first = slot_of(self.start, what="`start`")
        length_s = self.hours * 3600
        if length_s % SLOT_S:
            raise WindowInvalid("`hours` is not a multiple of a quarter of an hour", hint="give 0.25, 0.5, 1, 24 …")
        return Terms(
            tenant=self.tenant,
            data_class=self.data_class,
            model=self.model,
            first=first,
            until=first + int(length_s) // SLOT_S,
            slots=self.concurrency or 0,
            tokens_per_s=self.tokens_per_s or 0.0,
            keep_warm_s=self.keep_warm_s,
            note=self.note,
        )


class ThroughputChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    concurrency: Slots | None = None
    tokens_per_s: Rate | None = None
    end: At | None = None


class AlternativeView(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: fewer, later or shorter; `en` and `ja` say it in words."""

    kind: str
    start: int
    end: int
    concurrency: int
    en: str
    ja: str


class AnswerView(msgspec.Struct, frozen=True, kw_only=True):
    """`needed`: requests at a time that the wish comes to; `most`: how many can be had in that window."""

    fits: bool
    needed: int
    most: int
    endpoints: tuple[str, ...]
    alternatives: tuple[AlternativeView, ...]


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    endpoint: str
    concurrency: int


class ThroughputView(msgspec.Struct, frozen=True, kw_only=True):
    """`version` is the ETag. `held`: requests at a time that are counted for it. In force now, it has `places`,
    `missing` (what the endpoints can't give at present) and `use`."""

    id: str
    version: int
    tenant: str
    model: str
    data_class: str
    state: str
    start: int
    end: int
    held: int
    concurrency: int | None
    tokens_per_s: float | None
    keep_warm_s: float
    note: str
    places: tuple[PlaceView, ...] = ()
    missing: int = 0
    use: Use | None = None


class ThroughputVersion(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    who: str
    why: str
    reservation: ThroughputView


def view(made: Commitment, placed: Placed | None = None, use: Use | None = None) -> ThroughputView:
    terms = made.body.terms
    return ThroughputView(
        id=made.id,
        version=made.version,
        tenant=terms.tenant,
        model=terms.model,
        data_class=terms.data_class,
        state=made.body.state,
        start=unix_s(terms.first),
        end=unix_s(terms.until),
        held=made.body.held,
        concurrency=terms.slots or None,
        tokens_per_s=terms.tokens_per_s or None,
        keep_warm_s=terms.keep_warm_s,
        note=terms.note,
        places=tuple(PlaceView(endpoint=name, concurrency=slots) for name, slots in placed.places) if placed else (),
        missing=placed.missing if placed else 0,
        use=use,
    )


def in_force(service: ThroughputService) -> list[ThroughputView]:
    """What is in force now, with its places and its use."""
    return [view(each.placed.commitment, each.placed, each.use) for each in service.standing()]


def _answer(made: Commitment, *, status: int = 200) -> Response[ThroughputView]:
    return Response(view(made), status_code=status, headers={"ETag": f'"{made.version}"'})


def _version(etag: str | None) -> int | None:
    return None if etag is None else int(etag.removeprefix("W/").strip('"'))


def _answered(answer: Answer) -> AnswerView:
    return AnswerView(
        fits=answer.fits,
        needed=answer.asked,
        most=answer.most,
        endpoints=answer.endpoints,
        alternatives=tuple(
            AlternativeView(
                kind=each.kind,
                start=unix_s(each.first),
                end=unix_s(each.until),
                concurrency=each.slots,
                en=each.en,
                ja=each.ja,
            )
            for each in answer.alternatives
        ),
    )


@get("/endpoints", operation_id="measuredEndpoints", summary="What each endpoint can do, as measured",
     sync_to_thread=True)  # fmt: skip
def get_endpoints(throughput: TheThroughput) -> list[Measured]:
    return throughput.endpoints()


@post("/find", operation_id="findThroughput", summary="Whether it can be had, and what instead; nothing is held",
      status_code=200, sync_to_thread=True)  # fmt: skip
def find(throughput: TheThroughput, data: JSONBody[ThroughputWish]) -> AnswerView:
    return _answered(throughput.find(data.terms()))


@post("/", operation_id="bookThroughput", summary="Reserve it, all or nothing")
async def book(
    throughput: TheThroughput,
    control: TheControl,
    actor: TheActor,
    data: JSONBody[ThroughputWish],
    idempotency_key: Key = None,
) -> Response[ThroughputView]:
    made = await asyncio.to_thread(throughput.book, data.terms(), who=actor, key=idempotency_key or "")
    await control.changed()
    return _answer(made, status=201)


@get("/", operation_id="throughputReservations", summary="In the order of their beginnings", sync_to_thread=True)
def get_all(
    throughput: TheThroughput,
    tenant: Tenant = None,
    in_state: InState = None,
    after: After = None,
    limit: Limit = 100,
) -> list[ThroughputView]:
    found = throughput.commitments(tenant=tenant or "", state=in_state or "", after=after or "", limit=limit)
    return [view(each) for each in found]


@get("/in-force", operation_id="throughputInForce", summary="What is in force now: places, use against commitment, "
     "forecast", sync_to_thread=True)  # fmt: skip
def get_in_force(throughput: TheThroughput) -> list[ThroughputView]:
    return in_force(throughput)


@get("/audit", operation_id="throughputAudit", summary="Proves from the rows that all promises can be met",
     sync_to_thread=True)  # fmt: skip
def get_audit(throughput: TheThroughput) -> Audit:
    return throughput.audit()


@get("/{name:str}", operation_id="throughputReservation", summary="One, with its ETag", sync_to_thread=True)
def get_one(throughput: TheThroughput, name: Id) -> Response[ThroughputView]:
    return _answer(throughput.get(name))


@get("/{name:str}/versions", operation_id="throughputVersions", summary="Who changed what, and why",
     sync_to_thread=True)  # fmt: skip
def get_versions(throughput: TheThroughput, name: Id) -> list[ThroughputVersion]:
    return [
        ThroughputVersion(
            at=each.at_ms / 1000,
            who=each.who,
            why=each.why,
            reservation=view(Commitment(id=name, version=each.version, body=each.body)),
        )
        for each in throughput.history(name)
    ]


@post("/{name:str}/change", operation_id="changeThroughput", summary="More or less of it, or another end",
      status_code=200)  # fmt: skip
async def change(  # noqa: PLR0917 - Litestar passes them by name
    throughput: TheThroughput,
    control: TheControl,
    actor: TheActor,
    name: Id,
    data: JSONBody[ThroughputChange],
    if_match: IfMatch = None,
) -> Response[ThroughputView]:
    made = await asyncio.to_thread(
        throughput.change,
        name,
        slots=data.concurrency,
        tokens_per_s=data.tokens_per_s,
        until=None if data.end is None else slot_of(data.end, what="`end`"),
        version=_version(if_match),
        who=actor,
    )
    await control.changed()
    return _answer(made)


@post("/{name:str}/cancel", operation_id="cancelThroughput", summary="Give it up", status_code=200)
async def cancel(
    throughput: TheThroughput, control: TheControl, actor: TheActor, name: Id, if_match: IfMatch = None
) -> Response[ThroughputView]:
    made = await asyncio.to_thread(throughput.cancel, name, version=_version(if_match), who=actor)
    await control.changed()
    return _answer(made)


def throughput_router() -> Router:
    return Router(
        "/api/v1/reserve/throughput",
        route_handlers=[
            get_endpoints, find, book, get_all, get_in_force, get_audit, get_one, get_versions, change, cancel,
        ],
        guards=[admin_only],
        security=[{"admin": []}],
        tags=["reserve"],
    )  # fmt: skip
