"""The border ledger over HTTP: whose statements count, what they say, and the door where posts hand them in."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from sekisho.console.agents import read_body
from sekisho.console.api import admin_only
from sekisho.console.inject import Asked, TheActor, TheControl
from sekisho.federation.border import SignedStatement, to_csv, to_json
from sekisho.federation.border_service import MAX_AT_ONCE, Accepted, BorderService, BorderView
from sekisho.federation.border_store import Post
from sekisho.kernel.ids import NAME

BorderName = Annotated[str, PathParameter(pattern=f"^{NAME.pattern}$")]
MAX_STATEMENTS_BYTES = 4 << 20


class BorderKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ed25519, in hexadecimal."""

    key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Statements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The next of a border's chain, in their order."""

    statements: Annotated[tuple[SignedStatement, ...], Meta(min_length=1, max_length=MAX_AT_ONCE)]


TheBorders: TypeAlias = NamedDependency[BorderService]


@get("/borders", operation_id="borders", summary="Borders, and what was counted at them", sync_to_thread=True)
def get_borders(borders: TheBorders) -> list[BorderView]:
    return borders.views()


@post(
    "/borders/{border:str}/key",
    operation_id="trustBorder",
    summary="Name the key whose statements about a border count",
    status_code=200,
)
async def trust_border(
    control: TheControl, actor: TheActor, borders: TheBorders, border: BorderName, data: JSONBody[BorderKey]
) -> Post:
    return await asyncio.to_thread(borders.trust, border, data.key, now=control.clock.now(), actor=actor)


@get(
    "/borders/{border:str}/statements",
    operation_id="borderStatements",
    summary="The signed statements of a border, zeros included, as JSON or CSV",
    sync_to_thread=True,
)
def get_statements(
    borders: TheBorders,
    border: BorderName,
    form: Annotated[Literal["json", "csv"], QueryParameter(name="format")] = "json",
    since_ms: Annotated[int, QueryParameter(ge=0)] = 0,
) -> Response[bytes]:
    chain = borders.chain(border, since_ms=since_ms)
    if form == "csv":
        return Response(to_csv(chain).encode(), media_type="text/csv; charset=utf-8")
    return Response(to_json(chain), media_type="application/json")


@post(
    "/borders/{border:str}",
    summary="Hand in the next statements of a border",
    status_code=200,
    request_max_body_size=MAX_STATEMENTS_BYTES,
)
async def take_statements(request: Asked, control: TheControl, borders: TheBorders, border: BorderName) -> Accepted:
    """Their signatures speak for them: whoever brings them is not asked."""
    wanted = read_body(await request.body(), Statements)
    return await asyncio.to_thread(borders.take, border, wanted.statements, now=control.clock.now())


def border_router() -> Router:
    handlers: list[Any] = [get_borders, trust_border, get_statements]
    return Router("/api/v1", route_handlers=handlers, guards=[admin_only], security=[{"admin": []}], tags=["border"])


def border_door() -> Router:
    """Beside the agents' door, and as little in the OpenAPI document."""
    return Router("/agent/v1", route_handlers=[take_statements], include_in_schema=False)
