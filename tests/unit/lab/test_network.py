"""The network itself: real namespaces, real packets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sekisho.lab import namespaces
from sekisho.lab.fidelity import throughput
from sekisho.lab.network import Lab, LabFailed
from sekisho.lab.topology import JAPAN, TopologyRefused

pytestmark = [pytest.mark.journey, pytest.mark.usefixtures("possible")]


def ping(lab: Lab, a: str, b: str, count: int = 20, interval_ms: int = 1) -> list[float | None]:
    found: list[float | None] = json.loads(
        lab.result(a, "sekisho.lab.ping", lab.address(b), str(count), str(interval_ms))
    )
    return found


def test_three_counts_say_the_same_and_only_the_line_in_use_says_anything(lab: Lab, tmp_path: Path) -> None:
    capture = lab.capture(tmp_path, [("tokyo", "osaka"), ("tokyo", "us-west")])
    assert None not in ping(lab, "tokyo", "osaka", 50)
    captured = capture.stop()
    interfaces, lines = lab.interface_statistics(), lab.line_counters()
    out, back = lines["tokyo", "osaka"], lines["osaka", "tokyo"]
    here, there = interfaces["tokyo", "osaka"], interfaces["osaka", "tokyo"]
    assert out.entered_packets == out.left_packets == here.sent_packets == there.received_packets == 50
    assert back.left_packets == here.received_packets == there.sent_packets == 50
    assert captured["tokyo", "osaka"].packets == captured["osaka", "tokyo"].packets == 50
    assert captured["tokyo", "osaka"].bytes == here.sent_bytes == out.entered_bytes == 50 * 44
    for direction, counters in lines.items():
        if set(direction) != {"tokyo", "osaka"}:
            assert counters.entered_packets == interfaces[direction].sent_packets == 0
            assert captured.get(direction, captured["tokyo", "us-west"]).packets == 0


def test_a_changed_line_is_as_long_as_it_is_set(lab: Lab) -> None:
    lab.link("tokyo", "osaka").set(delay_ms=40)
    trips = sorted(trip for trip in ping(lab, "tokyo", "osaka") if trip is not None)
    # What handling a packet needs is taken off as a constant, so a fast machine may be a little early: by less than
    # the error that the laboratory promises. The median of a busy machine may be longer.
    assert trips[0] > 80 - 0.5
    assert trips[len(trips) // 2] < 85


def test_a_cut_line_carries_nothing_until_it_heals(lab: Lab) -> None:
    lab.partition("tokyo", "osaka")
    assert ping(lab, "tokyo", "osaka", 1) == [None]
    assert lab.line_counters()["tokyo", "osaka"].cut_packets == 1
    assert None not in ping(lab, "tokyo", "us-west", 3)
    lab.heal("tokyo", "osaka")
    assert None not in ping(lab, "tokyo", "osaka", 3)


def test_what_is_lost_is_counted(lab: Lab) -> None:
    lab.link("tokyo", "osaka").set(loss=1.0)
    assert ping(lab, "tokyo", "osaka", 1) == [None]
    counters = lab.line_counters()["tokyo", "osaka"]
    assert (counters.entered_packets, counters.lost_packets, counters.left_packets) == (1, 1, 0)


def test_bandwidth_is_what_is_set(lab: Lab) -> None:
    lab.link("tokyo", "osaka").set(mbit=20)
    receiver = lab.python("osaka", "sekisho.lab.stream", "listen", "5001", stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == b"listening\n"
    sent = json.loads(lab.result("tokyo", "sekisho.lab.stream", lab.address("osaka"), "5001", "2"))
    assert 14 < sent["bytes"] * 8 / sent["seconds"] / 1e6 <= 20


def test_two_hundred_megabits_go_through_ten_milliseconds(lab: Lab) -> None:
    assert throughput(lab, "tokyo", "osaka", seconds=2.0).mbit >= 200


def test_sites_without_a_line_do_not_reach_each_other_and_names_are_checked(lab: Lab) -> None:
    for refused in (
        lambda: lab.link("tokyo", "kyoto"),
        lambda: lab.link("tokyo", "tokyo"),
        lambda: lab.run("kyoto", ["true"]),
        lambda: lab.link("tokyo", "osaka").set(loss=2.0),
    ):
        with pytest.raises(TopologyRefused):
            refused()


def test_a_program_that_fails_is_said_to(lab: Lab) -> None:
    with pytest.raises(LabFailed) as failed:
        lab.result("tokyo", "sekisho.lab.ping", "no address", "1", "1")
    assert failed.value.code == "lab.failed"


def test_nothing_is_left_afterwards(possible: None, tmp_path: Path) -> None:
    with Lab(JAPAN) as made:
        program = made.run("tokyo", ["sleep", "60"])
        made.capture(tmp_path)
        assert len(ours(os.getpid())) == len(JAPAN.sites)
    assert ours(os.getpid()) == []
    assert program.poll() is not None
    with pytest.raises(LabFailed):
        made.counters()


def test_a_killed_laboratory_leaves_no_process_and_the_next_one_removes_the_rest(possible: None) -> None:
    script = (
        "import sys, time\nfrom sekisho.lab.network import Lab\nwith Lab() as lab:\n"
        "    print(lab.run('tokyo', ['sleep', '600']).pid, lab._router.pid, flush=True)\n    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline, "its processes live on"
        time.sleep(0.02)
    assert ours(process.pid)
    namespaces.sweep()
    assert ours(process.pid) == []


def ours(pid: int) -> list[str]:
    return [path.name for path in namespaces.RUN.glob(f"{namespaces.PREFIX}{pid}-*")]


def running(pid: int) -> bool:
    """A zombie that nobody reaps in a container is gone all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
