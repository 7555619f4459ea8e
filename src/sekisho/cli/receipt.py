"""`sekisho receipt`: receipts are fetched from control, and verified from a file alone.

`verify` imports little: an auditor's shell loop over a thousand files should not wait for a database driver.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from sekisho.cli import receipt_texts as texts
from sekisho.cli.texts import OPTION_HOME, OPTION_JSON
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


@click.group(help=str(texts.RECEIPT))
def receipt() -> None:
    """The help is `texts.RECEIPT`."""


_home = click.option(
    "--home", "root", type=click.Path(path_type=Path), default=".sekisho", envvar="SEKISHO_HOME",
    show_default=True, show_envvar=True, help=str(OPTION_HOME),
)  # fmt: skip


@receipt.command(help=str(texts.GET))
@click.argument("decision")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=str(texts.OPTION_OUT))
@click.option(
    "--format", "form", type=click.Choice(["proof", "cose"]), default="proof", help=str(texts.OPTION_FORMAT)
)
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help=str(texts.OPTION_WAIT)
)
@_home
def get(*, decision: str, out: Path, form: str, wait_s: float, root: Path) -> None:
    """The help is `texts.GET`."""
    from sekisho.cli.control_client import fetch  # noqa: PLC0415 - `verify` needs no HTTP client

    path = f"/internal/v1/receipts/{decision}"
    if len(decision) != 32 or not decision.isascii() or not decision.isalnum():
        raise ReceiptFault(
            f"{decision!r} is no decision id", code="receipt.invalid", hint="it has 32 hexadecimal digits"
        )
    end = time.monotonic() + wait_s
    while True:
        status, data = fetch(root, path, query={"format": form})
        if status != 202:
            break
        if time.monotonic() >= end:
            raise ReceiptFault(
                "a quorum of witnesses has not cosigned it yet",
                code="receipt.pending",
                hint="ask again in a second; if that goes on, look at the witnesses in the console",
            )
        time.sleep(0.2)
    try:
        out.write_bytes(data)
    except OSError as error:
        raise ReceiptFault(f"{out} can't be written: {error.strerror}", hint="choose another --out") from None
    click.echo(texts.WRITTEN(file=out, size=len(data)))


@receipt.command(help=str(texts.VERIFY))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help=str(texts.OPTION_POLICY))
@click.option("--ignore-unknown", is_flag=True, help=str(texts.OPTION_IGNORE_UNKNOWN))
@click.option("--json", "as_json", is_flag=True, help=str(OPTION_JSON))
@_home
def verify(*, file: Path, policy_file: Path | None, ignore_unknown: bool, as_json: bool, root: Path) -> None:
    """The help is `texts.VERIFY`."""
    data = _read(file)
    policy = TrustPolicy.parse(_read(policy_file)) if policy_file else _own_policy(root, data)
    verified = verify_receipt(data, policy, now_s=time.time(), strangers=ignore_unknown)
    served = read_served(verified.entry)
    if as_json:
        document = {"receipt": verified, "entry": msgspec.Raw(verified.entry)}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
    else:
        click.echo("\n".join(in_words(verified, served)))


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
