"""The page that verifies a receipt in the browser; open to everybody, like the keys that it uses."""

from __future__ import annotations

import asyncio
from pathlib import Path

from litestar import Response, get
from litestar.di import NamedDependency

from sekisho.console.http import frame_of, page
from sekisho.console.inject import Asked, TheControl, TheSessions
from sekisho.console.render import View
from sekisho.console.session import COOKIE
from sekisho.ledger.receipts_http import ReceiptDesk


class ReceiptView(View, frozen=True, kw_only=True):
    """`policies`: the published policies, one for each log."""

    policies: tuple[str, ...]

    @property
    def template(self) -> str:
        return "receipt.html"


@get("/receipts/verify", include_in_schema=False)
async def receipt_page(
    request: Asked, control: TheControl, sessions: TheSessions, receipts: NamedDependency[ReceiptDesk]
) -> Response[bytes]:
    session = sessions.open(request.cookies.get(COOKIE, ""), now=control.clock.now())
    policies = await asyncio.to_thread(_policies, receipts.base / "policy")
    return page(ReceiptView(policies=policies), frame_of(request, control, session, section="receipts"))


def _policies(folder: Path) -> tuple[str, ...]:
    return tuple(file.read_text("utf-8", "replace") for file in sorted(folder.glob("*.policy"), reverse=True))
