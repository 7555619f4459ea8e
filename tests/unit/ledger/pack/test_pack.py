"""Evidence packs: what they state is proven by the file alone, and no byte of it can be changed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from trestle.oscal.assessment_results import AssessmentResults

from sekisho.federation.border import KIND as BORDER
from sekisho.federation.border import Reading, Row, SignedStatement, Tally, Way, sign, statement
from sekisho.federation.border import Statement as Statement_
from sekisho.federation.border import body as border_body
from sekisho.ledger.pack.assess import border_finding
from sekisho.ledger.pack.border import read_border
from sekisho.ledger.pack.build import Built, Request, build_pack, documents
from sekisho.ledger.pack.model import PackRefused, Replayed, Statement
from sekisho.ledger.pack.oscal import assessment_results
from sekisho.ledger.pack.sample import differences, draw, indices
from sekisho.ledger.pack.verify import PackVerified, verify_pack
from sekisho.ledger.tlog.entries import Entry, record_entry
from sekisho.ledger.tlog.log import LogReader
from support.ledger import NOW_S, LedgerLab, decision

SINCE, UNTIL = (NOW_S - 3600) * 1000, (NOW_S + 3600) * 1000


class Kept:
    """What a control plane keeps of its tables and policies. FAKE: a constant."""

    def inputs(self, table: int) -> bytes | None:
        return b'{"table":%d}' % table if table == 7 else None

    def policy(self, hash: str) -> bytes | None:
        return b'{"text":"permit"}'


def replay(entry: dict[str, Any], *, inputs: bytes, policy: bytes) -> Replayed:
    """FAKE: agrees with everything that was served in Japan."""
    return Replayed(same=entry["country"] == "JP", fact="" if entry["country"] == "JP" else "not in Japan")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LedgerLab]:
    made = LedgerLab(tmp_path)
    made.log([decision(number) for number in range(40)])
    made.log([decision(number, tenant="bank") for number in range(40, 60)])
    made.log([border(signed) for signed in counted(0)])
    made.publish()
    yield made
    made.close()


def counted(packets: int, canary: int = 5) -> list[SignedStatement]:
    """A chain as a border post makes it: a silent minute, then one in which so many packets crossed."""
    guarded = Way(site="osaka", peer="us-west", data_class="confidential")
    open_line = Way(site="osaka", peer="virginia", data_class="public", canary=True)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    chain: list[SignedStatement] = []
    before: dict[Way, Reading] = {}
    for number, crossed in enumerate((0, packets)):
        after = {
            way: _more(before.get(way, Reading()), count) for way, count in ((guarded, crossed), (open_line, canary))
        }
        at_ms = NOW_S * 1000 - 120_000 + number * 60_000
        made = statement(
            border="japan", before=before, after=after, from_ms=at_ms, to_ms=at_ms + 60_000,
            previous=chain[-1].statement if chain else None,
        )  # fmt: skip
        chain.append(sign(made, key))
        before = after
    return chain


def _more(reading: Reading, packets: int) -> Reading:
    tally = Tally(out_packets=reading.line.out_packets + packets, out_bytes=reading.line.out_bytes + 60 * packets)
    return Reading(line=tally, interface=tally, capture=tally)


def border(signed: SignedStatement) -> Entry:
    at_ms = signed.statement.to_ms
    return record_entry(id=f"{at_ms:012x}{'b' * 20}", kind=BORDER, at_ms=at_ms, body=border_body(signed))


def build(lab: LedgerLab, *, seed: str = "auditor", sample: int = 12, tenant: str = "hospital") -> Built:
    service = lab.service()

    def receipt(entry_id: str) -> bytes | None:
        made = service.receipt(entry_id, None, now_ms=NOW_S * 1000)
        return made if isinstance(made, bytes) else None

    return build_pack(
        Request(tenant=tenant, since_ms=SINCE, until_ms=UNTIL, seed=seed, sample=sample),
        logs=[(LogReader(lab.root), lab.index)],
        receipt=receipt,
        archive=Kept(),
        replay=replay,
        policy=lab.policy,
        signer=lab.signer,
        jurisdiction="JP",
        now_ms=NOW_S * 1000,
    )


def verified(lab: LedgerLab, data: bytes) -> PackVerified:
    return verify_pack(data, lab.policy, replay=replay, now_s=NOW_S)


def changed(data: bytes, name: str, new: bytes | None) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as archive:
        for info in old.infolist():
            content = old.read(info) if info.filename != name else new
            if content is not None:
                archive.writestr(info.filename, content)
        if name not in old.namelist() and new is not None:
            archive.writestr(name, new)
    return made.getvalue()


def test_a_pack_verifies_from_the_file_alone(lab: LedgerLab) -> None:
    built = build(lab)
    told = verified(lab, built.data)
    assert told.statement == built.statement
    assert (told.receipts, told.replayed) == (14, 12)
    assert [(line.sequence, line.guarded, line.canary, line.finding) for line in told.statement.border] == [
        (0, 0, 5, "clean"),
        (1, 0, 5, "clean"),
    ]
    assert built.statement.passages == 40
    states = {finding.control: finding.state for finding in built.statement.findings}
    assert set(states.values()) == {"satisfied", "not-assessed"}
    assert [control for control, state in states.items() if state == "not-assessed"] == ["sek-refusal"]


def test_the_same_request_makes_the_same_pack(lab: LedgerLab) -> None:
    assert build(lab).data == build(lab).data


def test_another_seed_draws_another_sample(lab: LedgerLab) -> None:
    assert build(lab, seed="a").statement.samples != build(lab, seed="b").statement.samples


def test_what_went_wrong_is_said(lab: LedgerLab) -> None:
    at_ms = NOW_S * 1000 - 50
    abroad = json.loads(decision(1).data) | {"id": f"{at_ms:012x}{'f' * 20}", "at_ms": at_ms, "country": "US",
                                             "site": "us-west", "prompt": "leaked"}  # fmt: skip
    data = json.dumps(abroad, sort_keys=True, separators=(",", ":")).encode()
    lab.log([msgspec.structs.replace(decision(1), id=bytes.fromhex(abroad["id"]), data=data)])
    lab.publish()
    built = build(lab, sample=500)
    states = {finding.control: finding for finding in built.statement.findings}
    for control in ("sek-residency", "sek-content", "sek-replay"):
        assert (states[control].state, states[control].exceptions) == ("not-satisfied", 1), control
    assert "served in US" in states["sek-residency"].facts[0]
    assert verified(lab, built.data).statement == built.statement


@pytest.mark.parametrize(
    ("said", "finding", "exceptions"),
    [
        (counted(3), "crossed", 1),
        (counted(0, canary=0), "blind", 2),
        (counted(0)[1:], "clean", 0),
        ([counted(0)[0], counted(1)[1]], "crossed", 1),
        ([counted(0, canary=7)[0], counted(0)[1]], "clean", 1),
    ],
    ids=["crossed", "blind", "begins later", "crossed once", "does not follow"],
)
def test_border_statements_are_read_from_their_counts(
    tmp_path: Path, said: list[SignedStatement], finding: str, exceptions: int
) -> None:
    lab = LedgerLab(tmp_path)
    try:
        lab.log([decision(number) for number in range(3)])
        lab.log([border(signed) for signed in said])
        lab.publish()
        built = build(lab, sample=1)
        found = next(each for each in built.statement.findings if each.control == "sek-border")
        assert (found.state, found.exceptions) == ("not-satisfied" if exceptions else "satisfied", exceptions)
        assert built.statement.border[-1].finding == finding
        assert verified(lab, built.data).statement == built.statement
        assert [line.finding for line in built.statement.border] == [each.statement.finding for each in said]
    finally:
        lab.close()


@pytest.mark.parametrize(
    "body",
    [{}, {"statement": {}}, {"counts": []}, {"statement": {"border": "x", "sequence": 0, "from_ms": 0, "to_ms": 1,
     "previous": "", "rows": [{"way": {}, "counted": {"line": {"in_packets": -1, "out_packets": 0}}}]}}],
)  # fmt: skip
def test_a_border_statement_that_says_nothing_satisfies_nothing(body: dict[str, Any]) -> None:
    line = read_border({"id": "0" * 32, "kind": BORDER, "body": body | {"finding": "clean"}})
    assert line.finding == "unreadable"
    assert border_finding([line]).state == "not-satisfied"


_TALLIES = st.builds(Tally, out_packets=st.integers(0, 2), in_packets=st.integers(0, 2), out_bytes=st.integers(0, 99))
_ROWS = st.builds(
    Row,
    way=st.builds(Way, site=st.just("a"), peer=st.just("b"), data_class=st.just("public"), canary=st.booleans()),
    counted=st.builds(Reading, line=_TALLIES, interface=_TALLIES, capture=_TALLIES),
)


@given(st.lists(_ROWS, max_size=4))
def test_a_pack_finds_what_the_border_finds(rows: list[Row]) -> None:
    """Two programs read the counts, and say the same."""
    made = Statement_(
        schema="sekisho.border/v1", border="x", sequence=0, from_ms=0, to_ms=1, rows=tuple(rows), previous="0" * 64
    )
    line = read_border({"id": "0" * 32, "body": {"statement": msgspec.to_builtins(made)}})
    assert (line.finding, line.digest) == (made.finding, made.digest)


@pytest.mark.parametrize(
    "name", ["statement.json", "report.ja.html", "oscal/assessment-results.json", "trust-policy"]
)
def test_a_changed_added_or_missing_file_is_refused(lab: LedgerLab, name: str) -> None:
    data = build(lab, sample=3).data
    for new in (b"{}", None):
        with pytest.raises(PackRefused) as refused:
            verified(lab, changed(data, name, new))
        assert refused.value.code == "pack.changed"
    with pytest.raises(PackRefused):
        verified(lab, changed(data, "extra", b"x"))


@settings(max_examples=60)
@given(st.data())
def test_no_byte_of_a_pack_can_be_changed(given_out: tuple[LedgerLab, bytes], data: st.DataObject) -> None:
    """Bits of the ZIP's own framing that carry nothing may change: then the pack still says exactly the same."""
    lab, pack = given_out
    at = data.draw(st.integers(0, len(pack) - 1))
    flipped = pack[:at] + bytes([pack[at] ^ (1 << data.draw(st.integers(0, 7)))]) + pack[at + 1 :]
    try:
        told = verified(lab, flipped)
    except PackRefused:
        return
    assert told == verified(lab, pack)


@pytest.fixture(scope="module")
def given_out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LedgerLab, bytes]]:
    lab = LedgerLab(tmp_path_factory.mktemp("pack"))
    lab.log([decision(number) for number in range(20)])
    lab.publish()
    yield lab, build(lab, sample=2).data
    lab.close()


@settings(max_examples=30)
@given(st.binary(max_size=200))
def test_noise_is_no_pack(given_out: tuple[LedgerLab, bytes], noise: bytes) -> None:
    with pytest.raises(PackRefused):
        verified(given_out[0], noise)


def test_a_statement_that_its_maker_forged_is_caught_where_it_can_be(lab: LedgerLab) -> None:
    """The signer itself lies: another sample, other findings of a replay, a receipt of somebody else's passage."""
    from sekisho.ledger.pack.archive import read_archive, write_archive  # noqa: PLC0415

    built = build(lab)
    files, _ = read_archive(built.data, (lab.signer.verifier,))

    def signed(statement: Statement, **more: bytes) -> bytes:
        return write_archive(files | documents(statement) | more, lab.signer)

    easy = msgspec.structs.replace(built.statement, seed="chosen afterwards")
    with pytest.raises(PackRefused) as refused:
        verified(lab, signed(easy))
    assert refused.value.code == "pack.sample"

    first = built.statement.samples[0]
    worse = (msgspec.structs.replace(first, replay="different"), *built.statement.samples[1:])
    with pytest.raises(PackRefused) as refused:
        verified(lab, signed(msgspec.structs.replace(built.statement, samples=worse)))
    assert refused.value.code == "pack.replay"

    for line in (
        msgspec.structs.replace(built.statement.border[0], guarded=9, finding="crossed"),
        msgspec.structs.replace(built.statement.border[0], canary=9),
    ):
        border_lines = (line, *built.statement.border[1:])
        with pytest.raises(PackRefused) as refused:
            verified(lab, signed(msgspec.structs.replace(built.statement, border=border_lines)))
        assert refused.value.code == "pack.changed"

    other = msgspec.structs.replace(built.statement, tenant="bank")
    with pytest.raises(PackRefused):
        verified(lab, signed(other))


def test_a_pack_of_nothing_or_of_a_strange_period_is_refused(lab: LedgerLab) -> None:
    with pytest.raises(PackRefused) as refused:
        build(lab, tenant="nobody")
    assert refused.value.code == "pack.empty"
    with pytest.raises(PackRefused):
        build(lab, sample=0)


def test_entries_that_no_quorum_has_seen_wait(lab: LedgerLab) -> None:
    lab.log([decision(number) for number in range(100, 140)])
    with pytest.raises(PackRefused) as refused:
        build(lab, sample=80)
    assert refused.value.code == "pack.not_cosigned"


def test_oscal_is_valid_for_somebody_elses_tool(lab: LedgerLab) -> None:
    document = assessment_results(build(lab).statement)
    read = AssessmentResults.model_validate(document["assessment-results"])
    assert read.metadata.oscal_version is not None
    assert len(read.results[0].findings or []) == 7


def test_the_report_reads_in_both_languages_and_loads_nothing(lab: LedgerLab) -> None:
    made = documents(build(lab, seed="<script>alert(1)</script>").statement)
    for name, words in (("report.en.html", "Drawn decisions"), ("report.ja.html", "抽出した判定")):
        page = made[name].decode()
        assert words in page
        assert "<script" not in page
        assert "src=" not in page
        assert "href=" not in page


@settings(max_examples=100)
@given(st.text(max_size=20), st.integers(1, 300), st.integers(1, 40))
def test_a_draw_is_fair_in_form(seed: str, population: int, size: int) -> None:
    drawn = draw(seed, population=population, size=size)
    assert len(drawn) == len(set(drawn)) == min(size, population)
    assert drawn == sorted(drawn)
    assert set(drawn) <= set(range(population))
    assert draw(seed, population=population, size=size) == drawn


def test_the_draw_is_written_down_for_other_tools() -> None:
    """Whoever writes a verifier in another language checks it with this."""
    assert draw("auditor", population=1000, size=5) == [117, 136, 238, 735, 881]


@given(st.sets(st.integers(0, 10_000)).map(sorted))
def test_differences_are_undone(found: list[int]) -> None:
    assert indices(differences(found)) == found
