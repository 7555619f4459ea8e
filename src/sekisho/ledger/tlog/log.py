"""A log on disk: one writer that integrates, any number of readers.

    ROOT/checkpoint, ROOT/tile/…   what everybody may be given (see `tiles.py`)
    ROOT/writer/lock               held by the writer for its life
    ROOT/writer/epoch              which writer is the last one
    ROOT/writer/state              the commit: size, root, checkpoint, and how far the sources were read

The life of a batch: tiles and bundles become durable under their names → `state` is replaced (the commit) → the
checkpoint is published → partial tiles that a full one stands for are removed. A crash before the commit leaves files
that nobody refers to and the next batch overwrites; a crash after it is finished by the next `LogWriter`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog import files
from sekisho.ledger.tlog.merkle import Edge, Tree
from sekisho.ledger.tlog.note import Checkpoint, Note, NoteRefused
from sekisho.ledger.tlog.tiles import (
    CHECKPOINT,
    TILE_WIDTH,
    TileName,
    bundle_path,
    decode_bundle,
    encode_bundle,
    tile_path,
)
from sekisho.ledger.tlog.verify import EMPTY_ROOT, HASH_BYTES

_WRITER = "writer"
_ARCHIVE = "archive"
# How much one commit may take: what an uncommitted one can leave behind has this many full tiles at most.
MAX_BATCH = 1 << 18
_LEFT_BEHIND_TILES = MAX_BATCH // TILE_WIDTH + 1


class LogFault(SekishoError):
    """The log can't be written or read."""

    code = "log.unavailable"


class LogDamaged(LogFault):
    """Files of the log don't agree with each other."""

    code = "log.damaged"


class LogFenced(LogFault):
    """Another writer has the log: this one must not write any more."""

    code = "log.fenced"


class Signer(Protocol):
    """Makes a signed note of a checkpoint's text."""

    def sign(self, text: bytes) -> bytes: ...


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a source was read. `finished`: nothing more can come."""

    offset: int
    finished: bool = False


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The commit record. `root` in hex; `checkpoint` is the signed note. `closed`: the log takes no further entry."""

    size: int
    root: str
    checkpoint: str
    positions: dict[str, Position] = {}
    closed: bool = False


class LogReader:
    """Reads a log, also beside its writer. Not thread-safe: its cache of tiles is its own.

    `size` and everything that depends on it follow the published checkpoint.
    """

    def __init__(self, root: Path, *, archive: Path | None = None, cached_tiles: int = 256) -> None:
        """`archive`: where pruned files lie; without it, where the writer's archiver has said."""
        self.directory = root
        self._base = str(root)
        self._archive = archive
        self._stamp: tuple[int, int] | None = None
        self._note = b""
        self._checkpoint = Checkpoint(origin="?", size=0, root=EMPTY_ROOT)
        self._tree = Tree(self._read_tile, tiles=cached_tiles)
        self._bundle: tuple[int, list[bytes]] = (-1, [])

    # -- the head

    def checkpoint_note(self) -> bytes:
        """The signed note as it is published. LogFault when there is none."""
        self._refresh()
        return self._note

    def checkpoint(self) -> Checkpoint:
        self._refresh()
        return self._checkpoint

    @property
    def size(self) -> int:
        return self.checkpoint().size

    def state(self) -> State:
        """The writer's last commit."""
        return read_state(self.directory)

    def _refresh(self) -> None:
        path = f"{self._base}/{CHECKPOINT}"
        try:
            found = os.stat(path)
            stamp = (found.st_ino, found.st_mtime_ns)
            if stamp == self._stamp:
                return
            note = Path(path).read_bytes()
            self._checkpoint = Checkpoint.parse(Note.parse(note).text)
        except FileNotFoundError:
            raise LogFault(f"{self.directory} holds no log", hint="is the sequencer running?") from None
        except (OSError, NoteRefused) as error:
            raise LogDamaged(f"the checkpoint of {self.directory} can't be read: {error}") from None
        self._note, self._stamp = note, stamp

    # -- proofs

    def root(self, size: int) -> bytes:
        """The root of the first `size` entries. ValueError when the log has fewer."""
        self._require(size)
        return self._tree.root(size)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """From the leaf's sibling up. ValueError unless 0 ≤ index < size ≤ the log's size."""
        self._require(size)
        return self._tree.inclusion_proof(index, size)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """That the tree of `new` entries continues that of `old`. ValueError unless 0 ≤ old ≤ new ≤ size."""
        self._require(new)
        return self._tree.consistency_proof(old, new)

    def _require(self, size: int) -> None:
        if size > self.size:
            raise ValueError(f"the log has {self.size} entries, not {size}")

    # -- entries

    def entry(self, index: int) -> bytes:
        """The bytes of one entry. IndexError when the log has none there."""
        if not 0 <= index < self.size:
            raise IndexError(f"the log has {self.size} entries, so none has the index {index}")
        bundle, at = divmod(index, TILE_WIDTH)
        return self._entries_of(bundle, at + 1)[at]

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of the entries from `start` on, up to the size that the log has now."""
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            bundle, at = divmod(start, TILE_WIDTH)
            found = self._entries_of(bundle, min(stop - bundle * TILE_WIDTH, TILE_WIDTH))
            end = min(stop, (bundle + 1) * TILE_WIDTH)
            yield from zip(range(start, end), found[at:], strict=False)
            start = end

    def _entries_of(self, bundle: int, needed: int) -> list[bytes]:
        """At least the first `needed` entries of a bundle."""
        if self._bundle[0] != bundle or len(self._bundle[1]) < needed:
            width = self._width(0, bundle)
            data = self._read(TileName(level=None, index=bundle, width=width))
            try:
                found = decode_bundle(data)
            except ValueError as error:
                raise LogDamaged(f"{bundle_path(bundle, width)}: {error}", hint="run `sekisho ledger fsck`") from None
            if len(found) < width:
                raise LogDamaged(f"{bundle_path(bundle, width)} is too short", hint="run `sekisho ledger fsck`")
            self._bundle = (bundle, found)
        return self._bundle[1]

    # -- files

    def file(self, name: TileName) -> bytes | None:
        """A file as it lies there, for whoever serves it; None when there is none."""
        for base in self._places():
            with contextlib.suppress(FileNotFoundError):
                return Path(f"{base}/{name.path}").read_bytes()
        return None

    def _places(self) -> Iterator[str]:
        yield self._base
        if self._archive is None:
            with contextlib.suppress(OSError):
                self._archive = Path(os.readlink(f"{self._base}/{_WRITER}/{_ARCHIVE}"))
        if self._archive is not None:
            yield str(self._archive)

    def _width(self, level: int, index: int) -> int:
        """How wide a tile is in the tree of the published size."""
        return min(TILE_WIDTH, (self._checkpoint.size >> 8 * level) - index * TILE_WIDTH)

    def _read_tile(self, level: int, index: int) -> bytes:
        width = self._width(level, index)
        data = self._read(TileName(level=level, index=index, width=width))
        if len(data) < width * HASH_BYTES:
            raise LogDamaged(f"{tile_path(level, index, width)} is too short", hint="run `sekisho ledger fsck`")
        return data

    def _read(self, name: TileName) -> bytes:
        """A file, or the full one that has replaced it since the checkpoint was read."""
        for width in dict.fromkeys((name.width, TILE_WIDTH)):
            data = self.file(TileName(level=name.level, index=name.index, width=width))
            if data is not None:
                return data
        raise LogDamaged(f"{name.path} is missing", hint="run `sekisho ledger fsck`")


class LogWriter:
    """The one writer. MUST NOT publish a checkpoint before all that it stands for is durable; MUST NOT go on after a
    fault: open a new one, which continues from the last commit."""

    def __init__(self, root: Path, signer: Signer, *, origin: str) -> None:
        """Takes the lock and continues what lies there, or begins a log. LogFenced when another writer has it."""
        self.root = root
        self.origin = origin
        self._signer = signer
        self._directory = root / _WRITER
        files.make_directory(str(self._directory))
        self._lock_fd = _lock(self._directory / "lock")
        try:
            self._epoch = self._take_epoch()
            self._open()
        except BaseException:
            self.close()
            raise
        self._broken = False

    def close(self) -> None:
        """Lets the lock go."""
        self._broken = True
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    @property
    def size(self) -> int:
        return self._state.size

    @property
    def state(self) -> State:
        """The last commit."""
        return self._state

    # -- opening

    def _take_epoch(self) -> bytes:
        path = self._directory / "epoch"
        last = int(path.read_bytes()) if path.exists() else 0
        epoch = b"%d\n" % (last + 1)
        files.put_durably(path, epoch)
        return epoch

    def _open(self) -> None:
        state_file = self._directory / "state"
        if not state_file.exists():
            if (self.root / CHECKPOINT).exists():
                raise LogDamaged(
                    f"{self.root} has a checkpoint and no state: whoever continued it could fork it",
                    hint="put back writer/state from a copy",
                )
            self._commit(0, EMPTY_ROOT, {}, closed=False)
        self._state = read_state(self.root)
        text = Checkpoint.parse(Note.parse(self._state.checkpoint.encode()).text)
        if text.origin != self.origin:
            raise LogFault(f"{self.root} is the log {text.origin}, not {self.origin}", code="log.origin")
        self._load_edge()
        self._publish()
        self._sweep()

    def _load_edge(self) -> None:
        size = self._state.size
        rows, level, count = [], 0, size
        while count:
            width = count % TILE_WIDTH
            rows.append(self._read(tile_path(level, count // TILE_WIDTH, width)) if width else b"")
            if len(rows[-1]) != width * HASH_BYTES:
                raise LogDamaged(f"{tile_path(level, count // TILE_WIDTH, width)} has the wrong length")
            level, count = level + 1, count // TILE_WIDTH
        self._edge = Edge(size, rows)
        width = size % TILE_WIDTH
        self._tail: list[bytes] = decode_bundle(self._read(bundle_path(size // TILE_WIDTH, width))) if width else []
        leaves = b"".join(sha256(b"\x00" + entry).digest() for entry in self._tail)
        if self._edge.root().hex() != self._state.root or (width and leaves != rows[0]):
            raise LogDamaged(
                f"the tiles of {self.root} don't lead to the root of its last commit",
                hint="run `sekisho ledger fsck`; a log that can't be trusted is not continued",
            )

    def _read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            raise LogDamaged(f"{path} is missing", hint="run `sekisho ledger fsck`") from None

    def _sweep(self) -> None:
        """Takes away what a batch left that was never committed, and partial files that a full one stands for."""
        levels: list[int | None] = [None, *range(len(self._edge.rows) + 1)]
        for level in levels:
            edge = self._state.size >> 8 * (level or 0)
            index, width = divmod(edge, TILE_WIDTH)
            for at in range(index, index + _LEFT_BEHIND_TILES):
                path = f"{self.root}/{TileName(level=level, index=at).path}"
                files.remove(path)
                if at > index + 1 and not os.path.isdir(os.path.dirname(path)):
                    break
                self._drop_partials(level, at, above=width if at == index else 0)
            for at in range(max(0, index - 1), index):
                self._drop_partials(level, at, above=0)

    def _drop_partials(self, level: int | None, index: int, *, above: int = 0) -> None:
        """Removes the partial files of a tile that are wider than `above`."""
        directory = f"{self.root}/{TileName(level=level, index=index).path}.p"
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                if not name.isdigit() or int(name) > above:
                    files.remove(f"{directory}/{name}")
            if not above:
                os.rmdir(directory)

    # -- writing

    def append(self, entries: Sequence[bytes], *, positions: Mapping[str, Position] | None = None) -> int:
        """Integrates entries and records how far their sources were read, in one step; returns the first index.

        When it returns, all of it survives a loss of power and the checkpoint is published. LogFenced when another
        writer took over; OSError when the disk fails. ValueError for more than MAX_BATCH entries, or one of more than
        65,535 bytes, before anything is written. `positions` replace the old ones; None keeps them.
        """
        if self._broken:
            raise LogFault("this writer had a fault: open the log again")
        if self._state.closed:
            raise LogFault(f"the log {self.origin} is closed", code="log.closed")
        if len(entries) > MAX_BATCH:
            raise ValueError(f"{len(entries)} entries are more than one commit takes ({MAX_BATCH})")
        first = self._state.size
        edge = self._edge.copy()
        full = edge.extend([sha256(b"\x00" + entry).digest() for entry in entries])
        pending = [*self._tail, *entries]
        whole = len(pending) // TILE_WIDTH
        bundles = [encode_bundle(pending[at * TILE_WIDTH : (at + 1) * TILE_WIDTH]) for at in range(whole)]
        tail = pending[whole * TILE_WIDTH :]
        rest = encode_bundle(tail)
        self._broken = True  # until all went well
        group = files.Group(self.root)
        for at, bundle in enumerate(bundles, first // TILE_WIDTH):
            group.put(bundle_path(at), bundle)
        for tile in full:
            group.put(tile_path(tile.level, tile.index), tile.hashes)
        if entries:
            if tail:
                group.put(bundle_path(edge.size // TILE_WIDTH, len(tail)), rest)
            for level, row in enumerate(edge.rows):
                count = edge.size >> 8 * level
                # A level whose row is as it was has its file already.
                if row and count != first >> 8 * level:
                    group.put(tile_path(level, count // TILE_WIDTH, len(row) // HASH_BYTES), bytes(row))
        group.finish()
        kept = self._state.positions if positions is None else dict(positions)
        self._commit(edge.size, edge.root(), kept, closed=False)
        self._edge, self._tail = edge, tail
        self._publish()
        if whole:
            self._drop_partials(None, first // TILE_WIDTH)
        for level in {tile.level for tile in full}:
            self._drop_partials(level, (first >> 8 * level) // TILE_WIDTH)
        self._broken = False
        return first

    def seal(self) -> State:
        """Closes the log for good: its last checkpoint is what the next log names. Twice is once."""
        if not self._state.closed:
            self._commit(self._state.size, bytes.fromhex(self._state.root), self._state.positions, closed=True)
        return self._state

    def _commit(self, size: int, root: bytes, positions: dict[str, Position], *, closed: bool) -> None:
        if (self._directory / "epoch").read_bytes() != self._epoch:
            raise LogFenced(
                f"another writer has taken the log {self.origin}",
                hint="only one sequencer runs on a log; stop the other one",
            )
        text = Checkpoint(origin=self.origin, size=size, root=root).encode()
        state = State(
            size=size,
            root=root.hex(),
            checkpoint=self._signer.sign(text).decode(),
            positions=positions,
            closed=closed,
        )
        files.put_durably(self._directory / "state", msgspec.json.encode(state))
        self._state = state

    def _publish(self) -> None:
        note = self._state.checkpoint.encode()
        path = self.root / CHECKPOINT
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == note:
                return
        files.put_durably(path, note)


def read_state(root: Path) -> State:
    """The last commit of a log. LogFault when there is none."""
    try:
        return msgspec.json.decode((root / _WRITER / "state").read_bytes(), type=State)
    except FileNotFoundError:
        raise LogFault(f"{root} holds no log", hint="is the sequencer running?") from None
    except msgspec.MsgspecError as error:
        raise LogDamaged(f"the state of {root} can't be read: {error}", hint="put back a copy of it") from None


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise LogFenced(
            f"another writer holds {path.parent.parent}",
            code="log.locked",
            hint="only one sequencer runs on a log; look at it with `sekisho status`",
        ) from None
    return fd
