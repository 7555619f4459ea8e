"""The tree of a log in rows of tiles: growing it at its right edge, and finding proofs in it.

The tree is that of RFC 6962 §2.1. A tile holds 256 hashes of one level; the seven levels between two rows of tiles
are hashed anew when somebody asks for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import sha256

import msgspec

from sekisho.ledger.tlog.tiles import TILE_BYTES, TILE_WIDTH
from sekisho.ledger.tlog.verify import EMPTY_ROOT, HASH_BYTES, node_hash

_PAIR = 2 * HASH_BYTES
_HEIGHT = 8


def fold(row: bytes) -> bytes:
    """The row above: each two neighbours hashed into one. An odd one at the end is left out."""
    hasher = sha256
    return b"".join(
        [hasher(b"\x01" + row[at : at + _PAIR]).digest() for at in range(0, len(row) - HASH_BYTES, _PAIR)]
    )


def tile_root(tile: bytes) -> bytes:
    """The one hash over a full tile."""
    row = tile
    while len(row) > HASH_BYTES:
        row = fold(row)
    return row


def ragged_root(row: bytes, below: bytes | None) -> bytes | None:
    """The hash over a row of any width and over what follows it on the levels below (RFC 6962 §2.1: the left part of
    a split is always complete)."""
    while row:
        if len(row) % _PAIR:
            last, row = row[-HASH_BYTES:], row[:-HASH_BYTES]
            below = last if below is None else node_hash(last, below)
        row = fold(row)
    return below


class FullTile(msgspec.Struct, frozen=True):
    """A tile that has just become full."""

    level: int
    index: int
    hashes: bytes


class Edge:
    """The right edge of the tree: for each level the tile that is not full yet. All that a writer keeps in memory."""

    __slots__ = ("rows", "size")

    def __init__(self, size: int = 0, rows: Iterable[bytes | bytearray] = ()) -> None:
        """`rows` are the partial tiles of the levels from 0 up; each has (size >> 8·level) mod 256 hashes."""
        self.size = size
        self.rows = [bytearray(row) for row in rows]

    def copy(self) -> Edge:
        return Edge(self.size, self.rows)

    def extend(self, leaves: Iterable[bytes]) -> list[FullTile]:
        """Adds leaf hashes; says which tiles became full, lower levels first."""
        if not self.rows:
            self.rows.append(bytearray())
        row = self.rows[0]
        before = len(row)
        row += b"".join(leaves)
        first = self.size // TILE_WIDTH
        self.size += (len(row) - before) // HASH_BYTES
        full: list[FullTile] = []
        level = 0
        while len(row) >= TILE_BYTES:
            count = len(row) // TILE_BYTES
            tiles = [bytes(row[at * TILE_BYTES : (at + 1) * TILE_BYTES]) for at in range(count)]
            del row[: count * TILE_BYTES]
            full += [FullTile(level, first + at, tile) for at, tile in enumerate(tiles)]
            level += 1
            if level == len(self.rows):
                self.rows.append(bytearray())
            row = self.rows[level]
            # Where the row above stands follows from how many tiles were full before these.
            first //= TILE_WIDTH
            row += b"".join(map(tile_root, tiles))
        return full

    def root(self) -> bytes:
        below: bytes | None = None
        for row in self.rows:
            below = ragged_root(bytes(row), below)
        return EMPTY_ROOT if below is None else below


class Tree:
    """Proofs from tiles. `read(level, index)` gives a tile with at least the hashes that the tree's size asks for."""

    def __init__(self, read: Callable[[int, int], bytes], *, tiles: int = 256) -> None:
        """`tiles`: how many full tiles stay in memory, with the rows hashed from them (16 KiB each)."""
        self._read = read
        self._tiles = tiles
        self._rows: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()

    def root(self, size: int) -> bytes:
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """From the leaf's sibling up (RFC 6962 §2.1.1). ValueError unless 0 ≤ index < size."""
        if not 0 <= index < size:
            raise ValueError(f"there is no entry {index} in a tree of {size}")
        proof: list[bytes] = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                proof.append(self._hash(middle, high))
                high = middle
            else:
                proof.append(self._hash(low, middle))
                low = middle
        return proof[::-1]

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """RFC 6962 §2.1.2; empty when `old` is 0 or `new`. ValueError unless 0 ≤ old ≤ new."""
        if not 0 <= old <= new:
            raise ValueError(f"a tree of {new} does not continue one of {old}")
        if old in (0, new):
            return []
        proof: list[bytes] = []
        low, high = 0, new
        complete = True  # whether the part of the old tree that is left is a subtree that its reader knows
        while old != high:
            middle = low + _split(high - low)
            if old <= middle:
                proof.append(self._hash(middle, high))
                high = middle
            else:
                proof.append(self._hash(low, middle))
                low = middle
                complete = False
        if not complete:
            proof.append(self._hash(low, high))
        return proof[::-1]

    def _hash(self, low: int, high: int) -> bytes:
        """MTH(D[low:high]) where `low` is a multiple of the greatest power of two that fits."""
        found: list[bytes] = []
        while low < high:
            size = 1 << (high - low).bit_length() - 1
            found.append(self._node(size.bit_length() - 1, low // size))
            low += size
        root = found.pop()
        while found:
            root = node_hash(found.pop(), root)
        return root

    def _node(self, level: int, index: int) -> bytes:
        """The hash over the 2^level leaves from index·2^level on."""
        row, up = divmod(level, _HEIGHT)
        tile, at = divmod(index << up, TILE_WIDTH)
        at >>= up
        rows = self._rows.get((row, tile))
        end = (at + 1) * HASH_BYTES
        if rows is None or len(rows[0]) < end << up:
            rows = [self._read(row, tile)]
            self._keep((row, tile), rows)
        else:
            self._rows.move_to_end((row, tile))
        while len(rows) <= up:
            rows.append(fold(rows[-1]))
        return rows[up][end - HASH_BYTES : end]

    def _keep(self, key: tuple[int, int], rows: list[bytes]) -> None:
        self._rows[key] = rows
        self._rows.move_to_end(key)
        if len(self._rows) > self._tiles:
            self._rows.popitem(last=False)


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
