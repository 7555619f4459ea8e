"""What tests of evidence say again and again: who signs, what is approved, one answer to one challenge."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sekisho.residency.attestation.references import Reference
from sekisho.residency.attestation.refusals import Refused
from sekisho.residency.attestation.register import RegisterEntry, SignedEntry, Signer, sign
from sekisho.residency.evidence import EvidenceService
from sekisho.residency.evidence_store import Evidence
from support import tee
from support.tee_vectors import NOW

CONTROL = Ed25519PrivateKey.generate()
OPERATOR, AUDITOR = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SITES = {"ishikari", "osaka"}


def spki(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


KEY = spki(Ed25519PrivateKey.generate())


def entry(hardware_id: str, site: str = "ishikari", until: float = NOW + 86_400) -> SignedEntry:
    said = RegisterEntry(
        hardware_id=hardware_id,
        site=site,
        operator="sakura",
        building="Ishikari data centre, building 1",
        valid_from=int(NOW) - 10,
        valid_until=int(until),
    )
    return SignedEntry(entry=said, signatures=(sign(said, "operator", OPERATOR), sign(said, "auditor", AUDITOR)))


def trust(service: EvidenceService) -> None:
    for key, role, name in ((OPERATOR, "operator", "sakura"), (AUDITOR, "auditor", "an auditor")):
        signer = msgspec.convert(
            {"key": key.public_key().public_bytes_raw().hex(), "role": role, "name": name}, type=Signer
        )
        service.trust_signer(signer, now=NOW, actor="admin")


def affirm(service: EvidenceService) -> None:
    """Approves what the fakes run, and says where they stand."""
    trust(service)
    service.import_entry(entry("snp:" + tee.genoa().chip_id.hex()), now=NOW, actor="admin")
    service.import_entry(entry("nvidia:5ec1540"), now=NOW, actor="admin")
    service.approve(
        Reference(
            name="image-1",
            kind="snp",
            product="AMD Genoa",
            measurements={"launch": (tee.MEASUREMENT.hex(),)},
            tcb_floor={"snp": 20},
        ),
        now=NOW,
        actor="admin",
    )
    service.approve(
        Reference(name="h100", kind="nvidia-hopper", measurements={"01": ("01" * 48,)}), now=NOW, actor="admin"
    )


def answer(
    service: EvidenceService,
    collect: Callable[[bytes, bytes], bytes] | None = None,
    *,
    now: float = NOW,
    site: str = "ishikari",
) -> Evidence | Refused:
    nonce = service.challenge(site, now=now).nonce
    collected = (collect or tee.genoa().evidence)(nonce, KEY)
    return service.submit(site, nonce, collected, KEY, now=now + 1)


def kept(result: Evidence | Refused) -> Evidence:
    assert isinstance(result, Evidence)
    return result


def code(result: Evidence | Refused) -> str:
    assert isinstance(result, Refused)
    return result.code
