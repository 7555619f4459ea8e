"""Receipts, verified from a file alone. (They are made in `issue.py`.)

A receipt is the entry of a passage, the proof that it stands in the log, and the log's checkpoint with a quorum of
cosignatures – as text (`c2sp.org/tlog-proof@v1`) or as COSE (RFC 9942). Verifying takes the file, a policy, a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.entries import EntryRefused, canonical
from sekisho.ledger.tlog.keys import VerifierKey, open_note
from sekisho.ledger.tlog.note import Checkpoint, NoteRefused
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.proof import TlogProof
from sekisho.ledger.tlog.verify import leaf_hash, verify_inclusion

if TYPE_CHECKING:
    from sekisho.ledger.tlog.cose import CoseReceipt

Form = Literal["proof", "cose"]
# How far clocks of gateways, witnesses and verifiers may be apart.
CLOCK_TOLERANCE_S = 300
COSE_FIRST_BYTE = b"\xd2"


class ReceiptRefused(SekishoError):
    """A receipt that proves nothing, and why."""

    code = "receipt.malformed"


class Cosignature(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: the witness's; `at_s`: when it cosigned, Unix seconds by its clock."""

    name: str
    algorithm: str
    at_s: int


class VerifiedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt proves: these bytes stand at this index of this log, and these witnesses saw the tree."""

    form: Form
    entry: bytes
    origin: str
    index: int
    size: int
    root: bytes
    log_key: str
    cosigned: tuple[Cosignature, ...]


class ServedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an entry that people ask for. What a kind of entry does not have is empty.

    `attempts` are counted only; everything else is as in docs/reference/journal.md.
    """

    id: str
    kind: str
    at_ms: int
    v: int
    outcome: str = ""
    status: int = 0
    code: str = ""
    tenant: str = ""
    data_class: str = ""
    model: str = ""
    served_model: str = ""
    gateway: str = ""
    site: str = ""
    endpoint: str = ""
    operator: str = ""
    country: str = ""
    policy: str = ""
    rules: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    valid_until_ms: int = 0
    table: int = 0
    request_commitment: str = ""
    response_commitment: str = ""


def verify_receipt(data: bytes, policy: TrustPolicy, *, now_s: float, strangers: bool = False) -> VerifiedReceipt:
    """Verifies a receipt offline; `now_s` is the verifier's time in Unix seconds. ReceiptRefused says why not.

    Every byte of the file counts: with `strangers` false, a signature by a key that the policy does not know refuses
    the receipt, too, since nothing would notice a change in it. True ignores those, as c2sp.org/signed-note has it.
    """
    try:
        return _verify(data, policy, now_s=now_s, strangers=strangers)
    except NoteRefused as error:
        forged = error.code == "note.forged"
        raise ReceiptRefused(
            error.fact,
            code="receipt.forged" if forged else "receipt.malformed",
            hint="ask for the receipt again; a changed file proves nothing",
        ) from None


def _verify(data: bytes, policy: TrustPolicy, *, now_s: float, strangers: bool) -> VerifiedReceipt:
    is_cose = data.startswith(COSE_FIRST_BYTE)
    receipt = _parse_cose(data) if is_cose else TlogProof.parse(data)
    try:
        opened = open_note(receipt.checkpoint, policy.keys)
    except NoteRefused as error:
        if error.code != "note.unsigned":
            raise
        raise _other_log("nobody whom the policy knows signed the checkpoint") from None
    checkpoint = Checkpoint.parse(opened.text)
    log_keys = policy.log_keys(checkpoint.origin)
    by_log = [found.key for found in opened.verified if found.key in log_keys]
    if not by_log:
        raise _other_log(f"the policy does not know the key of the log {checkpoint.origin}")
    if opened.unknown and not strangers:
        raise ReceiptRefused(
            f"the policy does not know the key {opened.unknown[0].name}",
            code="receipt.unknown_signature",
            hint="use the policy of the installation, or --ignore-unknown to leave such signatures out",
        )
    if not verify_inclusion(
        receipt.index, checkpoint.size, leaf_hash(receipt.entry), receipt.hashes, checkpoint.root
    ):
        raise ReceiptRefused(
            "the proof does not lead from the entry to the log's root",
            code="receipt.forged",
            hint="ask for the receipt again; a changed file proves nothing",
        )
    if not isinstance(receipt, TlogProof):
        _check_cose(receipt, checkpoint, log_keys)
    cosigned = [found for found in opened.verified if found.key not in log_keys]
    if not policy.satisfied([found.key for found in cosigned]):
        raise ReceiptRefused(
            f"{len(cosigned)} cosignatures are no quorum of the policy",
            code="receipt.quorum",
            hint="ask for the receipt again once more witnesses have cosigned",
        )
    made = tuple(
        Cosignature(name=found.key.name, algorithm=found.key.algorithm.label, at_s=found.at_s) for found in cosigned
    )
    _in_time(receipt.entry, made, now_s)
    return VerifiedReceipt(
        form="cose" if is_cose else "proof",
        entry=receipt.entry,
        origin=checkpoint.origin,
        index=receipt.index,
        size=checkpoint.size,
        root=checkpoint.root,
        log_key=by_log[0].vkey,
        cosigned=made,
    )


def read_served(entry: bytes) -> ServedEntry:
    """The fields of a verified entry. ReceiptRefused when it is none of ours, or can be read in two ways."""
    try:
        document = msgspec.json.decode(entry)
        if canonical(document) != entry:
            raise ReceiptRefused("the entry is not canonical JSON: two readers could read it in two ways")
        return msgspec.convert(document, ServedEntry)
    except (msgspec.MsgspecError, EntryRefused, RecursionError, ValueError) as error:
        raise ReceiptRefused(f"the entry can't be read: {error}") from None


def _in_time(entry: bytes, cosigned: Sequence[Cosignature], now_s: float) -> None:
    late = max((made.at_s for made in cosigned), default=0)
    if late > now_s + CLOCK_TOLERANCE_S:
        raise ReceiptRefused(
            f"a witness cosigned {late - now_s:.0f} s from now",
            code="receipt.time",
            hint="compare the clock of this machine with another one; if it is right, the witness's was wrong",
        )
    times = [made.at_s for made in cosigned if made.at_s]
    at_s = read_served(entry).at_ms / 1000
    if times and max(times) + CLOCK_TOLERANCE_S < at_s:
        raise ReceiptRefused(
            "every witness cosigned before the passage that the log contains",
            code="receipt.time",
            hint="the clock of the gateway or of the witnesses was wrong: ask their operators",
        )


def _other_log(fact: str) -> ReceiptRefused:
    return ReceiptRefused(
        fact,
        code="receipt.other_log",
        hint="use the policy of the installation that gave the receipt: --policy FILE",
    )


def _parse_cose(data: bytes) -> CoseReceipt:
    from sekisho.ledger.tlog.cose import CoseReceipt  # noqa: PLC0415 - CBOR is loaded for COSE receipts only

    return CoseReceipt.parse(data)


def _check_cose(receipt: CoseReceipt, checkpoint: Checkpoint, log_keys: Sequence[VerifierKey]) -> None:
    if receipt.size != checkpoint.size or receipt.origin != checkpoint.origin:
        raise ReceiptRefused("the COSE part and the checkpoint are of different heads", code="receipt.forged")
    if not any(receipt.signed_by(key, checkpoint.root) for key in log_keys):
        raise ReceiptRefused("the COSE signature of the log is false", code="receipt.forged")
