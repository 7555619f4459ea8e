"""Merkle tree proofs as anybody may check them: pure functions over SHA-256, nothing else.

The tree is that of RFC 6962 §2.1 (the same as RFC 9162 §2.1 with SHA-256), so every verifier of Certificate
Transparency, Go's sumdb, Sigstore or Tessera agrees with what is said here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
# RFC 6962 §2.1: the hash of an empty list is the hash of an empty string.
EMPTY_ROOT = hashlib.sha256(b"").digest()
# A tree of 2^63-1 leaves has paths of 63 hashes (and C2SP tlog-witness sends no more than that).
MAX_PROOF = 63
MAX_SIZE = (1 << 63) - 1


def leaf_hash(data: bytes) -> bytes:
    """Hash of an entry as a leaf: SHA-256(0x00 ‖ data), 32 bytes (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node over its children's hashes: SHA-256(0x01 ‖ left ‖ right), 32 bytes (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes | None:
    """The root that a proof leads to, or None when the proof has not the shape that (index, size) asks for.

    `leaf` is a leaf hash; `proof` goes from the leaf's sibling up to the child of the root (RFC 9162 §2.1.3.2).
    """
    if not 0 <= index < size <= MAX_SIZE or len(leaf) != HASH_BYTES or not _hashes(proof):
        return None
    node, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        node, last = node >> 1, last >> 1
    return root if last == 0 else None


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf hash `leaf` stands at `index` in the tree of `size` leaves with this root."""
    found = root_from_inclusion(index, size, leaf, proof)
    return found is not None and found == root


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree (size, root) begins with the whole of the tree (old_size, old_root) (RFC 9162 §2.1.4.2).

    Every tree continues the empty one and itself; in both cases the proof is empty.
    """
    if not 0 <= old_size <= size <= MAX_SIZE or not _hashes(proof):
        return False
    if len(old_root) != HASH_BYTES or len(root) != HASH_BYTES:
        return False
    if old_size == size:
        return not proof and old_root == root and (size > 0 or root == EMPTY_ROOT)
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    # The proof leaves out the old root where the old tree is a complete subtree (its size is a power of two).
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    return _roots_from_consistency(old_size, size, path) == (old_root, root)


def _roots_from_consistency(old_size: int, size: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Both roots that a path leads to; None when its length is not the one that the sizes ask for."""
    if not path:
        return None
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return (old, new) if last == 0 else None


def _hashes(proof: Sequence[bytes]) -> bool:
    return len(proof) <= MAX_PROOF and all(len(item) == HASH_BYTES for item in proof)
