"""Entries of the log as the screen Ledger shows them: searched, read, proven. Blocking; a call opens its own files.

Tenant, kind and time come from the log's index. Site and class stand in no index, so entries are read for them: at
most `SCAN` at a time, and the page offers to go on. The passage table of the database is not asked: it keeps the last
200,000 decisions only, and is no evidence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sekisho.kernel.classes import LABELS
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.receipts import ReceiptRefused, ServedEntry, VerifiedReceipt, read_served, verify_receipt
from sekisho.ledger.tlog.entries import DECISION
from sekisho.ledger.tlog.fsck import Checked, fsck
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.log import LogFault, LogReader
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.proof import TlogProof
from sekisho.ledger.tlog.verify import leaf_hash, node_hash
from sekisho.ledger.tlog.years import directory, years

PAGE_ROWS = 25
# Entries that one page may read for site and class: about 20 ms.
SCAN = 2_000
# A browser waits for the answer; beyond this the command line does it.
FSCK_ENTRIES = 100_000
_WORD = re.compile("[A-Za-z0-9._:-]{1,64}")
_ID = re.compile("[0-9a-f]{32}")


class TooLarge(SekishoError):
    """More than a page may do."""

    code = "log.too_large"


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str = ""
    site: str = ""
    data_class: str = ""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    body: _Body = _Body()


_read_body = msgspec.json.Decoder(_Record).decode


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """As the URL has it, checked: what makes no sense is dropped, so an old link never breaks."""

    id: str = ""
    since: str = ""
    until: str = ""
    tenant: str = ""
    site: str = ""
    data_class: str = ""
    kind: str = ""
    before: str = ""

    @classmethod
    def parse(cls, query: dict[str, str]) -> Wanted:
        def word(name: str, known: re.Pattern[str] = _WORD) -> str:
            return text if known.fullmatch(text := query.get(name, "").strip()) else ""

        def time(name: str) -> str:
            return text if instant_ms(text := query.get(name, "").strip()) is not None else ""

        return cls(
            id=word("id", _ID),
            since=time("since"),
            until=time("until"),
            tenant=word("tenant"),
            site=word("site"),
            data_class=text if (text := query.get("class", "")) in LABELS else "",
            kind=word("kind"),
            before=word("before", _ID),
        )

    def pairs(self) -> dict[str, str]:
        """Back to the URL, without the place in the pages."""
        return {
            "since": self.since,
            "until": self.until,
            "tenant": self.tenant,
            "site": self.site,
            "class": self.data_class,
            "kind": self.kind,
        }


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`log` is the year of the entry's log."""

    log: int
    index: int
    entry: ServedEntry


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first. `before`: where to go on, empty at the end; `read`: entries that were looked at."""

    rows: tuple[Row, ...]
    before: str
    read: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One level up: `sibling` stands `left` or right of what is known so far; together they hash to `made`."""

    sibling: str
    left: bool
    made: str


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that was verified just now, and the way from its leaf to the root."""

    receipt: VerifiedReceipt
    leaf: str
    steps: tuple[Step, ...]


def instant_ms(text: str) -> int | None:
    """Unix ms of `2026-11-24T10:30` (UTC, as a form sends it), or None."""
    try:
        at = datetime.fromisoformat(text)
        made = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return made if 0 <= made < 1 << 47 else None


def search(base: Path, wanted: Wanted, *, rows: int = PAGE_ROWS, scan: int = SCAN) -> Searched:
    """LogFault when a log can't be read; nothing at all before the first entry."""
    found: list[Row] = []
    read, before = 0, wanted.before
    since, until = instant_ms(wanted.since) or 0, instant_ms(wanted.until)
    for year in reversed(years(base)):
        root = directory(base, year)
        if not (root / "checkpoint").exists():
            continue
        reader, index = LogReader(root), LogIndex(root)
        try:
            size = reader.size
            while read < scan and len(found) < rows:
                page = index.search(
                    tenant=wanted.tenant or None,
                    kind=wanted.kind or None,
                    since_ms=since,
                    until_ms=1 << 47 if until is None else until,
                    before=before or None,
                    limit=min(100, scan - read),
                )
                for each in page:
                    read, before = read + 1, each.id
                    # The index may be a step ahead of the published checkpoint.
                    entry = readable(reader.entry(each.index)) if each.index < size else None
                    if entry is not None and _fits(entry, wanted):
                        found.append(Row(log=year, index=each.index, entry=entry))
                        if len(found) == rows:
                            return Searched(rows=tuple(found), before=before, read=read)
                if not page:
                    break
        finally:
            index.close()
        if read >= scan:
            return Searched(rows=tuple(found), before=before, read=read)
    return Searched(rows=tuple(found), before="", read=read)


def _fits(entry: ServedEntry, wanted: Wanted) -> bool:
    return wanted.site in ("", entry.site) and wanted.data_class in ("", entry.data_class)


def readable(data: bytes) -> ServedEntry | None:
    """None for the form of a later version. What other concepts log has its site, class and tenant in its body."""
    try:
        entry = read_served(data)
        if entry.kind == DECISION:
            return entry
        said = _read_body(data).body
        return msgspec.structs.replace(entry, tenant=said.tenant, site=said.site, data_class=said.data_class)
    except (ReceiptRefused, msgspec.MsgspecError):
        return None


def find(base: Path, entry_id: str) -> tuple[int, int, bytes] | None:
    """Year, index and bytes of an entry, or None."""
    for year in reversed(years(base)):
        root = directory(base, year)
        if not (root / "checkpoint").exists():
            continue
        reader, index = LogReader(root), LogIndex(root)
        try:
            at = index.find(entry_id)
            if at is not None and at < reader.size:
                return year, at, reader.entry(at)
        finally:
            index.close()
    return None


def prove(data: bytes, policy: TrustPolicy, *, now_s: float) -> Proven:
    """ReceiptRefused when the receipt (text form) does not hold under the policy."""
    receipt = verify_receipt(data, policy, now_s=now_s)
    leaf = leaf_hash(receipt.entry)
    hashes = TlogProof.parse(data).hashes
    return Proven(receipt=receipt, leaf=leaf.hex(), steps=way_up(receipt.index, receipt.size, leaf, hashes))


def way_up(index: int, size: int, leaf: bytes, hashes: Sequence[bytes]) -> tuple[Step, ...]:
    """From the leaf to the root, of a proof that holds (RFC 9162 §2.1.3.2)."""
    node, last, known = index, size - 1, leaf
    steps = []
    for sibling in hashes:
        left = bool(node & 1) or node == last
        known = node_hash(sibling, known) if left else node_hash(known, sibling)
        while left and not node & 1 and node:
            node, last = node >> 1, last >> 1
        steps.append(Step(sibling=sibling.hex(), left=left, made=known.hex()))
        node, last = node >> 1, last >> 1
    return tuple(steps)


def check(base: Path, policy: TrustPolicy) -> Checked:
    """The newest log, derived anew. TooLarge beyond `FSCK_ENTRIES`; LogFault when there is none."""
    found = years(base)
    if not found:
        raise LogFault("there is no log yet", hint="the log begins with the first passage")
    root = directory(base, found[-1])
    head = LogReader(root).checkpoint()
    if head.size > FSCK_ENTRIES:
        raise TooLarge(
            f"the log has {head.size:,} entries; a page checks {FSCK_ENTRIES:,} at most",
            hint=f"run `sekisho ledger fsck --year {found[-1]}` on this machine",
        )
    keys = policy.log_keys(head.origin)
    return fsck(root, keys[0] if keys else None, strict=True)
