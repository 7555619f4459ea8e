"""/metrics: what each worker counts, with the label `worker`, and the control plane's own numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sekisho.console.services import Control, LedgerState
from sekisho.console.workers import WorkerReport
from sekisho.gateway.settings import WorkerSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4"
_SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_GAUGES = ("connections", "in_flight", "queued", "rss_bytes", "table_version", "table_issued_at", "started_at")
_ENDPOINT_GAUGES = ("in_flight", "slots", "ewma_first_byte_ms", "ejected_for_s")


def exposition(control: Control, reports: Sequence[WorkerReport], *, version: str) -> bytes:
    """The text that Prometheus reads, made from one look at everything."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Workers(reports))
    registry.register(_Control(control, reports, version=version))
    return generate_latest(registry)


class _Workers(Collector):
    """Series of the workers as they give them; types follow from the names (Prometheus conventions)."""

    def __init__(self, reports: Sequence[WorkerReport]) -> None:
        self._snapshots = [report.snapshot for report in reports if report.snapshot is not None]

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for snapshot in self._snapshots:
            worker = str(snapshot.index)
            for series, value in snapshot.counters.items():
                name, labels = _parsed(series)
                kind = "counter" if name.endswith("_total") else "gauge"
                family = _family(families, name.removesuffix("_total"), kind)
                family.add_sample(name, {**labels, "worker": worker}, value)
            for series, (counts, total) in snapshot.histograms.items():
                name, labels = _parsed(series)
                _add_histogram(
                    _family(families, name, "histogram"), {**labels, "worker": worker}, snapshot, counts, total
                )
            for field in _GAUGES:
                family = _family(families, f"sekisho_worker_{field}", "gauge")
                family.add_sample(family.name, {"worker": worker}, float(getattr(snapshot, field)))
            for field in ("journal_ok", "draining"):
                family = _family(families, f"sekisho_worker_{field}", "gauge")
                family.add_sample(family.name, {"worker": worker}, float(getattr(snapshot, field)))
            for endpoint in snapshot.endpoints:
                labels = {"endpoint": endpoint.id, "site": endpoint.site, "worker": worker}
                for field in _ENDPOINT_GAUGES:
                    family = _family(families, f"sekisho_endpoint_{field}", "gauge")
                    family.add_sample(family.name, labels, float(getattr(endpoint, field)))
        yield from families.values()


class _Control(Collector):
    def __init__(self, control: Control, reports: Sequence[WorkerReport], *, version: str) -> None:
        self._control = control
        self._reports = reports
        self._version = version

    def collect(self) -> Iterable[Metric]:
        control = self._control
        state = control.table()
        info = GaugeMetricFamily("sekisho_build", "Version of the control plane.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        answering = sum(report.snapshot is not None for report in self._reports)
        yield GaugeMetricFamily("sekisho_workers_answering", "Workers that answer on their socket.", answering)
        yield GaugeMetricFamily("sekisho_workers_silent", "Workers that do not.", len(self._reports) - answering)
        yield GaugeMetricFamily("sekisho_gateways_waiting", "Open long polls.", control.publisher.waiting)
        yield GaugeMetricFamily("sekisho_control_faults", "Faults that hold now.", len(control.faults()))
        if state is not None:
            table = state.table
            yield GaugeMetricFamily("sekisho_table_version", "Version of the table in force.", table.version)
            yield GaugeMetricFamily("sekisho_table_issued_seconds", "When it was made (Unix).", table.issued_at)
            yield GaugeMetricFamily("sekisho_table_bytes", "Size of the signed table.", state.size_bytes)
            yield GaugeMetricFamily("sekisho_table_compile_seconds", "Time to make it.", state.compile_s)
            yield GaugeMetricFamily("sekisho_endpoints_suspended", "Suspended endpoints.", len(state.suspended))
        journal = control.journal()
        yield CounterMetricFamily(
            "sekisho_records_unreadable", "Journal records of unknown form.", journal.unreadable
        )
        if journal.checked_at is not None:
            yield GaugeMetricFamily("sekisho_journals_read_seconds", "Last look at the journals.", journal.checked_at)
        yield from _ledger(control.ledger())


def _ledger(state: LedgerState) -> Iterator[Metric]:
    """The log, its sequencer and its witnesses."""
    yield GaugeMetricFamily("sekisho_log_entries", "Entries of the newest log.", state.size)
    yield GaugeMetricFamily("sekisho_log_cosigned_entries", "Those under a quorum.", state.counts)
    if state.cosigned_at is not None:
        yield GaugeMetricFamily("sekisho_log_cosigned_seconds", "When a quorum cosigned last.", state.cosigned_at)
    sequencer = state.sequencer
    yield GaugeMetricFamily("sekisho_sequencer_up", "Whether the sequencer answers.", float(sequencer is not None))
    if sequencer is not None:
        if sequencer.committed_at is not None:
            yield GaugeMetricFamily("sekisho_sequencer_committed_seconds", "Last commit.", sequencer.committed_at)
        yield GaugeMetricFamily("sekisho_sequencer_lag_seconds", "Age of the oldest entry.", sequencer.lag_s)
        yield GaugeMetricFamily("sekisho_sequencer_behind", "More waits than fits.", float(sequencer.behind))
        yield GaugeMetricFamily("sekisho_sequencer_ok", "Whether it has no fault.", float(not sequencer.fault))
        records = CounterMetricFamily("sekisho_sequencer_records", "Records that it read.", labels=["result"])
        for result in ("added", "known", "unreadable"):
            records.add_metric([result], getattr(sequencer, result))
        yield records
    labels = ["witness", "operator"]
    gauges = {
        "entries": GaugeMetricFamily("sekisho_witness_entries", "Entries that it has cosigned.", labels=labels),
        "behind": GaugeMetricFamily("sekisho_witness_behind_entries", "Entries newer than those.", labels=labels),
        "ok": GaugeMetricFamily("sekisho_witness_ok", "Whether it cosigned when it was asked last.", labels=labels),
        "seconds": GaugeMetricFamily("sekisho_witness_cosigned_seconds", "When, by its clock.", labels=labels),
    }
    answers = CounterMetricFamily("sekisho_witness_answers", "What it answered.", labels=[*labels, "answer"])
    for witness in state.witnesses:
        named = [witness.name, witness.operator]
        gauges["entries"].add_metric(named, witness.size)
        gauges["behind"].add_metric(named, witness.behind)
        gauges["ok"].add_metric(named, float(not witness.fault))
        if witness.cosigned_at:
            gauges["seconds"].add_metric(named, witness.cosigned_at)
        answers.add_metric([*named, "cosigned"], witness.cosigned)
        answers.add_metric([*named, "refused"], witness.refused)
    yield from gauges.values()
    yield answers


def _family(families: dict[str, Metric], name: str, kind: str) -> Metric:
    family = families.get(name)
    if family is None:
        # The workers give names that say what they count; a made-up help text would say nothing more.
        family = families[name] = Metric(name, name.replace("_", " "), kind)
    return family


def _parsed(series: str) -> tuple[str, dict[str, str]]:
    """`name{a="b",c="d"}` → name and labels, with the escapes of the exposition format undone."""
    match = _SERIES.fullmatch(series)
    if match is None:
        return "sekisho_series_unreadable", {}
    labels = {found[1]: _unescaped(found[2]) for found in _LABEL.finditer(match[2] or "")}
    return match[1], labels


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def _add_histogram(
    family: Metric, labels: dict[str, str], snapshot: WorkerSnapshot, counts: tuple[int, ...], total: float
) -> None:
    bounds = [*(f"{bound:g}" for bound in snapshot.bounds), "+Inf"]
    for bound, count in zip(bounds, counts, strict=False):
        family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{family.name}_sum", labels, total)
    family.add_sample(f"{family.name}_count", labels, counts[-1] if counts else 0)
