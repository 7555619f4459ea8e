"""The index of free GPUs: when does a window fit first? Compiled by mypyc (docs/adr/0008); pure, no I/O.

A pool is one number a slot: how many GPUs are free. Slots lie in blocks of 256. For each number of GPUs that
somebody asked for there is a row of summaries, one a block: how long the free run at its beginning is, at its end,
and the longest inside. A search walks over blocks and adds runs across their borders, so that four years that don't
fit cost 548 steps and not 140,160. Summaries are made when a search needs them and carry the stamp of the block
they were made from: a booking only changes slots and stamps.
"""

from __future__ import annotations

from typing import Final

BLOCK: Final = 256
# Rows of summaries kept for one pool; each is about 20 KB.
MAX_ROWS: Final = 128
NEVER: Final = -1


class Row:
    """Summaries for one number of GPUs, a number for each block."""

    def __init__(self, blocks: int) -> None:
        self.stamp: list[int] = [-1] * blocks
        self.prefix: list[int] = [0] * blocks
        self.suffix: list[int] = [0] * blocks
        self.best: list[int] = [0] * blocks
        # No window is longer than this, as long as nothing was freed since: bookings only make them shorter.
        self.longest = 0
        self.freed = -1


class PoolIndex:
    """Free GPUs of one pool from slot `origin` on, for `slots` slots. Slots in arguments are absolute."""

    def __init__(self, gpus: int, origin: int, slots: int) -> None:
        self.gpus = gpus
        self.origin = origin
        self.slots = slots
        self.blocks = (slots + BLOCK - 1) // BLOCK
        # What lies behind the horizon is never free.
        self.free: list[int] = [gpus] * slots + [-1] * (self.blocks * BLOCK - slots)
        self.stamps: list[int] = [0] * self.blocks
        self.rows: dict[int, Row] = {}
        self.freed = 0

    def add(self, first: int, until: int, gpus: int) -> None:
        """`gpus` more are taken in [first, until); fewer when it is negative. Outside of the horizon: ignored."""
        left = max(first - self.origin, 0)
        right = min(until - self.origin, self.slots)
        if left >= right:
            return
        if gpus < 0:
            self.freed = self.freed + 1
        free = self.free
        for slot in range(left, right):
            free[slot] = free[slot] - gpus
        stamps = self.stamps
        for block in range(left // BLOCK, (right - 1) // BLOCK + 1):
            stamps[block] = stamps[block] + 1

    def load(self, steps: list[int]) -> None:
        """All at once: `steps[i]` is by how much the GPUs in use change at slot `origin + i`."""
        free = self.free
        used = 0
        for slot in range(min(self.slots, len(steps))):
            used = used + steps[slot]
            free[slot] = self.gpus - used
        for slot in range(len(steps), self.slots):
            free[slot] = self.gpus - used
        self.rows = {}
        self.freed = self.freed + 1

    def least_free(self, first: int, until: int) -> int:
        """The fewest GPUs that are free anywhere in [first, until); 0 when it leaves the horizon."""
        left = first - self.origin
        right = until - self.origin
        if left < 0 or right > self.slots or left >= right:
            return 0
        free = self.free
        least = self.gpus
        for slot in range(left, right):
            if free[slot] < least:
                least = free[slot]
        return max(least, 0)

    def fits(self, gpus: int, first: int, until: int) -> bool:
        """Whether so many are free in all of [first, until)."""
        left = first - self.origin
        right = until - self.origin
        if left < 0 or right > self.slots or left >= right or gpus > self.gpus:
            return False
        free = self.free
        row = self._row(gpus)
        while left < right:
            if left % BLOCK == 0 and right - left >= BLOCK:
                block = left // BLOCK
                if row.stamp[block] != self.stamps[block]:
                    self._summarise(row, block, gpus)
                if row.prefix[block] != BLOCK:
                    return False
                left = left + BLOCK
            else:
                if free[left] < gpus:
                    return False
                left = left + 1
        return True

    def earliest(self, gpus: int, slots: int, start: int, stop: int, before: int) -> int:
        """The first slot s, start <= s < before, with `gpus` free in [s, s + slots), s + slots <= stop; or NEVER."""
        run = max(start - self.origin, 0)
        last = min(stop - self.origin, self.slots) - slots
        if before - self.origin - 1 < last:
            last = before - self.origin - 1
        if run > last or gpus > self.gpus:
            return NEVER
        free = self.free
        row = self._row(gpus)
        if row.freed == self.freed and slots > row.longest:
            return NEVER
        block = run // BLOCK
        if run % BLOCK:
            base = (block + 1) * BLOCK
            slot = run
            while slot < base:
                if free[slot] < gpus:
                    run = slot + 1
                    if run > last:
                        return NEVER
                elif slot - run + 1 >= slots:
                    return run + self.origin
                slot = slot + 1
            block = block + 1
        stamp = row.stamp
        prefix = row.prefix
        stamps = self.stamps
        while block < self.blocks:
            if stamp[block] != stamps[block]:
                self._summarise(row, block, gpus)
            base = block * BLOCK
            head = prefix[block]
            if base - run + head >= slots:
                return run + self.origin
            if head != BLOCK:
                if row.best[block] >= slots:
                    found = self._inside(gpus, slots, base)
                    return found + self.origin if found <= last else NEVER
                run = base + BLOCK - row.suffix[block]
                if run > last:
                    return NEVER
            block = block + 1
        if row.freed != self.freed:
            self._measure(row, gpus)
        return NEVER

    def _measure(self, row: Row, gpus: int) -> None:
        """The longest window of all: what asks for more is answered without a look."""
        run = 0
        longest = 0
        for block in range(self.blocks):
            if row.stamp[block] != self.stamps[block]:
                self._summarise(row, block, gpus)
            longest = max(longest, run + row.prefix[block], row.best[block])
            run = run + BLOCK if row.prefix[block] == BLOCK else row.suffix[block]
        row.longest = max(longest, run)
        row.freed = self.freed

    def _inside(self, gpus: int, slots: int, base: int) -> int:
        """The first run of `slots` in a block of which the summary says that there is one."""
        free = self.free
        run = base
        while True:
            # Backwards from the end of the candidate: one slot that is taken skips everything before it.
            slot = run + slots - 1
            while slot >= run and free[slot] >= gpus:
                slot = slot - 1
            if slot < run:
                return run
            run = slot + 1

    def _row(self, gpus: int) -> Row:
        row = self.rows.get(gpus)
        if row is None:
            if len(self.rows) >= MAX_ROWS:
                self.rows.pop(next(iter(self.rows)))
            row = Row(self.blocks)
            self.rows[gpus] = row
        return row

    def _summarise(self, row: Row, block: int, gpus: int) -> None:
        free = self.free
        base = block * BLOCK
        run = 0
        best = 0
        prefix = -1
        for slot in range(base, base + BLOCK):
            if free[slot] >= gpus:
                run = run + 1
            else:
                if prefix < 0:
                    prefix = run
                if run > best:
                    best = run
                run = 0
        row.prefix[block] = prefix if prefix >= 0 else BLOCK
        row.suffix[block] = run
        row.best[block] = max(best, run)
        row.stamp[block] = self.stamps[block]


def earliest_of(pools: list[PoolIndex], gpus: int, slots: int, start: int, stop: int) -> tuple[int, int]:
    """The earliest window over all pools: (place in the list, slot); (NEVER, NEVER) when there is none.

    Of pools that are free at the same time the first in the list wins.
    """
    place = NEVER
    before = stop
    for number in range(len(pools)):
        found = pools[number].earliest(gpus, slots, start, stop, before)
        if found != NEVER:
            place = number
            before = found
            if found <= start:
                break
    return place, (before if place != NEVER else NEVER)


def load_pools(
    pools: list[PoolIndex], places: list[int], first: list[int], until: list[int], gpus: list[int]
) -> None:
    """Rebuild from reservations: columns of equal length; `places` are indexes into `pools`."""
    steps: list[list[int]] = []
    for pool in pools:
        steps.append([0] * (pool.slots + 1))
    for number in range(len(places)):
        place = places[number]
        pool = pools[place]
        column = steps[place]
        left = min(max(first[number] - pool.origin, 0), pool.slots)
        right = min(max(until[number] - pool.origin, 0), pool.slots)
        column[left] = column[left] + gpus[number]
        column[right] = column[right] - gpus[number]
    for place in range(len(pools)):
        pools[place].load(steps[place])
