"""`sekisho attestation`: what needs nothing that runs, and both languages."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sekisho.cli import attestation_texts
from sekisho.cli.attestation import EvidenceFileRefused, attestation
from sekisho.cli.texts import Text
from sekisho.federation.attester import EvidencePart, bundle
from sekisho.residency.attestation import nvidia
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.references import Reference, judge
from sekisho.residency.attestation.register import SignedEntry, Signer, fault_of
from support import tee_vectors as vectors

JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龯]")
COLLATERAL = str(vectors.DATA / "tdx_quote_collateral.json")


def run(*arguments: str | Path, fails: bool = False) -> str:
    result = CliRunner().invoke(attestation, [str(each) for each in arguments])
    if fails and isinstance(result.exception, EvidenceFileRefused):
        raise result.exception
    assert result.exit_code == (1 if fails else 0), result.output
    return result.output


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    report, vcek = vectors.snp()
    quote, _ = vectors.tdx()
    path = tmp_path / "evidence.json"
    path.write_bytes(
        bundle(EvidencePart(kind="snp", report=report, certificates=(vcek,)), EvidencePart(kind="tdx", report=quote))
    )
    return path


def test_real_evidence_is_verified_offline(evidence: Path) -> None:
    said = run("check", evidence, "--collateral", COLLATERAL, "--at", str(vectors.TDX_NOW))
    assert "AMD Milan" in said
    assert "mrtd" in said
    read = json.loads(run("check", evidence, "--collateral", COLLATERAL, "--at", str(vectors.TDX_NOW), "--json"))
    assert [part["kind"] for part in read] == ["snp", "tdx"]


def test_what_is_refused_is_said_with_the_next_step(evidence: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("check", evidence, "--at", str(vectors.TDX_NOW), fails=True)
    assert "attestation.collateral_missing" in said
    assert "sekisho attestation import" in said
    monkeypatch.setenv("SEKISHO_LANG", "ja")
    assert "コラテラル" in run("check", evidence, "--at", str(vectors.TDX_NOW), fails=True)
    with pytest.raises(EvidenceFileRefused):
        run("check", evidence, "--collateral", evidence, fails=True)
    evidence.write_bytes(b"junk")
    assert "attestation.form" in run("check", evidence, fails=True)


def test_operator_and_auditor_sign_an_entry_one_after_the_other(tmp_path: Path) -> None:
    entry = tmp_path / "entry.json"
    entry.write_text(
        json.dumps(
            {
                "hardware_id": "snp:00ff",
                "site": "ishikari",
                "operator": "sakura",
                "building": "1",
                "valid_from": 1,
                "valid_until": 2,
            }
        )
    )
    signers = []
    for role in ("operator", "auditor"):
        key = Ed25519PrivateKey.generate()
        pem = tmp_path / f"{role}.pem"
        pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        # Signing twice replaces one's own signature.
        for _ in range(2):
            run("sign", entry, "--role", role, "--key", pem)
        name = "sakura" if role == "operator" else "an auditor"
        public = key.public_key().public_bytes_raw().hex()
        signers.append(msgspec.convert({"key": public, "role": role, "name": name}, type=Signer))
    signed = msgspec.json.decode(entry.read_bytes(), type=SignedEntry)
    assert len(signed.signatures) == 2
    assert fault_of(signed, signers) == ""
    entry.write_text('{"hardware_id": "abacus:1"}')
    with pytest.raises(EvidenceFileRefused):
        run("sign", entry, "--role", "operator", "--key", tmp_path / "operator.pem", fails=True)


def samples() -> Path:
    spec = importlib.util.find_spec("verifier")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel nv-local-gpu-verifier (RIM samples) is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "samples"


def test_the_rims_of_driver_and_vbios_make_one_reference(tmp_path: Path) -> None:
    """The wheel's samples are of other versions than its sample report: they are read, and say that it differs."""
    folder = samples()
    rims = (folder / "Driver_RIM_test_no_gpu.swidtag", folder / "1010_0200_882_96005E0001_test_no_gpu.swidtag")
    reference = msgspec.json.decode(run("rim", *rims, "--name", "h100"), type=Reference)
    assert len(reference.measurements) == 33
    assert max(map(len, reference.measurements.values())) > 1
    report, chain = vectors.hopper_sample()
    claims = nvidia.verify(report, chain, now=vectors.NOW)
    assert isinstance(claims, Claims)
    assert [found.code for found in judge(claims, (reference,))] == ["attestation.measurement"]
    with pytest.raises(EvidenceFileRefused):
        run("rim", rims[0], rims[0], "--name", "twice", fails=True)
    empty = tmp_path / "empty.swidtag"
    empty.write_text("<x/>")
    with pytest.raises(EvidenceFileRefused):
        run("rim", empty, "--name", "empty", fails=True)


def test_a_rim_of_what_runs_approves_it(tmp_path: Path) -> None:
    report, chain, _ = vectors.hopper()
    claims = nvidia.verify(report, chain, now=vectors.NOW)
    assert isinstance(claims, Claims)
    resources = "".join(
        f'<ns0:Resource type="Measurement" index="{int(index)}" active="{bool(int(digest, 16))}" alternatives="2" '
        f'ns2:Hash0="{"0" * 96}" ns2:Hash1="{digest.upper()}" name="Measurement_{index}" size="48"/>'
        for index, digest in claims.measurements.items()
    )
    tag = tmp_path / "own.swidtag"
    tag.write_text(f"<SoftwareIdentity><ns0:Payload>{resources}</ns0:Payload></SoftwareIdentity>")
    reference = msgspec.json.decode(run("rim", tag, "--name", "own"), type=Reference)
    assert judge(claims, (reference,)) == ()


def test_every_sentence_exists_in_both_languages() -> None:
    sentences = [value for value in vars(attestation_texts).values() if isinstance(value, Text)]
    assert len(sentences) > 40
    for text in sentences:
        assert not JAPANESE.search(text.en)
        assert JAPANESE.search(text.ja) or text.ja == "ID"
