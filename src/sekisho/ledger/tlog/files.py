"""Files that are there whole or not at all, and directories that remember them after a loss of power.

Every call that changes the disk goes through here, so a test can end the process before each of them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


def put(path: str, data: bytes) -> None:
    """Writes beside, makes durable, renames. The name itself is durable after `sync_directory`.

    The temporary name is always the same: what a crash leaves is overwritten by the next try and never piles up.
    """
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.{name}.tmp"
    fd = os.open(temporary, _FLAGS, 0o600)
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, data[written:])
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: str) -> None:
    """Makes a directory and what is missing above it, all of it durable."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_directory(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    sync_directory(parent)


def put_durably(path: Path, data: bytes) -> None:
    """One file, durable with its name when this returns."""
    put(str(path), data)
    sync_directory(str(path.parent))


def remove(path: str) -> None:
    """Takes a file away if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Group:
    """Many files that become durable together: `put` each, then `finish` once."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._directories: set[str] = set()

    def put(self, relative: str, data: bytes) -> None:
        path = f"{self._root}/{relative}"
        directory = path.rpartition("/")[0]
        if directory not in self._directories:
            make_directory(directory)
            self._directories.add(directory)
        put(path, data)

    def finish(self) -> None:
        for directory in self._directories:
            sync_directory(directory)
