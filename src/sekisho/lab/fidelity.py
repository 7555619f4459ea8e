"""How true the laboratory is: the error of its round trips, and what goes through one of its lines."""

from __future__ import annotations

import json
import subprocess

import msgspec

from sekisho.lab.network import Lab, LabFailed
from sekisho.lab.scenarios.report import percentile

MAX_RTT_ERROR_MS = 0.5  # at the 99th percentile, on an idle machine
MIN_MBIT = 200.0
_STREAM_PORT = 5001
_STREAM_DELAY_MS = 10.0


class RoundTrips(msgspec.Struct, frozen=True, kw_only=True):
    """Pings over one line, one after the other. `error` is measured minus set; at p99 and at most its amount, as too
    fast is as wrong as too slow. None may be lost."""

    a: str
    b: str
    set_ms: float
    count: int
    lost: int
    p50_error_ms: float
    p99_error_ms: float
    max_error_ms: float

    @property
    def held(self) -> bool:
        return self.lost == 0 and self.p99_error_ms <= MAX_RTT_ERROR_MS


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """One TCP connection for some seconds. `router_cpu_us_a_packet` is the router's CPU time, both directions."""

    delay_ms: float
    seconds: float
    mbit: float
    packets: int
    router_cpu_us_a_packet: float

    @property
    def held(self) -> bool:
        return self.mbit >= MIN_MBIT


def round_trips(lab: Lab, a: str, b: str, *, count: int = 1000, interval_ms: float = 2.0) -> RoundTrips:
    """From `a` to `b` and back, `count` times. LabFailed when no answer came at all."""
    set_ms = 2 * lab.link(a, b).character.delay_ns / 1e6
    within_s = 30 + count * (set_ms + interval_ms + 1) / 1000 * 3
    output = lab.result(a, "sekisho.lab.ping", lab.address(b), str(count), str(interval_ms), within_s=within_s)
    trips: list[float | None] = json.loads(output)
    errors = [trip - set_ms for trip in trips if trip is not None]
    if not errors:
        raise LabFailed(f"no ping from {a} to {b} came back", hint="is the line cut?")
    return RoundTrips(
        a=a,
        b=b,
        set_ms=set_ms,
        count=count,
        lost=count - len(errors),
        p50_error_ms=round(percentile(errors, 0.5), 3),
        p99_error_ms=round(percentile([abs(each) for each in errors], 0.99), 3),
        max_error_ms=round(max(abs(each) for each in errors), 3),
    )


def throughput(lab: Lab, a: str, b: str, *, seconds: float = 5.0) -> Throughput:
    """From `a` to `b` over a line that takes 10 ms one way; its old delay is back afterwards."""
    handle = lab.link(a, b)
    old_ms = handle.character.delay_ns / 1e6
    handle.set(delay_ms=_STREAM_DELAY_MS)
    try:
        receiver = lab.python(b, "sekisho.lab.stream", "listen", str(_STREAM_PORT), stdout=subprocess.PIPE)
        if receiver.stdout is None or receiver.stdout.readline() != b"listening\n":
            raise LabFailed("the receiver of the stream did not start", hint="its own words stand above")
        cpu_s, packets = float(lab.ask("cpu")), _packets(lab, a, b)
        sent = json.loads(
            lab.result(
                a, "sekisho.lab.stream", lab.address(b), str(_STREAM_PORT), str(seconds), within_s=seconds * 3 + 30
            )
        )
        cpu_s, packets = float(lab.ask("cpu")) - cpu_s, _packets(lab, a, b) - packets
    finally:
        handle.set(delay_ms=old_ms)
    return Throughput(
        delay_ms=_STREAM_DELAY_MS,
        seconds=round(sent["seconds"], 2),
        mbit=round(sent["bytes"] * 8 / sent["seconds"] / 1e6, 1),
        packets=packets,
        router_cpu_us_a_packet=round(cpu_s / packets * 1e6, 2),
    )


def _packets(lab: Lab, a: str, b: str) -> int:
    counters = lab.counters()
    return counters[a, b].packets + counters[b, a].packets
