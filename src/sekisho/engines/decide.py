"""What to do with a replica now: pure, and the same whatever happened before."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.capacity.workloads.model import Order, ReplicaState
from sekisho.engines.adapter import Status

FIRST_WAIT_S = 1.0
MAX_WAIT_S = 60.0
# A life of this length makes the next death the first one again.
GOOD_LIFE_S = 120.0
# Gateways take a new table within a second (law 5); so long after the order a quiet replica has nothing to come.
SETTLE_S = 2.0
# A replica that does not answer for so long is ended and started again. Large models load for minutes.
HUNG_S = 900.0

Action = Literal["none", "start", "renew", "stop"]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a replica, also after a crash. Times in Unix seconds; 0: not."""

    order: Order
    restarts: int = 0
    wait_s: float = 0.0
    next_start_at: float = 0.0
    started_at: float = 0.0
    draining_at: float = 0.0
    unready_at: float = 0.0
    last_exit: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    kept: Kept
    action: Action
    state: ReplicaState


def decide(kept: Kept, status: Status, *, now: float) -> Decision:
    """One look at one replica."""
    if status.last_exit:
        kept = msgspec.structs.replace(kept, last_exit=status.last_exit[:300])
    if not kept.order.run or now >= kept.order.until:
        return _end(kept, status, now=now)
    if not status.alive:
        return _revive(kept, now=now)
    kept = msgspec.structs.replace(kept, draining_at=0.0)
    if status.ready:
        good = now - kept.started_at >= GOOD_LIFE_S
        kept = msgspec.structs.replace(kept, unready_at=0.0, wait_s=0.0 if good else kept.wait_s)
        return Decision(kept=kept, action="renew", state="ready")
    since = kept.unready_at if 0 < kept.unready_at <= now else now
    kept = msgspec.structs.replace(kept, unready_at=since)
    return Decision(kept=kept, action="stop" if now - since >= HUNG_S else "renew", state="starting")


def _end(kept: Kept, status: Status, *, now: float) -> Decision:
    if not status.alive:
        return Decision(kept=kept, action="none", state="gone")
    since = kept.draining_at if 0 < kept.draining_at <= now else now
    kept = msgspec.structs.replace(kept, draining_at=since)
    quiet = status.busy == 0 and now - since >= SETTLE_S
    # What does not answer has nothing that could finish.
    done = quiet or not status.ready or now >= kept.order.ends_at
    return Decision(kept=kept, action="stop" if done else "none", state="draining")


def _revive(kept: Kept, *, now: float) -> Decision:
    # A clock that was set back must not make it wait for the time in between.
    if kept.next_start_at > now and kept.next_start_at - now <= MAX_WAIT_S:
        return Decision(kept=kept, action="none", state="waiting")
    wait_s = min(max(kept.wait_s * 2, FIRST_WAIT_S), MAX_WAIT_S)
    again = msgspec.structs.replace(
        kept,
        restarts=kept.restarts + (1 if kept.started_at else 0),
        wait_s=wait_s,
        next_start_at=now + wait_s,
        started_at=now,
        unready_at=now,
        draining_at=0.0,
    )
    return Decision(kept=again, action="start", state="starting")
