"""The control plane's web application: one place where routes, errors and headers meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.di import Provide

from sekisho.assembly.plane import ControlPlane
from sekisho.federation.service import Conflict, UnknownName
from sekisho.kernel.errors import SekishoError
from sekisho.residency.http import GatewayToken, route_table
from sekisho.residency.publish import TablePublisher
from sekisho.runtime.database import DatabaseUnavailable
from sekisho.runtime.problems import problem, problem_of, problem_response

STATUSES: dict[type[SekishoError], int] = {UnknownName: 404, Conflict: 409, DatabaseUnavailable: 503}
# Enough for a form or a key's JSON; the gateways' traffic never comes here.
MAX_BODY_BYTES = 64 << 10


@get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


def build_app(plane: ControlPlane) -> Litestar:
    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with plane.running():
            yield

    @get("/readyz", include_in_schema=False)
    async def readyz() -> Response[Any]:
        """The database answers and there is a table to hand out."""
        table = plane.publisher.current
        if table is None:
            document = problem(
                503,
                code="control.not_ready",
                detail="there is no route table yet",
                hint="look at logs/control.log",
            )
            return Response(document, status_code=503, media_type="application/problem+json")
        await plane.database_ready()
        return Response({"status": "ready", "table": table.version})

    def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        document, headers = problem_of(error, STATUSES)
        return problem_response(request, document, headers)

    async def publisher() -> TablePublisher:
        return plane.publisher

    async def gateway_token() -> GatewayToken:
        return GatewayToken(plane.gateway_token)

    return Litestar(
        route_handlers=[healthz, readyz, route_table],
        dependencies={"publisher": Provide(publisher), "gateway_token": Provide(gateway_token)},
        exception_handlers={Exception: on_error},
        lifespan=[lifespan],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
    )
