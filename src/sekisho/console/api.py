"""The API under /api/v1: the same services as the pages, for programs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

import msgspec
from litestar import Router, delete, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter

from sekisho.console.erasure import erase_salt
from sekisho.console.inject import TheActor, TheControl
from sekisho.console.services import Control, Fault, Setting
from sekisho.console.session import COOKIE, Sessions
from sekisho.federation.errors import UnknownName
from sekisho.federation.views import KeyView, NewKey
from sekisho.kernel.classes import LABELS, DataClass
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.model import Decision
from sekisho.ledger.store import PassageFilter, PassageRow, find_passage, list_passages
from sekisho.residency.why import Explanation, explain

# 2^53: what every JSON reader keeps exactly; in milliseconds that is 285,000 years.
MAX_MS = 1 << 53
_NAME = r"^[A-Za-z0-9._-]{1,64}$"
_CODE = r"^[a-z0-9_.]{1,64}$"
_MODEL = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
_CLASS = f"^({'|'.join(LABELS)})$"
_DECISION = "^[0-9a-f]{32}$"

Name = Annotated[str | None, QueryParameter(pattern=_NAME)]


class TableMissing(SekishoError):
    """Nothing can be explained before the first route table is made."""

    code = "control.not_ready"


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    answers: bool
    fault: str = ""
    pid: int | None = None
    table_version: int | None = None
    connections: int | None = None
    in_flight: int | None = None
    queued: int | None = None
    draining: bool | None = None
    journal_ok: bool | None = None
    journal_error: str = ""
    rss_bytes: int | None = None


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`in_flight` over all workers; `ejected` when a worker rests it after failures."""

    id: str
    site: str
    operator: str
    country: str
    models: tuple[str, ...]
    slots: int
    in_flight: int
    suspended: bool
    ejected: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Times in Unix seconds."""

    started_at: float
    table_version: int | None
    table_issued_at: float | None
    policy: str
    jurisdiction: str
    gateways_waiting: int
    workers: tuple[WorkerStatus, ...]
    endpoints: tuple[EndpointStatus, ...]
    tenants: tuple[str, ...]
    faults: tuple[Fault, ...]


class PassagePage(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first; `next_before` asks for the next page, null on the last one."""

    passages: tuple[PassageRow, ...]
    next_before: str | None


class PassageDetail(msgspec.Struct, frozen=True, kw_only=True):
    decision: Decision
    worker: str


class KeyWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`expires_at` in Unix seconds."""

    tenant: Annotated[str, msgspec.Meta(pattern=_NAME)]
    label: Annotated[str, msgspec.Meta(max_length=120)] = ""
    expires_at: Annotated[float, msgspec.Meta(gt=0, le=253_402_300_799)] | None = None  # the year 9999


class EndpointChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`table_version` obeys the change; `changed` is false when it was so before."""

    endpoint: str
    suspended: bool
    changed: bool
    table_version: int


def admin_only(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """An administrator's token as Bearer, or the console's session; with a session, changes need its CSRF token too.

    A guard, so that it comes before anything of the request is read.
    """
    sessions: Sessions = connection.app.state.served.sessions
    control: Control = connection.app.state.served.plane
    scheme, _, given = connection.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and sessions.who(given.strip()) is not None:
        return
    session = sessions.open(connection.cookies.get(COOKIE, ""), now=control.clock.now())
    if session is None:
        raise NotAuthorizedException("the admin token is missing or wrong")
    unsafe = connection.scope.get("method") not in ("GET", "HEAD")
    if unsafe and not sessions.form_fits(session, connection.headers.get("X-CSRF-Token", "")):
        raise PermissionDeniedException("a change from a browser needs the header X-CSRF-Token")


def actor_of(request: ASGIConnection[Any, Any, Any, Any], sessions: Sessions, *, now: float) -> str:
    """Who asks; empty when nobody has signed in (a guard or the page refuses that before it matters)."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return sessions.who(given.strip()) or ""
    session = sessions.open(request.cookies.get(COOKIE, ""), now=now)
    return "" if session is None else session.name


@get("/status", operation_id="status", summary="What runs, and what is wrong")
async def get_status(control: TheControl) -> Status:
    state = control.table()
    reports = await control.workers()
    snapshots = [report.snapshot for report in reports if report.snapshot is not None]
    in_flight: dict[str, int] = {}
    ejected: set[str] = set()
    for snapshot in snapshots:
        for row in snapshot.endpoints:
            in_flight[row.id] = in_flight.get(row.id, 0) + row.in_flight
            if row.ejected_for_s > 0:
                ejected.add(row.id)
    endpoints: tuple[EndpointStatus, ...] = ()
    if state is not None:
        models = {endpoint.id: endpoint.models for endpoint in state.federation.endpoints}
        endpoints = tuple(
            EndpointStatus(
                id=entry.id,
                site=entry.site,
                operator=entry.operator,
                country=entry.country,
                models=models[entry.id],
                slots=entry.slots,
                in_flight=in_flight.get(entry.id, 0),
                suspended=entry.id in state.suspended,
                ejected=entry.id in ejected,
            )
            for entry in state.table.endpoints
        )
    return Status(
        started_at=control.started_at,
        table_version=state.table.version if state else None,
        table_issued_at=state.table.issued_at if state else None,
        policy=state.table.policy if state else "",
        jurisdiction=state.table.jurisdiction if state else "",
        gateways_waiting=control.publisher.waiting,
        workers=tuple(
            WorkerStatus(
                index=report.index,
                answers=report.snapshot is not None,
                fault=report.fault,
                **(_worker_numbers(report.snapshot) if report.snapshot else {}),
            )
            for report in reports
        ),
        endpoints=endpoints,
        tenants=tuple(tenant.id for tenant in state.federation.tenants) if state else (),
        faults=control.faults(),
    )


def _worker_numbers(snapshot: msgspec.Struct) -> dict[str, Any]:
    wanted = set(WorkerStatus.__struct_fields__) - {"index", "answers", "fault"}
    return {name: value for name, value in msgspec.structs.asdict(snapshot).items() if name in wanted}


@get("/why", operation_id="why", summary="Why a passage would be allowed or refused", sync_to_thread=True)
def get_why(
    control: TheControl,
    tenant: Annotated[str, QueryParameter(pattern=_NAME)],
    data_class: Annotated[str, QueryParameter(name="class", pattern=_CLASS)],
    model: Annotated[str, QueryParameter(pattern=_MODEL)],
) -> Explanation:
    return explanation(control, tenant=tenant, data_class=data_class, model=model)


def explanation(control: TheControl, *, tenant: str, data_class: str, model: str) -> Explanation:
    """From the table in force; raises UnknownName for a tenant that is not there."""
    state = control.table()
    if state is None:
        raise TableMissing("there is no route table yet", hint="look at logs/control.log")
    found = explain(
        state.federation,
        state.policy,
        tenant=tenant,
        data_class=DataClass.parse(data_class) or DataClass.PUBLIC,
        model=model,
        evidence=state.evidence,
        # The table's own time: an explanation says what the gateways do, not what a new table would.
        issued_at=state.table.issued_at,
        now=control.clock.now(),
        evidence_validity_s=state.evidence_validity_s,
        suspended=state.suspended,
    )
    if found is None:
        raise UnknownName(f"there is no tenant {tenant!r}", hint="GET /api/v1/status lists the tenants")
    return found


@get("/passages", operation_id="passages", summary="Decisions, the newest first", sync_to_thread=True)
def get_passages(
    *,
    control: TheControl,
    site: Name = None,
    endpoint: Name = None,
    tenant: Name = None,
    data_class: Annotated[str | None, QueryParameter(name="class", pattern=_CLASS)] = None,
    verdict: Annotated[str | None, QueryParameter(pattern="^(allowed|refused)$")] = None,
    code: Annotated[str | None, QueryParameter(pattern=_CODE)] = None,
    since_ms: Annotated[int | None, QueryParameter(ge=0, le=MAX_MS)] = None,
    until_ms: Annotated[int | None, QueryParameter(ge=0, le=MAX_MS)] = None,
    before: Annotated[str | None, QueryParameter(pattern=_DECISION)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 50,
) -> PassagePage:
    wanted = PassageFilter(
        site=site or "",
        endpoint=endpoint or "",
        tenant=tenant or "",
        data_class=data_class or "",
        verdict=verdict or "",
        code=code or "",
        since_ms=since_ms,
        until_ms=until_ms,
    )
    with control.database.read() as connection:
        rows = list_passages(connection, wanted, limit=limit + 1, before=before or "")
    more = len(rows) > limit
    return PassagePage(passages=tuple(rows[:limit]), next_before=rows[limit - 1].id if more else None)


@get("/passages/{decision_id:str}", operation_id="passage", summary="One decision", sync_to_thread=True)
def get_passage(control: TheControl, decision_id: Annotated[str, PathParameter(pattern=_DECISION)]) -> PassageDetail:
    with control.database.read() as connection:
        found = find_passage(connection, decision_id)
    if found is None:
        raise UnknownName(
            f"there is no decision {decision_id}", hint="older ones may have left the database; the journal has all"
        )
    return PassageDetail(decision=found.decision, worker=found.worker)


@get("/keys", operation_id="keys", summary="API keys, never the keys themselves", sync_to_thread=True)
def get_keys(control: TheControl) -> list[KeyView]:
    return control.federation.keys()


@post("/keys", operation_id="createKey", summary="Make a key; the answer is the only time it is seen")
async def create_key(control: TheControl, actor: TheActor, data: JSONBody[KeyWanted]) -> NewKey:
    made = await asyncio.to_thread(
        control.federation.create_key,
        tenant=data.tenant,
        label=data.label,
        expires_at=data.expires_at,
        now=control.clock.now(),
        actor=actor,
    )
    # The key is seen only now: a table that can't be made is kept as a fault and tried again, the key is answered.
    with contextlib.suppress(SekishoError):
        await control.changed()
    return made


@delete("/keys/{key_id:str}", operation_id="revokeKey", summary="Revoke a key, everywhere within a second")
async def revoke_key(
    control: TheControl, actor: TheActor, key_id: Annotated[str, PathParameter(pattern="^[0-9a-f]{12}$")]
) -> None:
    await asyncio.to_thread(control.federation.revoke_key, key_id, now=control.clock.now(), actor=actor)
    await control.changed()


@post(
    "/endpoints/{endpoint_id:str}/suspend",
    operation_id="suspend",
    summary="Take an endpoint out of every route",
    status_code=200,
)
async def suspend(
    control: TheControl, actor: TheActor, endpoint_id: Annotated[str, PathParameter(pattern=_NAME)]
) -> EndpointChanged:
    return await set_suspended(control, endpoint_id, suspended=True, actor=actor)


@post("/endpoints/{endpoint_id:str}/resume", operation_id="resume", summary="Put it back", status_code=200)
async def resume(
    control: TheControl, actor: TheActor, endpoint_id: Annotated[str, PathParameter(pattern=_NAME)]
) -> EndpointChanged:
    return await set_suspended(control, endpoint_id, suspended=False, actor=actor)


async def set_suspended(control: TheControl, endpoint_id: str, *, suspended: bool, actor: str) -> EndpointChanged:
    changed = await asyncio.to_thread(
        control.federation.set_suspended, endpoint_id, suspended, now=control.clock.now(), actor=actor
    )
    if changed:
        await control.changed()
    table = control.publisher.current
    return EndpointChanged(
        endpoint=endpoint_id, suspended=suspended, changed=changed, table_version=table.version if table else 0
    )


@get("/config", operation_id="config", summary="The effective configuration, each value with its source")
async def get_config(control: TheControl) -> tuple[Setting, ...]:
    return control.settings()


def api_router() -> Router:
    return Router(
        "/api/v1",
        route_handlers=[
            get_status,
            get_why,
            get_passages,
            get_passage,
            get_keys,
            create_key,
            revoke_key,
            suspend,
            resume,
            erase_salt,
            get_config,
        ],
        guards=[admin_only],
        security=[{"admin": []}],
        tags=["control"],
    )
