"""Trust policies: the text of c2sp.org/tlog-policy, and who makes a quorum."""

from __future__ import annotations

import contextlib
from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sekisho.ledger.tlog.keys import Cosigner, NoteSigner
from sekisho.ledger.tlog.note import Checkpoint
from sekisho.ledger.tlog.policy import Log, PolicyRefused, TrustPolicy, Witness, majority
from sekisho.ledger.tlog.verify import leaf_hash

LOG = NoteSigner("log.example/2026", Ed25519PrivateKey.from_private_bytes(b"L" * 32))
COSIGNERS = [
    Cosigner(f"witness.example/{name}", Ed25519PrivateKey.from_private_bytes(name.encode() * 32)) for name in "abcde"
]
VKEYS = [cosigner.verifier.vkey for cosigner in COSIGNERS]
TEXT = Checkpoint(origin="log.example/2026", size=3, root=leaf_hash(b"")).encode()

# The example of the specification, with keys.
EXAMPLE = f"""
# two levels
log {LOG.verifier.vkey} https://log.example/

witness X1 {VKEYS[0]}
witness X2 {VKEYS[1]}
\twitness X3 {VKEYS[2]} https://x3.example/
group X-witnesses 2 X1 X2 X3

witness Y1 {VKEYS[3]}
witness Y2 {VKEYS[4]}
group Y-witnesses any Y1 Y2

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def test_the_example_of_the_specification() -> None:
    policy = TrustPolicy.parse(EXAMPLE.encode())
    keys = [cosigner.verifier for cosigner in COSIGNERS]
    assert policy.satisfied([keys[0], keys[2], keys[4]])
    assert not policy.satisfied([keys[0], keys[1], keys[2]])
    assert not policy.satisfied([keys[0], keys[3], keys[4]])
    assert policy.log_keys("log.example/2026") == (LOG.verifier,)
    assert policy.witnesses[2].url == "https://x3.example/"
    assert TrustPolicy.parse(policy.encode()) == policy


def test_no_quorum_asks_for_nobody() -> None:
    policy = TrustPolicy.parse(f"log {LOG.verifier.vkey}\nquorum none\n".encode())
    assert policy.satisfied([])
    assert policy.smallest([]) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum",
        "quorum nobody",
        "quorum none\nquorum none",
        f"witness w {VKEYS[0]}\nwitness w {VKEYS[1]}\nquorum w",
        f"witness none {VKEYS[0]}\nquorum none",
        f"witness w {VKEYS[0]}\nwitness v {VKEYS[0]}\nquorum w",
        f"witness w {LOG.verifier.vkey}\nquorum w",
        f"log {VKEYS[0]}\nquorum none",
        f"witness w {VKEYS[0]}\ngroup g 2 w\nquorum g",
        f"witness w {VKEYS[0]}\ngroup g 0 w\nquorum g",
        f"witness w {VKEYS[0]}\ngroup g ² w\nquorum g",
        f"witness w {VKEYS[0]}\ngroup g any w\ngroup h any w\nquorum h",
        f"witness w {VKEYS[0]}\ngroup g 2 w w\nquorum g",
        "group g any g\nquorum g",
        f"group g any w\nwitness w {VKEYS[0]}\nquorum g",
        f"witness w {VKEYS[0]}\nquorum w\r",
        f"witness w {VKEYS[0]} u1 u2\nquorum w",
        f"log {VKEYS[0][:-4]}\nquorum none",
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(PolicyRefused):
        TrustPolicy.parse(text.encode())


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_policy_or_refused(data: bytes) -> None:
    with contextlib.suppress(PolicyRefused):
        TrustPolicy.parse(data)
    with contextlib.suppress(PolicyRefused):
        TrustPolicy.parse(b"witness \xff " + data + b"\nquorum none\n")


@pytest.mark.parametrize("count", range(1, 8))
def test_any_two_majorities_share_an_operator(count: int) -> None:
    """The reason why a split view can't have two quorums while each operator's witnesses are honest."""
    operators = {f"o{number}": (f"w{number}a", f"w{number}b") for number in range(count)}
    groups, quorum = majority(operators)
    names = [name for members in operators.values() for name in members]
    cosigners = {
        name: Cosigner(f"w.example/{name}", Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32)))
        for name in names
    }
    policy = TrustPolicy(
        logs=(Log(key=LOG.verifier),),
        witnesses=tuple(Witness(name=name, key=cosigners[name].verifier) for name in names),
        groups=groups,
        quorum=quorum,
    )
    assert TrustPolicy.parse(policy.encode()) == policy
    for size in range(count + 1):
        for chosen in combinations(range(count), size):
            one = [cosigners[f"w{number}a"].verifier for number in chosen]
            rest = [cosigners[f"w{number}b"].verifier for number in range(count) if number not in chosen]
            assert not (policy.satisfied(one) and policy.satisfied(rest))


def test_a_receipt_carries_as_few_and_short_cosignatures_as_count() -> None:
    big = Cosigner("witness.example/pq", MLDSA44PrivateKey.from_seed_bytes(bytes(32)))
    text = EXAMPLE.replace("group X-witnesses 2 X1", f"witness PQ {big.verifier.vkey}\ngroup X-witnesses 2 PQ X1")
    policy = TrustPolicy.parse(text.encode())
    made = [cosigner.cosign(TEXT, at_s=1) for cosigner in (big, *COSIGNERS)]
    chosen = policy.smallest(made)
    assert chosen is not None
    assert [signature.name[-1] for signature in chosen] == ["a", "b", "d"]
    assert policy.smallest(made[:3]) is None
    with_big = policy.smallest([made[0], made[1], made[4]])
    assert with_big is not None
    assert len(with_big) == 3
