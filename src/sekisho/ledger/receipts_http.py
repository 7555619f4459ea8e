"""Receipts for gateways and administrators, and the keys with which everybody can verify them."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, assert_never

from litestar import Request, Response, Router, get
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.params import PathParameter, QueryParameter

from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.heads import COSIGNED
from sekisho.ledger.issue import NotYet, NotYours, ReceiptService
from sekisho.ledger.receipts import Form
from sekisho.ledger.tlog import proof
from sekisho.ledger.tlog.years import directory, years

COSE_MEDIA_TYPE = "application/cose"
Year = Annotated[int, PathParameter(ge=1000, le=9999)]
_OPEN = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}


class ReceiptMissing(SekishoError):
    """No such decision, or another tenant's."""

    code = "receipt.not_found"


class ReceiptDesk:
    """Hands out receipts, one at a time in a thread of its own, and the files that verifying needs."""

    def __init__(
        self, service: ReceiptService, *, base: Path, clock: Clock, gateway_token: str, admin_token: str
    ) -> None:
        """`base`: the directory of the logs."""
        self.base = base
        self._service = service
        self._clock = clock
        self._gateway_token = gateway_token
        self._admin_token = admin_token
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="receipts")

    def close(self) -> None:
        self._thread.submit(self._service.close)
        self._thread.shutdown()

    def may_ask_for_tenants(self, authorization: str) -> bool:
        return _opens(authorization, self._gateway_token)

    def may_ask_for_all(self, authorization: str) -> bool:
        return _opens(authorization, self._admin_token)

    async def receipt(self, decision: str, tenant: str | None, form: Form) -> bytes | NotYet | NotYours:
        now_ms = int(self._clock.now() * 1000)

        def make() -> bytes | NotYet | NotYours:
            return self._service.receipt(decision, tenant, now_ms=now_ms, form=form)

        return await asyncio.get_running_loop().run_in_executor(self._thread, make)


def _opens(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    return hmac.compare_digest(given.strip().encode(), token.encode()) and scheme.lower() == "bearer"


@get("/internal/v1/receipts/{decision:str}", include_in_schema=False)
async def receipt(
    request: Request[Any, Any, Any],
    receipts: NamedDependency[ReceiptDesk],
    decision: Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$")],
    tenant: Annotated[str | None, QueryParameter(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = None,
    form: Annotated[Form, QueryParameter(name="format")] = "proof",
) -> Response[bytes]:
    """200 with the receipt, 202 with Retry-After until a quorum has cosigned it, 404 when the tenant has none.

    A gateway's token names the tenant; the admin token may leave it out.
    """
    authorization = request.headers.get("Authorization", "")
    if not (
        receipts.may_ask_for_all(authorization)
        or (receipts.may_ask_for_tenants(authorization) and tenant is not None)
    ):
        raise NotAuthorizedException("the gateway token is missing or wrong, or names no tenant")
    answer = await receipts.receipt(decision, tenant, form)
    match answer:
        case bytes():
            kind = proof.MEDIA_TYPE if form == "proof" else COSE_MEDIA_TYPE
            return Response(answer, media_type=kind, headers={"Cache-Control": "no-store"})
        case NotYet(retry_after_s=seconds):
            headers = {"Retry-After": str(seconds), "Cache-Control": "no-store"}
            return Response(b'{"status":"pending"}', status_code=202, media_type="application/json", headers=headers)
        case NotYours():
            raise ReceiptMissing(
                f"there is no decision {decision} to give a receipt for",
                hint="the id is in the answer's header X-Sekisho-Decision; a receipt is for its own tenant",
            )
        case _:
            assert_never(answer)


@get("/.well-known/sekisho/keys.json", include_in_schema=False)
async def keys(receipts: NamedDependency[ReceiptDesk]) -> Response[bytes]:
    """Every key of the logs and witnesses, with its history."""
    data = await _file(receipts.base / "keys.json")
    return Response(data, media_type="application/json", headers=_OPEN)


@get("/.well-known/sekisho/policy/{year:int}", include_in_schema=False)
async def policy(receipts: NamedDependency[ReceiptDesk], year: Year) -> Response[bytes]:
    """The policy (c2sp.org/tlog-policy) for receipts of that year's log."""
    data = await _file(policy_path(receipts.base, year))
    return Response(data, media_type="text/plain", headers=_OPEN)


@get("/log/{year:int}/checkpoint.cosigned", include_in_schema=False)
async def cosigned(receipts: NamedDependency[ReceiptDesk], year: Year) -> Response[bytes]:
    """The last checkpoint that a quorum cosigned, with every cosignature."""
    data = await _file(directory(receipts.base, year) / COSIGNED)
    return Response(data, media_type="text/plain", headers=_OPEN)


def policy_path(base: Path, year: int) -> Path:
    return base / "policy" / f"{year:04d}.policy"


def newest_first(base: Path) -> Callable[[], list[Path]]:
    """The directories of the logs, for a ReceiptService."""
    return lambda: [directory(base, year) for year in reversed(years(base))]


async def _file(path: Path) -> bytes:
    try:
        return await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise NotFoundException("there is nothing yet") from None


def receipts_router() -> Router:
    """Receipts, keys, policies and cosigned checkpoints; depends on `receipts`."""
    return Router("/", route_handlers=[receipt, keys, policy, cosigned])
