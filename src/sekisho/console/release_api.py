"""The agents' door for workloads: /agent/v1/release. A workload inside the TEE asks through its site's agent, which
signs the request; what comes back opens with the workload's attested key alone, so the agent learns nothing."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Response, Router, post
from litestar.di import NamedDependency

from sekisho.console.agents import MAX_EVIDENCE_BYTES, read_body, signed_answer, signed_request
from sekisho.console.inject import Asked
from sekisho.federation.enrolments import Agent
from sekisho.federation.report import Challenged
from sekisho.federation.sites import SignedRequest, SiteService
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.residency.attestation.refusals import Refused
from sekisho.residency.evidence_store import Evidence
from sekisho.residency.release import Released, ReleaseService


class ReleaseRefused(SekishoError):
    """A key is not released; the code says why."""

    code = "release.refused"


class WorkloadEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """`public_key`: the workload's X25519 key as DER SubjectPublicKeyInfo."""

    nonce: bytes
    evidence: bytes
    public_key: bytes


class WorkloadTaken(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is an EAR as JWS; it asks for keys until `until` (Unix seconds)."""

    token: str
    level: str
    until: float


class KeyAsked(msgspec.Struct, frozen=True, kw_only=True):
    token: Annotated[str, msgspec.Meta(max_length=256 << 10)]
    tenant: Annotated[str, msgspec.Meta(max_length=64)]
    public_key: bytes


class ReleaseDesk:
    """What stands behind this door; `key` signs the answers."""

    def __init__(self, *, sites: SiteService, release: ReleaseService, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._sites = sites
        self._release = release
        self._key = key
        self._clock = clock

    async def challenge(self, request: SignedRequest) -> Response[bytes]:
        agent = await self._agent(request)
        made = await asyncio.to_thread(self._release.challenge, agent.site, now=self._clock.now())
        return signed_answer(self._key, request, Challenged(nonce=made.nonce, expires_at=made.expires_at))

    async def evidence(self, request: SignedRequest) -> Response[bytes]:
        agent = await self._agent(request)
        given = read_body(request.body, WorkloadEvidence)
        taken: Evidence = _or_refuse(
            await asyncio.to_thread(
                self._release.attest,
                agent.site,
                given.nonce,
                given.evidence,
                given.public_key,
                now=self._clock.now(),
            )
        )
        answer = WorkloadTaken(token=taken.token, level=taken.level, until=taken.until)
        return signed_answer(self._key, request, answer)

    async def key(self, request: SignedRequest) -> Response[bytes]:
        agent = await self._agent(request)
        asked = read_body(request.body, KeyAsked)
        released: Released = _or_refuse(
            await asyncio.to_thread(
                self._release.release,
                agent.site,
                asked.token,
                asked.tenant,
                asked.public_key,
                now=self._clock.now(),
            )
        )
        return signed_answer(self._key, request, released)

    async def _agent(self, request: SignedRequest) -> Agent:
        return await asyncio.to_thread(self._sites.authenticate, request, now=self._clock.now())


TheReleaseDesk: TypeAlias = NamedDependency[ReleaseDesk]


def _or_refuse(result: Any) -> Any:
    if isinstance(result, Refused):
        raise ReleaseRefused(result.finding.en, code=result.code, hint=result.finding.step_en)
    return result


@post("/challenge", status_code=200)
async def challenge(request: Asked, release_desk: TheReleaseDesk) -> Response[bytes]:
    return await release_desk.challenge(await signed_request(request))


@post("/evidence", status_code=200, request_max_body_size=MAX_EVIDENCE_BYTES)
async def evidence(request: Asked, release_desk: TheReleaseDesk) -> Response[bytes]:
    return await release_desk.evidence(await signed_request(request))


@post("/key", status_code=200, request_max_body_size=512 << 10)
async def key(request: Asked, release_desk: TheReleaseDesk) -> Response[bytes]:
    return await release_desk.key(await signed_request(request))


def release_router() -> Router:
    """Not in the OpenAPI document, like the rest of the agents' door."""
    return Router("/agent/v1/release", route_handlers=[challenge, evidence, key], include_in_schema=False)
