"""Joins reservations to the federation and to residency, which know nothing of them."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable

import msgspec

from sekisho.capacity.grid import HORIZON_SLOTS, SLOT_S, current_slot
from sekisho.capacity.model import Declared, Maintained
from sekisho.capacity.service import CapacityService
from sekisho.capacity.survey import Survey
from sekisho.capacity.upkeep import Rehearsal, Upkeep
from sekisho.console.capacity_api import ReserveOffice
from sekisho.console.services import TableState
from sekisho.federation.model import Endpoint, Federation, Pool
from sekisho.kernel.classes import DataClass
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.residency.model import Allowed, Verdict
from sekisho.residency.verdicts import facts_of, tenant_facts, verdicts_of
from sekisho.runtime.database import Database

_log = logging.getLogger(__name__)
TICK_EVERY_S = 60.0


class Reservations:
    """`federation` is the one in force; `table` what was compiled from it last (None: nothing is allowed yet)."""

    def __init__(
        self,
        database: Database,
        *,
        federation: Callable[[], Federation],
        table: Callable[[], TableState | None],
        clock: Clock,
    ) -> None:
        self._federation = federation
        self._table = table
        self._clock = clock
        self._declared: dict[str, int] = {}
        self._capacity = CapacityService(
            database,
            allowed_sites=self.allowed_sites,
            tenants=lambda: frozenset(tenant.id for tenant in federation().tenants),
            sites=lambda: frozenset(site.id for site in federation().sites),
            clock=clock,
            new_id=new_reservation_id,
        )
        self._life = Upkeep(self._capacity, clock=clock, new_id=new_reservation_id)
        self.office = ReserveOffice(
            capacity=self._capacity,
            life=self._life,
            rehearsal=Rehearsal(self._life),
            survey=Survey(self._capacity, clock=clock),
            verdicts=self.verdicts,
        )

    def allowed_sites(self, tenant: str, data_class: str) -> frozenset[str]:
        """The sites that `verdicts` allows."""
        found = self.verdicts(tenant, data_class)
        return frozenset(site for site, verdict in found.items() if isinstance(verdict, Allowed))

    def verdicts(self, tenant: str, data_class: str) -> dict[str, Verdict]:
        """The policy in force is asked about each site, as if an endpoint stood there: GPUs are booked before
        anything is served from them. The tenant's floor counts as it does on the wire."""
        state = self._table()
        asked = next((each for each in DataClass if each.label == data_class), None)
        if state is None or asked is None:
            return {}
        found = next((known for known in state.federation.tenants if known.id == tenant), None)
        if found is None:
            return {}
        sites = state.federation.sites
        standing = tuple(Endpoint(id=site.id, site=site.id, url="", models=()) for site in sites)
        now = self._clock.now()
        facts = facts_of(
            msgspec.structs.replace(state.federation, endpoints=standing),
            now=now,
            evidence_validity_s=state.evidence_validity_s,
            evidence=state.evidence,
        )
        verdicts = verdicts_of(state.policy, tenant_facts(found), facts, now=now)[max(asked, found.floor)]
        return {site.id: verdict for site, verdict in zip(sites, verdicts, strict=True)}

    def adopt(self) -> list[str]:
        """Pools become what the configuration and the agents' inventory declare. Fewer GPUs only count when they were
        fewer the last time, too: a driver that restarts displaces nobody. A pool that is no longer declared stays."""
        declared = declared_of(self._federation().pools, now=self._clock.now())
        before, self._declared = self._declared, {each.id: each.gpus for each in declared}
        steady = [each for each in declared if each.gpus >= before.get(each.id, each.gpus)]
        return self._life.adopt(steady, who="system")

    async def run(self) -> None:
        """Adopts, ends, warns, reclaims and fills, every minute."""
        while True:
            try:
                await asyncio.to_thread(self.adopt)
                await asyncio.to_thread(self._life.tick)
            except SekishoError as error:
                _log.error("reservations were not looked after: %s", error)
            await asyncio.sleep(TICK_EVERY_S)

    def close(self) -> None:
        self._capacity.close()


def new_reservation_id() -> str:
    """Grows with the time (in steps of 16 ms): keys that come in their order fill the pages of an index one after the
    other, where random ones make a commit write a page for each."""
    return f"rv-{time.time_ns() >> 24:010x}{secrets.token_hex(5)}"


def declared_of(pools: Iterable[Pool], *, now: float) -> list[Declared]:
    """One pool a site and model, under the name that people ask for: `NVIDIA H200` is `h200`."""
    found: dict[tuple[str, str], Declared] = {}
    for pool in pools:
        slug = re.sub(r"[^a-z0-9]+", "-", pool.gpu.lower()).strip("-").removeprefix("nvidia-")[:64] or "gpu"
        each = Declared(
            site=pool.site,
            gpu=slug,
            gpus=max(pool.count - pool.hold_back, 0),
            tenant_limit=pool.tenant_limit,
            yen_per_gpu_hour=pool.yen_per_gpu_hour,
            # what is over, and what lies beyond the horizon, is left out: it comes into force by itself
            maintenance=tuple(
                [
                    Maintained(first=each.start // SLOT_S, until=each.end // SLOT_S, gpus=each.gpus)
                    for each in pool.maintenance
                    if each.end > now and each.end // SLOT_S <= current_slot(now) + HORIZON_SLOTS
                ]
            ),
        )
        same = found.get((pool.site, slug))
        found[pool.site, slug] = each if same is None else _together(same, each)
    return list(found.values())


def _together(one: Declared, other: Declared) -> Declared:
    """What is all of one of them is not all of both."""
    windows = [
        Maintained(first=each.first, until=each.until, gpus=of.gpus if each.gpus is None else each.gpus)
        for of in (one, other)
        for each in of.maintenance
    ]
    return msgspec.structs.replace(one, gpus=one.gpus + other.gpus, maintenance=tuple(windows))
