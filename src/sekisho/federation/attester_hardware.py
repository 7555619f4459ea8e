"""Collectors of real evidence: the kernel's configfs-tsm for SEV-SNP and TDX, NVML for GPUs in confidential mode.

configfs-tsm: Linux Documentation/ABI/testing/configfs-tsm-report (since 6.7). The certificates that an SNP host hands
over lie in `auxblob` as the table of the GHCB specification (AMD 56421 §4.1.8.1).
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sekisho.federation.attester import (
    Attester,
    EvidenceKind,
    EvidencePart,
    bundle,
    gpu_nonce,
    read_bundle,
    report_data,
)
from sekisho.kernel.errors import SekishoError

TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
_PROVIDERS: dict[str, EvidenceKind] = {"sev_guest": "snp", "tdx_guest": "tdx"}
_MAX_BLOB_BYTES = 64 << 10
_ENTRY_BYTES = 24
# The report's signer first, as a chain is written: VCEK or VLEK, ASK or ASVK, ARK
_CERTIFICATES = tuple(
    uuid.UUID(text)
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd",
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    )
)
_MAX_GPUS = 16
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


class AttesterUnavailable(SekishoError):
    """The hardware or its driver gives no evidence on this machine."""

    code = "attester.unavailable"


class ConfigfsTsm:
    """An Attester on configfs-tsm; which CPU it is the kernel says."""

    def __init__(self, reports: Path = TSM_REPORTS) -> None:
        self._reports = reports

    @property
    def kind(self) -> EvidenceKind:
        with self._report() as entry:
            return _provider(entry)

    def collect(self, nonce: bytes, public_key: bytes) -> bytes:
        try:
            with self._report() as entry:
                kind = _provider(entry)
                (entry / "inblob").write_bytes(report_data(nonce, public_key))
                report = _read(entry / "outblob")
                certificates: tuple[bytes, ...] = ()
                if kind == "snp":
                    with contextlib.suppress(OSError, ValueError):  # then the cache may have them
                        certificates = certificate_table(_read(entry / "auxblob"))
                # Somebody else wrote to this entry while we read: what we have may mix two answers.
                if int((entry / "generation").read_text()) != 1:
                    raise AttesterUnavailable("another process uses the same report entry", hint="try again")
        except (OSError, ValueError) as error:
            raise AttesterUnavailable(
                f"the kernel gave no report: {error}",
                hint="is this a confidential VM, and may this user write there?",
            ) from None
        return bundle(EvidencePart(kind=kind, report=report, certificates=certificates))

    @contextlib.contextmanager
    def _report(self) -> Any:
        entry = self._reports / f"sekisho-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            entry.mkdir()
        except OSError as error:
            raise AttesterUnavailable(
                f"there is no configfs-tsm at {self._reports} ({error.strerror})",
                hint="it needs a confidential VM (SEV-SNP or TDX), Linux 6.7 and configfs mounted",
            ) from None
        try:
            yield entry
        finally:
            with contextlib.suppress(OSError):
                entry.rmdir()


def _provider(entry: Path) -> EvidenceKind:
    try:
        name = (entry / "provider").read_text().strip()
    except OSError as error:
        raise AttesterUnavailable(f"the kernel names no provider: {error}", hint="update the kernel") from None
    if name not in _PROVIDERS:
        raise AttesterUnavailable(f"reports of {name!r} are not read here", hint="SEV-SNP and TDX are")
    return _PROVIDERS[name]


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if not 0 < len(data) <= _MAX_BLOB_BYTES:
        raise ValueError(f"{path.name} has {len(data)} bytes")
    return data


def certificate_table(table: bytes) -> tuple[bytes, ...]:
    """The certificates (DER) of a GHCB certificate table, the report's signer first; what is out of bounds is left
    out, and so are entries of other kinds."""
    found: dict[uuid.UUID, bytes] = {}
    for at in range(0, len(table) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        guid, (offset, length) = table[at : at + 16], struct.unpack_from("<II", table, at + 16)
        if not any(guid):
            break
        data = table[offset : offset + length]
        if length and len(data) == length:
            # The specification gives the GUID as text; tools in the field write it in either byte order.
            for name in (uuid.UUID(bytes=guid), uuid.UUID(bytes_le=guid)):
                found.setdefault(name, data)
    return tuple(found[name] for name in _CERTIFICATES if name in found)


class NvidiaGpus:
    """An Attester for every GPU of the machine. `nvml`: the module `pynvml` (extra `nvidia`)."""

    kind: EvidenceKind = "nvidia-hopper"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self, nonce: bytes, public_key: bytes) -> bytes:
        nvml = self._nvml
        wanted = list(gpu_nonce(nonce, public_key))
        try:
            nvml.nvmlInit()
            try:
                count = min(nvml.nvmlDeviceGetCount(), _MAX_GPUS)
                parts = [self._part(nvml.nvmlDeviceGetHandleByIndex(index), wanted) for index in range(count)]
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            raise AttesterUnavailable(
                f"the GPU gave no report: {error}",
                hint="the GPU must be in confidential-computing mode (`nvidia-smi conf-compute -f`)",
            ) from None
        if not parts:
            raise AttesterUnavailable("NVML found no GPU", hint="run it on a machine with Hopper GPUs")
        return bundle(*parts)

    def _part(self, handle: Any, wanted: list[int]) -> EvidencePart:
        chain = self._nvml.nvmlDeviceGetConfComputeGpuCertificate(handle)
        report = self._nvml.nvmlDeviceGetConfComputeGpuAttestationReport(handle, wanted)
        pem = bytes(chain.attestationCertChain[: chain.attestationCertChainSize])
        return EvidencePart(
            kind="nvidia-hopper",
            report=bytes(report.attestationReport[: report.attestationReportSize]),
            certificates=tuple(base64.b64decode(body) for body in _PEM.findall(pem)),
        )


class WholeMachine:
    """An Attester that asks several, CPU first, and sends one bundle. One that has nothing fails all: a machine that
    is known to have a GPU must not leave it out."""

    def __init__(self, attesters: Sequence[Attester]) -> None:
        if not attesters:
            raise ValueError("a machine needs an attester")
        self._attesters = tuple(attesters)

    @property
    def kind(self) -> EvidenceKind:
        return self._attesters[0].kind

    def collect(self, nonce: bytes, public_key: bytes) -> bytes:
        parts: list[EvidencePart] = []
        for attester in self._attesters:
            read = read_bundle(attester.collect(nonce, public_key))
            if read is None:
                raise AttesterUnavailable(
                    f"the {attester.kind} attester gave no bundle", hint="report it; this is a fault of the attester"
                )
            parts += read.parts
        return bundle(*parts)


def of_this_machine(nvml: Any | None, *, reports: Path = TSM_REPORTS) -> Attester:
    """What this machine has: its CPU where configfs-tsm is there, its GPUs where NVML says that they are in
    confidential mode. `nvml`: the module `pynvml`, or None where it is not installed. Raises AttesterUnavailable."""
    found: list[Attester] = []
    if reports.is_dir():
        found.append(ConfigfsTsm(reports))
    if nvml is not None and _confidential(nvml):
        found.append(NvidiaGpus(nvml))
    if not found:
        raise AttesterUnavailable(
            "this machine has no TEE that is known here",
            hint="`sekisho site run` goes on without; confidential classes may need it",
        )
    return found[0] if len(found) == 1 else WholeMachine(found)


def _confidential(nvml: Any) -> bool:
    try:
        nvml.nvmlInit()
        try:
            return bool(nvml.nvmlSystemGetConfComputeState().ccFeature)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return False
