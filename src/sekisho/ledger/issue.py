"""Receipts, made: an entry, its proof in the last head that counts, and as few cosignatures as make a quorum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import msgspec

from sekisho.ledger.heads import Head, read_head
from sekisho.ledger.receipts import Form
from sekisho.ledger.tlog.cose import CoseReceipt
from sekisho.ledger.tlog.entries import EntryRefused, read_entry
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.keys import VerifierKey
from sekisho.ledger.tlog.log import LogDamaged, LogFault, LogReader
from sekisho.ledger.tlog.note import Note
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.proof import TlogProof
from sekisho.ledger.tlog.verify import leaf_hash, verify_inclusion

# The id says when a passage began; its decision is logged when it ends, and a stream may take long.
MAY_COME_MS = 6 * 3600 * 1000
_SKEW_MS = 60_000


class NotYet(msgspec.Struct, frozen=True, kw_only=True):
    """The passage may be under way, or its entry waits for its checkpoint: ask again after this many seconds."""

    retry_after_s: int


class NotYours(msgspec.Struct, frozen=True):
    """There is no such decision of this tenant."""


class ReceiptService:
    """Makes receipts from the logs under `roots()`, the newest first. Belongs to one thread: it reads files.

    `policy(origin)` says which cosignatures a receipt of that log must carry.
    """

    def __init__(self, roots: Callable[[], Sequence[Path]], policy: Callable[[str], TrustPolicy]) -> None:
        self._roots = roots
        self._policy = policy
        self._open: dict[Path, tuple[LogReader, LogIndex]] = {}
        # The same for every receipt under one head: choosing the cosignatures costs ten times what the rest does.
        self._leaned: tuple[bytes, TrustPolicy | None, tuple[bytes, bytes]] = (b"", None, (b"", b""))

    def close(self) -> None:
        for _, index in self._open.values():
            index.close()
        self._open.clear()

    def receipt(
        self, decision_id: str, tenant: str | None, *, now_ms: int, form: Form = "proof"
    ) -> bytes | NotYet | NotYours:
        """The receipt of a decision (32 hex digits) for a tenant; None is whoever may see all. `now_ms`: Unix ms.

        A decision of somebody else's is answered as one that nobody ever made: ids count up, and whoever could tell
        the two apart would learn how much work others have, and when. LogFault or HeadDamaged when the log can't be
        read, or would give out a proof that does not hold.
        """
        for root in self._roots():
            found = self._find(root, decision_id)
            if found is None:
                continue
            reader, index = found
            data = reader.entry(index)
            if tenant is not None and _tenant(data) != tenant:
                break
            head = read_head(root)
            if head is None or head.checkpoint.size <= index:
                return NotYet(retry_after_s=1)
            return self._make(reader, data, index, head, form)
        age_ms = now_ms - int(decision_id[:12], 16)
        if not -_SKEW_MS <= age_ms <= MAY_COME_MS:
            return NotYours()
        return NotYet(retry_after_s=1 if age_ms < 60_000 else 5)

    def _find(self, root: Path, decision_id: str) -> tuple[LogReader, int] | None:
        try:
            if root not in self._open:
                self._open[root] = LogReader(root), LogIndex(root)
            reader, index = self._open[root]
            at = index.find(decision_id)
            # The index may be a step ahead of the published checkpoint.
            return None if at is None or at >= reader.size else (reader, at)
        except LogFault:
            if (root / "writer").is_dir():
                raise
            return None  # before the first entry

    def _make(self, reader: LogReader, data: bytes, index: int, head: Head, form: Form) -> bytes:
        checkpoint = head.checkpoint
        hashes = tuple(reader.inclusion_proof(index, checkpoint.size))
        if not verify_inclusion(index, checkpoint.size, leaf_hash(data), hashes, checkpoint.root):
            raise LogDamaged(
                f"the files of {reader.directory} don't lead from entry {index} to the cosigned root",
                hint="run `sekisho ledger fsck`; put back the file that it names",
            )
        policy = self._policy(checkpoint.origin)
        if self._leaned[0] != head.note or self._leaned[1] is not policy:
            self._leaned = (head.note, policy, _lean(head, policy))
        note, log_key = self._leaned[2]
        match form:
            case "proof":
                return TlogProof(entry=data, index=index, hashes=hashes, checkpoint=note).encode()
            case "cose":
                return CoseReceipt(
                    origin=checkpoint.origin,
                    key_id=log_key,
                    signature=head.cose,
                    entry=data,
                    index=index,
                    size=checkpoint.size,
                    hashes=hashes,
                    checkpoint=note,
                ).encode()
            case _:
                assert_never(form)


def _lean(head: Head, policy: TrustPolicy) -> tuple[bytes, bytes]:
    """The note with the log's signature and as few cosignatures as count; and the id of the log's key."""
    note = Note.parse(head.note)
    origin = head.checkpoint.origin
    log_keys: tuple[VerifierKey, ...] = policy.log_keys(origin)
    by_log = [made for made in note.signatures if any(key.made(made) for key in log_keys)]
    # A policy that changed since: rather all that there are than too few.
    needed = policy.smallest(note.signatures) if by_log else None
    if needed is None:
        return head.note, note.signatures[0].key_id
    return Note(text=note.text, signatures=(*by_log, *needed)).encode(), by_log[0].key_id


def _tenant(data: bytes) -> str:
    try:
        return read_entry(data).tenant
    except EntryRefused:
        return ""
