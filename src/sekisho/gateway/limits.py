"""Limits that hold across all workers of a machine: leases from a shared board.

The board is a file in shared memory. A row is a token bucket or a count of slots; workers take from it in leases
under a file lock and then admit from their own lease without one. Nothing is admitted that was not first taken from
the board, so the sum over all workers never exceeds a limit: the overshoot bound is zero for requests and slots, and
for tokens it is what running requests use beyond their estimate (it is charged when they end).

The price is on the other side: what a worker holds idle, at most 1/(8·workers) of a bucket and
slots // (4·workers) slots, can't be used elsewhere until it is given back (within a second). A worker that dies takes
the rest of its bucket leases with it until the bucket refills; its slots are given back when it starts again.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Final

from sekisho.kernel.errors import SekishoError

ROWS: Final = 1 << 17
_MAX_WORKERS: Final = 64
_ROW: Final = struct.Struct("<Qdd")  # key, level, monotonic time of the level
_COUNT: Final = struct.Struct("<i")
_COUNTS_AT: Final = ROWS * _ROW.size
_FIRST_CELL: Final = _COUNTS_AT // _COUNT.size


class BoardFull(SekishoError):
    """More limits than the board has rows."""

    code = "limits.full"


class Board:
    """The shared file: 3 MiB, and half a MiB for each worker."""

    def __init__(self, path: Path, *, worker: int, workers: int) -> None:
        if not 0 <= worker < _MAX_WORKERS:
            raise BoardFull(f"at most {_MAX_WORKERS} workers share a board", hint="lower `workers`")
        self._slots: dict[str, Slots] = {}
        self.worker = worker
        self.workers = max(workers, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _COUNTS_AT + self.workers * ROWS * _COUNT.size
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # Not sparse: a page that a full disk can't give would end the process (SIGBUS) at the first write to it.
            os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            os.close(self._fd)
            raise BoardFull(
                f"no room for the board of limits ({size >> 20} MiB): {error.strerror}",
                code="limits.no_room",
                hint="free space in the home directory",
            ) from None
        self.map = mmap.mmap(self._fd, size)
        self._cells = memoryview(self.map).cast("i")
        self._column = _COUNTS_AT + worker * ROWS * _COUNT.size
        with self:  # whatever a predecessor of this worker held is free again
            self.map[self._column : self._column + ROWS * _COUNT.size] = bytes(ROWS * _COUNT.size)

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def lock(self) -> None:
        """What `with` does, but for nothing when there is no other worker."""
        if self.workers > 1:
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def unlock(self) -> None:
        if self.workers > 1:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def slots(self, name: str, limit: int) -> Slots:
        """The one object for this name in this worker: two would overwrite each other's count on the board."""
        slots = self._slots.get(name)
        if slots is None:
            slots = self._slots[name] = Slots(self, name, limit)
        else:
            slots.resize(limit)
        return slots

    def close(self) -> None:
        self._cells.release()
        self.map.close()
        os.close(self._fd)

    def row(self, name: str) -> int:
        """The row of this limit, made when it is new. Names are hashed to 64 bits."""
        data = name.encode()
        key = zlib.crc32(data) << 32 | zlib.crc32(data[::-1], 0x5E11) or 1
        with self:
            for step in range(ROWS):
                row = (key + step) % ROWS
                found = _ROW.unpack_from(self.map, row * _ROW.size)[0]
                if found == key:
                    return row
                if found == 0:
                    _ROW.pack_into(self.map, row * _ROW.size, key, -1.0, 0.0)
                    return row
        raise BoardFull(f"the board of limits has {ROWS} rows and all are taken", hint="use fewer limits a tenant")

    def total(self, row: int) -> int:
        """The sum over all workers."""
        cells = self._cells
        at = _FIRST_CELL + row
        found = 0
        for _ in range(self.workers):
            found += cells[at]
            at += ROWS
        return found

    def set_mine(self, row: int, held: int) -> None:
        self._cells[_FIRST_CELL + self.worker * ROWS + row] = held

    def mine(self, row: int) -> int:
        return self._cells[_FIRST_CELL + self.worker * ROWS + row]

    def add(self, row: int, worker: int, amount: int) -> None:
        """Under the lock: another worker's count may be changed too."""
        self._cells[_FIRST_CELL + worker * ROWS + row] += amount

    def first(self, row: int) -> int:
        """A worker that has some of this: this one, if it has."""
        if self.mine(row) > 0:
            return self.worker
        return next(each for each in range(self.workers) if self._cells[_FIRST_CELL + each * ROWS + row] > 0)


class Bucket:
    """`per_minute` units a minute, with a burst of one minute's worth, shared by all workers."""

    __slots__ = ("_batch", "_board", "_local", "_rate", "_row", "_touched", "per_minute")

    def __init__(self, board: Board, name: str, per_minute: int) -> None:
        self._board = board
        self._row = board.row(name)
        self.per_minute = per_minute
        self._rate = per_minute / 60.0
        self._batch = per_minute / (8.0 * board.workers)
        self._local = 0.0
        self._touched = 0.0

    def take(self, amount: float, now: float) -> float:
        """0.0 when `amount` was taken, else the seconds until it could be. `now`: monotonic seconds."""
        self._touched = now
        if self._local >= amount:
            self._local -= amount
            return 0.0
        self._local += self._move(max(amount - self._local, min(self._batch, self.per_minute)), now)
        if self._local >= amount:
            self._local -= amount
            return 0.0
        return max((amount - self._local) / self._rate, 0.001)

    def settle(self, amount: float) -> None:
        """Give back (positive) or charge (negative) the difference between the estimate and what was used."""
        self._local += amount

    def give_back(self, now: float) -> None:
        """Return an idle lease, and pay a debt."""
        if self._local < 0:
            self._local += self._move(-self._local, now)  # what the board can't cover yet stays a debt
        elif self._local > 0 and now - self._touched > 0.5:
            self._move(-self._local, now)
            self._local = 0.0

    def _move(self, amount: float, now: float) -> float:
        """Take up to `amount` from the board (negative: put back); what was moved."""
        board = self._board
        at = self._row * _ROW.size
        with board:
            key, level, since = _ROW.unpack_from(board.map, at)
            full = float(self.per_minute)
            level = full if level == -1.0 and since == 0.0 else min(full, level + max(now - since, 0.0) * self._rate)
            moved = min(amount, max(level, 0.0)) if amount > 0 else amount
            _ROW.pack_into(board.map, at, key, min(level - moved, full), now)
        return moved


class Slots:
    """A count of things under way, at most `limit` over all workers."""

    __slots__ = ("_board", "_held", "_row", "_spare", "in_use", "limit")

    def __init__(self, board: Board, name: str, limit: int) -> None:
        self._board = board
        self._row = board.row(name)
        self._held = 0
        self.in_use = 0
        self.resize(limit)

    def resize(self, limit: int) -> None:
        self.limit = limit
        self._spare = limit // (4 * self._board.workers)

    def take(self) -> bool:
        if self.in_use < self._held:
            self.in_use += 1
            return True
        board = self._board
        with board:
            free = self.limit - board.total(self._row)
            if free <= 0:
                return False
            self._held += min(free, max(self._spare, 1))
            board.set_mine(self._row, self._held)
        self.in_use += 1
        return True

    def release(self) -> None:
        self.in_use -= 1
        if self._held - self.in_use > self._spare * 2:
            self._keep(self.in_use + self._spare)

    def give_back(self) -> None:
        """Return all idle slots."""
        if self._held > self.in_use:
            self._keep(self.in_use)

    def _keep(self, held: int) -> None:
        with self._board:
            self._held = held
            self._board.set_mine(self._row, held)
