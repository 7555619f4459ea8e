"""Log files that stay small: a new one at every start and at 10 MiB, three old ones kept."""

from __future__ import annotations

import os
from pathlib import Path

MAX_BYTES = 10 << 20
KEEP = 3
_TAIL_BYTES = 4096


class BoundedLog:
    """Append bytes to `path`; `path.1` … `path.3` are the older ones.

    MUST NOT raise: a log that can't be written (a full disk) loses lines and counts them, and never stops a process.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor = -1
        self._size_bytes = 0
        self._lost_bytes = 0
        self._tail = b""
        self._rotate()

    def write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if self._size_bytes + len(data) > self._max_bytes and self._size_bytes > 0:
            self._rotate()
        try:
            if self._descriptor < 0:
                self._open()
            if self._lost_bytes:
                note = f"[sekisho: {self._lost_bytes} bytes of this log could not be written]\n".encode()
                self._size_bytes += os.write(self._descriptor, note)
                self._lost_bytes = 0
            written = os.write(self._descriptor, data)
        except OSError:
            written = 0
        self._size_bytes += written
        self._lost_bytes += len(data) - written

    def last_words(self) -> str:
        """The last line that says something: what a process said before it died."""
        lines = self._tail.decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size_bytes = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        self.close()
        self._size_bytes = 0
        try:
            if self._path.exists() and self._path.stat().st_size > 0:
                for age in range(self._keep - 1, 0, -1):
                    older = self._numbered(age)
                    if older.exists():
                        older.replace(self._numbered(age + 1))
                self._path.replace(self._numbered(1))
            self._open()
        except OSError:
            # The next write tries again, and counts what is lost.
            self.close()

    def _numbered(self, age: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{age}")
