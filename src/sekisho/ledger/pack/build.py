"""Makes a pack: reads a tenant's decisions from the logs, draws, replays, states, signs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sekisho.ledger.pack.archive import Signer, write_archive
from sekisho.ledger.pack.assess import Assessment
from sekisho.ledger.pack.border import KIND as BORDER
from sekisho.ledger.pack.border import BorderLine, read_border
from sekisho.ledger.pack.model import FORM, Archive, LogPart, PackRefused, Replay, Sample, Statement
from sekisho.ledger.pack.oscal import assessment_results
from sekisho.ledger.pack.report import report
from sekisho.ledger.pack.sample import differences, draw
from sekisho.ledger.receipts import ReceiptRefused, verify_receipt
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.policy import TrustPolicy

MAX_SAMPLE = 500
DECISION = "decision"
_PAGE = 5000


# How a receipt is got (by entry id); None when its entry is not under a quorum yet.
ReceiptMaker = Callable[[str], bytes | None]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`since_ms` ≤ time of a passage < `until_ms` (Unix ms). `seed` is the auditor's; `sample` at most 500."""

    tenant: str
    since_ms: int
    until_ms: int
    seed: str
    sample: int = 30


class Built(msgspec.Struct, frozen=True, kw_only=True):
    statement: Statement
    data: bytes


def build_pack(
    request: Request,
    *,
    logs: Sequence[tuple[LogReader, LogIndex]],
    receipt: ReceiptMaker,
    archive: Archive,
    replay: Replay,
    policy: TrustPolicy,
    signer: Signer,
    jurisdiction: str,
    now_ms: int,
) -> Built:
    """The pack for this request. PackRefused when there is nothing to state or the sample is not logged yet."""
    if not 0 <= request.since_ms < request.until_ms:
        raise PackRefused("the period ends before it begins", hint="give --from before --to")
    if not 1 <= request.sample <= MAX_SAMPLE:
        raise PackRefused(f"a sample has 1 to {MAX_SAMPLE} decisions", hint="choose --sample in that range")
    assessment = Assessment(jurisdiction=jurisdiction)
    parts: list[LogPart] = []
    where: list[tuple[LogReader, str, int]] = []
    for reader, index in logs:
        checkpoint = reader.checkpoint()
        positions = sorted(at for at, _ in _found(index, request, kind=DECISION, size=checkpoint.size))
        for at in positions:
            assessment.take(_document(reader.entry(at)))
        where += [(reader, checkpoint.origin, at) for at in positions]
        parts.append(
            LogPart(
                origin=checkpoint.origin,
                size=checkpoint.size,
                root=checkpoint.root.hex(),
                population=differences(positions),
            )
        )
    if not where:
        raise PackRefused(
            f"the log has no decision of tenant `{request.tenant}` in this period",
            code="pack.empty",
            hint="check --tenant, --from and --to; passages are logged within a second",
        )
    files: dict[str, bytes] = {}
    samples: list[Sample] = []
    for position in draw(request.seed, population=len(where), size=request.sample):
        reader, origin, at = where[position]
        data = reader.entry(at)
        entry = _document(data)
        files[f"receipts/{entry['id']}.proof"] = _receipt(receipt, entry["id"], policy, now_ms)
        samples.append(_replayed(entry, archive, replay, files, position=position, origin=origin, index=at))
    border: list[BorderLine] = []
    for reader, index in logs:
        for at, entry_id in reversed(list(_found(index, request, kind=BORDER, size=reader.size, tenant=None))):
            border.append(read_border(_document(reader.entry(at))))
            files[f"border/{entry_id}.proof"] = _receipt(receipt, entry_id, policy, now_ms)
    included = {
        name.removeprefix("policies/").removesuffix(".json") for name in files if name.startswith("policies/")
    }
    statement = Statement(
        form=FORM,
        tenant=request.tenant,
        jurisdiction=jurisdiction,
        since_ms=request.since_ms,
        until_ms=request.until_ms,
        made_at_ms=now_ms,
        seed=request.seed,
        logs=tuple(parts),
        passages=assessment.passages,
        counts=assessment.counts(),
        policies=assessment.policies(included),
        border=tuple(border),
        samples=tuple(samples),
        findings=assessment.findings(samples, border),
    )
    files |= documents(statement)
    files["trust-policy"] = policy.encode()
    return Built(statement=statement, data=write_archive(files, signer))


def documents(statement: Statement) -> dict[str, bytes]:
    """What follows from the statement and from nothing else."""
    return {
        "statement.json": msgspec.json.format(msgspec.json.encode(statement), indent=1),
        "oscal/assessment-results.json": msgspec.json.format(
            msgspec.json.encode(assessment_results(statement)), indent=1
        ),
        "report.en.html": report(statement, "en").encode(),
        "report.ja.html": report(statement, "ja").encode(),
    }


def _found(
    index: LogIndex, request: Request, *, kind: str, size: int, tenant: str | None = ""
) -> Iterator[tuple[int, str]]:
    """(index, id) of the entries of a kind in the period, the newest first."""
    before: str | None = None
    while True:
        page = index.search(
            tenant=request.tenant if tenant == "" else tenant,
            kind=kind,
            since_ms=request.since_ms,
            until_ms=request.until_ms,
            before=before,
            limit=_PAGE,
        )
        yield from ((found.index, found.id) for found in page if found.index < size)
        if len(page) < _PAGE:
            return
        before = page[-1].id


def _document(data: bytes) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(data)
    return document


def _receipt(receipt: ReceiptMaker, entry_id: str, policy: TrustPolicy, now_ms: int) -> bytes:
    made = receipt(entry_id)
    if made is None:
        raise PackRefused(
            f"the entry {entry_id} is not cosigned yet",
            code="pack.not_cosigned",
            hint="try again in a few seconds; `sekisho status` shows the witnesses",
        )
    try:
        verify_receipt(made, policy, now_s=now_ms / 1000)
    except ReceiptRefused as error:
        raise PackRefused(f"the receipt of {entry_id} does not verify: {error.fact}", hint=error.hint) from None
    return made


def _replayed(
    entry: dict[str, Any],
    archive: Archive,
    replay: Replay,
    files: dict[str, bytes],
    *,
    position: int,
    origin: str,
    index: int,
) -> Sample:
    table, hash = int(entry.get("table", 0)), str(entry.get("policy", ""))

    def sample(outcome: Any, fact: str = "") -> Sample:
        return Sample(
            position=position, origin=origin, index=index, id=entry["id"], table=table, policy=hash, replay=outcome,
            fact=fact,
        )  # fmt: skip

    if not entry.get("site") and entry.get("code") != "residency.no_eligible_endpoint":
        return sample("not-decided", "it was refused before the policy was asked")
    inputs, text = archive.inputs(table), archive.policy(hash)
    if inputs is None or text is None:
        return sample("no-inputs", "what its route table was made from is not kept any more")
    files[f"inputs/{table}.json"] = inputs
    files[f"policies/{hash}.json"] = text
    told = replay(entry, inputs=inputs, policy=text)
    return sample("same" if told.same else "different", told.fact)
