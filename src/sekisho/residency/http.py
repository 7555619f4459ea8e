"""The route table on the wire: a long poll that answers the moment the table changes."""

from __future__ import annotations

import hmac
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import QueryParameter

from sekisho.residency.publish import TablePublisher

# Below the 30 s after which many proxies and clients give up on a silent connection.
LONG_POLL_S = 25.0
VERSION_HEADER = "X-Sekisho-Table-Version"


class GatewayToken:
    """The secret that gateways show; a value of its own so that it never meets a log or a page by accident."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def opens(self, authorization: str) -> bool:
        """Whether an Authorization header carries it. Takes the same time for every wrong token."""
        scheme, _, given = authorization.partition(" ")
        return hmac.compare_digest(given.strip().encode(), self._text) and scheme.lower() == "bearer"


@get("/internal/v1/table", include_in_schema=False, media_type="application/octet-stream")
async def route_table(
    request: Request[Any, Any, Any],
    publisher: NamedDependency[TablePublisher],
    gateway_token: NamedDependency[GatewayToken],
    # 2^63-1: what a version can be in the database
    after: Annotated[int, QueryParameter(ge=0, le=(1 << 63) - 1)] = 0,
) -> Response[bytes]:
    """200 with the signed table once its version is above `after`; 204 when nothing came in 25 s."""
    if not gateway_token.opens(request.headers.get("Authorization", "")):
        raise NotAuthorizedException("the gateway token is missing or wrong")
    table = await publisher.newer_than(after, timeout_s=LONG_POLL_S)
    if table is None:
        return Response(b"", status_code=204, headers={"Cache-Control": "no-store"})
    return Response(
        table.data,
        media_type="application/octet-stream",
        headers={VERSION_HEADER: str(table.version), "Cache-Control": "no-store"},
    )
