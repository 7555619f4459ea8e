"""The control plane's web application: one place where routes, errors and headers meet."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from sekisho.assembly.plane import ControlPlane
from sekisho.console.api import TableMissing, api_router
from sekisho.console.metrics import CONTENT_TYPE, exposition
from sekisho.console.services import Control
from sekisho.console.session import Sessions
from sekisho.federation.service import Conflict, UnknownName
from sekisho.kernel.errors import SekishoError
from sekisho.residency.compile import CompileRefused
from sekisho.residency.http import GatewayToken, route_table
from sekisho.residency.publish import TablePublisher
from sekisho.runtime.database import DatabaseUnavailable
from sekisho.runtime.problems import problem, problem_of, problem_response

STATUSES: dict[type[SekishoError], int] = {
    UnknownName: 404,
    Conflict: 409,
    DatabaseUnavailable: 503,
    TableMissing: 503,
    CompileRefused: 503,
}
VERSION = importlib.metadata.version("sekisho")
# Enough for a form or a key's JSON; the gateways' traffic never comes here.
MAX_BODY_BYTES = 64 << 10


@get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


def openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Sekisho control plane",
        version=VERSION,
        description="What the console does, for programs. Errors are problem documents (RFC 9457).",
        path="/api",
        render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        components=Components(
            security_schemes={
                "admin": SecurityScheme(
                    type="http", scheme="bearer", description="The text of secrets/admin_token in the home directory."
                )
            }
        ),
    )


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

    @get("/metrics", include_in_schema=False)
    async def metrics() -> Response[bytes]:
        """For Prometheus. Open like /healthz: names of tenants and sites, and numbers."""
        return Response(exposition(plane, await plane.workers(), version=VERSION), media_type=CONTENT_TYPE)

    def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        document, headers = problem_of(error, STATUSES)
        return problem_response(request, document, headers)

    async def publisher() -> TablePublisher:
        return plane.publisher

    async def gateway_token() -> GatewayToken:
        return GatewayToken(plane.gateway_token)

    async def control() -> Control:
        return plane

    return Litestar(
        route_handlers=[healthz, readyz, metrics, route_table, api_router()],
        dependencies={
            "publisher": Provide(publisher),
            "gateway_token": Provide(gateway_token),
            "control": Provide(control),
        },
        state=State({"control": plane, "sessions": Sessions(plane.admin_token)}),
        exception_handlers={Exception: on_error},
        lifespan=[lifespan],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=openapi(),
        logging_config=None,
    )
