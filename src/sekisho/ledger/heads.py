"""The head that counts: a checkpoint with a quorum of cosignatures, kept beside the log that it is of.

ROOT/checkpoint            what the log says of itself
ROOT/checkpoint.cosigned   the last one that a quorum cosigned: with it, receipts are made
ROOT/head.json             the same, with the log's COSE signature over its root
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx
import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog import files
from sekisho.ledger.tlog.cose import sign_root
from sekisho.ledger.tlog.keys import NoteSigner
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.note import Checkpoint, Note, NoteRefused, Signature, merge
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.witness.client import TIMEOUT_S, WitnessReport, collect_cosignatures, endpoints

COSIGNED = "checkpoint.cosigned"
_HEAD = "head.json"
# How long a witness that failed is left alone: doubled each time.
FIRST_REST_S = 0.5
MAX_REST_S = 30.0


class HeadDamaged(SekishoError):
    """The kept head can't be read."""

    code = "log.head_damaged"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A head that a quorum cosigned. `note` with all cosignatures; `cose` is the log's signature, 64 bytes."""

    note: bytes
    cose: bytes

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint.parse(Note.parse(self.note).text)


class PublishStep(msgspec.Struct, frozen=True, kw_only=True):
    """What one step did. `cosigned`: the size of the head that counts now; `reports`: one of each witness, or none
    when there was nothing new to ask."""

    size: int
    cosigned: int
    reports: tuple[WitnessReport, ...] = ()


class WitnessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of asking one witness since this process started. `size`: what it cosigned last, as far as is
    known (the distance to the log is its lag); `at_s`: when, Unix seconds by its clock (0: not yet); `fault`: why it
    did not cosign the last time, empty when it did; counts of cosigned checkpoints, and of asking in vain."""

    size: int = 0
    at_s: int = 0
    fault: str = ""
    cosigned: int = 0
    refused: int = 0


def read_head(root: Path) -> Head | None:
    """The last head that counts; None while there is none. HeadDamaged when it can't be read."""
    try:
        head = msgspec.json.decode((root / _HEAD).read_bytes(), type=Head)
        Checkpoint.parse(Note.parse(head.note).text)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, NoteRefused) as error:
        raise HeadDamaged(
            f"{root / _HEAD} can't be read: {error}", hint="remove it: it is made again at the next checkpoint"
        ) from None
    return head


def _made(reports: Iterable[WitnessReport]) -> dict[tuple[str, bytes], Signature]:
    return {(made.name, made.key_id): made for report in reports for made in report.signatures}


class HeadPublisher:
    """Brings every new checkpoint before the witnesses. One for each log; belongs to one event loop."""

    def __init__(self, root: Path, *, policy: TrustPolicy, signer: NoteSigner, client: httpx.AsyncClient) -> None:
        self._root = root
        self._reader = LogReader(root)
        self._policy = policy
        self._endpoints = endpoints(policy)
        self._signer = signer
        self._client = client
        self._records: dict[str, WitnessRecord] = {}
        self._gathered: tuple[bytes, dict[tuple[str, bytes], Signature]] = (b"", {})
        self._published = read_head(root)
        # Read once: a note with the signatures of many witnesses is long, and this is asked many times a second.
        self._counted = self._published.checkpoint if self._published is not None else None
        self._rests: dict[str, tuple[float, float]] = {}

    @property
    def witnesses(self) -> Mapping[str, WitnessRecord]:
        """By name, those that were asked."""
        return dict(self._records)

    async def step(self, *, now_s: float, timeout_s: float = TIMEOUT_S) -> PublishStep:
        """Asks for cosignatures when the checkpoint is new or lacks some; keeps it once a quorum has cosigned.

        LogFault when there is no log yet. Cosignatures on one checkpoint add up over several steps. A witness that
        failed is left alone for a while (`now_s`: a clock in seconds that does not go back).
        """
        note = self._reader.checkpoint_note()
        checkpoint = self._reader.checkpoint()
        if self._gathered[0] != note:
            kept = self._published if self._counted == checkpoint else None
            signatures = Note.parse(kept.note).signatures if kept is not None else ()
            self._gathered = (note, {(made.name, made.key_id): made for made in signatures})
        gathered = self._gathered[1]
        missing = [
            one
            for one in self._endpoints
            if self._rests.get(one.name, (0.0, 0.0))[0] <= now_s
            and not any((key.name, key.key_id) in gathered for key in one.keys)
        ]
        counts = self._counted == checkpoint
        if not missing and (counts or self._endpoints):
            return PublishStep(size=checkpoint.size, cosigned=self._cosigned)
        reports = await collect_cosignatures(
            note,
            size=checkpoint.size,
            witnesses=missing,
            known_sizes={name: record.size for name, record in self._records.items()},
            prove=self._reader.consistency_proof,
            client=self._client,
            enough=lambda found: self._quorum(gathered | _made(found)),
            timeout_s=timeout_s,
        )
        for report in reports:
            before = self._records.get(report.name, WitnessRecord())
            self._records[report.name] = WitnessRecord(
                size=report.size,
                at_s=report.at_s or before.at_s,
                fault=report.fault,
                cosigned=before.cosigned + (not report.fault),
                refused=before.refused + bool(report.fault),
            )
            pause_s = min(2 * self._rests.get(report.name, (0.0, FIRST_REST_S / 2))[1], MAX_REST_S)
            if report.fault:
                self._rests[report.name] = (now_s + pause_s, pause_s)
            else:
                self._rests.pop(report.name, None)
        fresh = _made(reports)
        gathered |= fresh
        if (fresh or not self._endpoints) and self._quorum(gathered):
            self._keep(merge(Note.parse(note), gathered.values()).encode(), checkpoint)
        return PublishStep(size=checkpoint.size, cosigned=self._cosigned, reports=reports)

    @property
    def _cosigned(self) -> int:
        """The size of the head that counts now; 0 before the first."""
        return self._counted.size if self._counted is not None else 0

    def _quorum(self, gathered: Mapping[tuple[str, bytes], Signature]) -> bool:
        keys = [witness.key for witness in self._policy.witnesses]
        return self._policy.satisfied([key for key in keys if (key.name, key.key_id) in gathered])

    def _keep(self, note: bytes, checkpoint: Checkpoint) -> None:
        head = Head(note=note, cose=sign_root(self._signer, checkpoint.root))
        files.put_durably(self._root / _HEAD, msgspec.json.encode(head))
        files.put_durably(self._root / COSIGNED, note)
        self._published, self._counted = head, checkpoint
