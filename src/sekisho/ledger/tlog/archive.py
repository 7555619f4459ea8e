"""Moves full tiles and bundles of old entries to another place: slow disks, an object store that is mounted.

The log stays whole: readers look there when a file is not at its place. Each file is durable in the archive before
it goes from the log, so a crash leaves it at both places and the next run takes it away.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sekisho.ledger.tlog import files
from sekisho.ledger.tlog.log import LogFault, LogReader
from sekisho.ledger.tlog.tiles import TILE_WIDTH, TileName

_LINK = "writer/archive"
# What is done at a time before the directories are made durable.
_GROUP = 256


class ArchiveFault(LogFault):
    """The archive can't be what was asked for."""

    code = "log.archive"


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """`minimum_index`: entries below it are in the archive only."""

    files: int
    minimum_index: int


def archive(root: Path, to: Path, *, keep_entries: int) -> Archived:
    """Moves the bundles, and the tiles of level 0, of all but the newest `keep_entries` entries.

    Higher levels are a 256th of that and stay, so proofs for new entries never wait for the archive. ArchiveFault
    when another place was used before: a log has one archive.
    """
    reader = LogReader(root)
    until = max(0, reader.size - keep_entries) // TILE_WIDTH
    to = to.absolute()
    _link(root, to)
    moved = 0
    group: list[str] = []
    out = files.Group(to)
    for name in _lower(root, until):
        with contextlib.suppress(FileNotFoundError):
            out.put(name, (root / name).read_bytes())
            group.append(name)
        if len(group) == _GROUP:
            moved += _leave(root, out, group)
            out, group = files.Group(to), []
    moved += _leave(root, out, group)
    return Archived(files=moved, minimum_index=until * TILE_WIDTH)


def _leave(root: Path, out: files.Group, group: list[str]) -> int:
    """Once the copies are durable the originals go."""
    out.finish()
    for name in group:
        files.remove(f"{root}/{name}")
    return len(group)


def _lower(root: Path, until: int) -> Iterator[str]:
    """Names of the full files below tile `until` that still lie in the log."""
    for level in (None, 0):
        for index in range(until):
            name = TileName(level=level, index=index).path
            if os.path.exists(f"{root}/{name}"):
                yield name


def _link(root: Path, to: Path) -> None:
    """The log remembers its archive as a symbolic link: one atomic step, and people see it."""
    link = root / _LINK
    to.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.symlink(to, link)
    except FileExistsError:
        if Path(os.readlink(link)) != to:
            raise ArchiveFault(
                f"this log is archived at {os.readlink(link)} already",
                hint="use that directory; to move the archive, copy it there and change the link writer/archive",
            ) from None
    files.sync_directory(str(link.parent))
