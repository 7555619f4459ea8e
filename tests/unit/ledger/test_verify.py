"""Proofs of RFC 6962: known vectors, and an independent tree that builds what these functions check."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.ledger.tlog import verify

# The eight leaves of the Certificate Transparency test vectors (google/certificate-transparency, merkle_tree_test).
LEAVES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The definition of RFC 6962 §2.1, word for word and slow."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return verify.leaf_hash(leaves[0])
    split = split_of(len(leaves))
    return verify.node_hash(root_of(leaves[:split]), root_of(leaves[split:]))


def split_of(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def path_of(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    split = split_of(len(leaves))
    if index < split:
        return [*path_of(index, leaves[:split]), root_of(leaves[split:])]
    return [*path_of(index - split, leaves[split:]), root_of(leaves[:split])]


def consistency_of(old: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) of RFC 6962 §2.1.2."""
    return [] if old in (0, len(leaves)) else _subproof(old, leaves, complete=True)


def _subproof(old: int, leaves: Sequence[bytes], *, complete: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if complete else [root_of(leaves)]
    split = split_of(len(leaves))
    if old <= split:
        return [*_subproof(old, leaves[:split], complete=complete), root_of(leaves[split:])]
    return [*_subproof(old - split, leaves[split:], complete=False), root_of(leaves[:split])]


def test_known_roots() -> None:
    for size, root in enumerate(ROOTS):
        assert root_of(LEAVES[:size]).hex() == root
    assert verify.EMPTY_ROOT.hex() == ROOTS[0]


def test_known_inclusion_path() -> None:
    """certificate-transparency: the path of the sixth leaf in the tree of eight."""
    path = [bytes.fromhex(text) for text in (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    )]  # fmt: skip
    root = bytes.fromhex(ROOTS[8])
    assert verify.verify_inclusion(5, 8, verify.leaf_hash(LEAVES[5]), path, root)
    assert not verify.verify_inclusion(4, 8, verify.leaf_hash(LEAVES[5]), path, root)


def test_known_consistency_proof() -> None:
    """certificate-transparency: from six leaves to eight."""
    proof = [bytes.fromhex(text) for text in (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    )]  # fmt: skip
    assert verify.verify_consistency(6, bytes.fromhex(ROOTS[6]), 8, bytes.fromhex(ROOTS[8]), proof)
    assert not verify.verify_consistency(6, bytes.fromhex(ROOTS[5]), 8, bytes.fromhex(ROOTS[8]), proof)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_and_every_earlier_tree_is_proven_and_nothing_else(size: int) -> None:
    leaves = [b"%d" % number for number in range(size)]
    root = root_of(leaves)
    for index in range(size):
        path = path_of(index, leaves)
        leaf = verify.leaf_hash(leaves[index])
        proven_at = [other for other in range(size + 2) if verify.verify_inclusion(other, size, leaf, path, root)]
        assert proven_at == [index]
    for old in range(size + 1):
        proof = consistency_of(old, leaves)
        assert verify.verify_consistency(old, root_of(leaves[:old]), size, root, proof)
        if old < size:
            assert not verify.verify_consistency(
                old, root_of(leaves[:old]) if old else root, size, root, [*proof, root]
            )
            assert not verify.verify_consistency(old, verify.leaf_hash(b"other"), size, root, proof)
        if proof:
            assert not verify.verify_consistency(old, root_of(leaves[:old]), size, root, proof[:-1])
            assert (
                not verify.verify_consistency(old, root_of(leaves[:old]), size, root, proof[::-1]) or len(proof) == 1
            )


@given(
    index=st.integers(-1, 1 << 64), size=st.integers(-1, 1 << 64), proof=st.lists(st.binary(max_size=33), max_size=70)
)
def test_whatever_comes_is_answered(index: int, size: int, proof: list[bytes]) -> None:
    leaf = verify.leaf_hash(b"x")
    assert not verify.verify_inclusion(index, size, leaf, proof, hashlib.sha256(b"no root").digest())
    assert not verify.verify_consistency(index, leaf, size, hashlib.sha256(b"no root").digest(), proof)
