"""Notes, checkpoints, keys and cosignatures: read strictly, verified as the specifications say."""

from __future__ import annotations

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sekisho.ledger.tlog.keys import Algorithm, Cosigner, NoteSigner, VerifierKey, open_note
from sekisho.ledger.tlog.note import Checkpoint, Note, NoteRefused, merge
from sekisho.ledger.tlog.verify import leaf_hash

# The example of Go's golang.org/x/mod/sumdb/note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    GO_TEXT.decode() + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()

ED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ML = MLDSA44PrivateKey.from_seed_bytes(bytes(range(32)))
HEAD = Checkpoint(origin="log.example/2026", size=7, root=leaf_hash(b"root"))


def test_a_note_by_go_is_read_and_made() -> None:
    key = VerifierKey.parse(GO_VKEY)
    assert key.vkey == GO_VKEY
    assert open_note(GO_NOTE, [key]).text == GO_TEXT
    assert NoteSigner("PeterNeumann", Ed25519PrivateKey.from_private_bytes(GO_SEED)).sign(GO_TEXT) == GO_NOTE


def test_a_checkpoint_is_what_it_was() -> None:
    text = HEAD.encode()
    assert text.split(b"\n")[:2] == [b"log.example/2026", b"7"]
    assert Checkpoint.parse(text) == HEAD
    extended = Checkpoint(origin="a", size=0, root=HEAD.root, extensions=("x", "y z"))
    assert Checkpoint.parse(extended.encode()) == extended


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"log\n7\n",
        b"log\n07\n" + base64.b64encode(HEAD.root) + b"\n",
        b"log\n-1\n" + base64.b64encode(HEAD.root) + b"\n",
        "log\n７\n".encode() + base64.b64encode(HEAD.root) + b"\n",
        b"log\n9223372036854775808\n" + base64.b64encode(HEAD.root) + b"\n",
        b"log\n7\n" + base64.b64encode(HEAD.root[:-1]) + b"\n",
        b"log\n7\n" + base64.b64encode(HEAD.root),
        b"log\n7\n" + base64.b64encode(HEAD.root) + b"\n\n",
        b"log\n7\n" + base64.b64encode(HEAD.root) + b"\r\n",
        b"\n7\n" + base64.b64encode(HEAD.root) + b"\n",
        b"\xff\n7\n" + base64.b64encode(HEAD.root) + b"\n",
        b"x" * 256 + b"\n7\n" + base64.b64encode(HEAD.root) + b"\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: bytes) -> None:
    with pytest.raises(NoteRefused):
        Checkpoint.parse(text)


def test_base64_has_one_spelling() -> None:
    """The root ends in unused bits; a text that sets them would decode to the same bytes."""
    text = HEAD.encode().decode()
    digit = text[-3]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:-3] + alphabet[alphabet.index(digit) ^ 1] + text[-2:]
    with pytest.raises(NoteRefused, match="canonical"):
        Checkpoint.parse(other.encode())


@pytest.mark.parametrize("key", [ED, ML], ids=["ed25519", "ml-dsa-44"])
def test_a_cosignature_holds_for_its_text_time_and_name_only(key: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
    cosigner = Cosigner("witness.example/w1", key)
    made = cosigner.cosign(HEAD.encode(), at_s=1_790_000_000)
    assert cosigner.verifier.signed_at(HEAD.encode(), made.data) == 1_790_000_000
    other = Checkpoint(origin=HEAD.origin, size=8, root=HEAD.root)
    assert cosigner.verifier.signed_at(other.encode(), made.data) is None
    moved = (1_790_000_001).to_bytes(8, "big") + made.data[8:]
    assert cosigner.verifier.signed_at(HEAD.encode(), moved) is None
    assert cosigner.verifier.signed_at(HEAD.encode(), made.data[:-1]) is None
    assert VerifierKey.parse(cosigner.verifier.vkey) == cosigner.verifier


def test_the_post_quantum_cosignature_carries_its_makers_name() -> None:
    made = Cosigner("witness.example/w1", ML).cosign(HEAD.encode(), at_s=5)
    other = VerifierKey(
        name="witness.example/w2", algorithm=Algorithm.ML_DSA_44, public=ML.public_key().public_bytes_raw()
    )
    assert other.signed_at(HEAD.encode(), made.data) is None


def test_the_size_of_cosignatures_is_as_published() -> None:
    """docs/reference/receipts.md quotes these."""
    assert len(Cosigner("w", ED).cosign(HEAD.encode(), at_s=5).line().encode()) == 3 + 1 + 1 + 1 + 104 + 1
    assert len(Cosigner("w", ML).cosign(HEAD.encode(), at_s=5).line().encode()) == 3 + 1 + 1 + 1 + 3244 + 1


def test_signatures_of_unknown_keys_mean_nothing_and_false_ones_refuse_the_note() -> None:
    log = NoteSigner(HEAD.origin, ED)
    witness = Cosigner("witness.example/w1", ML)
    signed = Note.parse(log.sign(HEAD.encode()))
    note = merge(signed, [witness.cosign(signed.text, at_s=9)])
    opened = open_note(note.encode(), [log.verifier])
    assert [found.key.name for found in opened.verified] == [HEAD.origin]
    assert [signature.name for signature in opened.unknown] == ["witness.example/w1"]
    both = open_note(note.encode(), [log.verifier, witness.verifier])
    assert [found.at_s for found in both.verified] == [0, 9]
    with pytest.raises(NoteRefused) as unsigned:
        open_note(signed.encode(), [witness.verifier])
    assert unsigned.value.code == "note.unsigned"
    forged = merge(signed, [witness.cosign(Checkpoint(origin="x", size=1, root=HEAD.root).encode(), at_s=9)])
    with pytest.raises(NoteRefused) as false:
        open_note(forged.encode(), [log.verifier, witness.verifier])
    assert false.value.code == "note.forged"


def test_two_signatures_by_one_key_are_refused() -> None:
    signed = NoteSigner(HEAD.origin, ED).sign(HEAD.encode())
    with pytest.raises(NoteRefused, match="same key"):
        Note.parse(signed + signed.split(b"\n\n")[1])


@pytest.mark.parametrize("y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 1])
def test_a_key_under_which_anybody_can_sign_is_refused(y: int) -> None:
    weak = VerifierKey(name="w", algorithm=Algorithm.COSIGNATURE, public=y.to_bytes(32, "little"))
    with pytest.raises(NoteRefused, match="anybody"):
        VerifierKey.parse(weak.vkey)


@pytest.mark.parametrize(
    "vkey",
    ["", "a", "a+b", GO_VKEY[:-1], GO_VKEY.replace("c74f", "c74e"), GO_VKEY.replace("c74f", "C74F"), " " + GO_VKEY],
)
def test_what_is_no_key_is_refused(vkey: str) -> None:
    with pytest.raises(NoteRefused):
        VerifierKey.parse(vkey)


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_note_or_refused(data: bytes) -> None:
    with contextlib.suppress(NoteRefused):
        assert Note.parse(data).encode() == data


@given(position=st.integers(0, len(GO_NOTE) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_never_the_same_note(position: int, byte: int) -> None:
    changed = bytearray(GO_NOTE)
    changed[position] = byte
    if bytes(changed) == GO_NOTE:
        return
    with pytest.raises(NoteRefused):
        open_note(bytes(changed), [VerifierKey.parse(GO_VKEY)])
