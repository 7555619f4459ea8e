"""A witness: cosigns a checkpoint when it continues the last one that it cosigned, and never anything else.

After c2sp.org/tlog-witness. Requests are not authenticated: only a log's own signature opens anything.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import msgspec

from sekisho.ledger.tlog.keys import Cosigner, VerifierKey, open_note
from sekisho.ledger.tlog.note import Checkpoint, Note, NoteRefused, encode_base64, parse_hash, parse_number
from sekisho.ledger.tlog.verify import EMPTY_ROOT, MAX_PROOF, verify_consistency
from sekisho.ledger.witness.state import WitnessState


class AddCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A request: `proof` leads from the tree of `old_size` leaves to the checkpoint in `note`."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        lines = [f"old {self.old_size}", *map(encode_base64, self.proof), "", ""]
        return "\n".join(lines).encode() + self.note

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """NoteRefused for anything that `encode` would write differently."""
        head, empty, note = body.partition(b"\n\n")
        try:
            first, *rest = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise NoteRefused("the head of a request is ASCII") from None
        if not empty or not first.startswith("old ") or len(rest) > MAX_PROOF:
            raise NoteRefused(
                f"a request is a line `old`, at most {MAX_PROOF} hashes, an empty line and a checkpoint"
            )
        proof = tuple(parse_hash(line) for line in rest)
        return cls(old_size=parse_number(first.removeprefix("old ")), proof=proof, note=note)


class Cosigned(msgspec.Struct, frozen=True, kw_only=True):
    """200: the signature lines of this witness's keys."""

    lines: bytes


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """409: the last cosigned checkpoint has `size` leaves. `fork`: same size, another root – two histories."""

    size: int
    fork: bool = False


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """400 malformed, 403 no trusted signature, 404 unknown log, 422 the proof does not hold."""

    status: int
    fact: str


Answer = Cosigned | Conflict | Refused


class WitnessedLog(msgspec.Struct, frozen=True, kw_only=True):
    """What a witness remembers of a log. `forks`: contradicting signed checkpoints that it was shown."""

    origin: str
    size: int
    root: str
    forks: int


class Witness:
    """One witness with its keys (the same name, one of each type) and the logs that it trusts, by origin."""

    def __init__(
        self, *, cosigners: Sequence[Cosigner], logs: Mapping[str, Sequence[VerifierKey]], state: WitnessState
    ) -> None:
        if len({cosigner.verifier.name for cosigner in cosigners}) != 1:
            raise ValueError("the keys of one witness have one name")
        self._cosigners = tuple(cosigners)
        self._logs = {origin: tuple(keys) for origin, keys in logs.items()}
        self._state = state
        self._locks = {origin: threading.Lock() for origin in self._logs}
        # Read once, so that a damaged memory refuses the start and not the first request.
        self._last = {origin: state.last(origin) for origin in self._logs}

    @property
    def name(self) -> str:
        return self._cosigners[0].verifier.name

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return tuple(cosigner.verifier for cosigner in self._cosigners)

    def logs(self) -> tuple[WitnessedLog, ...]:
        """What is remembered of every log, for the people who look at a witness."""
        rows = []
        for origin in self._logs:
            last = self._last[origin]
            size, root = (last[0].size, last[0].root) if last else (0, EMPTY_ROOT)
            forks = len(self._state.forks(origin))
            rows.append(WitnessedLog(origin=origin, size=size, root=encode_base64(root), forks=forks))
        return tuple(rows)

    def add_checkpoint(self, body: bytes, *, at_s: int) -> Answer:
        """Answers `POST add-checkpoint`; `at_s` is the time in Unix seconds. Safe to call from several threads.

        WitnessRefused when the memory can't be written: then nothing was cosigned.
        """
        try:
            request = AddCheckpoint.parse(body)
            checkpoint = Checkpoint.parse(Note.parse(request.note).text)
        except NoteRefused as error:
            return Refused(status=400, fact=error.fact)
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return Refused(status=404, fact="this witness does not know the log")
        try:
            text = open_note(request.note, keys).text
        except NoteRefused as error:
            return Refused(status=403, fact=error.fact)
        if request.old_size > checkpoint.size:
            return Refused(status=400, fact="the old size is above the checkpoint's")
        # Comparing and remembering are one step for each log: a slower request must not roll a faster one back.
        with self._locks[checkpoint.origin]:
            answer = self._compare(request, checkpoint)
            if answer is not None:
                return answer
            self._state.keep(checkpoint.origin, request.note)
            self._last[checkpoint.origin] = (checkpoint, request.note)
            lines = "".join(cosigner.cosign(text, at_s=at_s).line() for cosigner in self._cosigners)
        return Cosigned(lines=lines.encode())

    def _compare(self, request: AddCheckpoint, checkpoint: Checkpoint) -> Answer | None:
        """None when the checkpoint continues the last one."""
        last = self._last[checkpoint.origin]
        size, root = (last[0].size, last[0].root) if last else (0, EMPTY_ROOT)
        if checkpoint.size == size and last and checkpoint.root != root:
            # Two signed checkpoints of one size with two roots prove by themselves that the log forked.
            self._state.keep_fork(checkpoint.origin, request.note)
            return Conflict(size=size, fork=True)
        if request.old_size != size:
            return Conflict(size=size)
        if not verify_consistency(size, root, checkpoint.size, checkpoint.root, request.proof):
            return Refused(status=422, fact="the consistency proof does not hold")
        return None
