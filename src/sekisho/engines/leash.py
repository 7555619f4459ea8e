"""`python -m sekisho.engines.leash FOLDER LOCK COMMAND…`: holds an engine, and ends it when its lease is over.

The agent that started us may be gone; then we still end the engine in time. The engine dies with us (the kernel
kills it), and the lock that both hold tells everybody whether anything is left: no window of time in which a replica
runs that nobody can see. Standard library only: there is one of us for each replica.

FOLDER/lease.json   {"ends_at": Unix seconds, "left_s": seconds from when it was written, "alone_s": seconds,
                    "tied_to": null or [process id, start time]}
FOLDER/leash        our process id and start time, for whoever has to end us
FOLDER/exit         how the engine ended, in words
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from sekisho.runtime.children import die_with_parent, exit_in_words

_LOOK_EVERY_S = 0.25
_TERM_GRACE_S = 5.0
LEASE, LEASH, EXIT = "lease.json", "leash", "exit"


def start_time(pid: int) -> int:
    """When a process started, in the kernel's ticks (proc(5), field 22): a number that a later process with the same
    id does not have. 0 when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


class Lease:
    """Read again when it changes. Both clocks must agree that there is time left: neither a wall clock that is set
    nor a machine that slept makes a replica live longer."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp = (0, 0)
        self._ends_at = 0.0
        self._deadline = 0.0
        self._alone_until = 0.0
        self._tied_to: tuple[int, int] | None = None

    def over(self) -> str:
        """Why it is over; empty while it is not."""
        self._read()
        now = time.monotonic()
        if time.time() >= self._ends_at or now >= self._deadline:
            return "its lease ended"
        if now >= self._alone_until:
            return "its agent did not come back"
        if self._tied_to is not None and start_time(self._tied_to[0]) != self._tied_to[1]:
            return "what it lived with has ended"
        return ""

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp == self._stamp:
                return
            lease = json.loads(self._file.read_bytes())
            now = time.monotonic()
            ends_at, left_s, alone_s = (float(lease[name]) for name in ("ends_at", "left_s", "alone_s"))
            tied = lease["tied_to"]
            self._tied_to = None if tied is None else (int(tied[0]), int(tied[1]))
            self._ends_at, self._deadline, self._alone_until = ends_at, now + left_s, now + alone_s
            self._stamp = stamp


def hold(folder: Path, lock: int, command: list[str]) -> str:
    """Runs the engine until it ends or has to. The answer is how it ended."""
    asked: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    lease = Lease(folder / LEASE)
    if over := lease.over():
        return over
    me = os.getpid()
    try:
        engine = subprocess.Popen(  # noqa: S603 - the site's own command, made by its agent
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(lock,),
            # We have one thread, so running Python between fork and exec can't deadlock here.
            preexec_fn=lambda: die_with_parent(me),  # noqa: PLW1509
        )
    except OSError as error:
        return f"not started: {error.strerror}"
    why = ""
    while engine.poll() is None:
        why = "stopped" if asked else lease.over()
        if why:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(_LOOK_EVERY_S)
    if engine.poll() is None:
        engine.terminate()
        try:
            engine.wait(_TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
    return why or exit_in_words(engine.returncode)


def main() -> None:
    folder, lock, *command = sys.argv[1:]
    place = Path(folder)
    (place / LEASH).write_text(f"{os.getpid()} {start_time(os.getpid())}")
    ended = hold(place, int(lock), command)
    (place / EXIT).write_text(ended)


if __name__ == "__main__":
    main()
