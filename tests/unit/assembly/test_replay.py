"""A trace replayed against a simulated federation: the same admission, and the owner gets what it reserved."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.assembly.live_replay import HostRefused, check_host
from sekisho.assembly.replay import OWNER, Plan, replay
from sekisho.capacity.throughput.trace import Profile, Timed, TraceUnreadable, fit, read_trace

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02d}.6805900,{100 + 40 * second},{20 + second}\n" for second in range(40)
)
PROFILE = Profile(fixed_s=0.05, prefill_s=0.0001, decode_s=0.01)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return path


def test_an_owner_is_served_as_if_nobody_else_were_there(trace: Path) -> None:
    plan = Plan(endpoints=2, slots=4, greedy=3, load=5, reserved=4, seconds=40, queue_max=100, slo_s=1.0)
    found = replay(read_trace(trace), plan, PROFILE)
    before, after = found.without.tenants[0], found.with_share.tenants[0]
    assert before.tenant == after.tenant == OWNER
    assert after.refused == 0
    assert after.slo > before.slo
    assert after.wait_p50_s == 0
    assert found.with_share.busy > 0.7, "what is idle is lent"


def test_a_profile_is_found_again_in_what_it_gives() -> None:
    measured = [
        Timed(
            tokens_in=words,
            tokens_out=out,
            first_s=0.05 + words * 0.0001,
            whole_s=0.05 + words * 0.0001 + out * 0.01,
        )
        for words in (8, 64, 512)
        for out in (8, 32)
    ]
    made = fit(measured, source="test")
    assert (round(made.fixed_s, 6), round(made.prefill_s, 6), round(made.decode_s, 6)) == (0.05, 0.0001, 0.01)
    assert made.error_s < 1e-6


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "TIMESTAMP,ContextTokens,GeneratedTokens\nnever,1,1\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(TraceUnreadable):
        read_trace(path)


def test_load_goes_to_this_machine_or_to_a_host_that_was_named() -> None:
    for url in ("http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"):
        check_host(url, ())
    check_host("http://gpu.example:1/v1", ("gpu.example",))
    for url in ("http://gpu.example:1/v1", "http://192.0.2.1/v1", "http://127.0.0.1.example/v1"):
        with pytest.raises(HostRefused):
            check_host(url, ())
