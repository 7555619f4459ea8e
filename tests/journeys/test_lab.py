"""The laboratory's scenarios: real gateway, control plane and models on a network with a border (short runs)."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from running import environment, sekisho

from sekisho.federation.border import from_json, verify_chain
from sekisho.lab.namespaces import unavailable
from sekisho.lab.network import Lab
from sekisho.lab.scenarios import border, impostor, latency, partition
from sekisho.lab.scenarios.report import Report
from sekisho.lab.watch import BorderPost

pytestmark = [
    pytest.mark.journey,
    pytest.mark.alone,
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
]


def assert_held(report: Report) -> None:
    assert [f"{check.en}: {check.figures}" for check in report.checks if not check.held] == []


@pytest.mark.model
def test_confidential_work_never_crosses_the_border_while_sites_fail(tmp_path: Path) -> None:
    assert_held(border.run(tmp_path, seconds=25.0))
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex((tmp_path / "border.pub").read_text()))
    chain = verify_chain(from_json((tmp_path / "border.json").read_bytes()), key)
    rows = list(csv.DictReader((tmp_path / "border.csv").read_text().splitlines()))
    assert len(rows) == sum(len(made.rows) for made in chain)
    assert sum(int(row["capture_out_packets"]) for row in rows if row["data_class"] == "confidential") == 0
    assert sum(int(row["capture_out_packets"]) for row in rows if row["canary"] == "true") > 0


@pytest.mark.model
def test_a_partition_loses_nothing_else_and_closes_routes_until_it_heals(tmp_path: Path) -> None:
    assert_held(partition.run(tmp_path, validity_s=6.0, before_s=3.0, after_s=10.0))


@pytest.mark.model
def test_the_first_token_comes_sooner_from_inside_the_country(tmp_path: Path) -> None:
    report = latency.run(tmp_path, pairs=8)
    assert_held(report)
    assert "<svg" in (tmp_path / "first-token.ja.svg").read_text("utf-8")


def test_an_impostor_overseas_is_contradicted_with_its_own_and_with_a_stolen_key(tmp_path: Path) -> None:
    assert_held(impostor.run(tmp_path, questions=4))


def test_a_single_leaked_packet_is_a_crossing(tmp_path: Path) -> None:
    """The post that the border scenario trusts does see what it watches for."""
    key = Ed25519PrivateKey.generate()
    with Lab() as lab:
        post = BorderPost(lab, lab.capture(tmp_path), key, class_of=lambda _, peer: ("c", peer == "virginia"))
        lab.result("tokyo", "sekisho.lab.ping", lab.address("virginia"), "2", "1")
        post._state()
        lab.result("osaka", "sekisho.lab.ping", lab.address("us-west"), "1", "1")
        time.sleep(0.2)
        post.stop()
    chain = verify_chain(post.statements, key.public_key())
    assert [made.finding for made in chain] == ["clean", "crossed"]
    leaked = [row for row in chain[1].rows if not row.counted.silent]
    assert [(row.way.site, row.way.peer) for row in leaked] == [("osaka", "us-west")]
    assert leaked[0].counted.agreed


def test_the_command_says_what_held_and_leaves_its_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [*sekisho(), "lab", "run", "impostor", "--short", "--json", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert all(check["held"] for check in report["checks"])
    assert json.loads((tmp_path / "impostor" / "report.json").read_text()) == report
    assert all((tmp_path / "impostor" / file).exists() for file in report["files"])
