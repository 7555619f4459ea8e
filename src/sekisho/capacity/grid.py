"""The grid of reservations: slots of 15 minutes since the Unix epoch, four years ahead."""

from __future__ import annotations

import math

from sekisho.capacity.faults import WindowInvalid

SLOT_S = 900
SLOTS_PER_HOUR = 4
SLOTS_PER_DAY = 96
HORIZON_SLOTS = 4 * 365 * SLOTS_PER_DAY
# 2^17 slots are 3.7 years: the longest window that a reservation may have, and the highest class of length below.
MAX_SPAN = 17
_HINT = "give times on the quarter of an hour, within the next four years"
_HINT_JA = "時刻は 15 分単位で、4 年以内の範囲で指定してください"


def slot_of(at_s: float, *, what: str) -> int:
    """The slot that begins at this time (Unix seconds); WindowInvalid when it is not on the grid."""
    if not math.isfinite(at_s) or abs(at_s) > 1e11 or at_s % SLOT_S:
        raise WindowInvalid(
            f"{what} is not on the 15-minute grid",
            hint=_HINT,
            fact_ja=f"{what} は 15 分単位の時刻ではありません",
            hint_ja=_HINT_JA,
        )
    return int(at_s) // SLOT_S


def current_slot(now: float) -> int:
    """The slot in which this moment lies."""
    return int(now // SLOT_S)


def unix_s(slot: int) -> int:
    return slot * SLOT_S


def span_of(slots: int) -> int:
    """The class of length: the smallest k with 2^k slots or more. A window that overlaps another one begins less
    than 2^k slots before it, so an index on (pool, span, first) finds all overlaps in a few short ranges."""
    return (slots - 1).bit_length()


def check_window(first: int, until: int, *, now: float) -> None:
    """WindowInvalid when it is empty, in the past, too long or beyond the horizon."""
    if until <= first:
        raise WindowInvalid(
            "the window is empty: it ends before it begins",
            hint="give an `until` after `start`",
            fact_ja="期間が空です（終了が開始より後ではありません）",
            hint_ja="開始より後の終了を指定してください",
        )
    if first < current_slot(now):
        raise WindowInvalid(
            "the window begins in the past", hint=_HINT, fact_ja="期間の開始が過去です", hint_ja=_HINT_JA
        )
    check_end(first, until, now=now)


def check_end(first: int, until: int, *, now: float) -> None:
    """What also holds for a window that has begun."""
    if until - first > 1 << MAX_SPAN:
        raise WindowInvalid(
            "the window is longer than 3.7 years",
            hint="book a shorter one, and extend it later",
            fact_ja="期間が 3.7 年を超えています",
            hint_ja="短い期間で予約し、後で延長してください",
        )
    if until > current_slot(now) + HORIZON_SLOTS:
        raise WindowInvalid(
            "the window ends more than four years from now",
            hint=_HINT,
            fact_ja="期間の終了が 4 年より先です",
            hint_ja=_HINT_JA,
        )
