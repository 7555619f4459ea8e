"""The API of evidence packs, under /api/v1."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import Response, Router, post
from litestar.datastructures import ResponseHeader
from litestar.params import JSONBody

from sekisho.console.api import admin_only
from sekisho.console.inject import TheControl
from sekisho.ledger.pack.build import MAX_SAMPLE, Request

MEDIA_TYPE = "application/zip"
_MAX_MS = (1 << 47) - 1
# One at a time: a pack over a year reads a year of the log.
TURN = asyncio.Semaphore(1)
Instant = Annotated[int, msgspec.Meta(ge=0, le=_MAX_MS, description="Unix milliseconds")]


class PackWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The auditor chooses the seed, after the period."""

    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    since_ms: Instant
    until_ms: Instant
    seed: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    sample: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLE)] = 30


@post(
    "/evidence/packs",
    operation_id="makePack",
    summary="An evidence pack over a tenant's passages in a period",
    status_code=200,
    media_type=MEDIA_TYPE,
    response_headers=[
        ResponseHeader(name="Content-Disposition", description="the file's name", documentation_only=True)
    ],
)
async def make_pack(control: TheControl, data: JSONBody[PackWanted]) -> Response[bytes]:
    request = Request(
        tenant=data.tenant, since_ms=data.since_ms, until_ms=data.until_ms, seed=data.seed, sample=data.sample
    )
    async with TURN:
        built = await asyncio.to_thread(control.make_pack, request)
    return Response(
        built.data, media_type=MEDIA_TYPE, headers={"Content-Disposition": 'attachment; filename="evidence-pack.zip"'}
    )


def pack_router() -> Router:
    return Router(
        "/api/v1", route_handlers=[make_pack], guards=[admin_only], security=[{"admin": []}], tags=["evidence"]
    )
