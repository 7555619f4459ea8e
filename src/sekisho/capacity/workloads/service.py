"""Workloads change here: one transaction a call, the version in the same transaction.

Control looks at them in `look` (when a site reports, and every second or two by the clock): the whole state is in the
rows, so a look that was lost with a crash is made up for by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import sqlalchemy as sa

from sekisho.capacity import store as reservations
from sekisho.capacity.displace import still_open, tell
from sekisho.capacity.faults import Finished
from sekisho.capacity.index import read_pools
from sekisho.capacity.model import Pool, Reservation
from sekisho.capacity.workloads import decide, store
from sekisho.capacity.workloads.faults import EngineUnknown, ReportUnreadable, WorkloadRefused
from sekisho.capacity.workloads.model import (
    Body,
    Offered,
    Opened,
    SiteOrders,
    SiteReport,
    Spec,
    Workload,
    WorkloadVersion,
)
from sekisho.kernel.clock import Clock
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

# How often a site asks what it shall run.
EVERY_S = 2.0
_decode_report = msgspec.json.Decoder(SiteReport).decode


class Names(Protocol):
    """Why a tenant can't have a workload under this name (a fact and a hint, by the federation in force), or None."""

    def __call__(self, tenant: str, name: str) -> tuple[str, str] | None: ...


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """`renew`: what serves has changed, and the route table with it."""

    orders: SiteOrders
    renew: bool


class WorkloadService:
    """Safe to share among threads."""

    def __init__(self, database: Database, *, names: Names, clock: Clock, new_id: Callable[[], str]) -> None:
        self._database = database
        self._names = names
        self._clock = clock
        self._new_id = new_id

    # -- people

    def define(self, reservation: str, spec: Spec, *, who: str) -> Workload:
        """A workload that starts with the window, or now when it is open."""
        now = self._clock.now()
        with self._database.write() as connection:
            held = reservations.find(connection, reservation)
            body = still_open(held, version=None)
            pools = {pool.number: pool for pool in read_pools(connection)}
            refusal = self._names(body.tenant, spec.name)
            if refusal is not None:
                raise WorkloadRefused(refusal[0], hint=refusal[1])
            workload = Workload(
                id=self._new_id(), version=1, body=Body(reservation=reservation, tenant=body.tenant, spec=spec)
            )
            others = [
                each for each in store.find_all(connection, reservation=reservation) if each.body.state != "ended"
            ]
            placed = decide.places([*others, workload], body.parts, pools)
            if any(len(placed[each.id]) < each.body.spec.replicas for each in (*others, workload)):
                raise WorkloadRefused(
                    f"{reservation} has no room left for {spec.replicas} replicas of {spec.gpus_per_replica} GPUs",
                    hint="choose fewer or smaller replicas; each lies in one pool",
                )
            self._offered(connection, spec, {place.site for place in placed[workload.id]})
            store.insert(connection, workload, now=now, who=who, why="defined")
            self._record(connection, workload, "workload.defined", who=who, now=now)
        return workload

    def set_wanted(self, name: str, wanted: bool, *, who: str) -> Workload:
        """Stops it within its window, or starts it again. Nothing happens when it is so already."""
        now = self._clock.now()
        with self._database.write() as connection:
            held = store.find(connection, name)
            if held.body.state == "ended":
                raise Finished(f"{name} has ended", hint="define a new one on an open reservation")
            if held.body.wanted == wanted:
                return held
            after = msgspec.structs.replace(held.body, wanted=wanted)
            why = "started by its owner" if wanted else "stopped by its owner"
            made = store.replace(connection, held, after, now=now, who=who, why=why)
            self._record(connection, made, "workload.started" if wanted else "workload.stopped", who=who, now=now)
        return made

    def get(self, name: str) -> Workload:
        with self._database.read() as connection:
            return store.find(connection, name)

    def history(self, name: str) -> list[WorkloadVersion]:
        with self._database.read() as connection:
            store.find(connection, name)
            return store.versions(connection, name)

    def workloads(self, *, reservation: str = "", tenant: str = "", limit: int = 500) -> list[Workload]:
        """The newest first."""
        with self._database.read() as connection:
            return store.find_all(connection, reservation=reservation, tenant=tenant, limit=limit)

    def offers(self) -> dict[str, tuple[Offered, ...]]:
        """By site: the models that its operator lets tenants run."""
        with self._database.read() as connection:
            return {site: offers for site, (_, offers) in store.sites(connection).items()}

    # -- sites

    def read_report(self, body: bytes) -> SiteReport:
        try:
            return _decode_report(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ReportUnreadable(
                f"the report can't be read: {error}", hint="do the agent and the control plane have the same version?"
            ) from None

    def exchange(self, site: str, report: SiteReport) -> Told:
        """Takes over what a site says, and tells it what it shall run."""
        now = self._clock.now()
        said = {each.replica: each for each in report.replicas}
        with self._database.write() as connection:
            known = store.sites(connection).get(site)
            if known is None or known[1] != report.offers or not 0 <= now - known[0] < decide.HEARD_S / 4:
                store.set_site(connection, site, heard_at=now, offers=report.offers)
            workloads = store.active(connection, now=now)
            before = decide.opened(workloads, now=now)
            after = self._look(
                connection,
                workloads,
                [msgspec.structs.replace(each, body=decide.heard(each.body, site, said)) for each in workloads],
                now=now,
            )
        told = SiteOrders(orders=decide.orders(after, site), every_s=EVERY_S)
        return Told(orders=told, renew=decide.opened(after, now=now) != before)

    def idle(self) -> bool:
        """Nothing runs now, or has something to end."""
        with self._database.read() as connection:
            return not store.active(connection, now=self._clock.now())

    def look(self) -> bool:
        """What time brings. True when the route table has to be made anew."""
        now = self._clock.now()
        with self._database.write() as connection:
            workloads = store.active(connection, now=now)
            before = decide.opened(workloads, now=now)
            after = self._look(connection, workloads, workloads, now=now)
        return decide.opened(after, now=now) != before

    def opened(self) -> list[Opened]:
        """The replicas that serve now, for the federation."""
        with self._database.read() as connection:
            return decide.opened(store.serving(connection), now=self._clock.now())

    # -- inside

    def _look(
        self, connection: sa.Connection, stored: list[Workload], workloads: list[Workload], *, now: float
    ) -> list[Workload]:
        held = {
            name: reservations.find(connection, name)
            for name in sorted({each.body.reservation for each in workloads})
        }
        pools: dict[int, Pool] = {pool.number: pool for pool in read_pools(connection)}
        heard_at = {site: at for site, (at, _) in store.sites(connection).items()}
        found = []
        for row, step in zip(stored, decide.plan(workloads, held, pools, heard_at=heard_at, now=now), strict=True):
            name = step.body.reservation
            if step.body.opened_at and not held[name].body.claimed:
                held[name] = _claimed(connection, held[name], row.id, now=now)
            if step.refund:
                held[name] = _refunded(connection, held[name], row.id, step.refund, now=now)
            # What is only counted (no state, no report) is written once in a quarter of a minute.
            small = msgspec.structs.replace(step.body, counted_at=row.body.counted_at, down_gpu_s=row.body.down_gpu_s)
            if small != row.body or step.body.counted_at - row.body.counted_at >= decide.HEARD_S / 4:
                found.append(store.replace(connection, row, step.body, now=now, who="system", why=step.why))
            else:
                found.append(row)
        return found

    def _offered(self, connection: sa.Connection, spec: Spec, sites: set[str]) -> None:
        known = store.sites(connection)
        for site in sorted(sites):
            offers = known[site][1] if site in known else ()
            if Offered(engine=spec.engine, model=spec.model) not in offers:
                there = ", ".join(f"{each.model} on {each.engine}" for each in offers) or "nothing yet"
                raise EngineUnknown(
                    f"site {site} does not offer {spec.model} on {spec.engine}", hint=f"it offers: {there}"
                )

    def _record(self, connection: sa.Connection, made: Workload, action: str, *, who: str, now: float) -> None:
        record_change(
            connection,
            now=now,
            actor=who,
            action=action,
            subject=f"workload/{made.id}",
            detail={"reservation": made.body.reservation, "model": made.body.spec.model},
        )


def _claimed(connection: sa.Connection, held: Reservation, workload: str, *, now: float) -> Reservation:
    after = msgspec.structs.replace(held.body, claimed=True)
    return reservations.replace(connection, held, after, now=now, who="system", why=f"{workload} runs in its window")


def _refunded(
    connection: sa.Connection, held: Reservation, workload: str, gpu_slots: int, *, now: float
) -> Reservation:
    """Pays back time that was lost, pro rata, and tells the tenant."""
    yen = decide.refund_yen(held, gpu_slots)
    after = msgspec.structs.replace(held.body, refund_yen=held.body.refund_yen + yen)
    hours = gpu_slots / 4
    why = f"{workload} was down for {hours:g} GPU hours"
    made = reservations.replace(connection, held, after, now=now, who="system", why=why)
    en = f"Workload {workload} of reservation {held.id} was down for {hours:g} GPU hours. Refunded: {yen} yen."
    ja = f"予約 {held.id} のワークロード {workload} が {hours:g} GPU 時間にわたり停止していました。返金額：{yen} 円。"
    tell(connection, made, now=now, kind="workload-down", en=en, ja=ja)
    return made
