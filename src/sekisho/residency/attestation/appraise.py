"""Appraisal: a bundle against reference values, the register and a challenge. Pure: everything comes in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import msgspec

from sekisho.federation.attester import EvidenceKind, EvidencePart, gpu_nonce, read_bundle, report_data
from sekisho.residency.attestation import azure, nvidia, simulated, snp, tdx
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.references import Reference, judge
from sekisho.residency.attestation.refusals import Finding, Refused, finding, refuse
from sekisho.residency.attestation.register import RegisterEntry

Status = Literal["affirming", "warning", "contraindicated"]
# draft-ietf-rats-ar4si §2.3: the tiers that a status stands for
_TIER: Mapping[Status, int] = {"affirming": 2, "warning": 32, "contraindicated": 96}
_SEVERITY: Mapping[Status, int] = {"affirming": 0, "warning": 1, "contraindicated": 2}
# Which claim of the trustworthiness vector a finding speaks about (AR4SI §2.3.4)
_ABOUT = {
    "attestation.unregistered": "instance-identity",
    "attestation.wrong_site": "instance-identity",
    "attestation.unapproved": "executables",
    "attestation.measurement": "executables",
    "attestation.tcb_floor": "hardware",
    "attestation.tcb_status": "hardware",
    "attestation.tcb_advice": "hardware",
    "attestation.simulated": "hardware",
    "attestation.debug": "runtime-opaque",
    "attestation.vmpl": "configuration",
}
_VECTOR = ("instance-identity", "configuration", "executables", "hardware", "runtime-opaque")


class Anchors(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation holds evidence against. `collateral`: FMSPC → document, and `vcek_name` → VCEK (DER), for
    hosts that hand over none. `register`: hardware id → entry.
    `amd_roots` and `nvidia_root` are None for the vendored ones (tests bring makers of their own)."""

    references: tuple[Reference, ...] = ()
    register: dict[str, RegisterEntry] = {}
    collateral: dict[str, bytes] = {}
    amd_roots: dict[str, snp.Roots] | None = None
    nvidia_root: bytes | None = None

    @property
    def policy(self) -> str:
        """SHA-256 (hex) over the reference values: `ear.appraisal-policy-id`."""
        encoded = msgspec.json.encode(self.references, order="deterministic")
        return hashlib.sha256(b"sekisho/reference-values/v1\n" + encoded).hexdigest()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one report."""

    kind: str
    status: Status
    hardware_id: str = ""
    registered: bool = False
    building: str = ""
    product: str = ""
    measurements: dict[str, str] = {}
    tcb: dict[str, int] = {}
    details: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()

    def vector(self) -> dict[str, int]:
        """`ear.trustworthiness-vector`: 2 where nothing speaks against it, else the tier of what does."""
        vector = dict.fromkeys(_VECTOR, _TIER["affirming"])
        for one in self.findings:
            about = _ABOUT.get(one.code, "configuration")
            tier = _TIER["contraindicated" if one.weight == "contraindicated" else "warning"]
            vector[about] = max(vector[about], tier)
        return vector


class Appraisal(msgspec.Struct, frozen=True, kw_only=True):
    """Of one machine at one time. `status` is the worst of its parts; times in Unix seconds; `key`: SHA-256 (hex) of
    the SubjectPublicKeyInfo that the evidence binds; `digest`: of the bundle."""

    site: str
    status: Status
    at: float
    until: float
    nonce: str
    key: str
    digest: str
    policy: str
    parts: tuple[Part, ...]

    @property
    def kind(self) -> str:
        """The kind of the CPU where there is one, else of the first part."""
        return next((part.kind for part in self.parts if part.kind != "nvidia-hopper"), self.parts[0].kind)

    @property
    def registered(self) -> bool:
        """Whether the register has every piece of hardware, at this site."""
        return all(part.registered for part in self.parts)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(dict.fromkeys(found for part in self.parts for found in part.findings))

    def ear(self) -> dict[str, Any]:
        """As an EAT Attestation Result (draft-ietf-rats-ear; EAT claim names: RFC 9711)."""
        return {
            "eat_profile": "tag:ietf.org,2026:rats/ear#01",
            "iat": int(self.at),
            "exp": int(self.until),
            "eat_nonce": self.nonce,
            "sub": self.site,
            "cnf": {"spki_sha256": self.key},
            "ear.verifier-id": {"developer": "Sekisho", "build": "sekisho attestation 1"},
            "ear.status": self.status,
            "submods": {
                f"{part.kind}-{index}": {
                    "ear.status": part.status,
                    "ear.appraisal-policy-id": f"urn:sekisho:reference-values:{self.policy}",
                    "ear.trustworthiness-vector": part.vector(),
                    "sekisho.hardware-id": part.hardware_id,
                    "sekisho.building": part.building,
                    "sekisho.measurements": part.measurements,
                    "sekisho.tcb": part.tcb,
                    "sekisho.findings": [found.code for found in part.findings],
                }
                for index, part in enumerate(self.parts)
            },
            "sekisho.evidence-digest": f"sha-256:{self.digest}",
        }


def appraise(
    evidence: bytes,
    *,
    site: str,
    nonce: bytes,
    public_key: bytes,
    anchors: Anchors,
    now: float,
    validity_s: float,
) -> Appraisal | Refused:
    """Every part must be genuine and bind this nonce and key; then the worst of them counts. Never raises."""
    bundle = read_bundle(evidence)
    if bundle is None:
        return refuse("attestation.form")
    parts: list[Part] = []
    until = now + validity_s
    for part in bundle.parts:
        result = verify(part, anchors, now=now)
        is_gpu = part.kind == "nvidia-hopper"
        wanted = gpu_nonce(nonce, public_key) if is_gpu else report_data(nonce, public_key)
        if isinstance(result, Refused) and not result.bound:
            return result
        if result.bound != wanted:
            return refuse("attestation.wrong_key", "GPU report" if is_gpu else "report")
        if isinstance(result, Refused):
            parts.append(Part(kind=part.kind, status="contraindicated", findings=(result.finding,)))
            continue
        weighed = _weigh(result, site, anchors, now=now)
        parts.append(weighed)
        until = min(until, result.until)
        if weighed.registered:
            until = min(until, anchors.register[weighed.hardware_id].valid_until)
    identities = [part.hardware_id for part in parts if part.hardware_id]
    if len(set(identities)) != len(identities):
        # One GPU that answers for eight.
        return refuse("attestation.form")
    return Appraisal(
        site=site,
        status=_worst(parts),
        at=now,
        until=until,
        nonce=nonce.hex(),
        key=hashlib.sha256(public_key).hexdigest(),
        digest=hashlib.sha256(evidence).hexdigest(),
        policy=anchors.policy,
        parts=tuple(parts),
    )


def verify(part: EvidencePart, anchors: Anchors, *, now: float) -> Claims | Refused:
    """One report by the verifier of its kind."""
    match part.kind:
        case "snp":
            known = part.certificates or _vcek(anchors, snp.chip_of(part.report))
            return snp.verify(part.report, known, now=now, roots=anchors.amd_roots)
        case "azure-snp":
            known = part.certificates or _vcek(anchors, azure.chip_of(part.report))
            return azure.verify(part.report, known, now=now, roots=anchors.amd_roots)
        case "tdx":
            fmspc = tdx.fmspc_of(part.report)
            if fmspc is None:
                return refuse("attestation.truncated", "TDX quote")
            document = anchors.collateral.get(fmspc)
            if document is None:
                return refuse("attestation.collateral_missing", f"TDX {fmspc}")
            return tdx.verify(part.report, document, now=now)
        case "nvidia-hopper":
            return nvidia.verify(part.report, part.certificates, now=now, device_root=anchors.nvidia_root)
        case "simulated":
            return simulated.verify(part.report)
        case _:
            assert_never(part.kind)


def vcek_name(chip: str) -> str:
    """The name of a chip's certificate in the cache."""
    return "vcek-" + hashlib.sha256(chip.encode()).hexdigest()[:48]


def _vcek(anchors: Anchors, chip: str) -> tuple[bytes, ...]:
    cached = anchors.collateral.get(vcek_name(chip))
    return () if cached is None else (cached,)


def _weigh(claims: Claims, site: str, anchors: Anchors, *, now: float) -> Part:
    entry = anchors.register.get(claims.hardware_id) if claims.hardware_id else None
    if entry is not None and not entry.valid_from <= now < entry.valid_until:
        entry = None
    found = [*claims.findings, *judge(claims, anchors.references)]
    if entry is None:
        found.append(finding("attestation.unregistered"))
    elif entry.site != site:
        found.append(finding("attestation.wrong_site", entry.site))
    status: Status = "affirming"
    if any(one.weight == "contraindicated" for one in found):
        status = "contraindicated"
    elif found:
        status = "warning"
    return Part(
        kind=claims.kind,
        status=status,
        hardware_id=claims.hardware_id,
        registered=entry is not None and entry.site == site,
        building=entry.building if entry is not None and entry.site == site else "",
        product=claims.product,
        measurements=claims.measurements,
        tcb=claims.tcb,
        details=claims.details,
        findings=tuple(found),
    )


# What reference values and the register say; the rest is the hardware's own and its maker's.
_OURS = frozenset(
    {
        "attestation.unapproved",
        "attestation.measurement",
        "attestation.tcb_floor",
        "attestation.unregistered",
        "attestation.wrong_site",
    }
)


def reweigh(appraisal: Appraisal, anchors: Anchors, *, now: float) -> Appraisal:
    """The same evidence against other reference values or another register; never good for longer than before."""
    parts: list[Part] = []
    until = appraisal.until
    for part in appraisal.parts:
        if not part.product:  # refused by what its hardware says of itself: no approval changes that
            parts.append(part)
            continue
        claims = Claims(
            kind=msgspec.convert(part.kind, type=EvidenceKind),
            hardware_id=part.hardware_id,
            product=part.product,
            bound=b"",
            measurements=part.measurements,
            tcb=part.tcb,
            until=until,
            details=part.details,
            findings=tuple(found for found in part.findings if found.code not in _OURS),
        )
        weighed = _weigh(claims, appraisal.site, anchors, now=now)
        parts.append(weighed)
        if weighed.registered:
            until = min(until, anchors.register[weighed.hardware_id].valid_until)
    return msgspec.structs.replace(
        appraisal, status=_worst(parts), until=until, policy=anchors.policy, parts=tuple(parts)
    )


def _worst(parts: Sequence[Part]) -> Status:
    return max((part.status for part in parts), key=_SEVERITY.__getitem__)
