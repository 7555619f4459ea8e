"""Joins guaranteed throughput to the federation, to the route table and to what was metered."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Mapping

from sekisho.capacity.grid import unix_s
from sekisho.capacity.throughput.meter import speed
from sekisho.capacity.throughput.model import Measured
from sekisho.capacity.throughput.service import ThroughputService
from sekisho.console.services import TableState
from sekisho.federation.model import Federation
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.residency.table import RouteSet, RouteTable, ShareEntry
from sekisho.runtime.database import Database

# How long measured speeds are used before they are taken anew.
SPEEDS_HOLD_S = 60.0
END_EVERY_S = 60.0
_log = logging.getLogger(__name__)


class Throughput:
    """`federation` is the one in force; `table` what was compiled from it last (None: nothing is allowed yet)."""

    def __init__(
        self,
        database: Database,
        *,
        federation: Callable[[], Federation],
        table: Callable[[], TableState | None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._federation = federation
        self._table = table
        self._clock = clock
        self._lock = threading.Lock()
        self._speeds: dict[str, float] = {}
        self._speeds_at = float("-inf")
        self.service = ThroughputService(
            database,
            route_set=self._route_set,
            measured=self.measured,
            tenants=lambda: frozenset(tenant.id for tenant in federation().tenants),
            limit=self._limit,
            names_of=self.names_of,
            clock=clock,
            new_id=lambda: f"tp-{secrets.token_hex(8)}",
        )

    def measured(self) -> dict[str, Measured]:
        """Slots as agents and configuration say, speeds as the gateways metered."""
        now = self._clock.now()
        endpoints = self._federation().endpoints
        with self._lock:
            if now - self._speeds_at > SPEEDS_HOLD_S or any(each.id not in self._speeds for each in endpoints):
                with self._database.read() as connection:
                    self._speeds = {each.id: speed(connection, each.id, now=now) for each in endpoints}
                self._speeds_at = now
            speeds = self._speeds
        return _measured(self._federation(), speeds)

    def shares(
        self, table: RouteTable, federation: Federation, now: float
    ) -> tuple[tuple[ShareEntry, ...], float | None]:
        """What the table that is being made promises: every commitment in force, placed on its own route set; and
        when the next window begins or ends (Unix seconds)."""
        sets = _Sets(table)
        placed = self.service.in_force(now=now, route_set=sets.find, measured=_measured(federation, {}))
        index = {endpoint.id: number for number, endpoint in enumerate(table.endpoints)}
        entries = []
        for each in placed:
            terms = each.commitment.body.terms
            if each.places:
                entries.append(
                    ShareEntry(
                        id=each.commitment.id,
                        tenant=sets.tenant(terms.tenant),
                        data_class=terms.data_class,
                        model=table.aliases.get(terms.model, terms.model),
                        places=tuple((index[name], slots) for name, slots in each.places),
                        until=float(unix_s(terms.until)),
                        keep_warm_s=terms.keep_warm_s,
                    )
                )
        due = self.service.next_change(now=now)
        return tuple(entries), None if due is None else float(unix_s(due))

    async def run(self) -> None:
        """Windows that are over are written down as ended, every minute."""
        while True:
            await asyncio.sleep(END_EVERY_S)
            try:
                await asyncio.to_thread(self.service.end_those_over)
            except SekishoError as error:
                _log.error("throughput reservations were not looked after: %s", error)

    def names_of(self, model: str) -> tuple[str, ...]:
        """The model and every alias that leads to it: what a decision may call it."""
        aliases = self._federation().aliases
        served = aliases.get(model, model)
        return (served, *(alias for alias, target in aliases.items() if target == served))

    def _route_set(self, tenant: str, data_class: str, model: str) -> tuple[str, ...]:
        state = self._table()
        return _Sets(state.table).find(tenant, data_class, model) if state is not None else ()

    def _limit(self, tenant: str, model: str) -> int | None:
        found = next((each for each in self._federation().tenants if each.id == tenant), None)
        if found is None:
            return None
        own = found.model_limits.get(model)
        limits = [each.concurrency for each in (found.limits, own) if each is not None and each.concurrency]
        return min(limits, default=None)


def _measured(federation: Federation, speeds: Mapping[str, float]) -> dict[str, Measured]:
    return {
        each.id: Measured(
            endpoint=each.id, site=each.site, slots=each.slots, tokens_per_s=round(speeds.get(each.id, 0.0), 3)
        )
        for each in federation.endpoints
    }


class _Sets:
    """Route sets of one table by names."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._tenants = {tenant.id: number for number, tenant in enumerate(table.tenants)}

    def tenant(self, name: str) -> int:
        return self._tenants[name]

    def find(self, tenant: str, data_class: str, model: str) -> tuple[str, ...]:
        number = self._tenants.get(tenant)
        if number is None:
            return ()
        table = self._table
        model = table.aliases.get(model, model)
        routes = table.profiles[table.tenants[number].profile].routes.get(data_class, {})
        if model not in routes:
            return ()
        route = table.routes[routes[model]]
        return tuple(table.endpoints[index].id for index in route.endpoints) if isinstance(route, RouteSet) else ()
