"""What an administrator does to pools, beside `capacity_api`: sizes, blocks, quotas, what configuration declares."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Router, delete, get, post
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from sekisho.capacity.grid import unix_s
from sekisho.console.api import admin_only
from sekisho.console.capacity_api import HANDLERS, NAME, Id, TheOffice, Touched
from sekisho.console.inject import TheActor

Site = Annotated[str, PathParameter(pattern=NAME)]
Gpu = Annotated[str, PathParameter(pattern=NAME)]
Holder = Annotated[str, PathParameter(pattern=NAME)]


class SizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gpus: Annotated[int, Meta(ge=0, le=1_000_000)]


class BlockView(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs that are maintained or held back; one block may have several rows, where other blocks overlap it."""

    id: str
    pool: str
    start: int
    end: int
    gpus: int


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    cohort: str
    nominal: int
    lends: int
    borrows: int


@post("/pools/{site:str}/{gpu:str}/size", operation_id="resizePool", summary="So many GPUs from now on; what no "
      "longer fits is planned anew", status_code=200, sync_to_thread=True)  # fmt: skip
def resize(reserve: TheOffice, actor: TheActor, site: Site, gpu: Gpu, data: JSONBody[SizeBody]) -> Touched:
    touched = reserve.life.resize(f"{site}.{gpu}", gpus=data.gpus, who=actor)
    return Touched(reservations=tuple(touched))


@get("/blocks", operation_id="blocks", summary="What is maintained or held back", sync_to_thread=True)
def get_blocks(reserve: TheOffice) -> list[BlockView]:
    pools = {pool.number: pool.id for pool in reserve.capacity.pools()}
    return [
        BlockView(id=each.id, pool=pools[each.pool], start=unix_s(each.first), end=unix_s(each.until), gpus=each.gpus)
        for each in reserve.life.blocks()
    ]


@delete("/blocks/{name:str}", operation_id="unblock", summary="The GPUs can be sold again", sync_to_thread=True)
def unblock(reserve: TheOffice, actor: TheActor, name: Id) -> None:
    reserve.life.unblock(name, who=actor)


@get("/pools/{site:str}/{gpu:str}/quotas", operation_id="quotas", summary="Who has which part of a pool",
     sync_to_thread=True)  # fmt: skip
def get_quotas(reserve: TheOffice, site: Site, gpu: Gpu) -> list[QuotaView]:
    return [
        QuotaView(
            tenant=each.tenant,
            cohort=each.cohort,
            nominal=each.nominal,
            lends=each.lends,
            borrows=each.borrows,
        )
        for each in reserve.capacity.quotas(f"{site}.{gpu}")
    ]


@delete("/pools/{site:str}/{gpu:str}/quotas/{tenant:str}", operation_id="removeQuota", summary="The tenant has no "
        "part of the pool any more; what it holds stays", sync_to_thread=True)  # fmt: skip
def remove_quota(reserve: TheOffice, actor: TheActor, site: Site, gpu: Gpu, tenant: Holder) -> None:
    reserve.capacity.remove_quota(f"{site}.{gpu}", tenant, who=actor)


def capacity_router() -> Router:
    """All of the API of reservations: one path has one router."""
    return Router(
        "/api/v1/reserve",
        route_handlers=[*HANDLERS, resize, get_blocks, unblock, get_quotas, remove_quota],
        guards=[admin_only],
        security=[{"admin": []}],
        tags=["reserve"],
    )
