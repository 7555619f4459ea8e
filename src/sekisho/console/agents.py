"""The door for sites' agents, /agent/v1: enrolment by token, everything else by the key that was approved.

A request carries `X-Sekisho-Site`, `X-Sekisho-Counter` and `X-Sekisho-Signature` (see `federation.signing`); an
answer is signed in the same header by the control plane's key, over the counter of the request that it answers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Response, Router, post
from litestar.di import NamedDependency

from sekisho.capacity.workloads.service import WorkloadService
from sekisho.console.inject import Asked
from sekisho.federation.enrol import EnrolmentService
from sekisho.federation.enrolments import Agent
from sekisho.federation.errors import AgentRefused, EnrolmentRefused
from sekisho.federation.landmark import Landmark, SignedMeasurement
from sekisho.federation.report import (
    Challenged,
    HandedIn,
    HandIn,
    HeartbeatAnswer,
    KeyChanged,
    Measurements,
    MeasurementsTaken,
    NewKey,
    Submission,
    Taken,
    Target,
)
from sekisho.federation.signing import COUNTER_HEADER, SIGNATURE_HEADER, SITE_HEADER, answer_text
from sekisho.federation.sites import SignedRequest, SiteService
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError

T = TypeVar("T")
MAX_EVIDENCE_BYTES = 2 << 20
MAX_REPORT_BYTES = 2 << 20
# Heart-beats in the time for which one holds: five may be lost before a route closes.
BEATS = 6
# Evidence is asked for again when this share of its time is left.
_ATTEST_AGAIN = 0.5


class Evidences(Protocol):
    """Attestation, as agents meet it."""

    def wanted(self, site: str, *, now: float) -> bool: ...
    def challenge(self, site: str, *, now: float) -> Challenged: ...
    def submit(self, site: str, nonce: bytes, evidence: bytes, public_key: bytes, *, now: float) -> Taken: ...


class Locations(Protocol):
    """Location proofs, as agents meet them."""

    def tasks(self, site: str, *, now: float) -> tuple[Landmark | None, tuple[Target, ...]]: ...
    def take(self, measurements: Sequence[SignedMeasurement], *, now: float) -> dict[str, str]: ...


class AgentDesk:
    """What stands behind the door. `gateways`: certificates (PEM) of the gateways of this installation; `expiry`:
    when the table in force closes its first route; `changed`: makes a new table; `workloads`: what runs in tenants'
    windows."""

    def __init__(
        self,
        *,
        sites: SiteService,
        enrolment: EnrolmentService,
        evidence: Evidences | None,
        locations: Locations,
        key: Ed25519PrivateKey,
        gateways: Callable[[], tuple[str, ...]],
        validity_s: Callable[[], float],
        expiry: Callable[[], float | None],
        changed: Callable[[], Awaitable[None]],
        workloads: WorkloadService,
        clock: Clock,
    ) -> None:
        self._workloads = workloads
        self._sites = sites
        self._enrolment = enrolment
        self._evidence = evidence
        self._locations = locations
        self._key = key
        self._gateways = gateways
        self._validity_s = validity_s
        self._expiry = expiry
        self._changed = changed
        self._clock = clock
        self._renewed_at = 0.0

    async def enrol(self, body: bytes) -> HandedIn:
        wanted = read_body(body, HandIn)
        made = await asyncio.to_thread(
            self._enrolment.enrol,
            token=wanted.token,
            spki=wanted.spki,
            proof=wanted.proof,
            declaration=bytes(wanted.declaration),
            now=self._clock.now(),
        )
        return HandedIn(site=made.site, enrolment=made.id, pin=made.pin, state=made.state)

    async def heartbeat(self, request: SignedRequest) -> Response[bytes]:
        now = self._clock.now()
        agent = await self._agent(request)
        heard = await asyncio.to_thread(self._sites.heartbeat, agent, request.body, now=now)
        validity_s = self._validity_s()
        if heard.renew or self._due(now, validity_s):
            self._renewed_at = now
            with contextlib.suppress(SekishoError):  # kept by the maker for the pages, and tried again
                await self._changed()
        attest = self._evidence is not None and await asyncio.to_thread(self._evidence.wanted, agent.site, now=now)
        landmark: Landmark | None = None
        measure: tuple[Target, ...] = ()
        with contextlib.suppress(SekishoError):  # a register that can't be read must not stop heart-beats
            landmark, measure = await asyncio.to_thread(self._locations.tasks, agent.site, now=now)
        answer = HeartbeatAnswer(
            site=agent.site,
            suspended=heard.suspended,
            gateways=self._gateways(),
            every_s=validity_s / BEATS,
            validity_s=validity_s,
            attest=attest,
            landmark=landmark,
            measure=measure,
        )
        return self._answer(request, answer)

    async def rotate(self, request: SignedRequest) -> Response[bytes]:
        agent = await self._agent(request)
        wanted = read_body(request.body, NewKey)
        pin = await asyncio.to_thread(
            self._sites.rotate, agent, spki=wanted.spki, proof=wanted.proof, now=self._clock.now()
        )
        with contextlib.suppress(SekishoError):
            await self._changed()
        return self._answer(request, KeyChanged(site=agent.site, pin=pin))

    async def challenge(self, request: SignedRequest) -> Response[bytes]:
        agent = await self._agent(request)
        made = await asyncio.to_thread(self._evidences().challenge, agent.site, now=self._clock.now())
        return self._answer(request, made)

    async def evidence(self, request: SignedRequest) -> Response[bytes]:
        agent = await self._agent(request)
        wanted = read_body(request.body, Submission)
        taken = await asyncio.to_thread(
            self._evidences().submit,
            agent.site,
            wanted.nonce,
            wanted.evidence,
            base64.b64decode(agent.spki),
            now=self._clock.now(),
        )
        with contextlib.suppress(SekishoError):
            await self._changed()
        return self._answer(request, taken)

    async def measured(self, body: bytes) -> MeasurementsTaken:
        """Measurements carry the signatures of landmark and site themselves: whoever brings them is not asked. The
        verdict is in the route table when this answers."""
        wanted = read_body(body, Measurements)
        verdicts = await asyncio.to_thread(self._locations.take, wanted.measurements, now=self._clock.now())
        with contextlib.suppress(SekishoError):
            await self._changed()
        return MeasurementsTaken(verdicts=verdicts)

    async def workloads(self, request: SignedRequest) -> Response[bytes]:
        agent = await self._agent(request)
        report = self._workloads.read_report(request.body)
        told = await asyncio.to_thread(self._workloads.exchange, agent.site, report)
        if told.renew:
            with contextlib.suppress(SekishoError):
                await self._changed()
        return self._answer(request, told.orders)

    async def _agent(self, request: SignedRequest) -> Agent:
        return await asyncio.to_thread(self._sites.authenticate, request, now=self._clock.now())

    def _evidences(self) -> Evidences:
        if self._evidence is None:
            raise EnrolmentRefused(
                "this control plane takes no evidence", code="agent.no_evidence", hint="heart-beats go on without it"
            )
        return self._evidence

    def _due(self, now: float, validity_s: float) -> bool:
        """Whether the table in force would run out before many more heart-beats; one renewal serves all sites."""
        expiry = self._expiry()
        soon = expiry is not None and expiry - now < validity_s / 2
        return soon and now - self._renewed_at >= validity_s / BEATS

    def _answer(self, request: SignedRequest, answer: msgspec.Struct) -> Response[bytes]:
        return signed_answer(self._key, request, answer)


def signed_answer(key: Ed25519PrivateKey, request: SignedRequest, answer: msgspec.Struct) -> Response[bytes]:
    """The answer as JSON, signed by the control plane over the counter of the request."""
    body = msgspec.json.encode(answer)
    text = answer_text(site=request.site, counter=request.counter, body=body)
    return Response(
        body,
        status_code=200,
        media_type="application/json",
        headers={SIGNATURE_HEADER: base64.b64encode(key.sign(text)).decode(), "Cache-Control": "no-store"},
    )


TheDesk: TypeAlias = NamedDependency[AgentDesk]


async def signed_request(request: Asked) -> SignedRequest:
    headers = request.headers
    counter = headers.get(COUNTER_HEADER, "")
    if not (counter.isascii() and counter.isdigit() and len(counter) <= 18):
        raise AgentRefused(
            f"the header {COUNTER_HEADER} is missing or no number",
            code="agent.signature",
            hint="use `sekisho site run`",
        )
    return SignedRequest(
        method=str(request.method),
        path=request.url.path,
        site=headers.get(SITE_HEADER, "")[:64],
        counter=int(counter),
        signature=headers.get(SIGNATURE_HEADER, "")[:400],
        body=await request.body(),
    )


def read_body(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EnrolmentRefused(
            f"the request can't be read: {error}",
            code="agent.report",
            hint="do the agent and the control plane have the same version?",
        ) from None


@post("/enrol", summary="Hand in key, proof and declaration with a one-time token", status_code=202)
async def enrol(request: Asked, desk: TheDesk) -> HandedIn:
    return await desk.enrol(await request.body())


@post("/heartbeat", summary="Say what is there; keeps the site's evidence fresh", status_code=200)
async def heartbeat(request: Asked, desk: TheDesk) -> Response[bytes]:
    return await desk.heartbeat(await signed_request(request))


@post("/rotate", summary="Change the agent's key", status_code=200)
async def rotate(request: Asked, desk: TheDesk) -> Response[bytes]:
    return await desk.rotate(await signed_request(request))


@post("/measurements", summary="Hand in what landmarks measured of sites", status_code=200)
async def measurements(request: Asked, desk: TheDesk) -> MeasurementsTaken:
    return await desk.measured(await request.body())


@post("/challenge", summary="Ask for a nonce to attest to", status_code=200)
async def challenge(request: Asked, desk: TheDesk) -> Response[bytes]:
    return await desk.challenge(await signed_request(request))


@post(
    "/evidence",
    summary="Hand in evidence for a nonce",
    status_code=200,
    request_max_body_size=MAX_EVIDENCE_BYTES,
)
async def evidence(request: Asked, desk: TheDesk) -> Response[bytes]:
    return await desk.evidence(await signed_request(request))


@post(
    "/workloads",
    summary="Say what runs in tenants' windows, and hear what shall",
    status_code=200,
    request_max_body_size=MAX_REPORT_BYTES,
)
async def workloads(request: Asked, desk: TheDesk) -> Response[bytes]:
    return await desk.workloads(await signed_request(request))


def agent_router() -> Router:
    """Not in the OpenAPI document: its form is that of the agent of the same version, and tools can't sign."""
    handlers: list[Any] = [enrol, heartbeat, rotate, challenge, evidence, measurements, workloads]
    return Router("/agent/v1", route_handlers=handlers, include_in_schema=False)
