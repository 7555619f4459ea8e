"""What the screens say: pure views of facts, and what a change would do."""

from __future__ import annotations

import msgspec
import pytest

from sekisho.console.facts import Facts, sites_of
from sekisho.console.gateway import DryRunAsked, Filters, dry_run, matrix_rows, suspension
from sekisho.console.http import local_path
from sekisho.console.i18n import LANGUAGES, Language, translator
from sekisho.console.needs import needs
from sekisho.console.now import now_view
from sekisho.console.services import Fault, JournalState, TableState
from sekisho.console.tiles import GRID
from sekisho.console.workers import WorkerReport
from sekisho.federation.views import KeyView
from sekisho.gateway.settings import EndpointSnapshot, WorkerSnapshot
from sekisho.kernel.jurisdictions import PREFECTURES
from sekisho.ledger.store import PassageCount
from sekisho.residency.compile import compile_table
from sekisho.residency.decide import BuiltinPolicy
from support.control import FEDERATION, MODEL

NOW = 1_795_000_000.0
POLICY = BuiltinPolicy(jurisdiction="JP")
VALIDITY_S = 3600.0


def state(*suspended: str) -> TableState:
    table = compile_table(
        FEDERATION,
        POLICY,
        version=7,
        now=NOW,
        jurisdiction="JP",
        evidence_validity_s=VALIDITY_S,
        salts={tenant.id: bytes(32) for tenant in FEDERATION.tenants},
        suspended=frozenset(suspended),
    )
    return TableState(
        table=table,
        federation=FEDERATION,
        suspended=frozenset(suspended),
        policy=POLICY,
        evidence_validity_s=VALIDITY_S,
        size_bytes=1,
        compile_s=0.0,
    )


def worker(**changes: object) -> WorkerReport:
    """A synthetic answer of a worker."""
    snapshot = WorkerSnapshot(
        index=0,
        pid=1,
        at=NOW,
        started_at=NOW,
        table_version=7,
        table_issued_at=NOW,
        policy="",
        connections=0,
        in_flight=2,
        queued=0,
        draining=False,
        journal_ok=True,
        journal_error="",
        rss_bytes=1,
        endpoints=tuple(
            EndpointSnapshot(
                id=endpoint.id,
                site=endpoint.site,
                operator="",
                country="",
                in_flight=2,
                slots=8,
                ewma_first_byte_ms=40.0,
                ejected_for_s=0.0,
                requests=10,
                failures=0,
            )
            for endpoint in FEDERATION.endpoints
        ),
        counters={},
        histograms={},
        bounds=(),
    )
    return WorkerReport(index=0, snapshot=msgspec.structs.replace(snapshot, **changes))


def facts(
    *suspended: str,
    reports: tuple[WorkerReport, ...] | None = None,
    counts: tuple[PassageCount, ...] = (),
    keys: tuple[KeyView, ...] = (),
    faults: tuple[Fault, ...] = (),
    now: float = NOW,
) -> Facts:
    made = state(*suspended)
    given = (worker(),) if reports is None else reports
    return Facts(
        now=now,
        state=made,
        faults=faults,
        reports=given,
        sites=sites_of(made, given, counts),
        counts=counts,
        newest_ms=int(NOW * 1000),
        journal=JournalState(checked_at=NOW, fault=None, behind=False, unreadable=0),
        keys=keys,
        recent=(),
    )


def refusals(n: int) -> PassageCount:
    return PassageCount(
        site="", data_class="confidential", outcome="refused", code="residency.no_eligible_endpoint", passages=n
    )


# -- Now


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_well_needs_nobody(language: Language) -> None:
    view = now_view(facts(), translator(language), ())
    assert view.level == "ok"
    assert view.needs == ()
    assert [number.value for number in view.numbers][:2] == ["0", "24"]  # 4 endpoints, 8 slots, 2 in flight each


def test_no_gateway_is_said_first_and_slots_are_not_made_up() -> None:
    view = now_view(facts(reports=()), translator("en"), ())
    assert view.level == "stop"
    assert view.needs[0].title == "No gateway answers"
    assert (view.numbers[1].state, view.numbers[1].value) == ("failed", "unknown")


def test_a_journal_that_can_not_be_written_stops_guarded_work() -> None:
    view = now_view(facts(reports=(worker(journal_ok=False, journal_error="disk full"),)), translator("en"), ())
    assert view.level == "stop"
    assert "disk full" in view.needs[0].why


def test_a_closed_class_names_tenants_operators_and_the_way_to_the_reason() -> None:
    listed = needs(facts("japan-east-1", "ishikari-1", "osaka-1"), translator("en"))
    worst = listed[0]
    assert worst.severity == "stop"  # confidential is the floor of the hospital
    assert worst.title == f"Nobody may serve confidential work with {MODEL}"
    assert "hospital" in worst.why
    assert worst.owner == "You"  # they are suspended: the operators can't help
    assert worst.href.startswith("/gateway/why?tenant=hospital&class=confidential")
    assert [need.severity for need in listed] == sorted(
        (need.severity for need in listed), key=["stop", "act", "watch"].index
    )


def test_every_need_has_an_owner_and_an_action() -> None:
    soon = KeyView(id="0" * 12, tenant="hospital", label="", source="console", expires_at=NOW + 3600)
    resting = tuple(
        msgspec.structs.replace(row, ejected_for_s=4.0, failures=5)
        for row in worker().snapshot.endpoints  # type: ignore[union-attr]
    )
    everything = facts(
        "osaka-1",
        reports=(worker(endpoints=resting, table_version=6), WorkerReport(index=1, fault="no answer within 1 s")),
        counts=(refusals(3),),
        keys=(soon,),
        faults=(Fault(code="config.refused", fact="line 3", hint="mend it", since=NOW),),
        now=NOW + 60,
    )
    for language in LANGUAGES:
        listed = needs(everything, translator(language))
        assert len(listed) >= 8
        for need in listed:
            assert need.title, need
            assert need.why, need
            assert need.owner, need
            assert need.action, need
            assert "%(" not in need.title + need.why


def test_wrong_requests_of_others_are_nobodys_need() -> None:
    wrong_key = PassageCount(site="", data_class="", outcome="refused", code="auth.key_unknown", passages=1000)
    assert needs(facts(counts=(wrong_key,)), translator("en")) == ()


def test_the_map_has_each_prefecture_once_and_no_two_in_one_place() -> None:
    assert set(GRID) == {prefecture.code for prefecture in PREFECTURES}
    assert len(set(GRID.values())) == 47
    tiles = now_view(facts(), translator("ja"), ()).tiles
    assert {tile.name: tile.marks for tile in tiles if tile.marks} == {"北海道": "2", "埼玉県": "1", "大阪府": "3"}


# -- Gateway


def test_the_matrix_says_the_same_as_the_table() -> None:
    made = facts()
    assert made.state is not None
    table = made.state.table
    profile = table.profiles[next(tenant.profile for tenant in table.tenants if tenant.id == "developer")]
    for row in matrix_rows(made):
        route = table.routes[profile.routes[row.data_class][MODEL]]
        allowed = {table.endpoints[index].site for index in getattr(route, "endpoints", ())}
        assert {cell.site for cell in row.cells if cell.state == "allowed"} == allowed
        assert all(cell.reasons for cell in row.cells if cell.state == "refused")


def test_a_dry_run_finds_what_moving_a_site_abroad_would_lose() -> None:
    changes = dry_run(state(), DryRunAsked(site="sakura-ishikari", country="US"), now=NOW)
    assert changes is not None
    assert [(change.data_class, change.lost, change.left) for change in changes] == [
        ("confidential", ("ishikari-1",), 2),
        ("restricted", ("ishikari-1",), 1),
    ]
    assert all(change.reasons for change in changes)


def test_a_dry_run_of_the_last_site_says_that_the_class_closes() -> None:
    changes = dry_run(state("ishikari-1"), DryRunAsked(site="softbank-osaka", law="US"), now=NOW)
    assert changes is not None
    (change,) = changes
    assert (change.data_class, change.closes, change.tenants) == (
        "restricted",
        True,
        ("hospital", "manufacturer", "developer"),
    )


def test_a_dry_run_of_nothing_is_no_answer_and_of_the_same_is_no_change() -> None:
    assert dry_run(state(), DryRunAsked(site="sakura-ishikari"), now=NOW) is None
    assert dry_run(state(), DryRunAsked(site="nowhere", country="US"), now=NOW) is None
    assert dry_run(state(), DryRunAsked(site="sakura-ishikari", country="JP"), now=NOW) == ()


def test_the_consequence_of_suspending_is_undone_by_resuming() -> None:
    lost = suspension(state(), "osaka-1", now=NOW)
    gained = suspension(state("osaka-1"), "osaka-1", now=NOW)
    assert {(change.data_class, change.lost) for change in lost} == {
        (change.data_class, change.gained) for change in gained
    }
    assert len(lost) == 4


def test_filters_survive_the_url_and_nonsense_is_dropped() -> None:
    query = {"site": "sakura-ishikari", "class": "restricted", "verdict": "refused", "window": "1h"}
    filters = Filters.parse(query)
    assert {name: value for name, value in filters.pairs().items() if value} == query
    assert filters.live
    odd = Filters.parse({"class": "secret", "verdict": "maybe", "site": "<script>", "before": "x", "window": "9y"})
    assert not odd.any
    assert odd.before == ""
    assert not Filters.parse({"live": "off"}).live


@pytest.mark.parametrize(
    "text",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "x", "/a\nb", "/" * 501],
)
def test_no_link_leads_away_after_signing_in(text: str) -> None:
    assert local_path(text) == "/"


def test_a_path_with_filters_leads_back() -> None:
    assert local_path("/gateway?class=restricted") == "/gateway?class=restricted"
