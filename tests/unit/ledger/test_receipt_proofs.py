"""Receipts: what they prove, offline; that no byte of them can change; that others' tools agree."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scitt_cose
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from scitt_cose import merkle

from sekisho.ledger.issue import NotYet, NotYours
from sekisho.ledger.receipts import Form, ReceiptRefused, read_served, verify_receipt
from sekisho.ledger.tlog.cose import CoseReceipt
from sekisho.ledger.tlog.keys import Algorithm, NoteSigner
from sekisho.ledger.tlog.log import LogDamaged, LogReader, LogWriter
from sekisho.ledger.tlog.note import Note
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.proof import TlogProof
from support.ledger import NOW_S, ORIGIN, LedgerLab, decision, seed

ORACLES = Path(__file__).parents[3] / ".venv" / "oracles"
FORMS: tuple[Form, ...] = ("proof", "cose")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LedgerLab]:
    made = LedgerLab(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def given_out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A log of 300 entries, and the receipts of one of them."""
    lab = LedgerLab(tmp_path_factory.mktemp("given"))
    lab.log([decision(number) for number in range(300)])
    lab.publish()
    yield {"lab": lab, "policy": lab.policy, **{form: issue(lab, 123, form) for form in FORMS}}
    lab.close()


def issue(lab: LedgerLab, number: int, form: Form = "proof") -> bytes:
    made = lab.service().receipt(decision(number).id.hex(), "hospital", now_ms=NOW_S * 1000, form=form)
    assert isinstance(made, bytes)
    return made


def refused(data: bytes, policy: TrustPolicy, *, now_s: float = NOW_S) -> str:
    with pytest.raises(ReceiptRefused) as found:
        verify_receipt(data, policy, now_s=now_s)
    return found.value.code


@pytest.mark.parametrize("form", FORMS)
def test_a_receipt_says_who_served_where_and_why(given_out: dict[str, Any], form: Form) -> None:
    verified = verify_receipt(given_out[form], given_out["policy"], now_s=NOW_S)
    assert (verified.form, verified.origin, verified.index, verified.size) == (form, ORIGIN, 123, 300)
    assert len(verified.cosigned) == 3
    assert {made.at_s for made in verified.cosigned} == {NOW_S}
    served = read_served(verified.entry)
    assert verified.entry == decision(123).data
    assert (served.operator, served.site, served.country, served.policy) == ("sakura", "ishikari", "JP", "ab" * 32)
    assert served.rules == ("jp-only", "fresh-evidence")


@pytest.mark.parametrize("form", FORMS)
def test_every_byte_counts(given_out: dict[str, Any], form: Form) -> None:
    """Each byte of the file, changed in its lowest bit and to a space, is refused; so is one more and one less."""
    good: bytes = given_out[form]
    policy = given_out["policy"]
    for position in range(len(good)):
        for byte in {good[position] ^ 1, good[position] ^ 0x20, 0x20} - {good[position]}:
            changed = bytearray(good)
            changed[position] = byte
            refused(bytes(changed), policy)
    for cut in range(0, len(good), 7):
        refused(good[:cut], policy)
    for extra in (b"\n", b" ", b"\0", b"x", good):
        refused(good + extra, policy)
        refused(extra + good, policy)


@settings(max_examples=300)
@given(data=st.data())
def test_no_change_of_any_kind_is_accepted(given_out: dict[str, Any], data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(FORMS))
    good: bytes = given_out[form]
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    changed = good[:start] + data.draw(st.binary(max_size=40)) + good[end:]
    if changed != good:
        refused(changed, given_out["policy"])


@given(st.binary(max_size=500))
def test_whatever_comes_is_refused_and_never_a_fault(given_out: dict[str, Any], data: bytes) -> None:
    policy = given_out["policy"]
    for start in (b"", b"\xd2", b"c2sp.org/tlog-proof@v1\n", b"\xd2\x84"):
        refused(start + data, policy)


def test_parts_of_two_receipts_make_none(given_out: dict[str, Any]) -> None:
    lab: LedgerLab = given_out["lab"]
    one, other = (TlogProof.parse(issue(lab, number)) for number in (122, 123))
    mixed = [
        TlogProof(entry=other.entry, index=one.index, hashes=one.hashes, checkpoint=one.checkpoint),
        TlogProof(entry=one.entry, index=other.index, hashes=one.hashes, checkpoint=one.checkpoint),
        TlogProof(entry=one.entry, index=one.index, hashes=other.hashes, checkpoint=one.checkpoint),
        TlogProof(entry=one.entry, index=one.index, hashes=one.hashes[::-1], checkpoint=one.checkpoint),
        TlogProof(entry=one.entry, index=one.index, hashes=one.hashes[:-1], checkpoint=one.checkpoint),
        TlogProof(entry=one.entry, index=one.index, hashes=(*one.hashes, bytes(32)), checkpoint=one.checkpoint),
    ]
    assert {refused(proof.encode(), given_out["policy"]) for proof in mixed} == {"receipt.forged"}


def test_the_checkpoint_of_another_size_or_log_is_refused(lab: LedgerLab, tmp_path: Path) -> None:
    lab.log([decision(number) for number in range(5)])
    lab.publish()
    early = TlogProof.parse(issue(lab, 2))
    lab.log([decision(5)])
    lab.publish()
    late = TlogProof.parse(issue(lab, 2))
    crossed = TlogProof(entry=early.entry, index=early.index, hashes=early.hashes, checkpoint=late.checkpoint)
    assert refused(crossed.encode(), lab.policy) == "receipt.forged"
    stranger = LedgerLab(tmp_path / "other", threshold=1)
    own = NoteSigner("other.example/log", seed("other"))
    assert refused(early.encode(), stranger_policy(own)) == "receipt.other_log"
    stranger.close()


def stranger_policy(signer: NoteSigner) -> TrustPolicy:
    return TrustPolicy.parse(f"log {signer.verifier.vkey}\nquorum none\n".encode())


def test_a_log_that_speaks_for_another_origin_is_refused(lab: LedgerLab, tmp_path: Path) -> None:
    """The policy's key for one log signs a checkpoint of another origin: nobody vouches for that."""
    root = tmp_path / "posing"
    writer = LogWriter(root, lab.signer, origin="sekisho.example/log/elsewhere")
    writer.append([decision(0).data])
    proof = TlogProof(entry=decision(0).data, index=0, hashes=(), checkpoint=LogReader(root).checkpoint_note())
    policy = TrustPolicy.parse(f"log {lab.signer.verifier.vkey}\nquorum none\n".encode())
    assert refused(proof.encode(), policy) == "receipt.other_log"
    writer.close()


def test_less_than_a_quorum_is_refused(given_out: dict[str, Any]) -> None:
    proof = TlogProof.parse(given_out["proof"])
    note = Note.parse(proof.checkpoint)
    fewer = Note(text=note.text, signatures=note.signatures[:-1]).encode()
    less = TlogProof(entry=proof.entry, index=proof.index, hashes=proof.hashes, checkpoint=fewer)
    assert refused(less.encode(), given_out["policy"]) == "receipt.quorum"


def test_a_witness_that_the_auditor_does_not_know_is_said(given_out: dict[str, Any]) -> None:
    lab: LedgerLab = given_out["lab"]
    log_only = TrustPolicy.parse(f"log {lab.signer.verifier.vkey}\nquorum none\n".encode())
    assert refused(given_out["proof"], log_only) == "receipt.unknown_signature"
    verified = verify_receipt(given_out["proof"], log_only, now_s=NOW_S, strangers=True)
    assert verified.cosigned == ()


def test_a_wrong_clock_is_noticed(given_out: dict[str, Any]) -> None:
    assert refused(given_out["proof"], given_out["policy"], now_s=NOW_S - 3600) == "receipt.time"
    assert verify_receipt(given_out["proof"], given_out["policy"], now_s=NOW_S + 10 * 365 * 86400).index == 123


def test_witnesses_that_cosigned_before_the_passage_are_noticed(lab: LedgerLab) -> None:
    lab.clock.at = NOW_S - 86_400
    lab.log([decision(0)])
    lab.publish()
    assert refused(issue(lab, 0), lab.policy) == "receipt.time"


def test_a_receipt_is_for_its_tenant_and_only_when_a_quorum_cosigned(lab: LedgerLab) -> None:
    service = lab.service()
    own, foreign = decision(0), decision(1, tenant="bank")
    now_ms = NOW_S * 1000
    assert isinstance(service.receipt(own.id.hex(), "hospital", now_ms=now_ms), NotYet)
    lab.log([own, foreign])
    assert isinstance(service.receipt(own.id.hex(), "hospital", now_ms=now_ms), NotYet)
    lab.publish()
    assert isinstance(service.receipt(own.id.hex(), "hospital", now_ms=now_ms), bytes)
    invented = foreign.id.hex()[:-1] + "9"
    for at_ms in (now_ms, now_ms + 7 * 3600 * 1000):
        # somebody else's looks like none at all, sooner and later
        answer = service.receipt(foreign.id.hex(), "hospital", now_ms=at_ms)
        assert answer == service.receipt(invented, "hospital", now_ms=at_ms)
        assert not isinstance(answer, bytes)
    assert isinstance(service.receipt(foreign.id.hex(), None, now_ms=now_ms), bytes)
    long_ago = f"{now_ms - 7 * 3600 * 1000:012x}" + "0" * 20
    ahead = f"{now_ms + 3600 * 1000:012x}" + "0" * 20
    assert service.receipt(long_ago, "hospital", now_ms=now_ms) == NotYours()
    assert service.receipt(ahead, "hospital", now_ms=now_ms) == NotYours()
    service.close()


def test_a_receipt_that_would_not_verify_is_not_given_out(lab: LedgerLab) -> None:
    lab.log([decision(number) for number in range(3)])
    lab.publish()
    (tile,) = (lab.root / "tile" / "0").rglob("3")
    data = tile.read_bytes()
    tile.write_bytes(data[:32] + bytes(32) + data[64:])
    service = lab.service()
    with pytest.raises(LogDamaged, match="fsck"):
        service.receipt(decision(0).id.hex(), "hospital", now_ms=NOW_S * 1000)
    service.close()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (b'{"at_ms":1,"id":"x","kind":"decision","v":1,"v":2}', "two readers"),
        (b'{"id":"x","at_ms":1,"kind":"decision","v":1}', "two readers"),
        (b"[]", "read"), (b"", "read"), (b'{"at_ms":1}', "read"), (b"[" * 5000, "read"),
    ],
)  # fmt: skip
def test_an_entry_that_reads_in_two_ways_is_refused(entry: bytes, why: str) -> None:
    with pytest.raises(ReceiptRefused, match=why):
        read_served(entry)


# -- size


@pytest.mark.parametrize(("size", "form", "limit"), [(500_000, "proof", 1536), (1_000_000, "cose", 1536)])
def test_a_receipt_is_small(given_out: dict[str, Any], size: int, form: Form, limit: int) -> None:
    """≤ 1.5 KB beside the entry, with a quorum of three Ed25519 cosignatures,
    up to these sizes (45 and 34 bytes more at each doubling)."""
    depth = (size - 1).bit_length()
    hashes = tuple(bytes([number]) * 32 for number in range(depth))
    proof = TlogProof.parse(given_out["proof"])
    if form == "proof":
        big = TlogProof(entry=proof.entry, index=size - 1, hashes=hashes, checkpoint=proof.checkpoint).encode()
        entry = len(proof.entry) * 4 / 3
    else:
        parsed = CoseReceipt.parse(given_out["cose"])
        big = CoseReceipt(
            origin=parsed.origin, key_id=parsed.key_id, signature=parsed.signature, entry=parsed.entry,
            index=size - 1, size=size, hashes=hashes, checkpoint=parsed.checkpoint,
        ).encode()  # fmt: skip
        entry = len(proof.entry)
    assert len(big) - entry <= limit


# -- other people's tools


def test_scitt_cose_builds_the_same_roots_and_proofs(lab: LedgerLab) -> None:
    entries = [decision(number) for number in range(77)]
    lab.log(entries)
    reader = LogReader(lab.root)
    as_hex = [entry.data.hex() for entry in entries]
    for size in (1, 2, 3, 63, 64, 65, 77):
        assert merkle.merkle_root(as_hex[:size]) == reader.root(size).hex()
        for index in (0, size // 2, size - 1):
            theirs = merkle.inclusion_proof(as_hex[:size], index)
            assert theirs == [item.hex() for item in reader.inclusion_proof(index, size)]
        proof = [item.hex() for item in reader.consistency_proof(size, 77)]
        assert merkle.verify_consistency(reader.root(size).hex(), reader.root(77).hex(), size, 77, proof)


def test_scitt_cose_accepts_our_receipts_and_no_others(given_out: dict[str, Any]) -> None:
    pem = (
        seed("log")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    receipt = given_out["cose"]
    theirs = scitt_cose.verify_receipt(receipt, leaf_entry_hex=decision(123).data.hex(), log_public_key_pem=pem)
    assert theirs.ok, theirs.errors
    assert (theirs.tree_size, theirs.leaf_index, theirs.issuer, theirs.subject) == (300, 123, ORIGIN, ORIGIN)
    other = scitt_cose.verify_receipt(receipt, leaf_entry_hex=decision(124).data.hex(), log_public_key_pem=pem)
    assert not other.ok


@pytest.fixture
def aics(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`make check` puts it there, apart from the environment: it asks for a later Python than it needs."""
    monkeypatch.syspath_prepend(str(ORACLES))
    yield importlib.import_module("aics_tlog")
    for name in [name for name in sys.modules if name.partition(".")[0] == "aics_tlog"]:
        del sys.modules[name]


def test_aics_tlog_accepts_our_receipts_and_no_others(given_out: dict[str, Any], aics: Any) -> None:
    lab: LedgerLab = given_out["lab"]
    proof = TlogProof.parse(given_out["proof"])
    log_key = aics.parse_vkey(lab.signer.verifier.vkey)
    witnesses = [
        aics.parse_vkey(cosigner.verifier.vkey)
        for cosigners in lab.cosigners.values()
        for cosigner in cosigners
        if cosigner.verifier.algorithm is Algorithm.COSIGNATURE
    ]
    found = aics.verify_checkpoint(aics.parse_note(proof.checkpoint), log_key, witnesses, 3, expected_origin=ORIGIN)
    assert found.ok, found.error
    assert (found.size, found.origin) == (300, ORIGIN)
    assert aics.verify_leaf_inclusion(proof.entry, 123, 300, list(proof.hashes), found.root)
    assert not aics.verify_leaf_inclusion(proof.entry, 122, 300, list(proof.hashes), found.root)
    four = aics.verify_checkpoint(aics.parse_note(proof.checkpoint), log_key, witnesses, 4)
    assert not four.ok


# -- post-quantum


def test_both_kinds_of_cosignature_are_kept_and_the_short_ones_travel(tmp_path: Path) -> None:
    lab = LedgerLab(tmp_path, post_quantum=["osaka", "ishikari", "overseas"])
    lab.log([decision(0)])
    lab.publish()
    published = Note.parse((lab.root / "checkpoint.cosigned").read_bytes())
    assert len(published.signatures) == 1 + 5 + 3
    assert len(Note.parse(TlogProof.parse(issue(lab, 0)).checkpoint).signatures) == 1 + 3
    # A policy that trusts ML-DSA-44 alone gets receipts with those.
    lines = [line for line in lab.policy.encode().decode().splitlines() if line.startswith("log")]
    strong = [witness for witness in lab.policy.witnesses if witness.key.algorithm is Algorithm.ML_DSA_44]
    lines += [f"witness {one.name} {one.key.vkey}" for one in strong]
    lines += [f"group strong 2 {' '.join(one.name for one in strong)}", "quorum strong"]
    lab.policy = TrustPolicy.parse("\n".join(lines).encode())
    verified = verify_receipt(issue(lab, 0), lab.policy, now_s=NOW_S)
    assert [made.algorithm for made in verified.cosigned] == ["ml-dsa-44"] * 2
    lab.close()


def test_a_rotated_log_key_still_verifies_by_the_history(lab: LedgerLab) -> None:
    lab.log([decision(0)])
    lab.publish()
    old = issue(lab, 0)
    newer = NoteSigner(ORIGIN, seed("next"))
    policy = TrustPolicy.parse(lab.policy.encode() + b"")
    both = f"log {newer.verifier.vkey}\n".encode() + policy.encode()
    assert verify_receipt(old, TrustPolicy.parse(both), now_s=NOW_S).index == 0
    only_new = both.replace(f"log {lab.signer.verifier.vkey}\n".encode(), b"")
    assert refused(old, TrustPolicy.parse(only_new)) == "receipt.other_log"


def test_the_entry_of_a_receipt_is_json_that_anybody_reads(given_out: dict[str, Any]) -> None:
    assert json.loads(TlogProof.parse(given_out["proof"]).entry)["site"] == "ishikari"
