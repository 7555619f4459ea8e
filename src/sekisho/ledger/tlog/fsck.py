"""Derives a whole log anew from its entry bundles, and names the first file that says something else."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.entries import EntryRefused, read_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import VerifierKey, open_note
from sekisho.ledger.tlog.log import LogFault, LogReader
from sekisho.ledger.tlog.merkle import Edge
from sekisho.ledger.tlog.note import Checkpoint
from sekisho.ledger.tlog.tiles import TILE_WIDTH, TileName, decode_bundle
from sekisho.ledger.tlog.verify import HASH_BYTES

_INDEX_AT_ONCE = 20_000


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first thing that is wrong. `file` is relative to the log; `index`: the first entry that it concerns."""

    file: str
    fact: str
    index: int | None = None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at. `difference` None: all of it is as the entries say."""

    origin: str
    size: int
    root: str
    entries: int
    tiles: int
    difference: Difference | None


class _Wrong(Exception):
    def __init__(self, file: str, fact: str, index: int | None = None) -> None:
        super().__init__(fact)
        self.difference = Difference(file=file, fact=fact, index=index)


def fsck(
    root: Path,
    key: VerifierKey | None = None,
    *,
    archive: Path | None = None,
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _size: None,
) -> Checked:
    """Reads every bundle and every tile of the published size. Without `key` the signature is not looked at.

    `strict`: each leaf must be an entry of ours, each id unique, and the index must agree. `progress(done, size)` is
    called for every bundle. Memory does not grow with the log.
    """
    reader = LogReader(root, archive=archive)
    try:
        head = _head(reader, key)
    except _Wrong as wrong:
        return Checked(origin="", size=0, root="", entries=0, tiles=0, difference=wrong.difference)
    except LogFault as fault:
        missing = Difference(file="checkpoint", fact=fault.fact)
        return Checked(origin="", size=0, root="", entries=0, tiles=0, difference=missing)
    check = _Check(reader, head.size, strict=strict)
    difference = None
    try:
        check.run(progress)
        if check.edge.root() != head.root:
            raise _Wrong(
                "checkpoint", f"the entries lead to the root {check.edge.root().hex()}, not {head.root.hex()}"
            )
        _state(reader, head)
        if strict:
            check.index(root)
    except _Wrong as wrong:
        difference = wrong.difference
    return Checked(
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
        entries=check.edge.size,
        tiles=check.tiles,
        difference=difference,
    )


def _head(reader: LogReader, key: VerifierKey | None) -> Checkpoint:
    note = reader.checkpoint_note()
    if key is not None:
        try:
            open_note(note, [key])
        except SekishoError as error:
            raise _Wrong("checkpoint", error.fact) from None
    return reader.checkpoint()


def _state(reader: LogReader, head: Checkpoint) -> None:
    """A log that was copied from a static host has no writer; where there is one, it must agree."""
    try:
        state = reader.state()
    except LogFault as fault:
        if fault.code == "log.damaged":
            raise _Wrong("writer/state", fault.fact) from None
        return
    # The writer may have gone on since the head was read; it never goes back.
    if state.size < head.size or (state.size == head.size and state.root != head.root.hex()):
        raise _Wrong("writer/state", f"it has {state.size} entries and the root {state.root}")


class _Check:
    def __init__(self, reader: LogReader, size: int, *, strict: bool) -> None:
        self._reader = reader
        self._size = size
        self._strict = strict
        self.edge = Edge()
        self.tiles = 0

    def run(self, progress: Callable[[int, int], None]) -> None:
        for bundle in range((self._size + TILE_WIDTH - 1) // TILE_WIDTH):
            start = bundle * TILE_WIDTH
            width = min(TILE_WIDTH, self._size - start)
            entries = self._bundle(bundle, width)
            leaves = [sha256(b"\x00" + entry).digest() for entry in entries]
            if self._strict:
                self._readable(entries, start, TileName(level=None, index=bundle, width=width).path)
            for tile in self.edge.extend(leaves):
                self._compare(TileName(level=tile.level, index=tile.index), tile.hashes)
            progress(self.edge.size, self._size)
        for level, row in enumerate(self.edge.rows):
            if row:
                name = TileName(
                    level=level, index=(self._size >> 8 * level) // TILE_WIDTH, width=len(row) // HASH_BYTES
                )
                self._compare(name, bytes(row))

    def _read(self, name: TileName) -> tuple[str, bytes]:
        """The file, or the full one that may stand for a partial one."""
        for width in dict.fromkeys((name.width, TILE_WIDTH)):
            found = TileName(level=name.level, index=name.index, width=width)
            data = self._reader.file(found)
            if data is not None:
                return found.path, data
        raise _Wrong(name.path, "it is missing", self._first(name))

    def _bundle(self, index: int, width: int) -> list[bytes]:
        name = TileName(level=None, index=index, width=width)
        path, data = self._read(name)
        try:
            entries = decode_bundle(data)
        except ValueError as error:
            raise _Wrong(path, str(error), index * TILE_WIDTH) from None
        wanted = width if path == name.path else TILE_WIDTH
        if len(entries) != wanted:
            raise _Wrong(path, f"it has {len(entries)} entries, not {wanted}", index * TILE_WIDTH)
        return entries[:width]

    def _compare(self, name: TileName, hashes: bytes) -> None:
        path, data = self._read(name)
        self.tiles += 1
        if path != name.path:
            data = data[: len(hashes)]
        if data == hashes:
            return
        if len(data) != len(hashes):
            raise _Wrong(path, f"it has {len(data)} bytes, not {len(hashes)}", self._first(name))
        at = next(at for at in range(name.width) if data[32 * at : 32 * at + 32] != hashes[32 * at : 32 * at + 32])
        span = 256 ** (name.level or 0)
        found, derived = data[32 * at : 32 * at + 32].hex(), hashes[32 * at : 32 * at + 32].hex()
        raise _Wrong(
            path,
            f"hash {at} is {found}, the entries lead to {derived}",
            (name.index * TILE_WIDTH + at) * span,
        )

    @staticmethod
    def _first(name: TileName) -> int:
        return int(name.index * 256 ** ((name.level or 0) + 1))

    @staticmethod
    def _readable(entries: list[bytes], start: int, path: str) -> None:
        for at, entry in enumerate(entries, start):
            try:
                read_entry(entry)
            except EntryRefused as error:
                raise _Wrong(path, error.fact, at) from None

    def index(self, root: Path) -> None:
        """Each entry is found by its id at its own place: so ids are unique, and the index agrees."""
        try:
            index = LogIndex(root)
        except LogFault as fault:
            raise _Wrong("writer/index.sqlite", fault.fact) from None
        try:
            covered = min(index.size, self._size)
            ids: dict[bytes, int] = {}
            for at, data in self._reader.entries(0, covered):
                entry_id = read_entry(data).id
                if entry_id in ids:
                    raise _Wrong("writer/index.sqlite", f"the entries {ids[entry_id]} and {at} have one id", at)
                ids[entry_id] = at
                if len(ids) == _INDEX_AT_ONCE or at == covered - 1:
                    self._places(index, ids)
                    ids.clear()
        finally:
            index.close()

    @staticmethod
    def _places(index: LogIndex, ids: dict[bytes, int]) -> None:
        found = index.places(list(ids))
        for entry_id, at in ids.items():
            if found.get(entry_id) != at:
                place = "nowhere" if found.get(entry_id) is None else f"at {found[entry_id]}"
                raise _Wrong("writer/index.sqlite", f"the entry {entry_id.hex()} stands at {at}, not {place}", at)
