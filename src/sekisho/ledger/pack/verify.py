"""Verifies a pack from its file, the trust policy and nothing else: no database, no network."""

from __future__ import annotations

from typing import Any

import msgspec

from sekisho.ledger.pack.archive import read_archive
from sekisho.ledger.pack.assess import border_finding
from sekisho.ledger.pack.border import KIND as BORDER
from sekisho.ledger.pack.border import read_border
from sekisho.ledger.pack.build import documents
from sekisho.ledger.pack.model import FORM, PackRefused, Replay, Sample, Statement
from sekisho.ledger.pack.sample import draw, indices
from sekisho.ledger.receipts import ReceiptRefused, VerifiedReceipt, verify_receipt
from sekisho.ledger.tlog.policy import TrustPolicy


class PackVerified(msgspec.Struct, frozen=True, kw_only=True):
    """What was proven of a pack. `replayed` of the samples were decided again here and came out as stated."""

    statement: Statement
    signed_by: str
    receipts: int
    replayed: int


def verify_pack(data: bytes, policy: TrustPolicy, *, replay: Replay, now_s: float) -> PackVerified:
    """PackRefused says what does not hold.

    Proven: the log's key signed the pack; the sample is the one that the seed draws from the stated population; every
    sampled decision and border statement stands in the log under a quorum; every replay comes out as stated; report
    and OSCAL say what the statement says. Not proven by a pack alone: that the population is complete and the counts
    over it are right. For that, read the log itself (its tiles are public to the auditor) up to the stated size.
    """
    files, signed_by = read_archive(data, tuple(log.key for log in policy.logs))
    statement = _statement(files)
    for name, made in documents(statement).items():
        if files.get(name) != made:
            raise PackRefused(f"`{name}` does not say what the statement says", code="pack.changed")
    samples = _drawn(statement)
    expected = {f"receipts/{sample.id}.proof" for sample in samples}
    expected |= {f"border/{line.id}.proof" for line in statement.border}
    there = {name for name in files if name.endswith(".proof")}
    if there != expected:
        raise PackRefused("the pack has other receipts than the statement names", code="pack.changed")
    roots = {part.origin: part for part in statement.logs}
    replayed = 0
    for sample in samples:
        receipt = _verified(files[f"receipts/{sample.id}.proof"], policy, sample.id, now_s)
        if (receipt.origin, receipt.index) != (sample.origin, sample.index) or sample.origin not in roots:
            raise PackRefused(f"the receipt of {sample.id} is of another entry", code="pack.changed")
        entry = _entry(receipt, sample.id)
        if entry.get("tenant") != statement.tenant or not _in_period(sample.id, statement):
            raise PackRefused(f"decision {sample.id} is not of the stated tenant and period", code="pack.changed")
        replayed += _decided_again(entry, sample, files, replay)
    for line in statement.border:
        entry = _entry(_verified(files[f"border/{line.id}.proof"], policy, line.id, now_s), line.id)
        if entry.get("kind") != BORDER or read_border(entry) != line or not _in_period(line.id, statement):
            raise PackRefused(f"the border statement {line.id} does not say what the pack says", code="pack.changed")
    if border_finding(statement.border) not in statement.findings:
        raise PackRefused("the finding on the border does not follow from its statements", code="pack.changed")
    return PackVerified(
        statement=statement, signed_by=signed_by, receipts=len(samples) + len(statement.border), replayed=replayed
    )


def _statement(files: dict[str, bytes]) -> Statement:
    try:
        statement = msgspec.json.decode(files["statement.json"], type=Statement)
    except (KeyError, msgspec.MsgspecError) as error:
        raise PackRefused(f"the pack's statement can't be read: {error}") from None
    if statement.form != FORM:
        raise PackRefused(f"the pack has form {statement.form}, this version reads {FORM}")
    return statement


def _drawn(statement: Statement) -> tuple[Sample, ...]:
    """The samples, once they are those that the seed draws."""
    try:
        where = [(part.origin, index) for part in statement.logs for index in indices(part.population)]
    except ValueError as error:
        raise PackRefused(f"the population can't be read: {error}") from None
    if any(part.population and index >= part.size for part in statement.logs for index in indices(part.population)):
        raise PackRefused("the population has entries beyond the log's size", code="pack.changed")
    if len(where) != statement.passages:
        raise PackRefused("the population is not as large as the statement says", code="pack.changed")
    drawn = draw(statement.seed, population=len(where), size=len(statement.samples))
    stated = [(sample.position, (sample.origin, sample.index)) for sample in statement.samples]
    if stated != [(position, where[position]) for position in drawn]:
        raise PackRefused("the sample is not the one that the seed draws", code="pack.sample")
    return statement.samples


def _verified(data: bytes, policy: TrustPolicy, id: str, now_s: float) -> VerifiedReceipt:
    try:
        return verify_receipt(data, policy, now_s=now_s)
    except ReceiptRefused as error:
        raise PackRefused(f"the receipt of {id} proves nothing: {error.fact}", code=error.code) from None


def _entry(receipt: VerifiedReceipt, id: str) -> dict[str, Any]:
    entry: Any = msgspec.json.decode(receipt.entry)
    if not isinstance(entry, dict) or entry.get("id") != id:
        raise PackRefused(f"the receipt of {id} is of another entry", code="pack.changed")
    return entry


def _in_period(id: str, statement: Statement) -> bool:
    return statement.since_ms <= int(id[:12], 16) < statement.until_ms


def _decided_again(entry: dict[str, Any], sample: Sample, files: dict[str, bytes], replay: Replay) -> int:
    if (sample.table, sample.policy) != (entry.get("table", 0), entry.get("policy", "")):
        raise PackRefused(f"decision {sample.id} was made under another table or policy", code="pack.changed")
    if sample.replay not in ("same", "different"):
        return 0
    inputs, text = files.get(f"inputs/{sample.table}.json"), files.get(f"policies/{sample.policy}.json")
    if inputs is None or text is None:
        raise PackRefused(f"the inputs of decision {sample.id} are not in the pack", code="pack.changed")
    told = replay(entry, inputs=inputs, policy=text)
    if told.same != (sample.replay == "same"):
        raise PackRefused(
            f"decision {sample.id} comes out differently here: {told.fact or 'it is the recorded one'}",
            code="pack.replay",
            hint="compare the version of this program with the one that made the pack",
        )
    return 1
