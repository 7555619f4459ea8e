"""The index of free GPUs: when does a window fit first? Compiled by mypyc (docs/adr/0008); pure, no I/O.

What is free of a pool is a line of steps: it changes only where a reservation begins or ends. The line is cut into
blocks of 256 slots, and 32 blocks are a group. For each number of GPUs that somebody asked for there is a row of
summaries, one a block and one a group: how long the free run at its beginning is, at its end, and the longest inside.
A search walks over groups and adds runs across their borders, so that four years that don't fit cost 18 steps a pool
and not 140,160. Summaries are made when a search needs them and carry the stamp of what they were made from: a
booking changes steps and stamps, and nothing stale is ever believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

BLOCK: Final = 256
BLOCKS: Final = 32  # of a group
GROUP: Final = BLOCK * BLOCKS
# Rows of summaries kept for one pool; each is about 15 KB.
MAX_ROWS: Final = 128
NEVER: Final = -1


# Where a block's or a group's summary has what; one beside the other, so that one look into memory brings all.
STAMP: Final = 0
PREFIX: Final = 1
SUFFIX: Final = 2
BEST: Final = 3
SIZE: Final = 4


class Row:
    """Summaries for one number of GPUs, of each block and of each group.

    `ahead[g]` is the longest free run from group `g` on, as it was at the pool's change number `changes`. As long as
    nothing was freed since (`freed`) there is none that is longer: bookings only make runs shorter.
    """

    def __init__(self, blocks: int) -> None:
        self.block: list[int] = [-1] * (blocks * SIZE)
        self.group: list[int] = [-1] * (blocks // BLOCKS * SIZE)
        self.ahead: list[int] = [0] * (blocks // BLOCKS)
        self.changes = -1
        self.freed = -1


class PoolIndex:
    """Free GPUs of one pool from slot `origin` on, for `slots` slots. Slots in arguments are absolute.

    In block `b` the number that is free changes to `free[b][i]` at the block's slot `at[b][i]`; `at[b][0]` is 0.
    `low` and `high` are the least and the most that is free anywhere in a block.
    """

    def __init__(self, gpus: int, origin: int, slots: int) -> None:
        self.gpus = gpus
        self.origin = origin
        self.slots = slots
        self.blocks = (slots + GROUP - 1) // GROUP * BLOCKS
        self.at: list[list[int]] = []
        self.free: list[list[int]] = []
        self.low: list[int] = []
        self.high: list[int] = []
        self.stamps: list[int] = [0] * self.blocks
        self.group_stamps: list[int] = [0] * (self.blocks // BLOCKS)
        self.rows: dict[int, Row] = {}
        self.changes = 0
        self.freed = 0
        self.load([])

    def load(self, steps: list[int]) -> None:
        """All at once: `steps[i]` is by how much the GPUs in use change at slot `origin + i`."""
        self.at = []
        self.free = []
        self.low = []
        self.high = []
        known = len(steps)
        left = self.gpus
        for block in range(self.blocks):
            base = block * BLOCK
            at: list[int] = []
            free: list[int] = []
            low = left
            high = left
            for slot in range(BLOCK):
                place = base + slot
                # What lies behind the horizon is never free.
                now = left if place < self.slots else -1
                if place < known and place < self.slots:
                    now = now - steps[place]
                    left = now
                if slot == 0 or now != free[len(free) - 1]:
                    at.append(slot)
                    free.append(now)
                    if slot == 0:
                        low = now
                        high = now
                    elif now < low:
                        low = now
                    elif now > high:
                        high = now
            self.at.append(at)
            self.free.append(free)
            self.low.append(low)
            self.high.append(high)
        self.rows = {}

    def add(self, first: int, until: int, gpus: int) -> None:
        """`gpus` more are taken in [first, until); fewer when it is negative. Outside of the horizon: ignored."""
        left = max(first - self.origin, 0)
        right = min(until - self.origin, self.slots)
        if left >= right or gpus == 0:
            return
        stamps = self.stamps
        begin = left // BLOCK
        end = (right - 1) // BLOCK
        for block in range(begin, end + 1):
            base = block * BLOCK
            self._add_in(block, max(left - base, 0), min(right - base, BLOCK), gpus)
            stamps[block] = stamps[block] + 1
        for group in range(begin // BLOCKS, end // BLOCKS + 1):
            self.group_stamps[group] = self.group_stamps[group] + 1
        self.changes = self.changes + 1
        if gpus < 0:
            self.freed = self.freed + 1

    def _add_in(self, block: int, left: int, right: int, gpus: int) -> None:
        at = self.at[block]
        free = self.free[block]
        first = self._cut(at, free, left)
        until = self._cut(at, free, right) if right < BLOCK else len(at)
        for step in range(first, until):
            free[step] = free[step] - gpus
        # Two neighbours that are equal are one step: the later border first, so that the earlier keeps its place.
        for border in (until, first):
            if 0 < border < len(at) and free[border] == free[border - 1]:
                del at[border]
                del free[border]
        low = free[0]
        high = low
        for now in free:
            if now < low:
                low = now
            elif now > high:
                high = now
        self.low[block] = low
        self.high[block] = high

    def _cut(self, at: list[int], free: list[int], slot: int) -> int:
        """The place of the step that begins at `slot`; it is made when there is none."""
        place = len(at)
        while place > 0 and at[place - 1] > slot:
            place = place - 1
        if at[place - 1] == slot:
            return place - 1
        at.insert(place, slot)
        free.insert(place, free[place - 1])
        return place

    def least_free(self, first: int, until: int) -> int:
        """The fewest GPUs that are free anywhere in [first, until); 0 when it leaves the horizon."""
        left = first - self.origin
        right = until - self.origin
        if left < 0 or right > self.slots or left >= right:
            return 0
        least = self.gpus
        for block in range(left // BLOCK, (right - 1) // BLOCK + 1):
            if self.low[block] >= least:
                continue
            base = block * BLOCK
            if left <= base and right >= base + BLOCK:
                least = self.low[block]
                continue
            at = self.at[block]
            free = self.free[block]
            for step in range(len(at)):
                ends = at[step + 1] if step + 1 < len(at) else BLOCK
                if free[step] < least and base + ends > left and base + at[step] < right:
                    least = free[step]
        return max(least, 0)

    def fits(self, gpus: int, first: int, until: int) -> bool:
        """Whether so many are free in all of [first, until)."""
        left = first - self.origin
        right = until - self.origin
        if left < 0 or right > self.slots or left >= right or gpus > self.gpus:
            return False
        return self.least_free(first, until) >= gpus

    def earliest(self, gpus: int, slots: int, start: int, stop: int, before: int) -> int:
        """The first slot s, start <= s < before, with `gpus` free in [s, s + slots), s + slots <= stop; or NEVER."""
        run = max(start - self.origin, 0)
        last = min(stop - self.origin, self.slots) - slots
        if before - self.origin - 1 < last:
            last = before - self.origin - 1
        if run > last or gpus > self.gpus:
            return NEVER
        row = self._row(gpus)
        block = run // BLOCK
        if row.freed == self.freed and row.ahead[block // BLOCKS] < slots:
            return NEVER
        if run % BLOCK:
            run = self._from(block, gpus, slots, run)
            block = block + 1
            if run > last:
                return NEVER
            if block * BLOCK - run >= slots:
                return run + self.origin
        blocks = row.block
        groups = row.group
        while block < self.blocks:
            base = block * BLOCK
            if block % BLOCKS == 0:
                group = block // BLOCKS
                at = group * SIZE
                if row.freed != self.freed:
                    self._look_ahead(row, gpus)
                elif groups[at] != self.group_stamps[group]:
                    self._summarise_group(row, group, gpus)
                head = groups[at + PREFIX]
                if base - run + head >= slots:
                    return run + self.origin
                if row.ahead[group] < slots:
                    return NEVER
                if head == GROUP:
                    block = block + BLOCKS
                    continue
                if groups[at + BEST] < slots:
                    run = base + GROUP - groups[at + SUFFIX]
                    if run > last:
                        return NEVER
                    block = block + BLOCKS
                    continue
            at = block * SIZE
            if blocks[at] != self.stamps[block]:
                self._summarise(blocks, block, gpus)
            head = blocks[at + PREFIX]
            if base - run + head >= slots:
                return run + self.origin
            if head != BLOCK:
                if blocks[at + BEST] >= slots:
                    found = self._from(block, gpus, slots, base)
                    return found + self.origin if found <= last else NEVER
                run = base + BLOCK - blocks[at + SUFFIX]
                if run > last:
                    return NEVER
            block = block + 1
        if row.changes != self.changes:
            self._look_ahead(row, gpus)
        return NEVER

    def _from(self, block: int, gpus: int, slots: int, start: int) -> int:
        """Where, from `start` in this block on, the first run begins that is `slots` long or reaches the block's end;
        the end when there is none."""
        at = self.at[block]
        free = self.free[block]
        base = block * BLOCK
        steps = len(at)
        step = 0
        while step + 1 < steps and base + at[step + 1] <= start:
            step = step + 1
        run = start
        while step < steps:
            if free[step] < gpus:
                run = base + (at[step + 1] if step + 1 < steps else BLOCK)
            elif step + 1 < steps and base + at[step + 1] - run >= slots:
                return run
            step = step + 1
        return run

    def _row(self, gpus: int) -> Row:
        row = self.rows.get(gpus)
        if row is None:
            if len(self.rows) >= MAX_ROWS:
                self.rows.pop(next(iter(self.rows)))
            row = Row(self.blocks)
            self.rows[gpus] = row
        return row

    def _summarise(self, blocks: list[int], block: int, gpus: int) -> None:
        place = block * SIZE
        blocks[place] = self.stamps[block]
        if self.low[block] >= gpus or self.high[block] < gpus:
            whole = BLOCK if self.low[block] >= gpus else 0
            blocks[place + PREFIX] = whole
            blocks[place + SUFFIX] = whole
            blocks[place + BEST] = whole
            return
        at = self.at[block]
        free = self.free[block]
        begins = -1
        best = 0
        prefix = -1
        for step in range(len(at)):
            if free[step] >= gpus:
                if begins < 0:
                    begins = at[step]
            elif begins >= 0:
                run = at[step] - begins
                if prefix < 0:
                    prefix = run if begins == 0 else 0
                if run > best:
                    best = run
                begins = -1
            elif prefix < 0:
                prefix = 0
        tail = BLOCK - begins if begins >= 0 else 0
        blocks[place + PREFIX] = prefix
        blocks[place + SUFFIX] = tail
        blocks[place + BEST] = tail if tail > best else best

    def _summarise_group(self, row: Row, group: int, gpus: int) -> None:
        run = 0
        best = 0
        prefix = -1
        blocks = row.block
        for block in range(group * BLOCKS, (group + 1) * BLOCKS):
            at = block * SIZE
            if blocks[at] != self.stamps[block]:
                self._summarise(blocks, block, gpus)
            head = blocks[at + PREFIX]
            if head == BLOCK:
                run = run + BLOCK
                continue
            run = run + head
            if prefix < 0:
                prefix = run
            if run > best:
                best = run
            if blocks[at + BEST] > best:
                best = blocks[at + BEST]
            run = blocks[at + SUFFIX]
        at = group * SIZE
        row.group[at] = self.group_stamps[group]
        row.group[at + PREFIX] = prefix if prefix >= 0 else GROUP
        row.group[at + SUFFIX] = run
        row.group[at + BEST] = run if run > best else best

    def _look_ahead(self, row: Row, gpus: int) -> None:
        """Brings all groups of the row up to date, and from the last one back the longest run that lies ahead."""
        groups = row.group
        lead = 0  # the run with which the next group begins
        longest = 0
        group = len(row.ahead)
        while group > 0:
            group = group - 1
            at = group * SIZE
            if groups[at] != self.group_stamps[group]:
                self._summarise_group(row, group, gpus)
            across = groups[at + SUFFIX] + lead
            head = groups[at + PREFIX]
            lead = head + lead if head == GROUP else head
            if across > longest:
                longest = across
            if groups[at + BEST] > longest:
                longest = groups[at + BEST]
            row.ahead[group] = longest
        row.changes = self.changes
        row.freed = self.freed


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


def load_pools(pools: list[PoolIndex], places: dict[int, int], rows: Iterable[tuple[int, int, int, int]]) -> None:
    """Rebuild from reservations: each row is (pool, first, until, GPUs), and `places` says where a pool is."""
    steps: list[list[int]] = []
    for pool in pools:
        steps.append([0] * (pool.slots + 1))
    for number, first, until, gpus in rows:
        place = places[number]
        pool = pools[place]
        column = steps[place]
        left = min(max(first - pool.origin, 0), pool.slots)
        right = min(max(until - pool.origin, 0), pool.slots)
        column[left] = column[left] + gpus
        column[right] = column[right] - gpus
    for place in range(len(pools)):
        pools[place].load(steps[place])
