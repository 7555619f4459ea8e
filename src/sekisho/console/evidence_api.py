"""The API of evidence, under /api/v1/evidence: what stands, what was refused and why, and what it is held against."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from sekisho.console.api import admin_only
from sekisho.console.inject import TheActor, TheControl
from sekisho.residency.attestation.references import Reference
from sekisho.residency.attestation.register import SignedEntry, Signer
from sekisho.residency.evidence import EvidenceService
from sekisho.residency.evidence_store import ApprovedReference, CollateralRow, Evidence

MAX_COLLATERAL_BYTES = 1 << 20
_SITE = r"^[A-Za-z0-9._-]{1,64}$"
TheEvidence: TypeAlias = NamedDependency[EvidenceService]
Id = Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$")]


class EvidenceView(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence. Times in Unix seconds; `stands`: it counts for its site, if it has not run out and no
    newer one does; `code`: the first thing that speaks against it; `digest`: SHA-256 of what came."""

    id: str
    site: str
    about: str
    kind: str
    level: str
    registered: bool
    margin_km: int
    stands: bool
    code: str
    at: float
    until: float
    digest: str


class EvidenceDetail(msgspec.Struct, frozen=True, kw_only=True):
    """`appraisal`: every part with its measurements and findings in both languages; of a refused one the finding, of
    a location the measurement. `token`: the signed result (EAR as JWS), empty where there is none."""

    evidence: EvidenceView
    appraisal: Any
    token: str


class Collateral(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as base64: TDX collateral (JSON) or a VCEK (DER)."""

    document: bytes


class ApprovedVersion(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: int


def view(row: Evidence) -> EvidenceView:
    return EvidenceView(**{name: getattr(row, name) for name in EvidenceView.__struct_fields__})


@get("/", operation_id="evidence", summary="Evidence of sites, the newest first", sync_to_thread=True)
def get_evidence(
    the_evidence: TheEvidence,
    site: Annotated[str | None, QueryParameter(pattern=_SITE)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 50,
) -> list[EvidenceView]:
    return [view(row) for row in the_evidence.history(site or "", limit=limit)]


@get("/items/{evidence_id:str}", operation_id="evidenceItem", summary="One piece, whole", sync_to_thread=True)
def get_item(the_evidence: TheEvidence, evidence_id: Id) -> EvidenceDetail:
    row = the_evidence.find(evidence_id)
    return EvidenceDetail(evidence=view(row), appraisal=msgspec.json.decode(row.appraisal), token=row.token)


@get("/references", operation_id="references", summary="Approved values, every version", sync_to_thread=True)
def get_references(the_evidence: TheEvidence) -> list[ApprovedReference]:
    return the_evidence.references()


@post("/references", operation_id="approveReference", summary="Approve values; what stands is weighed anew")
async def approve(
    control: TheControl, the_evidence: TheEvidence, actor: TheActor, data: JSONBody[Reference]
) -> ApprovedVersion:
    version = await _change(control.changed, lambda: the_evidence.approve(data, now=control.clock.now(), actor=actor))
    return ApprovedVersion(name=data.name, version=version)


@delete("/references/{name:str}", operation_id="withdrawReference", summary="Withdraw values")
async def withdraw(
    control: TheControl,
    the_evidence: TheEvidence,
    actor: TheActor,
    name: Annotated[str, PathParameter(pattern=_SITE)],
) -> None:
    await _change(control.changed, lambda: the_evidence.withdraw(name, now=control.clock.now(), actor=actor))


@get("/collateral", operation_id="collateral", summary="The cache of collateral", sync_to_thread=True)
def get_collateral(the_evidence: TheEvidence) -> list[CollateralRow]:
    return the_evidence.collateral()


@post(
    "/collateral",
    operation_id="importCollateral",
    summary="Keep collateral; nothing is fetched from abroad",
    request_max_body_size=2 * MAX_COLLATERAL_BYTES,
)
async def import_collateral(
    control: TheControl, the_evidence: TheEvidence, actor: TheActor, data: JSONBody[Collateral]
) -> CollateralRow:
    return await asyncio.to_thread(
        the_evidence.import_collateral, data.document, now=control.clock.now(), actor=actor
    )


@get("/register", operation_id="register", summary="Which hardware stands in which building", sync_to_thread=True)
def get_register(the_evidence: TheEvidence) -> list[SignedEntry]:
    return the_evidence.register()


@post("/register", operation_id="importEntry", summary="Take a signed entry; what stands is weighed anew")
async def import_entry(
    control: TheControl, the_evidence: TheEvidence, actor: TheActor, data: JSONBody[SignedEntry]
) -> SignedEntry:
    await _change(control.changed, lambda: the_evidence.import_entry(data, now=control.clock.now(), actor=actor))
    return data


@get("/signers", operation_id="signers", summary="Whose signatures count in the register", sync_to_thread=True)
def get_signers(the_evidence: TheEvidence) -> list[Signer]:
    return the_evidence.signers()


@post("/signers", operation_id="trustSigner", summary="Trust an operator's or auditor's key")
async def trust_signer(
    control: TheControl, the_evidence: TheEvidence, actor: TheActor, data: JSONBody[Signer]
) -> Signer:
    await asyncio.to_thread(the_evidence.trust_signer, data, now=control.clock.now(), actor=actor)
    return data


@delete("/signers/{key:str}", operation_id="distrustSigner", summary="Trust it no longer")
async def distrust_signer(
    control: TheControl,
    the_evidence: TheEvidence,
    actor: TheActor,
    key: Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$")],
) -> None:
    await asyncio.to_thread(the_evidence.distrust_signer, key, now=control.clock.now(), actor=actor)


async def _change(changed: Callable[[], Awaitable[None]], write: Callable[[], Any]) -> Any:
    """A change of what evidence is held against makes a new route table at once."""
    result = await asyncio.to_thread(write)
    await changed()
    return result


def evidence_router() -> Router:
    return Router(
        "/api/v1/evidence",
        route_handlers=[
            get_evidence,
            get_item,
            get_references,
            approve,
            withdraw,
            get_collateral,
            import_collateral,
            get_register,
            import_entry,
            get_signers,
            trust_signer,
            distrust_signer,
        ],
        guards=[admin_only],
        security=[{"admin": []}],
        tags=["evidence"],
    )
