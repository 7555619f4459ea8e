"""One look at everything that a page speaks of, so that all of a page is about the same moment."""

from __future__ import annotations

import asyncio

import msgspec

from sekisho.capacity.survey import Standing, standing
from sekisho.capacity.throughput.service import InForce
from sekisho.console.services import Control, Fault, JournalState, LedgerState, TableState
from sekisho.console.workers import WorkerReport
from sekisho.federation.model import Endpoint, Operator, Site
from sekisho.federation.records import current
from sekisho.federation.views import KeyView
from sekisho.federation.views import SiteView as Enrolled
from sekisho.ledger.store import PassageCount, count_passages, newest_at_ms
from sekisho.residency.evidence_store import Evidence, newest_standing
from sekisho.residency.policy.service import Proposal
from sekisho.runtime.changes import Change, changes

DAY_MS = 86_400_000


class EndpointLive(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers together say of an endpoint. `known` is false when no worker speaks of it."""

    endpoint: Endpoint
    suspended: bool
    known: bool
    in_flight: int
    ejected_for_s: float
    first_byte_ms: float
    requests: int
    failures: int

    @property
    def state(self) -> str:
        """`suspended`, `unknown`, `resting` or `serving`."""
        if self.suspended:
            return "suspended"
        if not self.known:
            return "unknown"
        return "resting" if self.ejected_for_s > 0 else "serving"

    @property
    def slots_free(self) -> int:
        return max(0, self.endpoint.slots - self.in_flight) if self.state == "serving" else 0


class SiteLive(msgspec.Struct, frozen=True, kw_only=True):
    site: Site
    operator: Operator
    endpoints: tuple[EndpointLive, ...]
    passages: int
    refusals: int

    @property
    def state(self) -> str:
        """The endpoints' state when they agree, `partly` when some serve and some do not, `empty` without any."""
        states = {endpoint.state for endpoint in self.endpoints}
        if not states:
            return "empty"
        return states.pop() if len(states) == 1 else "partly"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`counts` are of the last 24 hours; times in Unix seconds but for `newest_ms`.

    `kept`: the newest evidence of each site and subject, run out or not. `enrolled`: every site as enrolment sees it.
    `throughput`: throughput reservations in force, with their use.
    `declared_until`: when the declarations of enrolled sites end. `proposals`: policies that wait.
    """

    now: float
    state: TableState | None
    faults: tuple[Fault, ...]
    reports: tuple[WorkerReport, ...]
    sites: tuple[SiteLive, ...]
    counts: tuple[PassageCount, ...]
    newest_ms: int | None
    journal: JournalState
    keys: tuple[KeyView, ...]
    recent: tuple[Change, ...]
    kept: tuple[Evidence, ...] = ()
    enrolled: tuple[Enrolled, ...] = ()
    declared_until: dict[str, float] = {}
    proposals: tuple[Proposal, ...] = ()
    ledger: LedgerState = LedgerState()
    reserved: Standing = Standing()
    throughput: tuple[InForce, ...] = ()

    @property
    def endpoints(self) -> tuple[EndpointLive, ...]:
        return tuple(endpoint for site in self.sites for endpoint in site.endpoints)

    @property
    def passages(self) -> int:
        return sum(count.passages for count in self.counts)

    @property
    def refusals(self) -> int:
        return sum(count.passages for count in self.counts if count.outcome == "refused")

    def site(self, site_id: str) -> SiteLive | None:
        return next((site for site in self.sites if site.site.id == site_id), None)

    def endpoint(self, endpoint_id: str) -> EndpointLive | None:
        return next((live for live in self.endpoints if live.endpoint.id == endpoint_id), None)


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    counts: tuple[PassageCount, ...]
    newest_ms: int | None
    keys: tuple[KeyView, ...]
    recent: tuple[Change, ...]
    kept: tuple[Evidence, ...]
    declared_until: dict[str, float]
    enrolled: tuple[Enrolled, ...]
    proposals: tuple[Proposal, ...]
    reserved: Standing
    throughput: tuple[InForce, ...]


class _Ending(msgspec.Struct):
    """The part of a declaration that says when it ends."""

    valid_until: float


async def gather(control: Control) -> Facts:
    now = control.clock.now()

    def stored() -> _Stored:
        keys = tuple(control.federation.keys())
        enrolled = tuple(control.sites.views(now=now))
        proposals = tuple(control.policies.waiting())
        throughput = control.standing()
        with control.database.read() as connection:
            return _Stored(
                counts=tuple(count_passages(connection, since_ms=int(now * 1000) - DAY_MS)),
                newest_ms=newest_at_ms(connection),
                keys=keys,
                recent=tuple(changes(connection, limit=8)),
                kept=tuple(newest_standing(connection)),
                declared_until={
                    name: msgspec.json.decode(record.body, type=_Ending).valid_until
                    for name, record in current(connection, "site").items()
                },
                enrolled=enrolled,
                proposals=proposals,
                reserved=standing(connection, now=now),
                throughput=throughput,
            )

    found, reports = await asyncio.gather(asyncio.to_thread(stored), control.workers())
    state = control.table()
    return Facts(
        now=now,
        state=state,
        faults=control.faults(),
        reports=reports,
        sites=sites_of(state, reports, found.counts) if state else (),
        counts=found.counts,
        newest_ms=found.newest_ms,
        journal=control.journal(),
        keys=found.keys,
        recent=found.recent,
        kept=found.kept,
        enrolled=found.enrolled,
        declared_until=found.declared_until,
        proposals=found.proposals,
        ledger=control.ledger(),
        reserved=found.reserved,
        throughput=found.throughput,
    )


def sites_of(
    state: TableState, reports: tuple[WorkerReport, ...], counts: tuple[PassageCount, ...]
) -> tuple[SiteLive, ...]:
    federation = state.federation
    operators = {operator.id: operator for operator in federation.operators}
    endpoints = [_live(endpoint, state, reports) for endpoint in federation.endpoints]
    return tuple(
        SiteLive(
            site=site,
            operator=operators[site.operator],
            endpoints=tuple(live for live in endpoints if live.endpoint.site == site.id),
            passages=sum(count.passages for count in counts if count.site == site.id),
            refusals=sum(count.passages for count in counts if count.site == site.id and count.outcome == "refused"),
        )
        for site in federation.sites
    )


def _live(endpoint: Endpoint, state: TableState, reports: tuple[WorkerReport, ...]) -> EndpointLive:
    rows = [
        row
        for report in reports
        if report.snapshot is not None
        for row in report.snapshot.endpoints
        if row.id == endpoint.id
    ]
    measured = [row.ewma_first_byte_ms for row in rows if row.ewma_first_byte_ms > 0]
    return EndpointLive(
        endpoint=endpoint,
        suspended=endpoint.id in state.suspended,
        known=bool(rows),
        in_flight=sum(row.in_flight for row in rows),
        ejected_for_s=max((row.ejected_for_s for row in rows), default=0.0),
        first_byte_ms=sum(measured) / len(measured) if measured else 0.0,
        requests=sum(row.requests for row in rows),
        failures=sum(row.failures for row in rows),
    )
