"""From a challenge to what stands: on both databases."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.federation.attester import EvidencePart, bundle, report_data
from sekisho.federation.simulated_tee import SimulatedTee
from sekisho.residency.attestation.appraise import Appraisal
from sekisho.residency.attestation.references import Reference
from sekisho.residency.attestation.register import SignedEntry, Signer, sign
from sekisho.residency.attestation.token import open_token
from sekisho.residency.evidence import CHALLENGE_S, EvidenceRefused, EvidenceService, EvidenceUnknown
from sekisho.residency.evidence_store import MAX_LIVE_CHALLENGES
from sekisho.residency.model import SiteEvidence
from sekisho.runtime.changes import changes
from sekisho.runtime.database import Database
from support import tee, tee_vectors
from support.evidence import AUDITOR, CONTROL, KEY, OPERATOR, SITES, affirm, answer, code, entry, kept, spki, trust
from support.tee_vectors import NOW


@pytest.fixture
def service(database: Database) -> EvidenceService:
    return EvidenceService(database, key=CONTROL, known=SITES.__contains__, anchors=tee.makers())


def test_evidence_of_approved_hardware_at_its_building_is_affirmed(service: EvidenceService) -> None:
    affirm(service)
    row = kept(answer(service))
    facts = service.standing(NOW + 2)["ishikari"].attestation
    assert (facts.kind, facts.level, facts.hardware_registered) == ("snp", "affirming", True)
    assert facts.until == row.until == NOW + 1 + 3600
    assert facts.digest == row.digest
    token = open_token(row.token, CONTROL.public_key())
    assert token is not None
    assert (token.status, token.sub, token.jti) == ("affirming", "ishikari", row.id)
    assert token.cnf == {"spki_sha256": hashlib.sha256(KEY).hexdigest()}
    assert service.holder_of(row.token, now=NOW + 2) == token


def test_evidence_ends_by_itself(service: EvidenceService) -> None:
    affirm(service)
    row = kept(answer(service))
    assert service.standing(row.until - 0.001) != {}
    assert service.standing(row.until) == {}
    assert service.holder_of(row.token, now=row.until) is None


def test_evidence_does_not_outlive_the_entry_that_says_where_it_is(service: EvidenceService) -> None:
    affirm(service)
    service.import_entry(entry("snp:" + tee.genoa().chip_id.hex(), until=NOW + 60), now=NOW, actor="admin")
    assert kept(answer(service)).until == int(NOW + 60)


def test_without_approved_values_or_an_entry_it_is_a_warning(service: EvidenceService) -> None:
    row = kept(answer(service))
    appraisal = msgspec.json.decode(row.appraisal, type=Appraisal)
    assert row.level == "warning"
    assert {found.code for found in appraisal.findings} == {"attestation.unapproved", "attestation.unregistered"}
    assert not service.standing(NOW + 2)["ishikari"].attestation.hardware_registered


def test_what_was_not_approved_contraindicates(service: EvidenceService) -> None:
    affirm(service)
    kept(answer(service))
    service.approve(
        Reference(name="image-1", kind="snp", measurements={"launch": ("00" * 48,)}, tcb_floor={"snp": 24}),
        now=NOW,
        actor="admin",
    )
    row = kept(answer(service, now=NOW + 10))
    codes = {found.code for found in msgspec.json.decode(row.appraisal, type=Appraisal).findings}
    assert codes == {"attestation.measurement", "attestation.tcb_floor"}
    assert service.standing(NOW + 12)["ishikari"].attestation.level == "contraindicated"
    service.withdraw("image-1", now=NOW + 13, actor="admin")
    assert kept(answer(service, now=NOW + 14)).level == "warning"
    assert [(one.reference.name, one.version) for one in service.references()] == [
        ("h100", 1),
        ("image-1", 1),
        ("image-1", 2),
    ]


def test_what_stands_is_weighed_anew_when_values_or_register_change(service: EvidenceService) -> None:
    def stands() -> tuple[str, bool]:
        facts = service.standing(NOW + 5)["ishikari"].attestation
        return facts.level, facts.hardware_registered

    first = kept(answer(service))
    assert stands() == ("warning", False)
    affirm(service)
    assert stands() == ("affirming", True)
    service.withdraw("image-1", now=NOW + 3, actor="admin")
    assert stands() == ("warning", True)
    service.import_entry(entry("snp:" + tee.genoa().chip_id.hex(), "osaka"), now=NOW + 4, actor="admin")
    assert stands() == ("contraindicated", False)
    assert {row.until for row in service.history("ishikari")} == {first.until}
    # A second look at the same says nothing new.
    before = len(service.history("ishikari"))
    service.approve(Reference(name="other", kind="tdx"), now=NOW + 4, actor="admin")
    assert len(service.history("ishikari")) == before


def test_hardware_that_the_register_has_elsewhere_contraindicates(service: EvidenceService) -> None:
    affirm(service)
    row = kept(answer(service, site="osaka"))
    assert (row.level, row.code, row.registered) == ("contraindicated", "attestation.wrong_site", False)


def test_a_machine_with_a_gpu_is_as_good_as_its_worst_part(service: EvidenceService) -> None:
    affirm(service)

    def both(nonce: bytes, key: bytes) -> bytes:
        return bundle(tee.genoa().part(nonce, key), tee.gpu().part(nonce, key))

    row = kept(answer(service, both))
    assert (row.kind, row.level, row.registered) == ("snp", "affirming", True)
    service.withdraw("h100", now=NOW, actor="admin")
    assert kept(answer(service, both)).level == "warning"
    twice = answer(service, lambda n, k: bundle(tee.genoa().part(n, k), tee.gpu().part(n, k), tee.gpu().part(n, k)))
    assert code(twice) == "attestation.form"


def test_an_answer_counts_once(service: EvidenceService) -> None:
    nonce = service.challenge("ishikari", now=NOW).nonce
    evidence = tee.genoa().evidence(nonce, KEY)
    kept(service.submit("ishikari", nonce, evidence, KEY, now=NOW + 1))
    assert code(service.submit("ishikari", nonce, evidence, KEY, now=NOW + 1)) == "attestation.replayed"
    assert len(service.history("ishikari")) == 1


def test_a_refused_answer_uses_the_challenge_up_too(service: EvidenceService) -> None:
    nonce = service.challenge("ishikari", now=NOW).nonce
    assert code(service.submit("ishikari", nonce, b"junk", KEY, now=NOW + 1)) == "attestation.form"
    good = tee.genoa().evidence(nonce, KEY)
    assert code(service.submit("ishikari", nonce, good, KEY, now=NOW + 1)) == "attestation.replayed"


def test_old_evidence_does_not_answer_a_new_challenge(service: EvidenceService) -> None:
    old = tee.genoa().evidence(service.challenge("ishikari", now=NOW).nonce, KEY)
    assert code(answer(service, lambda *_: old)) == "attestation.wrong_key"


def test_evidence_is_bound_to_one_key_one_site_and_a_short_time(service: EvidenceService) -> None:
    other = spki(Ed25519PrivateKey.generate())
    assert code(answer(service, lambda nonce, _: tee.genoa().evidence(nonce, other))) == "attestation.wrong_key"
    nonce = service.challenge("ishikari", now=NOW).nonce
    evidence = tee.genoa().evidence(nonce, KEY)
    assert code(service.submit("osaka", nonce, evidence, KEY, now=NOW)) == "attestation.unknown_challenge"
    assert code(service.submit("ishikari", bytes(32), evidence, KEY, now=NOW)) == "attestation.unknown_challenge"
    late = NOW + CHALLENGE_S
    assert code(service.submit("ishikari", nonce, evidence, KEY, now=late)) == "attestation.stale"
    nonce = service.challenge("ishikari", now=NOW).nonce
    evidence = tee.genoa().evidence(nonce, b"no key")
    assert code(service.submit("ishikari", nonce, evidence, b"no key", now=NOW)) == "attestation.wrong_key"


def test_junk_displaces_nothing_but_a_debug_guest_does(service: EvidenceService) -> None:
    affirm(service)
    kept(answer(service))
    assert code(answer(service, lambda *_: b"{}", now=NOW + 5)) == "attestation.form"
    replay = tee.genoa().evidence(bytes(32), KEY, policy=0x30000 | 1 << 19)
    assert code(answer(service, lambda *_: replay, now=NOW + 6)) == "attestation.wrong_key"
    assert service.standing(NOW + 8)["ishikari"].attestation.level == "affirming"
    debug = kept(answer(service, lambda n, k: tee.genoa().evidence(n, k, policy=0x30000 | 1 << 19), now=NOW + 10))
    assert (debug.level, debug.code) == ("contraindicated", "attestation.debug")
    assert service.standing(NOW + 12)["ishikari"].attestation.level == "contraindicated"
    assert [row.stands for row in service.history("ishikari")] == [True, False, False, True]


def test_a_token_counts_only_while_its_evidence_and_its_site_are_affirmed(service: EvidenceService) -> None:
    weak = kept(answer(service))
    assert service.holder_of(weak.token, now=NOW + 2) is None
    affirm(service)
    row = kept(answer(service, now=NOW + 3))
    assert service.holder_of(row.token, now=NOW + 5) is not None
    for broken in ("", "a.b.c", row.token[:-1], row.token + "A", row.token.replace(".", "..", 1)):
        assert service.holder_of(broken, now=NOW + 5) is None
    assert open_token(row.token, AUDITOR.public_key()) is None
    kept(answer(service, lambda n, k: tee.genoa().evidence(n, k, vmpl=1), now=NOW + 6))
    assert service.holder_of(row.token, now=NOW + 8) is None


def test_simulated_hardware_is_never_affirmed(service: EvidenceService) -> None:
    trust(service)
    fake = SimulatedTee("rack 1")
    service.import_entry(entry(fake.hardware_id), now=NOW, actor="admin")
    image = hashlib.sha384(b"sekisho demonstration image").hexdigest()
    service.approve(
        Reference(name="demo", kind="simulated", measurements={"image": (image,)}), now=NOW, actor="admin"
    )
    row = kept(answer(service, fake.collect))
    assert (row.kind, row.level, row.code) == ("simulated", "warning", "attestation.simulated")
    assert kept(answer(service, SimulatedTee("rack 1", debug=True).collect)).level == "contraindicated"
    part = EvidencePart(kind="snp", report=b"x" * 1184, certificates=())
    assert code(answer(service, lambda *_: bundle(part))) == "attestation.truncated"


def test_tdx_needs_collateral_from_the_cache(service: EvidenceService) -> None:
    quote, collateral = tee_vectors.tdx()
    part = EvidencePart(kind="tdx", report=quote)
    now = tee_vectors.TDX_NOW
    assert code(answer(service, lambda *_: bundle(part), now=now)) == "attestation.collateral_missing"
    row = service.import_collateral(collateral, now=now, actor="admin")
    assert row.name == "B0C06F000000"
    # Genuine, but made for somebody else's nonce.
    assert code(answer(service, lambda *_: bundle(part), now=now)) == "attestation.wrong_key"
    assert [one.name for one in service.collateral()] == ["B0C06F000000"]
    for document, at in ((b"{}", now), (collateral, NOW)):
        with pytest.raises(EvidenceRefused):
            service.import_collateral(document, now=at, actor="admin")


def test_a_host_that_hands_over_no_certificate_is_served_from_the_cache(service: EvidenceService) -> None:
    def bare(nonce: bytes, key: bytes) -> bytes:
        return bundle(EvidencePart(kind="snp", report=tee.genoa().report(report_data(nonce, key))))

    assert code(answer(service, bare)) == "attestation.chain_broken"
    row = service.import_collateral(tee.genoa().leaf(), now=NOW, actor="admin")
    assert row.kind == "snp"
    kept(answer(service, bare))


def test_an_entry_needs_its_operator_and_another_auditor(service: EvidenceService) -> None:
    trust(service)
    good = entry("snp:00ff")
    said = good.entry
    bad = {
        "operator alone": good.signatures[:1],
        "auditor alone": good.signatures[1:],
        "stranger": (good.signatures[0], sign(said, "auditor", Ed25519PrivateKey.generate())),
        "role swapped": (good.signatures[0], msgspec.structs.replace(good.signatures[0], role="auditor")),
    }
    for signatures in bad.values():
        with pytest.raises(EvidenceRefused):
            service.import_entry(SignedEntry(entry=said, signatures=signatures), now=NOW, actor="admin")
    moved = SignedEntry(entry=msgspec.structs.replace(said, site="osaka"), signatures=good.signatures)
    with pytest.raises(EvidenceRefused):
        service.import_entry(moved, now=NOW, actor="admin")
    with pytest.raises(EvidenceRefused):
        service.trust_signer(
            Signer(key=OPERATOR.public_key().public_bytes_raw().hex(), role="auditor", name="x"), now=NOW, actor="a"
        )
    service.import_entry(good, now=NOW, actor="admin")
    assert service.register() == [good]
    newer = entry("snp:00ff", site="osaka")
    service.import_entry(newer, now=NOW, actor="admin")
    assert service.register() == [newer]


def test_challenges_do_not_pile_up(service: EvidenceService) -> None:
    first = service.challenge("ishikari", now=NOW).nonce
    for i in range(MAX_LIVE_CHALLENGES):
        service.challenge("ishikari", now=NOW + 1 + i)
    evidence = tee.genoa().evidence(first, KEY)
    assert code(service.submit("ishikari", first, evidence, KEY, now=NOW + 30)) == "attestation.unknown_challenge"


def test_a_location_stands_beside_an_attestation(service: EvidenceService) -> None:
    kept(answer(service))
    service.record_location(
        "ishikari",
        verdict="proven",
        margin_km=120,
        until=NOW + 100,
        digest="00" * 32,
        detail=b"{}",
        now=NOW,
        actor="landmarks",
    )
    both = service.standing(NOW + 10)["ishikari"]
    assert (both.location.verdict, both.location.margin_km, both.attestation.kind) == ("proven", 120, "snp")
    assert service.standing(NOW + 100)["ishikari"].location == SiteEvidence().location


def test_every_change_is_in_the_log(service: EvidenceService, database: Database) -> None:
    affirm(service)
    kept(answer(service))
    answer(service, lambda *_: b"junk")
    with database.read() as connection:
        actions = [change.action for change in changes(connection)]
    assert actions[:2] == ["evidence.refused", "evidence.taken"]
    assert {"reference.approved", "register.entered", "signer.trusted"} <= set(actions)


def test_unknown_sites_get_nothing(service: EvidenceService) -> None:
    with pytest.raises(EvidenceUnknown):
        service.challenge("virginia", now=NOW)
    with pytest.raises(EvidenceUnknown):
        service.submit("virginia", bytes(32), b"", KEY, now=NOW)
    with pytest.raises(EvidenceUnknown):
        service.find("0" * 32)


def test_the_result_has_the_claims_of_the_standards(service: EvidenceService) -> None:
    affirm(service)
    row = kept(answer(service))
    ear = msgspec.json.decode(row.appraisal, type=Appraisal).ear()
    assert ear["ear.status"] == "affirming"
    assert len(bytes.fromhex(ear["eat_nonce"])) == 32
    (part,) = ear["submods"].values()
    assert set(part["ear.trustworthiness-vector"].values()) == {2}
    assert part["ear.appraisal-policy-id"].startswith("urn:sekisho:reference-values:")
    assert report_data(bytes(32), KEY) != report_data(bytes(31) + b"\1", KEY)
