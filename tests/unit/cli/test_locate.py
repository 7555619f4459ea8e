"""`sekisho site answer` and `sekisho site measure` as processes, over real sockets on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from sekisho.assembly.site_home import Enrolment, SiteHome, prepare, save_enrolment
from sekisho.federation.challenge import spki
from sekisho.federation.landmark import Landmark, Measurement, SignedMeasurement, check_measurement


def sekisho(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sekisho.cli.main", "site", *arguments],
        cwd=cwd,
        env={**os.environ, "SEKISHO_LANG": "en"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("transport", [[], ["--tcp"]], ids=["udp", "tcp"])
def test_a_site_answers_and_a_landmark_signs_what_it_measured(tmp_path: Path, transport: list[str]) -> None:
    home = SiteHome(tmp_path / "site")
    key = prepare(home)
    save_enrolment(home, Enrolment(site="osaka", control="https://control.invalid", control_key="00" * 32))
    landmark = sekisho("landmark", "tokyo", "--at", "35.68,139.77", "--key", "mark.pem", cwd=tmp_path)
    printed, _ = landmark.communicate(timeout=30)
    assert landmark.returncode == 0, printed
    (tmp_path / "tokyo.json").write_text(printed)
    answering = sekisho("answer", "--dir", "site", "--listen", "127.0.0.1:0", cwd=tmp_path)
    watchdog = threading.Timer(60, answering.kill)
    watchdog.start()
    try:
        assert answering.stdout is not None
        line = answering.stdout.readline()
        found = re.search(r"on 127\.0\.0\.1:(\d+)\. Its public key: (\S+)", line)
        assert found is not None, line
        given = ["--landmark", "tokyo.json", "--key", "mark.pem", "--site-key", found[2], "--out", "m.json"]
        measuring = sekisho(
            "measure", "osaka", "--address", f"127.0.0.1:{found[1]}", *given, *transport, cwd=tmp_path
        )
        said, _ = measuring.communicate(timeout=30)
        assert measuring.returncode == 0, said
        answering.send_signal(signal.SIGTERM)
        last, _ = answering.communicate(timeout=30)
        assert "16 answered" in last
    finally:
        watchdog.cancel()
        answering.kill()
        answering.wait()
    signed = msgspec.json.decode((tmp_path / "m.json").read_bytes(), type=SignedMeasurement)
    mark = msgspec.json.decode(printed, type=Landmark)
    checked = check_measurement(signed, landmarks={"tokyo": mark}, site="osaka", site_keys=(spki(key),))
    assert isinstance(checked, Measurement)
    assert checked.rtt_ns < 100_000_000
