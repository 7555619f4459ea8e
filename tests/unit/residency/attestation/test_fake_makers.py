"""What no sample shows: every product line, cloud keys, Azure's report, hosts that cheat; by fake makers."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.residency.attestation import azure, nvidia, snp
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import Refused
from support import tee
from support.tee_vectors import NOW

BOUND = hashlib.sha512(b"bound").digest()
LINES = [(line, signer) for line in ("Milan", "Genoa", "Turin") for signer in ("VCEK", "VLEK")]


@pytest.mark.parametrize(("line", "signer"), LINES)
def test_every_line_and_both_kinds_of_key_verify(line: str, signer: str) -> None:
    maker = tee.FakeAmd(line, signer=signer)
    claims = snp.verify(maker.report(BOUND), (maker.leaf(), maker.ask), now=NOW, roots=maker.roots)
    assert isinstance(claims, Claims)
    assert claims.bound == BOUND
    assert claims.details["signer"] == signer
    wanted = {name: maker.tcb[name] for name in maker.tcb if line == "Turin" or name != "fmc"}
    assert claims.tcb == wanted


def refused(result: Claims | Refused) -> str:
    assert isinstance(result, Refused)
    return result.code


def test_what_a_cheating_host_tries_is_refused_by_name() -> None:
    maker = tee.genoa()
    good = maker.report(BOUND)

    def check(report: bytes, *certificates: bytes, roots: dict[str, snp.Roots] | None = None) -> str:
        return refused(snp.verify(report, certificates, now=NOW, roots=roots or maker.roots))

    assert check(maker.report(BOUND, policy=0x30000 | 1 << 19), maker.leaf(), maker.ask) == "attestation.debug"
    assert check(maker.report(BOUND, vmpl=2), maker.leaf(), maker.ask) == "attestation.vmpl"
    assert check(good, maker.leaf(snp=22), maker.ask) == "attestation.tcb_mismatch"
    bare = {maker.line: snp.Roots(ark=maker.ark)}
    assert check(good, maker.leaf(), roots=bare) == "attestation.chain_broken"
    assert check(good, maker.ask) == "attestation.chain_broken"
    other = tee.FakeAmd("Genoa")
    assert check(good, other.leaf(), other.ask) == "attestation.signature"
    assert check(good, maker.leaf(), maker.ask, roots=tee.FakeAmd("Milan").roots) == "attestation.chain_broken"
    # The vendored roots know nothing of fakes.
    assert refused(snp.verify(good, (maker.leaf(), maker.ask), now=NOW)) == "attestation.chain_broken"
    # A leaf that issues certificates is no authority.
    assert check(good, maker.leaf(), maker.leaf(), roots=bare) == "attestation.chain_broken"


def test_a_masked_chip_has_no_hardware_id() -> None:
    maker = tee.FakeAmd("Genoa", signer="VLEK")
    maker.chip_id = bytes(64)
    claims = snp.verify(maker.report(BOUND), (maker.leaf(), maker.ask), now=NOW, roots=maker.roots)
    assert isinstance(claims, Claims)
    assert claims.hardware_id == ""


def test_an_azure_report_binds_what_the_guest_wrote() -> None:
    maker = tee.genoa()
    certificates = (maker.leaf(), maker.ask)
    claims = azure.verify(maker.hcl(BOUND), certificates, now=NOW, roots=maker.roots)
    assert isinstance(claims, Claims)
    assert claims.kind == "azure-snp"
    assert claims.bound == BOUND
    assert len(claims.details["attestation_key"]) == 64


def test_azure_claims_that_the_hardware_does_not_vouch_for_are_refused() -> None:
    maker = tee.genoa()
    certificates = (maker.leaf(), maker.ask)

    def check(data: bytes) -> Refused:
        result = azure.verify(data, certificates, now=NOW, roots=maker.roots)
        assert isinstance(result, Refused)
        return result

    assert check(maker.hcl(BOUND, honest=False)).code == "attestation.claims"
    assert check(maker.hcl(BOUND[:32])).code == "attestation.truncated"
    debug = check(maker.hcl(BOUND, policy=0x30000 | 1 << 19))
    assert debug.code == "attestation.debug"
    assert debug.bound == BOUND
    swapped = bytearray(maker.hcl(BOUND))
    swapped[-20] ^= 1
    assert check(bytes(swapped)).code in ("attestation.claims", "attestation.truncated")


@given(cut=st.integers(0, 3000))
def test_a_truncated_azure_report_is_refused(cut: int) -> None:
    maker = tee.genoa()
    whole = maker.hcl(BOUND)
    result = azure.verify(whole[: min(cut, len(whole) - 1)], (maker.leaf(), maker.ask), now=NOW, roots=maker.roots)
    assert refused(result) == "attestation.truncated"


def test_a_gpu_of_another_maker_is_refused() -> None:
    gpu = tee.gpu()
    report = gpu.report(bytes(32))
    assert isinstance(nvidia.verify(report, (gpu.leaf,), now=NOW, device_root=gpu.root), Claims)
    assert refused(nvidia.verify(report, (gpu.leaf, gpu.root), now=NOW)) == "attestation.chain_broken"
    longer = report + b"\0"
    assert refused(nvidia.verify(longer, (gpu.leaf,), now=NOW, device_root=gpu.root)) == "attestation.truncated"
