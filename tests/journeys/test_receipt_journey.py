"""From a confidential answer to a receipt that an outsider verifies offline, in the embedded default."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from running import Federation, chat, environment, sekisho

from sekisho.ledger.tlog.note import Note
from sekisho.ledger.tlog.proof import TlogProof

pytestmark = [pytest.mark.journey, pytest.mark.model]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*sekisho(), *arguments], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


def receipt_of(federation: Federation, decision: str, *, within_s: float, form: str = "proof") -> bytes:
    with federation.client("hospital") as client:
        end = time.monotonic() + within_s
        while True:
            answer = client.get(f"/v1/receipts/{decision}", params={"format": form})
            if answer.status_code != 202:
                assert answer.status_code == 200, answer.text
                return answer.content
            assert int(answer.headers["Retry-After"]) >= 1
            assert time.monotonic() < end, f"no receipt within {within_s:g} s"
            time.sleep(0.05)


def passage(federation: Federation) -> str:
    with federation.client("hospital") as client:
        answer = client.post("/v1/chat/completions", json=chat("One word.", max_tokens=1))
    assert answer.status_code == 200
    return str(answer.headers["X-Sekisho-Decision"])


@pytest.mark.parametrize("form", ["proof", "cose"])
def test_a_confidential_answers_receipt_verifies_offline_within_two_seconds(
    federation_up: Federation, tmp_path: Path, form: str
) -> None:
    passage(federation_up)  # the first entry of a new log waits for its witnesses to be found
    data = receipt_of(federation_up, passage(federation_up), within_s=2.0, form=form)
    file = tmp_path / f"r.{form}"
    file.write_bytes(data)
    # What an auditor has: the file, and the policy that was published.
    policy = tmp_path / "trust.policy"
    year = TlogProof.parse(data).checkpoint.split(b"\n")[0].decode()[-4:] if form == "proof" else time.strftime("%Y")
    console = federation_up.ready()["console_url"]
    policy.write_bytes(httpx.get(f"{console}/.well-known/sekisho/policy/{year}").content)
    done = command("receipt", "verify", str(file), "--policy", str(policy))
    assert done.returncode == 0, done.stderr
    assert "tenant hospital, class confidential" in done.stdout
    assert " in JP, " in done.stdout
    assert done.stdout.count("Cosigned by") >= 2
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    assert command("receipt", "verify", str(file), "--policy", str(policy)).returncode == 2


def test_a_receipt_is_as_small_as_promised(federation_up: Federation) -> None:
    proof = TlogProof.parse(receipt_of(federation_up, passage(federation_up), within_s=5.0))
    assert len(proof.encode()) - len(proof.entry) * 4 / 3 <= 1536
    assert len(Note.parse(proof.checkpoint).signatures) == 3  # the log, and a majority of three operators


def test_another_tenants_receipt_is_not_there(federation_up: Federation) -> None:
    decision = passage(federation_up)
    receipt_of(federation_up, decision, within_s=5.0)
    with federation_up.client("manufacturer") as client:
        answer = client.get(f"/v1/receipts/{decision}")
        invented = client.get(f"/v1/receipts/{decision[:-4]}ffff")
    # ids count up: whoever could tell a stranger's from none would learn how much work others have
    assert (answer.status_code, answer.content) == (invented.status_code, invented.content)
    assert answer.status_code == 202
    console = federation_up.ready()["console_url"]
    assert httpx.get(f"{console}/internal/v1/receipts/{decision}").status_code == 401
    token = (federation_up.home / "secrets" / "gateway_token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{console}/internal/v1/receipts/{decision}", headers=headers).status_code == 401
    assert httpx.get(f"{console}/internal/v1/receipts/xyz?tenant=hospital", headers=headers).status_code == 400


def test_keys_have_a_history_that_everybody_may_read(federation_up: Federation) -> None:
    history = json.loads(httpx.get(f"{federation_up.ready()['console_url']}/.well-known/sekisho/keys.json").content)
    witnesses = [key for key in history["keys"] if key["role"] == "witness"]
    assert {key["operator"] for key in witnesses} == {"microsoft", "sakura", "softbank"}
    assert all(key["simulated"] for key in witnesses)
    assert len(witnesses) == 10


def test_the_command_line_gets_and_verifies(federation_up: Federation, tmp_path: Path) -> None:
    decision = passage(federation_up)
    home = str(federation_up.home)
    done = command("receipt", "get", decision, "--out", str(tmp_path / "r"), "--home", home)
    assert done.returncode == 0, done.stderr
    assert command("receipt", "verify", str(tmp_path / "r"), "--home", home).returncode == 0
    unknown = command("receipt", "get", "0" * 32, "--out", str(tmp_path / "x"), "--home", home)
    assert unknown.returncode == 2
    assert "[receipt.not_found]" in unknown.stderr
