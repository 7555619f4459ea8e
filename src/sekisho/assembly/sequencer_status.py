"""What the sequencer's process says of itself, to whoever connects to `run/sequencer.sock`."""

from __future__ import annotations

import msgspec


class SequencerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the socket answers. Counts are since this process started; times in Unix seconds.

    `lag_s`: age of the oldest entry of the last commit when it was published. `fault` is empty when all is well.
    """

    pid: int
    origin: str
    size: int
    committed_at: float | None
    lag_s: float
    added: int
    known: int
    unreadable: int
    behind: bool
    fault: str
    fault_code: str
    fault_hint: str
    fault_since: float | None
