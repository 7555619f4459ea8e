"""Drawing a sample with the auditor's seed: everybody who has the seed and the population's size draws the same."""

from __future__ import annotations

import hashlib
from itertools import accumulate, count, pairwise

_CONTEXT = b"sekisho/evidence-pack/sample/v1\n"
_SPAN = 1 << 128


def draw(seed: str, *, population: int, size: int) -> list[int]:
    """`size` different positions in `range(population)`, in ascending order; all of them when there are fewer.

    The n-th candidate is SHA-256(context ‖ seed ‖ LF ‖ population ‖ LF ‖ n), its first 16 bytes as a big-endian
    number; those that would favour the first positions are passed over.
    """
    if size >= population:
        return list(range(population))
    fair = _SPAN - _SPAN % population
    head = hashlib.sha256(_CONTEXT + seed.encode() + b"\n%d\n" % population)
    drawn: set[int] = set()
    for number in count():
        if len(drawn) == size:
            break
        each = head.copy()
        each.update(b"%d" % number)
        value = int.from_bytes(each.digest()[:16], "big")
        if value < fair:
            drawn.add(value % population)
    return sorted(drawn)


def differences(indices: list[int]) -> tuple[int, ...]:
    """Ascending indices as the first one and the steps between them."""
    return tuple(after - before for before, after in pairwise([0, *indices]))


def indices(steps: tuple[int, ...]) -> list[int]:
    """The other way round. ValueError when they do not ascend."""
    if any(step <= 0 for step in steps[1:]) or (steps and steps[0] < 0):
        raise ValueError("the indices do not ascend")
    return list(accumulate(steps))
