"""Takes away journal segments that are in the log and in the database, after a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from sekisho.ledger.journal import segments
from sekisho.ledger.sequencer import JournalSource
from sekisho.ledger.store import segment_offsets
from sekisho.ledger.tlog.log import Position
from sekisho.runtime.database import Database

# The recovery of a gateway reads the newest segments, and their numbers must go on growing.
_ALWAYS_KEPT = 2


def prune(root: Path, committed: Mapping[str, Position], database: Database, *, older_than: float) -> list[Path]:
    """Removes segments that nobody reads any more; returns them.

    A segment goes when the log's last commit has it finished, the database's projection has it finished, it was
    written last before `older_than` (Unix seconds), and it is none of the newest two of its gateway.
    """
    with database.read() as connection:
        projected = segment_offsets(connection)
    removed = []
    for worker in sorted(root.glob("w*")):
        for path in segments(worker)[:-_ALWAYS_KEPT]:
            name = f"{worker.name}/{path.name}"
            position = committed.get(JournalSource.prefix + name)
            if position is None or not position.finished or not projected.get(name, (0, False))[1]:
                break  # in order: what comes later is not finished either
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mtime >= older_than:
                    break
                path.unlink()
                removed.append(path)
    return removed
