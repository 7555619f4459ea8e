"""Interleaved rounds: every scenario asks all peers one after the other, and the order turns with each round."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import content, measure
from bench.measure import Sample
from bench.peers import Peer
from bench.processes import Failed, free_port
from bench.upstream import JsonUpstream, StreamUpstream


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`prompt_bytes` None: `streams` a round, `pace_ms` between two chunks. `one_core`: see `measure.wrk`."""

    name: str
    title: str
    connections: int
    seconds: float = 0.0
    prompt_bytes: int | None = None
    one_core: bool = False
    pace_ms: float = 0.0
    streams: int = 0


SMALL, LARGE = 360, 220_000
SCENARIOS = (
    Scenario(name="small_c32", title="small prompt, c = 32", connections=32, seconds=3, prompt_bytes=SMALL),
    Scenario(
        name="small_c1",
        title="small prompt, c = 1, all on one core",
        connections=1,
        seconds=2,
        prompt_bytes=SMALL,
        one_core=True,
    ),
    Scenario(
        name="small_c1_split",
        title="small prompt, c = 1, load on the other core",
        connections=1,
        seconds=1,
        prompt_bytes=SMALL,
    ),
    Scenario(
        name="large_c1",
        title="220 KB prompt, c = 1, all on one core",
        connections=1,
        seconds=2,
        prompt_bytes=LARGE,
        one_core=True,
    ),
    Scenario(name="large_c8", title="220 KB prompt, c = 8", connections=8, seconds=2, prompt_bytes=LARGE),
    # A hundred tokens a second and stream: every peer keeps up, so each pays for all of its chunks. At 500 the cores
    # are full, and who is late is spared work: several chunks have come by then, and pass as one.
    Scenario(
        name="stream_c100", title="100-chunk streams, c = 100, 10 ms apart", connections=100, pace_ms=10, streams=600
    ),
    Scenario(
        name="stream_c100_full",
        title="100-chunk streams, c = 100, 2 ms apart",
        connections=100,
        pace_ms=2,
        streams=1200,
    ),
)
STREAM_LIMIT_S = 45.0


@dataclass
class Entry:
    """A peer in this run: one instance in front of each upstream, or why there is none."""

    kind: type[Peer]
    version: str = ""
    error: str = ""
    json: Peer | None = None
    stream: Peer | None = None


class Field:
    """All peers of a run, started and verified. Use it as a context: what was started is stopped, by pid."""

    def __init__(
        self,
        kinds: Sequence[type[Peer]],
        *,
        folder: Path,
        key: str,
        tell: Callable[[str], None],
    ) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = key
        self.tell = tell
        self.entries = [Entry(kind) for kind in kinds]
        self._stack = contextlib.ExitStack()
        self._bodies: dict[int, Path] = {}

    def __enter__(self) -> Field:
        with contextlib.ExitStack() as stack:
            self.json_upstream = JsonUpstream(self.folder / "upstream")
            stack.callback(self.json_upstream.stop)
            self.stream_upstream = StreamUpstream(self.folder / "upstream", pace_ms=2)
            stack.callback(self.stream_upstream.stop)
            for entry in self.entries:
                self._start(entry, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def alive(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.error]

    def _start(self, entry: Entry, stack: contextlib.ExitStack) -> None:
        if entry.error:
            return
        self.tell(f"starting {entry.kind.name}")
        try:
            entry.version = entry.kind.version()
            entry.json = self._instance(entry, "json", self.json_upstream.port, stack)
            measure.verify(entry.json, limit_s=entry.kind.start_limit_s)
            entry.stream = self._instance(entry, "stream", self.stream_upstream.port, stack)
            measure.verify_stream(entry.stream, limit_s=entry.kind.start_limit_s)
        except (Failed, OSError, ValueError) as error:
            entry.error = str(error) or type(error).__name__
            self.tell(f"{entry.kind.name} is not measured: {entry.error}")
            for peer in (entry.json, entry.stream):
                if peer is not None:
                    peer.stop()

    def _instance(self, entry: Entry, which: str, upstream: int, stack: contextlib.ExitStack) -> Peer:
        peer = entry.kind(folder=self.folder / f"{entry.kind.name}-{which}", key=self.key)
        stack.callback(peer.stop)
        peer.start(free_port(), upstream)
        return peer

    def run(self, scenario: Scenario, entry: Entry, *, streams: int | None) -> Sample:
        """One round of one scenario against one peer; Failed when it can't be measured."""
        if scenario.prompt_bytes is None:
            assert entry.stream is not None
            self.stream_upstream.pace(scenario.pace_ms)
            count = streams or scenario.streams
            return measure.streams(
                entry.stream,
                concurrency=scenario.connections,
                count=count // 6 if entry.kind.slow else count,
                limit_s=STREAM_LIMIT_S,
                upstream_pids=self.stream_upstream.process.pids(),
            )
        assert entry.json is not None
        return measure.wrk(
            entry.json,
            self._body(scenario.prompt_bytes),
            connections=scenario.connections,
            seconds=scenario.seconds,
            upstream_pids=self.json_upstream.process.pids(),
            one_core=scenario.one_core,
        )

    def _body(self, size: int) -> Path:
        if size not in self._bodies:
            self._bodies[size] = self.folder / f"prompt-{size}.json"
            self._bodies[size].write_bytes(content.prompt(size))
        return self._bodies[size]


Samples = dict[str, dict[str, list[dict[str, Any]]]]  # [scenario][peer] → one record a round


def measure_rounds(
    field: Field,
    scenarios: Sequence[Scenario],
    *,
    rounds: int,
    streams: int | None,
    done: Callable[[Scenario, Entry, int, Sample | None], None],
) -> Samples:
    """A B C … A B C …; a peer that fails in a round has the reason in its entry and is left out from then on."""
    samples: Samples = {scenario.name: {} for scenario in scenarios}
    for number in range(rounds):
        for scenario in scenarios:
            turn = number % max(1, len(field.entries))
            for entry in (*field.entries[turn:], *field.entries[:turn]):
                if entry.error:
                    continue
                sample = None
                try:
                    sample = field.run(scenario, entry, streams=streams)
                    samples[scenario.name].setdefault(entry.kind.name, []).append(sample.record())
                except Failed as error:
                    entry.error = f"{scenario.name}, round {number + 1}: {error}"
                    field.tell(f"{entry.kind.name} is out: {entry.error}")
                done(scenario, entry, number, sample)
    return samples


def summary(samples: Samples) -> dict[str, dict[str, dict[str, Any]]]:
    """Medians over the rounds of [scenario][peer], with the lowest and highest round of each figure."""
    figures = ("cpu_us", "p50_us", "p99_us", "rps", "core_share", "foreign_share")
    return {
        scenario: {
            peer: {
                **{name: statistics.median(each[name] for each in records) for name in figures},
                "spread": {
                    name: [min(each[name] for each in records), max(each[name] for each in records)]
                    for name in figures
                },
                "max_us": max(each["max_us"] for each in records),
                "requests": sum(each["requests"] for each in records),
                "failed": sum(each["failed"] for each in records),
                "rounds": len(records),
            }
            for peer, records in peers.items()
            if records
        }
        for scenario, peers in samples.items()
    }
