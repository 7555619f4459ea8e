"""Where gateways on other machines send their journals: `/internal/v1/journal`, with the gateway token."""

from __future__ import annotations

import asyncio
import hmac
from typing import Annotated, Any

from litestar import Request, Router, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import QueryParameter

from sekisho.ledger.shipping import MAX_PART_BYTES, PATH, Arrived, Inbox

# A part is at most a megabyte, or one record that is longer; records are bounded by what a gateway lets in.
_MAX_BODY_BYTES = 2 * MAX_PART_BYTES

Gateway = Annotated[str, QueryParameter(max_length=12)]
Worker = Annotated[str, QueryParameter(max_length=3)]
Place = Annotated[int, QueryParameter(ge=0, le=1 << 40)]


class JournalInbox:
    """An inbox, its token, and the lock that keeps two uploads apart. Belongs to one event loop."""

    def __init__(self, inbox: Inbox, gateway_token: str) -> None:
        self.inbox = inbox
        self.lock = asyncio.Lock()
        self._token = gateway_token.encode()

    def require(self, request: Request[Any, Any, Any]) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if not hmac.compare_digest(given.strip().encode(), self._token) or scheme.lower() != "bearer":
            raise NotAuthorizedException("the gateway token is missing or wrong")


@get(PATH, include_in_schema=False)
async def arrived(
    request: Request[Any, Any, Any], journal_inbox: NamedDependency[JournalInbox], gateway: Gateway, worker: Worker
) -> list[Arrived]:
    """What is here of a worker's journal."""
    journal_inbox.require(request)
    async with journal_inbox.lock:
        return await asyncio.to_thread(journal_inbox.inbox.arrived, gateway, worker)


@post(PATH, include_in_schema=False, status_code=200, request_max_body_size=_MAX_BODY_BYTES)
async def take(
    *,
    request: Request[Any, Any, Any],
    journal_inbox: NamedDependency[JournalInbox],
    gateway: Gateway,
    worker: Worker,
    segment: Place,
    offset: Place,
) -> Arrived:
    """Whole frames that stand at `offset` of a segment; durable when this answers. 409 when some are missing."""
    journal_inbox.require(request)
    data = await request.body()
    async with journal_inbox.lock:
        return await asyncio.to_thread(journal_inbox.inbox.take, gateway, worker, segment, offset, data)


def shipping_router() -> Router:
    """Depends on `journal_inbox`."""
    return Router("/", route_handlers=[arrived, take])
