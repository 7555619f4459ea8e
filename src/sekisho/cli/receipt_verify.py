"""A receipt, verified from its file and said in words: what `sekisho receipt verify` does, without any command line.

It imports little: an auditor's shell loop over a thousand files should not wait for a database driver.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sekisho.cli import receipt_texts as texts
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.receipts import COSE_FIRST_BYTE, ServedEntry, VerifiedReceipt, read_served, verify_receipt
from sekisho.ledger.tlog.note import Checkpoint, Note, NoteRefused
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.proof import TlogProof

MAX_FILE_BYTES = 1 << 20
_DECISION = "decision"


class ReceiptFault(SekishoError):
    """A receipt can't be fetched or read."""

    code = "receipt.unreadable"


def verified_text(file: Path, *, policy_file: Path | None, ignore_unknown: bool, as_json: bool, root: Path) -> str:
    """What was proven, in the current language or as JSON. Raises ReceiptRefused, ReceiptFault or PolicyRefused."""
    data = _read(file)
    policy = TrustPolicy.parse(_read(policy_file)) if policy_file else _own_policy(root, data)
    verified = verify_receipt(data, policy, now_s=time.time(), strangers=ignore_unknown)
    served = read_served(verified.entry)
    if not as_json:
        return "\n".join(in_words(verified, served))
    document = {"receipt": verified, "entry": msgspec.Raw(verified.entry)}
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode()


def in_words(verified: VerifiedReceipt, served: ServedEntry) -> list[str]:
    """What was proven, line by line, in the current language."""
    lines = [str(texts.PROVEN), *_what(served)]
    lines.append(texts.LOGGED(index=verified.index, size=verified.size, origin=verified.origin))
    lines += [
        texts.COSIGNED(name=made.name, algorithm=made.algorithm, at=_instant(made.at_s)) for made in verified.cosigned
    ]
    if not verified.cosigned:
        lines.append(str(texts.NOT_COSIGNED))
    if served.kind == _DECISION:
        lines.append(str(texts.PROVES_NOT))
    return lines


def _what(served: ServedEntry) -> list[str]:
    if served.kind != _DECISION:
        return [texts.RECORD(kind=served.kind)]
    lines = [
        texts.PASSAGE(
            id=served.id,
            at=_instant(served.at_ms / 1000),
            tenant=served.tenant or "–",
            data_class=served.data_class or "–",
            model=served.model or "–",
        )
    ]
    if served.outcome == "refused":
        lines.append(texts.REFUSED(code=served.code))
    elif served.site:
        lines.append(
            texts.SERVED(site=served.site, operator=served.operator, country=served.country, endpoint=served.endpoint)
        )
    if served.outcome not in ("refused", "completed"):
        lines.append(texts.OTHER(outcome=served.outcome, code=served.code))
    lines.append(texts.RULES(rules=", ".join(served.rules) or "–", policy=served.policy or "–"))
    if served.evidence:
        lines.append(texts.EVIDENCE(evidence=", ".join(served.evidence)))
    if served.site:
        until = served.valid_until_ms
        lines.append(texts.EVIDENCE_UNTIL(until=_instant(until / 1000)) if until else str(texts.NO_EXPIRY))
    if served.request_commitment:
        lines.append(texts.COMMITMENTS(request=served.request_commitment, response=served.response_commitment or "–"))
    return lines


def _instant(at_s: float) -> str:
    try:
        return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at_s} s"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ReceiptFault(f"{path} can't be read: {error.strerror}", hint="check the name of the file") from None
    if len(data) > MAX_FILE_BYTES:
        raise ReceiptFault(f"{path} is longer than a receipt can be", hint="check the name of the file")
    return data


def _own_policy(root: Path, receipt_data: bytes) -> TrustPolicy:
    """This installation's policy for the log that the receipt names (each year's log has one)."""
    files = sorted((root / "log" / "policy").glob("*.policy"), reverse=True)
    if not files:
        raise ReceiptFault(
            f"there is no policy under {root}",
            code="receipt.no_policy",
            hint="name one with --policy; the installation publishes it under /.well-known/sekisho/policy/YEAR",
        )
    origin = _origin(receipt_data)
    policies = [TrustPolicy.parse(_read(file)) for file in files]
    # None of them knows the log: the first one says so.
    return next((policy for policy in policies if policy.log_keys(origin)), policies[0])


def _origin(data: bytes) -> str:
    """The log that a receipt names; nothing of it is verified yet."""
    try:
        if data.startswith(COSE_FIRST_BYTE):
            from sekisho.ledger.tlog.cose import CoseReceipt  # noqa: PLC0415 - CBOR is loaded for COSE receipts only

            parsed: TlogProof | CoseReceipt = CoseReceipt.parse(data)
        else:
            parsed = TlogProof.parse(data)
        return Checkpoint.parse(Note.parse(parsed.checkpoint).text).origin
    except NoteRefused:
        return ""  # verifying says what is wrong
