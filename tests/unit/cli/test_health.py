"""What is well and what is not, by pure rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sekisho.assembly.fleet import Phase, ReloadResult, SupervisorTable
from sekisho.assembly.processes import Kind, ProcessRow, State
from sekisho.cli.health import judge
from sekisho.gateway.settings import EndpointSnapshot, WorkerSnapshot

NOW = 1000.0


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_LANG", "en")


def row(name: str, kind: Kind) -> ProcessRow:
    return ProcessRow(name=name, kind=kind, pid=7, state=State.READY, started_at=900.0, restarts=0)


def supervisor(**changes: Any) -> SupervisorTable:
    table = SupervisorTable(
        pid=1,
        phase=Phase.READY,
        started_at=900.0,
        home="/home",
        config=None,
        gateway_url="http://g",
        console_url="http://c",
        drain_grace_s=30.0,
        processes=(row("control", Kind.CONTROL), row("worker-0", Kind.WORKER), row("worker-1", Kind.WORKER)),
    )
    return msgspec.structs.replace(table, **changes)


def endpoint(**changes: Any) -> EndpointSnapshot:
    snapshot = EndpointSnapshot(
        id="ishikari-1",
        site="sakura-ishikari",
        operator="sakura",
        country="JP",
        in_flight=1,
        slots=8,
        ewma_first_byte_ms=10.0,
        ejected_for_s=0.0,
        requests=3,
        failures=1,
    )
    return msgspec.structs.replace(snapshot, **changes)


def worker(index: int, **changes: Any) -> WorkerSnapshot:
    snapshot = WorkerSnapshot(
        index=index,
        pid=7,
        at=NOW,
        started_at=900.0,
        table_version=4,
        table_issued_at=990.0,
        policy="p",
        connections=0,
        in_flight=0,
        queued=0,
        draining=False,
        journal_ok=True,
        journal_error="",
        rss_bytes=1,
        endpoints=(endpoint(),),
        counters={},
        histograms={},
        bounds=(),
    )
    return msgspec.structs.replace(snapshot, **changes)


def test_all_is_well() -> None:
    health = judge(supervisor(), [worker(0), worker(1)], now=NOW)
    assert health.ok
    assert health.faults == ()
    assert health.table_versions == (4,)
    assert health.table_age_s == 10.0


def test_workers_views_of_an_endpoint_are_put_together() -> None:
    views = [
        worker(0, endpoints=(endpoint(ewma_first_byte_ms=10.0, requests=3),)),
        worker(1, endpoints=(endpoint(ewma_first_byte_ms=50.0, requests=1, in_flight=4),)),
    ]
    (merged,) = judge(supervisor(), views, now=NOW).endpoints
    assert (merged.in_flight, merged.slots, merged.requests, merged.failures) == (5, 8, 4, 2)
    assert merged.first_byte_ms == 20.0


def test_an_endpoint_that_nobody_asked_has_no_time() -> None:
    (merged,) = judge(
        supervisor(),
        [worker(0, endpoints=(endpoint(requests=0, ewma_first_byte_ms=0.0),)), worker(1, endpoints=())],
        now=NOW,
    ).endpoints
    assert merged.first_byte_ms is None


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda: (supervisor(phase=Phase.STARTING), [worker(0), worker(1)]), "the fleet is starting"),
        (
            lambda: (
                supervisor(
                    processes=(
                        msgspec.structs.replace(row("control", Kind.CONTROL), state=State.WAITING),
                        row("worker-0", Kind.WORKER),
                    )
                ),
                [worker(0)],
            ),
            "control is waiting",
        ),
        (lambda: (supervisor(), [worker(0), None]), "worker-1 does not answer"),
        (lambda: (supervisor(), [worker(0), worker(1, table_version=3)]), "route table"),
        (lambda: (supervisor(), [worker(0, table_version=0), worker(1, table_version=0)]), "route table"),
        (
            lambda: (supervisor(), [worker(0), worker(1, journal_ok=False, journal_error="disk full")]),
            "journal of worker-1",
        ),
        (
            lambda: (supervisor(), [worker(0), worker(1, endpoints=(endpoint(ejected_for_s=2.0),))]),
            "endpoint ishikari-1 is ejected",
        ),
        (
            lambda: (supervisor(last_reload=ReloadResult(at=NOW, ok=False, detail="x")), [worker(0), worker(1)]),
            "the last reload was refused",
        ),
    ],
)
def test_whatever_is_wrong_is_named_and_nothing_is_well_then(
    spoil: Callable[[], tuple[SupervisorTable, list[WorkerSnapshot | None]]], fault: str
) -> None:
    table, snapshots = spoil()
    health = judge(table, snapshots, now=NOW)
    assert not health.ok
    assert fault in health.faults
