"""A tenant's key leaves only for an attested key, at a site that may do its work, while the evidence stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sekisho.federation.attester import bundle
from sekisho.federation.key_release import spki_of, unwrap
from sekisho.federation.simulated_tee import SimulatedTee
from sekisho.residency.attestation.refusals import Refused
from sekisho.residency.evidence import EvidenceService
from sekisho.residency.evidence_store import Evidence, tenant_data_key
from sekisho.residency.release import KeysUnreadable, Released, ReleaseService
from sekisho.runtime.database import Database
from support import tee
from support.evidence import CONTROL, KEY, SITES, affirm, answer, code, kept
from support.tee_vectors import NOW

SEALING = b"s" * 32


@pytest.fixture
def service(database: Database) -> EvidenceService:
    made = EvidenceService(database, key=CONTROL, known=SITES.__contains__, anchors=tee.makers())
    affirm(made)
    return made


@pytest.fixture
def release(database: Database, service: EvidenceService) -> ReleaseService:
    return ReleaseService(
        database,
        service,
        sealing_key=SEALING,
        entitled=lambda tenant, site: (tenant, site) == ("hospital", "ishikari"),
    )


def attest(
    release: ReleaseService,
    key: X25519PrivateKey,
    collect: Callable[[bytes, bytes], bytes] | None = None,
    *,
    now: float = NOW + 5,
) -> Evidence:
    nonce = release.challenge("ishikari", now=now).nonce
    evidence = (collect or tee.genoa().evidence)(nonce, spki_of(key))
    return kept(release.attest("ishikari", nonce, evidence, spki_of(key), now=now))


def released(result: Released | Refused) -> Released:
    assert isinstance(result, Released)
    return result


def refused(result: Released | Refused) -> str:
    assert isinstance(result, Refused)
    return result.code


def test_the_same_key_reaches_two_attested_workloads_and_nobody_else(
    service: EvidenceService, release: ReleaseService
) -> None:
    kept(answer(service))
    one, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    secrets = set()
    for key in (one, other):
        taken = attest(release, key)
        got = released(release.release("ishikari", taken.token, "hospital", spki_of(key), now=NOW + 6))
        secret = unwrap(got.wrapped, key, tenant="hospital", evidence=got.evidence)
        assert secret is not None
        assert len(secret) == 32
        assert unwrap(got.wrapped, X25519PrivateKey.generate(), tenant="hospital", evidence=got.evidence) is None
        assert unwrap(got.wrapped, key, tenant="bank", evidence=got.evidence) is None
        assert unwrap(got.wrapped, key, tenant="hospital", evidence="0" * 32) is None
        secrets.add(secret)
    assert len(secrets) == 1


def test_a_workload_speaks_for_itself_and_not_for_its_site(service: EvidenceService, release: ReleaseService) -> None:
    key = X25519PrivateKey.generate()
    taken = attest(release, key)
    assert service.standing(NOW + 6) == {}
    assert refused(release.release("ishikari", taken.token, "hospital", spki_of(key), now=NOW + 6)) == "release.token"


def test_no_key_without_standing_evidence(service: EvidenceService, release: ReleaseService) -> None:
    kept(answer(service))
    key = X25519PrivateKey.generate()
    taken = attest(release, key)

    def ask(
        *, now: float = NOW + 6, token: str = taken.token, tenant: str = "hospital", site: str = "ishikari"
    ) -> str:
        return refused(release.release(site, token, tenant, spki_of(key), now=now))

    assert ask(now=taken.until) == "release.token"
    assert ask(token="a.b.c") == "release.token"
    assert ask(site="osaka") == "release.token"
    assert ask(tenant="bank") == "release.not_entitled"
    stranger = spki_of(X25519PrivateKey.generate())
    assert refused(release.release("ishikari", taken.token, "hospital", stranger, now=NOW + 6)) == "release.key"
    released(release.release("ishikari", taken.token, "hospital", spki_of(key), now=NOW + 7))
    # The site's own hardware turns bad: what was attested before opens nothing any more.
    kept(answer(service, lambda n, k: tee.genoa().evidence(n, k, policy=0x30000 | 1 << 19), now=NOW + 8))
    assert ask(now=NOW + 10) == "release.token"


def test_simulated_workloads_get_no_key(service: EvidenceService, release: ReleaseService) -> None:
    kept(answer(service))
    key = X25519PrivateKey.generate()
    taken = attest(release, key, SimulatedTee("rack").collect)
    assert refused(release.release("ishikari", taken.token, "hospital", spki_of(key), now=NOW + 6)) == "release.token"


def test_a_site_s_challenge_does_not_serve_for_a_release(service: EvidenceService, release: ReleaseService) -> None:
    key = X25519PrivateKey.generate()
    nonce = service.challenge("ishikari", now=NOW).nonce
    evidence = tee.genoa().evidence(nonce, spki_of(key))
    assert code(release.attest("ishikari", nonce, evidence, spki_of(key), now=NOW)) == "attestation.unknown_challenge"
    signing = Ed25519PrivateKey.generate().public_key()
    der = signing.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert code(release.attest("ishikari", nonce, bundle(), der, now=NOW)) == "release.key"
    assert code(service.submit("ishikari", nonce, evidence, KEY, now=NOW)) == "attestation.wrong_key"


def test_keys_at_rest_are_sealed_for_one_tenant_and_one_installation(
    database: Database, service: EvidenceService, release: ReleaseService
) -> None:
    kept(answer(service))
    key = X25519PrivateKey.generate()
    taken = attest(release, key)
    got = released(release.release("ishikari", taken.token, "hospital", spki_of(key), now=NOW + 6))
    secret = unwrap(got.wrapped, key, tenant="hospital", evidence=got.evidence)
    with database.read() as connection:
        (row,) = connection.execute(tenant_data_key.select()).all()
    assert secret is not None
    assert secret not in bytes(row.sealed)
    elsewhere = ReleaseService(database, service, sealing_key=b"x" * 32, entitled=lambda *_: True)
    with pytest.raises(KeysUnreadable):
        elsewhere.release("ishikari", taken.token, "hospital", spki_of(key), now=NOW + 6)
    with database.write() as connection:
        connection.execute(tenant_data_key.insert().values(tenant="bank", sealed=row.sealed, created_at=NOW))
    moved = ReleaseService(database, service, sealing_key=SEALING, entitled=lambda *_: True)
    with pytest.raises(KeysUnreadable):
        moved.release("ishikari", taken.token, "bank", spki_of(key), now=NOW + 6)
