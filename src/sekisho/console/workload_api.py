"""The API of workloads: what runs in a reservation's window. Times: Unix seconds."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from sekisho.capacity.workloads.model import Offered, Spec, Workload
from sekisho.capacity.workloads.service import WorkloadService
from sekisho.console.api import admin_only
from sekisho.console.inject import TheActor

_NAME = r"^[A-Za-z0-9._-]{1,64}$"
_ID = r"^[A-Za-z0-9-]{1,32}$"
Id = Annotated[str, PathParameter(pattern=_ID)]
Tenant = Annotated[str | None, QueryParameter(pattern=_NAME)]
OfReservation = Annotated[str | None, QueryParameter(pattern=_ID)]
TheWorkloads: TypeAlias = NamedDependency[WorkloadService]


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: starting, ready, waiting (it died and is started again), draining or gone. `until`: when it ends."""

    id: str
    site: str
    gpus: int
    state: str
    until: float
    restarts: int
    last_exit: str


class WorkloadView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: planned, starting, serving, down, stopped, draining or ended. `refunded_gpu_hours`: time that was
    lost and is paid back."""

    id: str
    version: int
    reservation: str
    tenant: str
    state: str
    wanted: bool
    spec: Spec
    ready: int
    refunded_gpu_hours: float
    replicas: tuple[ReplicaView, ...]


class WorkloadVersionView(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    who: str
    why: str
    workload: WorkloadView


class OffersView(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator of a site lets tenants run there."""

    site: str
    offers: tuple[Offered, ...]


def view_of(workload: Workload) -> WorkloadView:
    body = workload.body
    return WorkloadView(
        id=workload.id,
        version=workload.version,
        reservation=body.reservation,
        tenant=body.tenant,
        state=body.state,
        wanted=body.wanted,
        spec=body.spec,
        ready=body.ready,
        refunded_gpu_hours=body.refunded / 4,
        replicas=tuple(
            ReplicaView(
                id=each.replica,
                site=each.site,
                gpus=each.gpus,
                state=each.state,
                until=each.until,
                restarts=each.restarts,
                last_exit=each.last_exit,
            )
            for each in body.replicas
        ),
    )


def workloads_of(service: WorkloadService, reservation: str) -> list[WorkloadView]:
    """The workloads of a reservation, the newest first."""
    return [view_of(each) for each in service.workloads(reservation=reservation)]


@post("/api/v1/reserve/reservations/{name:str}/workloads", operation_id="defineWorkload",
      summary="What runs in its window", sync_to_thread=True)  # fmt: skip
def define(workloads: TheWorkloads, actor: TheActor, name: Id, data: JSONBody[Spec]) -> WorkloadView:
    return view_of(workloads.define(name, data, who=actor))


@get("/api/v1/workloads", operation_id="workloads", summary="The newest first", sync_to_thread=True)
def get_workloads(
    workloads: TheWorkloads, tenant: Tenant = None, reservation: OfReservation = None
) -> list[WorkloadView]:
    return [view_of(each) for each in workloads.workloads(tenant=tenant or "", reservation=reservation or "")]


@get("/api/v1/workloads/offers", operation_id="workloadOffers", summary="Models and engines of each site",
     sync_to_thread=True)  # fmt: skip
def get_offers(workloads: TheWorkloads) -> list[OffersView]:
    return [OffersView(site=site, offers=offers) for site, offers in sorted(workloads.offers().items())]


@get("/api/v1/workloads/{name:str}", operation_id="workload", summary="One, with its replicas", sync_to_thread=True)
def get_workload(workloads: TheWorkloads, name: Id) -> WorkloadView:
    return view_of(workloads.get(name))


@get("/api/v1/workloads/{name:str}/versions", operation_id="workloadVersions", summary="What happened to it, and why",
     sync_to_thread=True)  # fmt: skip
def get_versions(workloads: TheWorkloads, name: Id) -> list[WorkloadVersionView]:
    return [
        WorkloadVersionView(
            at=each.at_ms / 1000,
            who=each.who,
            why=each.why,
            workload=view_of(Workload(id=name, version=each.version, body=each.body)),
        )
        for each in workloads.history(name)
    ]


@post("/api/v1/workloads/{name:str}/start", operation_id="startWorkload", summary="Run again, within its window",
      status_code=200, sync_to_thread=True)  # fmt: skip
def start(workloads: TheWorkloads, actor: TheActor, name: Id) -> WorkloadView:
    return view_of(workloads.set_wanted(name, True, who=actor))


@post("/api/v1/workloads/{name:str}/stop", operation_id="stopWorkload",
      summary="No new requests; it ends when none runs", status_code=200, sync_to_thread=True)  # fmt: skip
def stop(workloads: TheWorkloads, actor: TheActor, name: Id) -> WorkloadView:
    return view_of(workloads.set_wanted(name, False, who=actor))


def workload_router() -> Router:
    return Router(
        "/",
        route_handlers=[define, get_workloads, get_offers, get_workload, get_versions, start, stop],
        guards=[admin_only],
        security=[{"admin": []}],
        tags=["workloads"],
    )
