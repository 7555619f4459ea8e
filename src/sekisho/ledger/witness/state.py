"""What a witness must never forget: the last checkpoint that it cosigned of each log."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.note import Checkpoint, Note, NoteRefused

# Proofs of misbehaviour that are kept of one log: the first ones tell the story, the rest would fill the disk.
MAX_FORKS = 16


class WitnessRefused(SekishoError):
    """A witness can't start, or can't keep its memory."""

    code = "witness.state"


class WitnessState:
    """A directory with a file for each log. Belongs to one process (a lock on the directory itself).

    A witness that lost its memory must not begin anew: it would cosign what it refused yesterday. So a damaged file
    refuses the start, and a new checkpoint is on the disk before anybody hears of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise WitnessRefused(
                f"the directory {root} can't be used: {error.strerror}", hint="choose another with --state"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise WitnessRefused(
                f"another witness runs on {root}",
                code="witness.in_use",
                hint="one witness, one directory: two would cosign past each other",
            ) from None

    def close(self) -> None:
        os.close(self._lock)

    def last(self, origin: str) -> tuple[Checkpoint, bytes] | None:
        """The last cosigned checkpoint and its note; None when there never was one. WitnessRefused when damaged."""
        path = self._path(origin)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WitnessRefused(f"{path} can't be read: {error.strerror}", hint="look at its owner") from None
        try:
            checkpoint = Checkpoint.parse(Note.parse(data).text)
        except NoteRefused as error:
            raise _damaged(path, error.fact) from None
        if checkpoint.origin != origin:
            raise _damaged(path, "it is of another log")
        return checkpoint, data

    def keep(self, origin: str, note: bytes) -> None:
        """Makes this the last one: durable when it returns, never half written. WitnessRefused when it can't be."""
        self._write(self._path(origin), note)

    def keep_fork(self, origin: str, note: bytes) -> None:
        """Keeps a checkpoint that contradicts the last one: with it, a proof that the log has two histories."""
        folder = self.root / "forks"
        kept = self.forks(origin)
        path = folder / f"{_name(origin)}-{hashlib.sha256(note).hexdigest()[:16]}"
        if len(kept) < MAX_FORKS and path not in kept:
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise _unwritable(folder, error) from None
            self._write(path, note)

    def forks(self, origin: str) -> list[Path]:
        """Signed checkpoints of this log that contradict what was cosigned."""
        return sorted((self.root / "forks").glob(f"{_name(origin)}-*"))

    def _path(self, origin: str) -> Path:
        return self.root / f"{_name(origin)}.checkpoint"

    def _write(self, path: Path, data: bytes) -> None:
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise _unwritable(path, error) from None


def _name(origin: str) -> str:
    """Origins are other people's texts; their hash is safe in a file name."""
    return hashlib.sha256(origin.encode()).hexdigest()


def _unwritable(path: Path, error: OSError) -> WitnessRefused:
    return WitnessRefused(
        f"{path} can't be written: {error.strerror}", hint="free some space there; nothing was cosigned"
    )


def _damaged(path: Path, fact: str) -> WitnessRefused:
    return WitnessRefused(
        f"{path} is damaged: {fact}",
        code="witness.state_damaged",
        hint="put back a copy; a witness that begins anew must have a new key",
    )
