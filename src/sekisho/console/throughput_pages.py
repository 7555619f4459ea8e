"""Guaranteed throughput on a page: what is promised, what is used of it, what endpoints can do."""

from __future__ import annotations

import asyncio

from litestar import Response, get

from sekisho.capacity.throughput.model import Measured
from sekisho.console.capacity_api import ReserveOffice, TheOffice
from sekisho.console.capacity_views import Filters
from sekisho.console.errors import told
from sekisho.console.gateway import Choices, choices
from sekisho.console.http import frame_of, page, query_of, signed_in
from sekisho.console.inject import Asked, TheControl, TheSessions
from sekisho.console.render import View
from sekisho.console.throughput_api import TheThroughput, ThroughputView, in_force, view
from sekisho.kernel.errors import SekishoError

_SHOWN = 100


class ThroughputsView(View, frozen=True, kw_only=True):
    """`failed` says why there is nothing. `planned`: booked, in force or to come."""

    running: tuple[ThroughputView, ...]
    planned: tuple[ThroughputView, ...]
    endpoints: tuple[Measured, ...]
    tenant: str
    choices: Choices
    failed: str
    waiting: int

    @property
    def template(self) -> str:
        return "throughput.html"


@get("/capacity/throughput", include_in_schema=False)
async def throughput_page(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    reserve: TheOffice,
    throughput: TheThroughput,
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="capacity")
    tenant = Filters.parse(query_of(request)).tenant

    def made() -> ThroughputsView:
        running: tuple[ThroughputView, ...] = ()
        planned: tuple[ThroughputView, ...] = ()
        endpoints: tuple[Measured, ...] = ()
        failed = ""
        try:
            running = tuple(each for each in in_force(throughput) if not tenant or each.tenant == tenant)
            found = throughput.commitments(tenant=tenant, state="booked", limit=_SHOWN)
            planned = tuple(view(each) for each in found)
            endpoints = tuple(throughput.endpoints())
        except SekishoError as error:
            failed = told(error, frame.translator)
        return ThroughputsView(
            running=running,
            planned=planned,
            endpoints=endpoints,
            tenant=tenant,
            choices=choices(control.table()),
            failed=failed,
            waiting=_waiting(reserve),
        )

    return page(await asyncio.to_thread(made), frame)


def _waiting(reserve: ReserveOffice) -> int:
    return len(reserve.life.waitlist())
