"""The screen Ledger: search, witnesses, the check of the log, one entry with its proof, and evidence packs."""

from __future__ import annotations

import asyncio
import shlex
from typing import Annotated, assert_never

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter

from sekisho.console import ledger_search as log
from sekisho.console.gateway import Choices
from sekisho.console.http import frame_of, left_cookie, page, query_of, redirect, signed_in
from sekisho.console.inject import Asked, Form, TheControl, TheSessions
from sekisho.console.ledger_search import Proven, Searched, Step, Wanted, instant_ms
from sekisho.console.objects import ENTRY_TABS, ObjectView, curl, parse_tab, pretty
from sekisho.console.pack_api import MEDIA_TYPE, TURN
from sekisho.console.render import View, with_query
from sekisho.console.services import Control, LedgerState
from sekisho.console.session import Sessions
from sekisho.console.sign_in import require_form
from sekisho.federation.errors import UnknownName
from sekisho.kernel.classes import LABELS
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.issue import NotYet, NotYours
from sekisho.ledger.pack.build import MAX_SAMPLE
from sekisho.ledger.pack.build import Request as PackRequest
from sekisho.ledger.receipts import ReceiptRefused, ServedEntry
from sekisho.ledger.receipts_http import COSE_MEDIA_TYPE, ReceiptDesk, policy_path
from sekisho.ledger.store import find_passage
from sekisho.ledger.tlog import proof
from sekisho.ledger.tlog.fsck import Checked
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.years import years

# What the search suggests; each is explained in docs/reference/receipts.md.
KINDS = (
    "decision", "policy.version", "policy.applied", "evidence", "reservation", "throughput", "border", "key.released",
    "salt.destroyed", "log.continues",
)  # fmt: skip
TheReceipts = NamedDependency[ReceiptDesk]
Id = Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$")]
ReceiptForm = Annotated[str, PathParameter(pattern="^(proof|cose)$")]
# One at a time: a check reads the whole log.
_CHECK = asyncio.Semaphore(1)
# Units of the picture, in the SVG's own coordinates.
_ROW = 74
_WIDTH = 720


class LedgerView(View, frozen=True, kw_only=True):
    """`older`: where the search goes on; `failed` says why there is no list. `checked`: what the button found."""

    wanted: Wanted
    found: Searched
    failed: str
    ledger: LedgerState
    choices: Choices
    kinds: tuple[str, ...]
    older: str
    scan: int
    limit: int
    checked: Checked | None
    check_failed: str
    now: float

    @property
    def template(self) -> str:
        return "ledger.html"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A level of the picture; `y` is the middle of its known node, `x` that of the sibling below it, if any."""

    y: int
    hash: str
    x: int = 0
    sibling: str = ""


class EntryView(ObjectView, frozen=True, kw_only=True):
    """`proven` is None while `waits` (no quorum yet) or when it `failed`."""

    id: str
    entry: ServedEntry | None
    log: int
    index: int
    proven: Proven | None
    nodes: tuple[Node, ...]
    width: int
    height: int
    waits: bool
    failed: str
    passage: bool

    @property
    def template(self) -> str:
        return "ledger_entry.html"


class PackView(View, frozen=True, kw_only=True):
    tenant: str
    since: str
    until: str
    seed: str
    sample: str
    most: int
    choices: Choices
    failed: str
    command: str

    @property
    def template(self) -> str:
        return "ledger_pack.html"


@get("/ledger", include_in_schema=False)
async def ledger_page(
    request: Asked, control: TheControl, sessions: TheSessions, receipts: TheReceipts
) -> Response[bytes]:
    wanted = Wanted.parse(query_of(request))
    if wanted.id:
        return redirect(f"/ledger/{wanted.id}")
    return await _ledger(request, control, sessions, receipts, wanted)


@post("/ledger", include_in_schema=False)
async def fsck_form(
    *, request: Asked, control: TheControl, sessions: TheSessions, receipts: TheReceipts, data: Form
) -> Response[bytes]:
    """Checks the newest log. On this address, so that the language switch of its answer leads somewhere."""
    require_form(data, request, control, sessions)

    def check() -> Checked:
        found = years(receipts.base)
        return log.check(receipts.base, _policy(receipts, found[-1]) if found else _NOBODY)

    checked, failed = None, ""
    try:
        async with _CHECK:
            checked = await asyncio.to_thread(check)
    except (SekishoError, OSError) as error:
        failed = str(error)
    return await _ledger(request, control, sessions, receipts, Wanted(), checked=checked, check_failed=failed)


@get("/ledger/{entry_id:str}", include_in_schema=False)
async def entry_page(
    *, request: Asked, control: TheControl, sessions: TheSessions, receipts: TheReceipts, entry_id: Id
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="ledger")
    found = await asyncio.to_thread(log.find, receipts.base, entry_id)
    if found is None:
        raise UnknownName(
            f"the log has no entry {entry_id}", hint="a decision is logged about a second after its passage; reload"
        )
    year, index, data = found
    proven, waits, failed = None, False, ""
    match await receipts.receipt(entry_id, None, "proof"):
        case NotYet() | NotYours():
            waits = True
        case receipt:
            try:
                policy = await asyncio.to_thread(_policy, receipts, year)
                proven = log.prove(receipt, policy, now_s=frame.now)
            except ReceiptRefused as error:
                failed = str(error)

    def passage() -> bool:
        with control.database.read() as connection:
            return find_passage(connection, entry_id) is not None

    entry = log.readable(data)
    view = EntryView(
        tab=parse_tab(query_of(request).get("tab", ""), ENTRY_TABS),
        path=f"/ledger/{entry_id}",
        raw=pretty(msgspec.json.decode(data)) if entry else repr(data),
        commands=(
            f"sekisho receipt get {entry_id} --out {entry_id}.tlog-proof",
            f"sekisho receipt verify {entry_id}.tlog-proof",
            curl(str(request.base_url), f"/internal/v1/receipts/{entry_id}"),
        ),
        id=entry_id,
        entry=entry,
        log=year,
        index=index,
        proven=proven,
        nodes=picture(proven.leaf, proven.steps) if proven else (),
        width=_WIDTH,
        height=_ROW * (len(proven.steps) + 1) if proven else 0,
        waits=waits,
        failed=failed,
        passage=await asyncio.to_thread(passage),
    )
    return page(view, frame, cookies=[left_cookie(request)])


@get("/ledger/{entry_id:str}/receipt/{form:str}", include_in_schema=False)
async def entry_receipt(
    *,
    request: Asked,
    control: TheControl,
    sessions: TheSessions,
    receipts: TheReceipts,
    entry_id: Id,
    form: ReceiptForm,
) -> Response[bytes]:
    """The file; `form` is `proof` or `cose`. Until a quorum has cosigned, back to the page, which says so."""
    signed_in(request, control, sessions)
    is_cose = form == "cose"
    match await receipts.receipt(entry_id, None, "cose" if is_cose else "proof"):
        case NotYet() | NotYours():
            return redirect(f"/ledger/{entry_id}")
        case bytes() as made:
            name = f"{entry_id}.{'cose' if is_cose else 'tlog-proof'}"
            headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
            return Response(made, media_type=COSE_MEDIA_TYPE if is_cose else proof.MEDIA_TYPE, headers=headers)
        case never:
            assert_never(never)


@get("/ledger/pack", include_in_schema=False)
async def pack_page(request: Asked, control: TheControl, sessions: TheSessions) -> Response[bytes]:
    return _pack(request, control, sessions, query_of(request))


@post("/ledger/pack", include_in_schema=False, status_code=200)
async def pack_form(request: Asked, control: TheControl, sessions: TheSessions, data: Form) -> Response[bytes]:
    """The ZIP, or the form again with what is wrong in words."""
    require_form(data, request, control, sessions)
    since, until = instant_ms(data.get("since", "").strip()), instant_ms(data.get("until", "").strip())
    sample = data.get("sample", "").strip()
    tenant, seed = data.get("tenant", "").strip()[:64], data.get("seed", "").strip()[:200]
    if since is None or until is None or not tenant or not seed or not sample.isdecimal() or len(sample) > 4:
        t = frame_of(request, control, None).translator
        return _pack(request, control, sessions, data, failed=t("Fill in tenant, period, seed and sample."))
    wanted = PackRequest(tenant=tenant, since_ms=since, until_ms=until, seed=seed, sample=int(sample))
    try:
        async with TURN:
            built = await asyncio.to_thread(control.make_pack, wanted)
    except (SekishoError, OSError) as error:
        return _pack(request, control, sessions, data, failed=str(error))
    headers = {"Content-Disposition": 'attachment; filename="evidence-pack.zip"', "Cache-Control": "no-store"}
    return Response(built.data, media_type=MEDIA_TYPE, headers=headers)


def picture(leaf: str, steps: tuple[Step, ...]) -> tuple[Node, ...]:
    """The levels from the root at the top down to the leaf."""
    known = (leaf, *(step.made for step in steps))
    nodes = [Node(y=_ROW // 2, hash=known[-1])]
    for down, level in enumerate(range(len(steps) - 1, -1, -1), 1):
        step = steps[level]
        x = _WIDTH // 6 if step.left else _WIDTH * 5 // 6
        nodes.append(Node(y=down * _ROW + _ROW // 2, hash=known[level], x=x, sibling=step.sibling))
    return tuple(nodes)


_NOBODY = TrustPolicy(logs=(), witnesses=(), groups=(), quorum="none")


def _policy(receipts: ReceiptDesk, year: int) -> TrustPolicy:
    """As it is published."""
    try:
        return TrustPolicy.parse(policy_path(receipts.base, year).read_bytes())
    except FileNotFoundError:
        return _NOBODY


def _choices(control: Control) -> Choices:
    state = control.table()
    sites = state.federation.sites if state else ()
    tenants = state.federation.tenants if state else ()
    return Choices(
        sites=tuple((each.id, each.name) for each in sites),
        tenants=tuple((each.id, each.name) for each in tenants),
        classes=tuple(LABELS),
        models=(),
    )


async def _ledger(
    request: Asked,
    control: Control,
    sessions: Sessions,
    receipts: ReceiptDesk,
    wanted: Wanted,
    *,
    checked: Checked | None = None,
    check_failed: str = "",
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="ledger")
    found, failed = Searched(rows=(), before="", read=0), ""
    try:
        found = await asyncio.to_thread(log.search, receipts.base, wanted)
    except (SekishoError, OSError) as error:
        failed = str(error)
    view = LedgerView(
        wanted=wanted,
        found=found,
        failed=failed,
        ledger=control.ledger(),
        choices=_choices(control),
        kinds=KINDS,
        older=with_query("/ledger", {**wanted.pairs(), "before": found.before}) if found.before else "",
        scan=log.SCAN,
        limit=log.FSCK_ENTRIES,
        checked=checked,
        check_failed=check_failed,
        now=frame.now,
    )
    return page(view, frame)


def _pack(
    request: Asked, control: Control, sessions: Sessions, data: dict[str, str], *, failed: str = ""
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="ledger")
    since, until = data.get("since", ""), data.get("until", "")
    words = ["sekisho", "evidence", "pack", "--tenant", data.get("tenant") or "TENANT", "--from", since or "FROM"]
    words += ["--to", until or "TO", "--seed", data.get("seed") or "SEED", "--sample", data.get("sample") or "30"]
    view = PackView(
        tenant=data.get("tenant", ""),
        since=since,
        until=until,
        seed=data.get("seed", ""),
        sample=data.get("sample", "") or "30",
        most=MAX_SAMPLE,
        choices=_choices(control),
        failed=failed,
        command=shlex.join(words),
    )
    return page(view, frame, status=422 if failed else 200)
