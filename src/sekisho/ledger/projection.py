"""Takes decisions from the gateways' journals into the database.

The life of a record: a worker appends it → `read_records` yields it after the saved offset → it is added by its id
together with the new offset, in one transaction → old rows go by retention. A crash anywhere repeats work, never
doubles a row and never skips one.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec

from sekisho.ledger.journal import read_records, segments
from sekisho.ledger.model import Decision, decode_record
from sekisho.ledger.store import forget_segments, insert_decisions, keep_last, save_segment, segment_offsets
from sekisho.runtime.database import Database

BATCH_RECORDS = 2_000
KEEP_ROWS = 200_000
KEEP_COUNTS_MS = 8 * 24 * 3_600_000
RETENTION_EVERY_S = 60.0
# Dispatches are most useful to the recovery only; their tag is looked for before anything is decoded.
_DISPATCH = b'{"kind":"dispatch"'


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one step did. `behind`: a batch was full, so more is waiting."""

    added: int
    unreadable: int
    behind: bool


class Projection:
    """One reader of `root/w*/`. Blocking: run it in a thread, one step at a time."""

    def __init__(self, database: Database, root: Path, *, keep_rows: int = KEEP_ROWS) -> None:
        self._database = database
        self._root = root
        self._keep_rows = keep_rows
        self._since_retention = 0
        self._retained_at = 0.0

    def step(self, *, now: float) -> Step:
        """Takes at most one batch from every worker's journal."""
        with self._database.read() as connection:
            known = segment_offsets(connection)
        added = unreadable = 0
        behind = False
        present: set[str] = set()
        for directory in sorted(self._root.glob("w*")):
            found = segments(directory)
            present.update(f"{directory.name}/{path.name}" for path in found)
            for number, path in enumerate(found):
                name = f"{directory.name}/{path.name}"
                offset, finished = known.get(name, (0, False))
                if finished:
                    continue
                # Asked before reading: once a later segment has a record, this one never gets another. (An empty
                # later segment says nothing: the writer reserves it ahead of need.)
                last = not any(_has_record(later) for later in found[number + 1 :])
                step = self._take(directory.name, path, name, offset, last=last)
                added += step.added
                unreadable += step.unreadable
                if step.behind:
                    behind = True
                    break
        self._forget(set(known) - present)
        self._since_retention += added
        if added and (self._since_retention >= self._keep_rows // 20 or now - self._retained_at >= RETENTION_EVERY_S):
            self._since_retention, self._retained_at = 0, now
            with self._database.write() as connection:
                keep_last(connection, self._keep_rows, now_ms=int(now * 1000), counts_ms=KEEP_COUNTS_MS)
        return Step(added=added, unreadable=unreadable, behind=behind)

    def _take(self, worker: str, path: Path, name: str, offset: int, *, last: bool) -> Step:
        decisions: list[tuple[Decision, bytes]] = []
        unreadable = 0
        end, count = offset, 0
        try:
            for end, payload in itertools.islice(read_records(path, offset), BATCH_RECORDS):  # noqa: B007 - the last `end` is kept
                count += 1
                if payload.startswith(_DISPATCH):
                    continue
                try:
                    record = decode_record(payload)
                except msgspec.MsgspecError:
                    # A sound frame that a later version wrote: it stays in the journal, and is counted here.
                    unreadable += 1
                    continue
                if isinstance(record, Decision):
                    decisions.append((record, payload))
        except FileNotFoundError:
            return Step(added=0, unreadable=0, behind=False)  # removed meanwhile
        full = count == BATCH_RECORDS
        finished = not last and not full
        if end == offset and not finished:
            return Step(added=0, unreadable=0, behind=False)
        with self._database.write() as connection:
            added = insert_decisions(connection, worker, decisions)
            save_segment(connection, name, end, finished=finished)
        return Step(added=added, unreadable=unreadable, behind=full)

    def _forget(self, gone: set[str]) -> None:
        if gone:
            with self._database.write() as connection:
                forget_segments(connection, gone)


def _has_record(path: Path) -> bool:
    try:
        return next(read_records(path), None) is not None
    except FileNotFoundError:
        return False
