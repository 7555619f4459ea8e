"""What /metrics says of the log: read by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sekisho.assembly.sequencer_status import SequencerStatus
from sekisho.console import metrics
from sekisho.console.services import LedgerState, SequencerSeen, WitnessSeen

STATUS = SequencerStatus(
    pid=1, origin="log.example/2026", size=5, committed_at=1.5, lag_s=0.25, added=3, known=1, unreadable=0,
    behind=False, fault="", fault_code="", fault_hint="", fault_since=None,
)  # fmt: skip
WITNESS = WitnessSeen(
    name="w.example",
    operator="sakura",
    size=4,
    behind=1,
    fault="",
    simulated=False,
    cosigned_at=9,
    cosigned=2,
    refused=1,
)


def told(state: LedgerState) -> dict[tuple[str, ...], float]:
    class Only(Collector):
        def collect(self) -> Iterator[Metric]:
            return metrics._ledger(state)

    registry = CollectorRegistry()
    registry.register(Only())
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name.removeprefix("sekisho_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_log_its_sequencer_and_its_witnesses() -> None:
    seen = msgspec.convert(STATUS, SequencerSeen, from_attributes=True)
    found = told(LedgerState(size=5, counts=4, cosigned_at=2.0, witnesses=(WITNESS,), sequencer=seen))
    assert found[("log_entries",)] == 5
    assert found[("log_cosigned_entries",)] == 4
    assert (found[("sequencer_up",)], found[("sequencer_ok",)]) == (1, 1)
    assert found[("sequencer_records_total", "added")] == 3
    assert found[("witness_behind_entries", "sakura", "w.example")] == 1
    assert found[("witness_ok", "sakura", "w.example")] == 1
    assert found[("witness_answers_total", "refused", "sakura", "w.example")] == 1


def test_what_does_not_answer_is_down_and_says_no_more() -> None:
    silent = msgspec.structs.replace(WITNESS, fault="it did not answer in time", cosigned_at=0)
    found = told(LedgerState(witnesses=(silent,)))
    assert found[("sequencer_up",)] == 0
    assert ("sequencer_ok",) not in found
    assert found[("witness_ok", "sakura", "w.example")] == 0
    assert ("witness_cosigned_seconds", "sakura", "w.example") not in found
