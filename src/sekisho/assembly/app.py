"""The control plane's web application: one place where routes, errors and headers meet."""

from __future__ import annotations

import hmac
import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.datastructures import MutableScopeHeaders, State
from litestar.di import Provide
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Message, Scope

from sekisho.assembly.plane import ControlPlane
from sekisho.capacity import faults as reserve
from sekisho.capacity.throughput.service import ThroughputService
from sekisho.capacity.workloads import faults as workload
from sekisho.capacity.workloads.service import WorkloadService
from sekisho.console.agents import AgentDesk, agent_router
from sekisho.console.api import TableMissing, actor_of, api_router
from sekisho.console.border_api import border_door, border_router
from sekisho.console.capacity_api import ReserveOffice
from sekisho.console.capacity_pools_api import capacity_router
from sekisho.console.erasure import SaltEraser
from sekisho.console.evidence_api import evidence_router
from sekisho.console.federation_api import FederationOffice, federation_router
from sekisho.console.http import Elsewhere, SignedOut
from sekisho.console.location_api import LocationRounds, location_router
from sekisho.console.metrics import CONTENT_TYPE, exposition
from sekisho.console.pack_api import pack_router
from sekisho.console.policy_api import policy_router
from sekisho.console.release_api import ReleaseDesk, ReleaseRefused, release_router
from sekisho.console.render import SECURITY_HEADERS
from sekisho.console.services import Control
from sekisho.console.session import Attempts, Sessions
from sekisho.console.sign_in import WrongForm
from sekisho.console.site import answer_to, for_people, routes
from sekisho.console.throughput_api import throughput_router
from sekisho.console.workload_api import workload_router
from sekisho.federation.address import is_loopback
from sekisho.federation.border import BorderRefused
from sekisho.federation.border_service import BorderService
from sekisho.federation.declare import DeclarationRefused
from sekisho.federation.errors import AgentRefused, Conflict, EnrolmentRefused, UnknownName
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.http import LogFiles, log_router
from sekisho.ledger.pack.model import PackRefused
from sekisho.ledger.receipts_http import ReceiptDesk, ReceiptMissing, receipts_router
from sekisho.ledger.shipping import Inbox, ShipmentGap, ShipmentRefused
from sekisho.ledger.shipping_http import JournalInbox, shipping_router
from sekisho.ledger.tlog.log import LogFault
from sekisho.residency.compile import CompileRefused
from sekisho.residency.evidence import EvidenceRefused, EvidenceService, EvidenceUnknown
from sekisho.residency.http import GatewayToken, route_table
from sekisho.residency.location.service import LocationRefused, LocationService
from sekisho.residency.policy.bundle import PolicyRefused
from sekisho.residency.policy.holding import HoldRefused
from sekisho.residency.policy.service import ProposalRefused, ProposalUnknown
from sekisho.residency.policy.source import SourceMissing
from sekisho.residency.publish import TablePublisher
from sekisho.runtime.admins import AdminRefused, AdminUnknown
from sekisho.runtime.database import DatabaseUnavailable
from sekisho.runtime.problems import problem, problem_of, problem_response

STATUSES: dict[type[SekishoError], int] = {
    UnknownName: 404,
    LocationRefused: 409,
    BorderRefused: 409,
    DeclarationRefused: 422,
    EnrolmentRefused: 403,
    EvidenceRefused: 422,
    EvidenceUnknown: 404,
    ReleaseRefused: 403,
    AgentRefused: 401,
    Conflict: 409,
    DatabaseUnavailable: 503,
    TableMissing: 503,
    CompileRefused: 503,
    PolicyRefused: 422,
    HoldRefused: 409,
    ProposalRefused: 409,
    ProposalUnknown: 404,
    SourceMissing: 404,
    AdminRefused: 409,
    AdminUnknown: 404,
    LogFault: 503,
    PackRefused: 422,
    ReceiptMissing: 404,
    ShipmentGap: 409,
    ShipmentRefused: 400,
    reserve.WindowInvalid: 422,
    reserve.NameUnknown: 404,
    reserve.Changed: 412,
    reserve.OfferGone: 410,
    reserve.NotAllowed: 403,
    reserve.Oversold: 500,
    workload.WorkloadUnknown: 404,
    workload.ReportUnreadable: 422,
    reserve.ReserveFault: 409,
}
VERSION = importlib.metadata.version("sekisho")
# Stands in where a page's fault is a redirect and no document is read.
EXPECTED = problem(403, code="auth.forbidden", detail="")
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


class Served:
    """The control plane that an application serves, with what belongs to it alone."""

    def __init__(self, plane: ControlPlane) -> None:
        self.take(plane)

    def take(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.sessions = Sessions(plane.admin_token, plane.admins)
        self.attempts = Attempts()
        self.inbox = JournalInbox(Inbox(plane.home.root / "journal"), plane.gateway_token)


def serve(app: Litestar, plane: ControlPlane) -> None:
    """Another control plane behind an application that is not running. To make one takes Litestar half a second (it
    reads the signatures of all operations), which tests save."""
    served: Served = app.state.served
    served.take(plane)


def _metrics(served: Served) -> HTTPRouteHandler:
    def may_measure(request: Request[Any, Any, Any]) -> bool:
        plane = served.plane
        if is_loopback(f"http://{plane.listen}") or actor_of(request, served.sessions, now=plane.clock.now()):
            return True
        try:
            token = plane.home.metrics_token.read_bytes().strip()
        except OSError:
            return False
        return hmac.compare_digest(request.headers.get("authorization", "").encode(), b"Bearer " + token)

    @get("/metrics", include_in_schema=False)
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """For Prometheus: names of tenants and sites, and numbers. Open where the console listens on this machine
        alone; beyond it whoever asks shows `secrets/metrics_token` or an administrator's token."""
        if not may_measure(request):
            raise NotAuthorizedException("beyond this machine the metrics need the text of secrets/metrics_token")
        plane = served.plane
        return Response(exposition(plane, await plane.workers(), version=VERSION), media_type=CONTENT_TYPE)

    return metrics


def build_app(plane: ControlPlane) -> Litestar:
    served = Served(plane)

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with served.plane.running():
            yield

    @get("/readyz", include_in_schema=False)
    async def readyz() -> Response[Any]:
        """The database answers and there is a table to hand out."""
        table = served.plane.publisher.current
        if table is None:
            document = problem(
                503,
                code="control.not_ready",
                detail="there is no route table yet",
                hint="look at logs/control.log",
            )
            return Response(document, status_code=503, media_type="application/problem+json")
        await served.plane.database_ready()
        return Response({"status": "ready", "table": table.version})

    def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        people = for_people(request.url.path)
        if people and isinstance(error, Elsewhere | SignedOut | WrongForm):
            return answer_to(request, error, served.plane, served.sessions, EXPECTED)
        document, headers = problem_of(error, STATUSES)
        if people:
            return answer_to(request, error, served.plane, served.sessions, document)
        return problem_response(request, document, headers)

    async def secure(message: Message, scope: Scope) -> None:
        """Every answer carries the security headers, faults included; versioned files may be kept for ever."""
        if message["type"] != "http.response.start":
            return
        headers = MutableScopeHeaders.from_message(message)
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        if scope["path"].startswith("/static/") and message["status"] == 200:
            headers["Cache-Control"] = "public, max-age=31536000, immutable"

    async def publisher() -> TablePublisher:
        return served.plane.publisher

    async def gateway_token() -> GatewayToken:
        return GatewayToken(served.plane.gateway_token)

    async def journal_inbox() -> JournalInbox:
        return served.inbox

    async def salt_eraser() -> SaltEraser:
        return SaltEraser(served.plane.erase_salt)

    async def log_files() -> LogFiles:
        return LogFiles(served.plane.home.ledger, served.plane.admin_token)

    async def receipts() -> ReceiptDesk:
        return served.plane.receipts

    async def control() -> Control:
        return served.plane

    async def the_sessions() -> Sessions:
        return served.sessions

    async def the_attempts() -> Attempts:
        return served.attempts

    async def office() -> FederationOffice:
        return served.plane.offices.admin

    async def the_evidence() -> EvidenceService:
        return served.plane.evidence

    async def release_desk() -> ReleaseDesk:
        return served.plane.release_desk

    async def desk() -> AgentDesk:
        return served.plane.offices.agents

    async def the_locations() -> LocationService:
        return served.plane.locations.service

    async def the_rounds() -> LocationRounds:
        return served.plane.locations

    async def the_borders() -> BorderService:
        return served.plane.borders

    async def reserve_office() -> ReserveOffice:
        return served.plane.reservations.office

    async def the_workloads() -> WorkloadService:
        return served.plane.workloads.service

    async def the_throughput() -> ThroughputService:
        return served.plane.throughput.service

    async def actor(request: Request[Any, Any, Any]) -> str:
        return actor_of(request, served.sessions, now=served.plane.clock.now())

    return Litestar(
        route_handlers=[
            healthz,
            readyz,
            _metrics(served),
            route_table,
            log_router(),
            shipping_router(),
            receipts_router(),
            api_router(),
            policy_router(),
            pack_router(),
            federation_router(),
            capacity_router(),
            workload_router(),
            throughput_router(),
            location_router(),
            border_router(),
            border_door(),
            agent_router(),
            evidence_router(),
            release_router(),
            *routes(),
        ],
        dependencies={
            "publisher": Provide(publisher),
            "gateway_token": Provide(gateway_token),
            "control": Provide(control),
            "log_files": Provide(log_files),
            "journal_inbox": Provide(journal_inbox),
            "salt_eraser": Provide(salt_eraser),
            "receipts": Provide(receipts),
            "sessions": Provide(the_sessions),
            "attempts": Provide(the_attempts),
            "actor": Provide(actor),
            "reserve": Provide(reserve_office),
            "workloads": Provide(the_workloads),
            "throughput": Provide(the_throughput),
            "office": Provide(office),
            "locations": Provide(the_locations),
            "rounds": Provide(the_rounds),
            "borders": Provide(the_borders),
            "desk": Provide(desk),
            "the_evidence": Provide(the_evidence),
            "release_desk": Provide(release_desk),
        },
        state=State({"served": served}),
        exception_handlers={Exception: on_error},
        before_send=[secure],
        lifespan=[lifespan],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=openapi(),
        logging_config=None,
    )
