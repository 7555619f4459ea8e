"""`python -m sekisho.assembly.sequencer --home HOME [--config FILE]`: the process that writes the transparency log.

It reads the journals and the outbox, and commits to the log at most five times a second. SIGTERM: it logs what is
still waiting, and ends. `run/sequencer.sock` answers each connection with its own account of itself (JSON).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
import sqlite3
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sekisho.assembly.config import load_config
from sekisho.assembly.database import database_url
from sekisho.assembly.home import Home, create, ensure_secrets, refusal
from sekisho.assembly.ledger import log_origin, log_signer
from sekisho.assembly.processes import EXIT_REFUSED
from sekisho.assembly.sequencer_status import SequencerStatus
from sekisho.capacity import log as reservations
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.prune import prune
from sekisho.ledger.sequencer import JournalSource, OutboxSource, Sequencer, Source, Step
from sekisho.ledger.tlog.log import LogFault, read_state
from sekisho.ledger.tlog.years import Opened, newest, open_year
from sekisho.runtime.database import Database

_log = logging.getLogger("sekisho.sequencer")
# A passage is in the log within a second; each commit costs the disk some ten waits, so they gather a little.
COMMIT_EVERY_S = 0.2
POLL_S = 0.05
RETRY_S = 1.0
PRUNE_EVERY_S = 300.0
DISK_FULL = "home.disk_full"
# A disk with less than this is nearly full: the smaller of the two counts.
LOW_SHARE = 0.05
LOW_BYTES = 2 << 30


def sources_of(journals: Path, database: Database) -> tuple[Source, ...]:
    """Everything that is logged. Other concepts come first: a flood of passages must not keep a policy waiting."""
    return (
        OutboxSource(database),
        OutboxSource(database, waiting=reservations.waiting, done=reservations.logged),
        JournalSource(journals),
    )


def nearly_full(path: Path) -> bool:
    """Whether the disk under `path` has little room left for what is to come."""
    stats = os.statvfs(path)
    return stats.f_bavail * stats.f_frsize < min(stats.f_blocks * stats.f_frsize * LOW_SHARE, LOW_BYTES)


class SequencerProcess:
    """One for each home directory."""

    def __init__(self, home: Home, database: Database, *, origin: str, keep_journals_s: float) -> None:
        """`database`: the control plane's; it is closed at the end."""
        self._home = home
        self._origin = origin
        self._keep_journals_s = keep_journals_s
        self._database = database
        self._opened: Opened | None = None
        self._sequencer: Sequencer | None = None
        self._pruned_at = time.monotonic()
        self._stop = asyncio.Event()
        self.status = SequencerStatus(
            pid=os.getpid(),
            origin=origin,
            size=0,
            committed_at=None,
            lag_s=0.0,
            added=0,
            known=0,
            unreadable=0,
            behind=False,
            fault="",
            fault_code="",
            fault_hint="",
            fault_since=None,
        )

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._home.sequencer_socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, str(self._home.sequencer_socket))
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                step = await self._step()
                if step is None:
                    await self._pause(RETRY_S)
                elif not step.more:
                    spent = time.monotonic() - began
                    await self._pause(COMMIT_EVERY_S - spent if step.added else POLL_S)
            # The workers have ended before us: what they wrote last belongs into the log.
            while (step := await self._step()) is not None and (step.more or step.added):
                pass
        finally:
            server.close()
            self._home.sequencer_socket.unlink(missing_ok=True)
            self._close()
            self._database.close()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), max(seconds, 0.001))

    async def _step(self) -> Step | None:
        """One batch; None when it failed: then the log is opened anew the next time."""
        try:
            step = await asyncio.to_thread(self._work)
        except (OSError, SekishoError, sqlite3.Error) as error:
            self._fail(error)
            self._close()
            if self.status.fault_code == DISK_FULL:
                # What was logged long ago may go: that makes room for what was not.
                await asyncio.to_thread(self._prune)
            return None
        now = time.time()
        status = self.status
        self.status = msgspec.structs.replace(
            status,
            origin=self._opened.log.origin if self._opened else self._origin,
            size=self._opened.log.size if self._opened else status.size,
            committed_at=now if step.added else status.committed_at,
            lag_s=now - step.oldest_ms / 1000 if step.oldest_ms is not None else status.lag_s,
            added=status.added + step.added,
            known=status.known + step.known,
            unreadable=status.unreadable + step.unreadable,
            behind=step.more,
            fault="",
            fault_code="",
            fault_hint="",
            fault_since=None,
        )
        return step

    def _work(self) -> Step:
        """In a thread: everything that waits for the disk."""
        year = datetime.now(UTC).year
        if self._opened is None or year > self._opened.year:
            self._close()
            self._open(year)
        assert self._sequencer is not None  # noqa: S101 - opened above
        step = self._sequencer.step()
        if time.monotonic() - self._pruned_at > PRUNE_EVERY_S and not step.more:
            self._pruned_at = time.monotonic()
            self._prune()
        return step

    def _open(self, year: int) -> None:
        at_ms = time.time_ns() // 1_000_000
        self._opened = open_year(
            self._home.ledger,
            origin=self._origin,
            signer=lambda name: log_signer(self._home, name),
            year=year,
            at_ms=at_ms,
            entry_id=f"{at_ms:012x}{secrets.token_hex(10)}",
        )
        sources = sources_of(self._home.root / "journal", self._database)
        self._sequencer = Sequencer(self._opened.log, self._opened.index, sources, earlier=self._opened.earlier)
        _log.info("the log %s has %d entries", self._opened.log.origin, self._opened.log.size)

    def _prune(self) -> None:
        if self._keep_journals_s <= 0:
            return
        try:
            # On a disk that is nearly full, a segment goes once it is in the log and in the database, however new.
            keep_s = 0.0 if nearly_full(self._home.root) else self._keep_journals_s
            removed = prune(
                self._home.root / "journal",
                read_state(newest(self._home.ledger)).positions,
                self._database,
                older_than=time.time() - keep_s,
            )
        except (OSError, SekishoError) as error:
            _log.warning("no journal segment was removed: %s", error)
            return
        for path in removed:
            _log.info("removed the journal segment %s/%s", path.parent.name, path.name)

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened = self._sequencer = None

    def _fail(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(error, OSError):
            error = refusal(self._home.ledger, error)
        told = error if isinstance(error, SekishoError) else LogFault(str(error))
        if self.status.fault != told.fact:
            _log.error("the log is not written: %s", told)
        self.status = msgspec.structs.replace(
            self.status,
            fault=told.fact,
            fault_code=told.code,
            fault_hint=told.hint,
            fault_since=self.status.fault_since or time.time(),
        )

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # whoever asked may be gone
            writer.write(msgspec.json.encode(self.status))
            await writer.drain()
        writer.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sekisho.assembly.sequencer", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".sekisho"), help="the home directory")
    parser.add_argument("--config", type=Path, help="a federation (TOML); without it, the demonstration")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    os.umask(0o077)
    try:
        home = Home.at(options.home)
        create(home)
        ensure_secrets(home)
        config = load_config(options.config).config
        process = SequencerProcess(
            home,
            Database(database_url(home, config.control.database)),
            origin=log_origin(home, config.ledger.origin),
            keep_journals_s=config.ledger.keep_journals_s,
        )
    except SekishoError as error:
        _log.error("not started: %s", error)
        return EXIT_REFUSED
    asyncio.run(process.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
