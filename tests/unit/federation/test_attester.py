"""What the agent collects, and that nothing it could be given makes it break."""

from __future__ import annotations

import base64
import ctypes
import struct
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.federation.attester import bundle, gpu_nonce, read_bundle, report_data
from sekisho.federation.attester_hardware import (
    AttesterUnavailable,
    ConfigfsTsm,
    NvidiaGpus,
    WholeMachine,
    certificate_table,
    of_this_machine,
)
from sekisho.federation.simulated_tee import SimulatedTee
from sekisho.residency.attestation import nvidia, snp
from sekisho.residency.attestation.claims import Claims
from support import tee, tee_vectors
from support.tee_vectors import NOW

NONCE, KEY = b"n" * 32, b"k" * 91


def table(*entries: tuple[str, bytes], little: bool = False) -> bytes:
    at = 24 * (len(entries) + 1)
    head, body = b"", b""
    for name, data in entries:
        guid = uuid.UUID(name)
        head += (guid.bytes_le if little else guid.bytes) + struct.pack("<II", at + len(body), len(data))
        body += data
    return head + bytes(24) + body


VCEK, ASK = "63da758d-e664-4564-adc5-f4b93be8accd", "4ab7b379-bbac-4fe4-a02f-05aef327c782"


@pytest.mark.parametrize("little", [False, True])
def test_the_certificates_of_a_host_are_read_signer_first(little: bool) -> None:
    assert certificate_table(table((ASK, b"ask"), (VCEK, b"vcek"), little=little)) == (b"vcek", b"ask")


@given(data=st.binary(max_size=400))
def test_any_table_is_read_or_left(data: bytes) -> None:
    assert all(isinstance(one, bytes) for one in certificate_table(data))


class FakeConfigfs:
    """A folder that behaves like the kernel's; it is a fake: mkdir fills the entry as the kernel would."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, provider: str = "sev_guest") -> None:
        self.root = root
        maker = tee.genoa()
        real_mkdir, real_write, real_rmdir = Path.mkdir, Path.write_bytes, Path.rmdir

        def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
            real_mkdir(path, *args, **kwargs)
            if path.parent == root:
                real_write(path / "provider", provider.encode() + b"\n")
                real_write(path / "generation", b"0\n")

        def write_bytes(path: Path, data: bytes) -> int:
            if path.name == "inblob":
                real_write(path.parent / "outblob", maker.report(data))
                real_write(path.parent / "auxblob", table((VCEK, maker.leaf()), (ASK, maker.ask)))
                real_write(path.parent / "generation", b"1\n")
            return real_write(path, data)

        def rmdir(path: Path) -> None:
            for file in path.iterdir():
                file.unlink()
            real_rmdir(path)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        monkeypatch.setattr(Path, "rmdir", rmdir)


def test_configfs_gives_evidence_that_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeConfigfs(tmp_path, monkeypatch)
    attester = ConfigfsTsm(tmp_path)
    assert attester.kind == "snp"
    read = read_bundle(attester.collect(NONCE, KEY))
    assert read is not None
    (part,) = read.parts
    claims = snp.verify(part.report, part.certificates, now=NOW, roots=tee.genoa().roots)
    assert isinstance(claims, Claims)
    assert claims.bound == report_data(NONCE, KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_tee_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttesterUnavailable, match="configfs-tsm"):
        ConfigfsTsm(tmp_path / "none").collect(NONCE, KEY)
    with pytest.raises(AttesterUnavailable):
        of_this_machine(None, reports=tmp_path / "none")
    FakeConfigfs(tmp_path, monkeypatch, provider="arm_cca_guest")
    with pytest.raises(AttesterUnavailable, match="arm_cca_guest"):
        ConfigfsTsm(tmp_path).collect(NONCE, KEY)


class FakeNvml:
    """NVML of a machine with one fake GPU in confidential mode."""

    class NVMLError(Exception):
        pass

    def __init__(self, gpus: int = 1, *, confidential: bool = True) -> None:
        self.gpus, self.confidential, self.open = gpus, confidential, 0

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlSystemGetConfComputeState(self) -> Any:  # noqa: N802
        return SimpleNamespace(ccFeature=int(self.confidential))

    def nvmlDeviceGetConfComputeGpuCertificate(self, _handle: int) -> Any:  # noqa: N802
        if not self.confidential:
            raise self.NVMLError("Not Supported")
        pem = b"".join(
            b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
            for der in (tee.gpu().leaf, tee.gpu().root)
        )
        return SimpleNamespace(
            attestationCertChain=(ctypes.c_uint8 * 0x1400)(*pem), attestationCertChainSize=len(pem)
        )

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, _handle: int, nonce: list[int]) -> Any:  # noqa: N802
        report = tee.gpu().report(bytes(nonce))
        return SimpleNamespace(
            attestationReport=(ctypes.c_uint8 * 0x2000)(*report), attestationReportSize=len(report)
        )


def test_nvml_gives_evidence_that_verifies() -> None:
    nvml = FakeNvml()
    read = read_bundle(NvidiaGpus(nvml).collect(NONCE, KEY))
    assert read is not None
    (part,) = read.parts
    claims = nvidia.verify(part.report, part.certificates, now=NOW, device_root=tee.gpu().root)
    assert isinstance(claims, Claims)
    assert claims.bound == gpu_nonce(NONCE, KEY)
    assert nvml.open == 0


def test_a_gpu_out_of_confidential_mode_says_so() -> None:
    nvml = FakeNvml(confidential=False)
    for broken in (nvml, FakeNvml(0)):
        with pytest.raises(AttesterUnavailable):
            NvidiaGpus(broken).collect(NONCE, KEY)
    assert nvml.open == 0
    with pytest.raises(AttesterUnavailable):
        of_this_machine(nvml, reports=Path("/nonexistent"))


def test_a_whole_machine_is_one_bundle() -> None:
    machine = WholeMachine([SimulatedTee("rack"), NvidiaGpus(FakeNvml())])
    read = read_bundle(machine.collect(NONCE, KEY))
    assert read is not None
    assert [part.kind for part in read.parts] == ["simulated", "nvidia-hopper"]
    with pytest.raises(AttesterUnavailable):
        WholeMachine([SimulatedTee("rack"), NvidiaGpus(FakeNvml(0))]).collect(NONCE, KEY)


def test_a_bundle_has_one_form() -> None:
    one = SimulatedTee("rack").collect(NONCE, KEY)
    read = read_bundle(one)
    assert read is not None
    assert bundle(*read.parts) == one
    assert read_bundle(b'{"form":2,"parts":[]}') is None
    assert read_bundle(bundle()) is None
    assert read_bundle(bundle(*read.parts * 30)) is None
    assert read_bundle(b"[" * 100_000) is None
    assert len(tee_vectors.hopper()[1]) == 5


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_bundle_or_none(data: bytes) -> None:
    assert read_bundle(data) is None
