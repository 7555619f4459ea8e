"""Joins workloads to the federation, which knows nothing of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence

from sekisho.capacity.workloads.service import WorkloadService
from sekisho.federation.model import Endpoint, Federation
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.database import Database

_log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0


class Workloads:
    """`federation` is the one in force; `changed` makes a new route table."""

    def __init__(
        self,
        database: Database,
        *,
        federation: Callable[[], Federation],
        changed: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self.service = WorkloadService(database, names=self._names, clock=clock, new_id=_new_id)
        self._federation = federation
        self._changed = changed

    def endpoints(self) -> Sequence[Endpoint]:
        """What serves in tenants' windows now, each for its owner and until its end."""
        return [
            Endpoint(
                id=each.replica,
                site=each.site,
                url=each.url,
                models=(each.name,),
                slots=each.slots,
                tenants=(each.tenant,),
                open_until=each.until,
            )
            for each in self.service.opened()
        ]

    async def run(self) -> None:
        """Windows begin and end by the clock, once a second; sites are told when they ask."""
        while True:
            try:
                if await asyncio.to_thread(self._look):
                    await self._changed()
            except SekishoError as error:
                _log.error("workloads were not looked after: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> bool:
        return not self.service.idle() and self.service.look()

    def _names(self, tenant: str, name: str) -> tuple[str, str] | None:
        federation = self._federation()
        if name in federation.aliases:
            return f"`{name}` is an alias of the federation", "choose another name: an alias never hides a model"
        if any(endpoint.tenants is None and name in endpoint.models for endpoint in federation.endpoints):
            return (
                f"everybody's endpoints serve a model `{name}` already",
                f"choose a name of your own, like `{tenant}-{name}`: it goes to your window alone",
            )
        return None


def _new_id() -> str:
    return f"wl-{secrets.token_hex(8)}"
