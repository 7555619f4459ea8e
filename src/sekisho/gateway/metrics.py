"""Counters of one worker, in plain dictionaries: nothing on the hot path but an addition."""

from __future__ import annotations

from typing import Final

from sekisho.ledger.model import Decision

BOUNDS: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip


# The bucket of a time below a second, by its half milliseconds: every bound up to there is a whole number of them.
_FINE: Final = bytes(sum(bound * 2000 < half + 1 for bound in BOUNDS) for half in range(2000))


class Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        half_ms = int(seconds * 2000.0 - 1e-6)  # a bound belongs to the bucket below it
        if 0 <= half_ms < 2000:
            bucket: int = _FINE[half_ms]
        else:
            bucket = sum(bound < seconds for bound in BOUNDS)
        self.counts[bucket] += 1
        self.total += seconds

    def cumulative(self) -> tuple[int, ...]:
        running, rows = 0, []
        for count in self.counts:
            running += count
            rows.append(running)
        return tuple(rows)


class LaneMetrics:
    """The series that a completed passage of one lane adds to."""

    __slots__ = ("completed", "duration", "first_byte", "tokens")

    def __init__(self, completed: list[int], duration: Histogram, first_byte: Histogram, tokens: list[int]) -> None:
        self.completed = completed
        self.duration = duration
        self.first_byte = first_byte
        self.tokens = tokens


class Metrics:
    """Label values come from configuration only (tenants, sites, classes, codes): the number of series is bounded."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str, str, str], list[int]] = {}
        self.tokens: dict[tuple[str, str], list[int]] = {}
        self.duration: dict[tuple[str, str], Histogram] = {}
        self.first_byte: dict[tuple[str, str], Histogram] = {}
        self.queued = Histogram()
        self.retries = 0
        self.hedges = 0
        self.unrecorded = 0
        self.connections = 0
        self.worker_lost = 0
        self.strangers_cut = 0

    def lane(self, *, tenant: str, data_class: str, site: str) -> LaneMetrics:
        place = (data_class, site)
        return LaneMetrics(
            self.requests.setdefault((tenant, data_class, site, "completed", ""), [0]),
            self.duration.setdefault(place, Histogram()),
            self.first_byte.setdefault(place, Histogram()),
            self.tokens.setdefault((tenant, site), [0, 0, 0]),
        )

    def observe(self, decision: Decision) -> None:
        """Count a passage that took the general way."""
        key = (decision.tenant, decision.data_class, decision.site, decision.outcome, decision.code)
        self.requests.setdefault(key, [0])[0] += 1
        if not decision.site:
            return
        lane = self.lane(tenant=decision.tenant, data_class=decision.data_class, site=decision.site)
        lane.duration.observe(decision.duration_us / 1e6)
        if decision.first_byte_us:
            lane.first_byte.observe(decision.first_byte_us / 1e6)
        if decision.queue_us:
            self.queued.observe(decision.queue_us / 1e6)
        lane.tokens[0] += decision.tokens_in
        lane.tokens[1] += decision.tokens_out
        lane.tokens[2] += decision.tokens_cached

    def counters(self) -> dict[str, float]:
        """Prometheus series (name with labels → value)."""
        rows: dict[str, float] = {}
        for (tenant, data_class, site, outcome, code), count in self.requests.items():
            labels = f'tenant="{tenant}",class="{data_class}",site="{site}",outcome="{outcome}",code="{code}"'
            if count[0]:
                rows[f"sekisho_requests_total{{{labels}}}"] = count[0]
        for (tenant, site), (read, written, cached) in self.tokens.items():
            for kind, value in (("input", read), ("output", written), ("cached", cached)):
                rows[f'sekisho_tokens_total{{tenant="{tenant}",site="{site}",type="{kind}"}}'] = value
        rows["sekisho_retries_total"] = self.retries
        rows["sekisho_hedges_total"] = self.hedges
        rows["sekisho_journal_unrecorded_total"] = self.unrecorded
        rows["sekisho_connections_total"] = self.connections
        rows["sekisho_worker_lost_total"] = self.worker_lost
        rows["sekisho_strangers_cut_total"] = self.strangers_cut
        return rows

    def histograms(self) -> dict[str, tuple[tuple[int, ...], float]]:
        rows: dict[str, tuple[tuple[int, ...], float]] = {}
        for name, family in (("duration", self.duration), ("first_byte", self.first_byte)):
            for (data_class, site), histogram in family.items():
                series = f'sekisho_{name}_seconds{{class="{data_class}",site="{site}"}}'
                rows[series] = (histogram.cumulative(), histogram.total)
        rows["sekisho_queue_seconds"] = (self.queued.cumulative(), self.queued.total)
        return rows
