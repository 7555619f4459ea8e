"""Is all well? The state of an installation as one value, judged by pure rules."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sekisho.assembly.fleet import Phase, SupervisorTable
from sekisho.assembly.processes import Kind, State
from sekisho.cli import texts
from sekisho.gateway.settings import EndpointSnapshot, WorkerSnapshot
from sekisho.kernel.units import format_duration


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint, over all workers. `first_byte_ms` is the mean of their EWMAs, weighted by requests; None while
    nobody has asked it. `ejected_for_s` is the longest of them."""

    id: str
    site: str
    operator: str
    country: str
    in_flight: int
    slots: int
    first_byte_ms: float | None
    ejected_for_s: float
    requests: int
    failures: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What `sekisho status --json` prints. `faults` is empty when all is well."""

    ok: bool
    faults: tuple[str, ...]
    supervisor: SupervisorTable
    workers: tuple[WorkerSnapshot, ...]
    endpoints: tuple[EndpointHealth, ...]
    table_versions: tuple[int, ...]
    table_age_s: float | None
    journal_errors: dict[str, str]


def judge(table: SupervisorTable, snapshots: Sequence[WorkerSnapshot | None], *, now: float) -> Health:
    """`snapshots` are in the order of the worker processes; None where one did not answer."""
    names = [row.name for row in table.processes if row.kind is Kind.WORKER]
    answered = [snapshot for snapshot in snapshots if snapshot is not None]
    versions = sorted({snapshot.table_version for snapshot in answered})
    endpoints = merge_endpoints(answered)
    journal_errors = {
        f"worker-{snapshot.index}": snapshot.journal_error or "?" for snapshot in answered if not snapshot.journal_ok
    }
    faults: list[str] = []
    if table.phase is not Phase.READY:
        faults.append(texts.FAULT_PHASE(phase=table.phase.value))
    faults += [
        texts.FAULT_PROCESS(name=row.name, state=row.state.value)
        for row in table.processes
        if row.state is not State.READY
    ]
    faults += [
        texts.FAULT_SILENT(name=name) for name, snapshot in zip(names, snapshots, strict=True) if snapshot is None
    ]
    if answered and (len(versions) != 1 or versions[0] == 0):
        faults.append(str(texts.FAULT_TABLE))
    faults += [texts.FAULT_JOURNAL(name=name) for name in journal_errors]
    faults += [texts.FAULT_EJECTED(name=endpoint.id) for endpoint in endpoints if endpoint.ejected_for_s > 0]
    if table.last_reload is not None and not table.last_reload.ok:
        faults.append(str(texts.FAULT_RELOAD))
    issued = [snapshot.table_issued_at for snapshot in answered if snapshot.table_version > 0]
    return Health(
        ok=not faults,
        faults=tuple(faults),
        supervisor=table,
        workers=tuple(answered),
        endpoints=endpoints,
        table_versions=tuple(versions),
        table_age_s=max(now - min(issued), 0.0) if issued else None,
        journal_errors=journal_errors,
    )


def merge_endpoints(snapshots: Sequence[WorkerSnapshot]) -> tuple[EndpointHealth, ...]:
    """The workers' views of each endpoint put together, in the order of the route table."""
    seen: dict[str, list[EndpointSnapshot]] = {}
    for snapshot in snapshots:
        for endpoint in snapshot.endpoints:
            seen.setdefault(endpoint.id, []).append(endpoint)
    merged = []
    for id_, views in seen.items():
        requests = sum(view.requests for view in views)
        weighted_ms = sum(view.ewma_first_byte_ms * view.requests for view in views)
        merged.append(
            EndpointHealth(
                id=id_,
                site=views[0].site,
                operator=views[0].operator,
                country=views[0].country,
                in_flight=sum(view.in_flight for view in views),
                slots=max(view.slots for view in views),
                first_byte_ms=weighted_ms / requests if requests else None,
                ejected_for_s=max(view.ejected_for_s for view in views),
                requests=requests,
                failures=sum(view.failures for view in views),
            )
        )
    return tuple(merged)


def age_text(seconds: float) -> str:
    """How long ago, in the largest unit that reads well."""
    return format_duration(max(seconds, 0.0))
