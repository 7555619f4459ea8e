"""Real evidence verifies, or is refused for what is wrong with it; anything else is refused with a reason."""

from __future__ import annotations

import hashlib
import socket
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.residency.attestation import azure, nvidia, snp, tdx
from sekisho.residency.attestation.chains import issued_by
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import CATALOGUE, Refused
from sekisho.residency.attestation.roots import root
from support import tee_vectors as vectors
from support.tee_vectors import NOW, TDX_NOW


def code(result: Claims | Refused) -> str:
    assert isinstance(result, Refused)
    assert result.finding.en
    assert result.finding.ja
    assert result.code in CATALOGUE
    return result.code


def test_a_real_snp_report_verifies() -> None:
    report, vcek = vectors.snp()
    claims = snp.verify(report, (vcek,), now=NOW)
    assert isinstance(claims, Claims)
    assert claims.hardware_id.startswith("snp:c38427a30d4c7af9")
    assert claims.tcb == {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
    assert claims.product == "AMD Milan"


def test_the_vcek_of_another_chip_is_refused() -> None:
    report, _ = vectors.snp()
    assert code(snp.verify(report, (vectors.read("test-vcek-invalid-legacy.der"),), now=NOW)) == (
        "attestation.chain_broken"
    )
    assert code(snp.verify(report, (vectors.read("milan-debug-vcek.der"),), now=NOW)) == "attestation.signature"


def test_a_real_guest_that_allows_debug_is_refused() -> None:
    report, vcek = vectors.read("milan-debug-report.bin"), vectors.read("milan-debug-vcek.der")
    assert code(snp.verify(report, (vcek,), now=NOW)) == "attestation.debug"


def test_an_snp_certificate_counts_only_while_it_is_valid() -> None:
    report, vcek = vectors.snp()
    for now in (1_600_000_000.0, 1_900_000_000.0):
        assert code(snp.verify(report, (vcek,), now=now)) == "attestation.certificate_expired"


def test_a_real_azure_report_verifies() -> None:
    report, vcek = vectors.azure()
    claims = azure.verify(report, (vcek,), now=NOW)
    assert isinstance(claims, Claims)
    assert (claims.kind, claims.product) == ("azure-snp", "Azure AMD Milan")
    assert claims.hardware_id.startswith("snp:66a5a7b4403a3006")
    assert claims.hardware_id == f"snp:{azure.chip_of(report)}"
    assert claims.bound == bytes(64), "this guest put nothing into its user data"
    assert len(claims.details["attestation_key"]) == 64


def test_what_azure_hardware_vouches_for_cannot_be_exchanged() -> None:
    report, vcek = vectors.azure()
    assert code(azure.verify(report, (vectors.snp()[1],), now=NOW)) == "attestation.signature"
    other_words = report.replace(b'"user-data":"00', b'"user-data":"01')
    assert other_words != report
    assert code(azure.verify(other_words, (vcek,), now=NOW)) == "attestation.claims"


@given(at=st.integers(0, len(vectors.azure()[0]) * 8 - 1))
def test_a_flipped_bit_anywhere_in_an_azure_report_never_changes_what_it_says(at: int) -> None:
    real, vcek = vectors.azure()
    flipped = bytearray(real)
    flipped[at // 8] ^= 1 << at % 8
    result = azure.verify(bytes(flipped), (vcek,), now=NOW)
    assert isinstance(result, Refused) or result == azure.verify(real, (vcek,), now=NOW)


def test_a_real_tdx_quote_verifies_while_its_collateral_holds() -> None:
    quote, collateral = vectors.tdx()
    claims = tdx.verify(quote, collateral, now=TDX_NOW)
    assert isinstance(claims, Claims)
    assert claims.hardware_id == "tdx:811dca2a26b952e85bb6448b097ba4fd"
    assert TDX_NOW < claims.until < TDX_NOW + 40 * 86400
    assert isinstance(tdx.verify(quote, collateral, now=claims.until - 2), Claims)
    for now in (NOW, claims.until + 1, TDX_NOW - 10 * 86400):
        assert code(tdx.verify(quote, collateral, now=now)) == "attestation.collateral_expired"


def test_what_a_quote_needs_and_what_a_collateral_is_for_have_one_name() -> None:
    quote, collateral = vectors.tdx()
    named = tdx.name_collateral(collateral)
    assert named is not None
    assert named.fmspc == tdx.fmspc_of(quote) == "B0C06F000000"
    assert tdx.name_collateral(b"{}") is None
    assert tdx.fmspc_of(b"") is None


def test_real_hopper_reports_verify() -> None:
    report, chain, nonce = vectors.hopper()
    claims = nvidia.verify(report, chain, now=NOW)
    assert isinstance(claims, Claims)
    assert claims.bound == nonce
    assert claims.details["driver"] == "590.12"
    assert len(claims.measurements) == 64
    sample, sample_chain = vectors.hopper_sample()
    assert isinstance(nvidia.verify(sample, sample_chain, now=NOW), Claims)
    # Without NVIDIA's root in the chain it is the same: ours is what counts.
    assert nvidia.verify(report, chain[:-1], now=NOW) == claims


def test_a_hopper_report_needs_its_own_whole_chain() -> None:
    report, chain, _ = vectors.hopper()
    _, others = vectors.hopper_sample()
    assert code(nvidia.verify(report, others, now=NOW)) == "attestation.signature"
    for broken in ((), chain[:1], chain[1:], (chain[0], *chain[2:]), chain[::-1], (b"x", *chain)):
        assert code(nvidia.verify(report, broken, now=NOW)) in ("attestation.chain_broken", "attestation.signature")


def _everything(data: bytes, which: str) -> Claims | Refused:
    match which:
        case "snp":
            return snp.verify(data, (vectors.snp()[1],), now=NOW)
        case "azure":
            return azure.verify(data, (vectors.azure()[1],), now=NOW)
        case "tdx":
            return tdx.verify(data, vectors.tdx()[1], now=TDX_NOW)
        case _:
            return nvidia.verify(data, vectors.hopper()[1], now=NOW)


REAL = {"snp": vectors.snp()[0], "azure": vectors.azure()[0], "tdx": vectors.tdx()[0], "nvidia": vectors.hopper()[0]}


@pytest.mark.parametrize("which", ["snp", "azure", "tdx", "nvidia"])
@given(data=st.data())
def test_truncated_evidence_is_refused(which: str, data: st.DataObject) -> None:
    real = REAL[which]
    # A TDX quote and an HCL report are followed by padding that is no part of them.
    longest = len(real.rstrip(b"\0")) - 1
    assert code(_everything(real[: data.draw(st.integers(0, longest))], which))


@pytest.mark.parametrize("which", ["snp", "nvidia"])
@given(data=st.data())
def test_one_flipped_bit_is_refused(which: str, data: st.DataObject) -> None:
    real = bytearray(REAL[which])
    at = data.draw(st.integers(0, len(real) * 8 - 1))
    real[at // 8] ^= 1 << at % 8
    assert code(_everything(bytes(real), which))


@given(at=st.integers(0, (48 + 584) * 8 - 1))
def test_one_flipped_bit_of_what_a_quote_says_is_refused(at: int) -> None:
    quote = bytearray(REAL["tdx"])
    quote[at // 8] ^= 1 << at % 8
    assert code(_everything(bytes(quote), "tdx"))


@given(at=st.integers(0, len(REAL["tdx"]) * 8 - 1))
def test_a_flipped_bit_anywhere_in_a_quote_never_changes_what_it_says(at: int) -> None:
    quote = bytearray(REAL["tdx"])
    quote[at // 8] ^= 1 << at % 8
    result = _everything(bytes(quote), "tdx")
    assert isinstance(result, Refused) or result == _everything(REAL["tdx"], "tdx")


@given(data=st.binary(max_size=6000), which=st.sampled_from(["snp", "azure", "tdx", "nvidia"]))
def test_random_bytes_are_refused(data: bytes, which: str) -> None:
    assert code(_everything(data, which))


@given(junk=st.lists(st.binary(max_size=600), max_size=5))
def test_random_certificates_are_refused(junk: list[bytes]) -> None:
    assert code(snp.verify(REAL["snp"], junk, now=NOW)) == "attestation.chain_broken"
    assert code(nvidia.verify(REAL["nvidia"], junk, now=NOW)) == "attestation.chain_broken"


@given(junk=st.binary(max_size=600))
def test_random_collateral_is_refused(junk: bytes) -> None:
    assert code(tdx.verify(REAL["tdx"], junk, now=TDX_NOW)) == "attestation.collateral_missing"


def test_verifying_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a verifier called abroad")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    for which, real in REAL.items():
        assert isinstance(_everything(real, which), Claims)


# SHA-256 of the DER, compared with other copies when they were taken (roots/SOURCES.md)
ROOTS = {
    "amd-milan-ark": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "amd-milan-ask": "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
    "amd-genoa-ark": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "amd-genoa-ask": "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
    "amd-turin-ark": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    "amd-turin-ask": "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
    "nvidia-device-root": "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",
}


def test_the_vendored_roots_are_the_ones_that_were_looked_at() -> None:
    folder = Path(str(resources.files("sekisho.residency.attestation.roots")))
    assert {path.stem for path in folder.glob("*.pem")} == set(ROOTS)
    for name, digest in ROOTS.items():
        assert hashlib.sha256(root(name)).hexdigest() == digest
        assert digest in (folder / "SOURCES.md").read_text()
    for line in ("milan", "genoa", "turin"):
        assert issued_by(root(f"amd-{line}-ask"), root(f"amd-{line}-ark"))
        assert issued_by(root(f"amd-{line}-ark"), root(f"amd-{line}-ark"))
    assert set(snp.amd_roots()) == {"Milan", "Genoa", "Turin"}
