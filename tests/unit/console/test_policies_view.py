"""Policies, evidence and sites on the screens: who may do what, what is soon over, what a step would change."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.console.evidence import evidence_view, state_of
from sekisho.console.gateway import Filters, matrix_rows, profile_choices, site_suspension, suspension
from sekisho.console.i18n import LANGUAGES, Language, translator
from sekisho.console.needs import needs
from sekisho.console.policies import Edited, RuleFilter, card_of, edit_view, rule_groups, words_of
from sekisho.federation.views import SiteView
from sekisho.kernel.classes import DataClass
from sekisho.residency.evidence_store import Evidence
from sekisho.residency.model import TenantFacts
from sekisho.residency.policy.bundle import bundle_of, default_bundle
from sekisho.residency.policy.change import Difference
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.service import CONFIGURATION, Proposal
from unit.console.test_views import NOW, facts, state

POLICY = CedarPolicy(default_bundle(), jurisdiction="JP")
NOTHING = Difference(old="", new="", rules_added=(), rules_removed=(), changes=(), widened=())


def proposal(**given_: object) -> Proposal:
    usual = {
        "id": 3,
        "bundle": "b" * 64,
        "base": "a" * 64,
        "at": NOW,
        "actor": "sato",
        "note": "",
        "state": "waiting",
        "widens": True,
        "difference": NOTHING,
    }
    return msgspec.convert({**usual, **given_}, Proposal)


def row(site: str = "sakura-ishikari", *, at: float, until: float, about: str = "attestation") -> Evidence:
    """Synthetic."""
    return Evidence(id="0", site=site, about=about, kind="tdx", level="affirming", at=at, until=until, digest="d")


def enrolled(**given_: object) -> SiteView:
    usual = {
        "id": "ishikari-2",
        "operator": "sakura",
        "name": "Ishikari 2",
        "country": "JP",
        "source": "enrolment",
        "state": "approved",
        "suspended": False,
        "simulated": False,
    }
    return SiteView(**{**usual, **given_})  # type: ignore[arg-type]


# -- proposals


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_proposer_can_not_approve_and_is_told_why(language: Language) -> None:
    card = card_of(proposal(), reader="sato", account_since=lambda _: 0.0, t=translator(language))
    assert (card.may_approve, card.may_apply, card.may_withdraw) == (False, False, True)
    assert card.why_not


def test_an_account_made_after_the_proposal_can_not_approve_it() -> None:
    t = translator("en")
    young = card_of(proposal(), reader="suzuki", account_since=lambda _: NOW + 1, t=t)
    old = card_of(proposal(), reader="suzuki", account_since=lambda _: NOW - 1, t=t)
    first = card_of(proposal(), reader="admin", account_since=lambda _: None, t=t)
    assert (young.may_approve, old.may_approve, first.may_approve) == (False, True, True)
    assert "younger" in young.why_not
    assert old.why_not == first.why_not == ""


def test_what_is_closed_has_no_step_left() -> None:
    for closed in ("applied", "withdrawn"):
        card = card_of(proposal(state=closed), reader="suzuki", account_since=lambda _: None, t=translator("en"))
        assert (card.may_approve, card.may_apply, card.may_withdraw) == (False, False, False)
    approved = card_of(proposal(state="approved"), reader="sato", account_since=lambda _: None, t=translator("en"))
    assert approved.may_apply
    assert not approved.may_approve


# -- rules and the editor


@given(st.text(st.characters(exclude_characters="{}")), st.from_regex(r"\A[a-z_]{1,9}\Z"), st.text(max_size=9))
def test_words_lose_nothing_of_a_sentence(before: str, name: str, after: str) -> None:
    after = after.replace("{", "").replace("}", "")
    parts = words_of(f"{before}{{{name}}}{after}")
    assert "".join(text for text, _ in parts) == before + name + after
    assert (name, True) in parts


@pytest.mark.parametrize("data_class", list(DataClass))
def test_a_class_shows_exactly_the_rules_that_it_has_to_pass(data_class: DataClass) -> None:
    chosen = RuleFilter.parse({"class": data_class.label}, POLICY.bundle.profiles)
    groups = rule_groups(POLICY, chosen, translator("ja"), {})
    shown = [(line.rule.file, line.rule.line) for group in groups for line in group.rows]
    assert sorted(shown) == sorted((rule.file, rule.line) for rule in POLICY.rules if data_class in rule.classes)


def test_every_rule_is_shown_once_with_its_source() -> None:
    groups = rule_groups(POLICY, RuleFilter(), translator("en"), {"gov-cloud": 2})
    assert sum(len(group.rows) for group in groups) == len(POLICY.rules)
    assert all(line.rule.source for group in groups for line in group.rows)
    assert next(group.tenants for group in groups if group.profile == "gov-cloud") == 2


def test_files_come_back_from_the_form_as_they_were() -> None:
    """A browser sends CRLF; an edit that changes nothing is no change."""
    sent = {f"file:{file.name}": file.text.replace("\n", "\r\n") for file in default_bundle().files}
    edited = Edited.parse({**sent, "do": "propose"})
    assert bundle_of(edited.kept).hash == default_bundle().hash
    assert not any(file.changed for file in edit_view(edited.texts, default_bundle()).files)


def test_an_emptied_file_goes_and_a_new_one_comes() -> None:
    sent = {f"file:{file.name}": file.text for file in default_bundle().files}
    sent["file:4-evidence.cedar"] = " \r\n"
    edited = Edited.parse({**sent, "new_name": "9-own.cedar", "new_text": "permit (principal, action, resource);"})
    assert edited.wanted == "check"  # nothing is proposed by a form that does not say so
    assert "4-evidence.cedar" not in edited.kept
    assert "9-own.cedar" in edited.kept
    changed = {file.name for file in edit_view(edited.texts, default_bundle()).files if file.changed}
    assert changed == {"4-evidence.cedar", "9-own.cedar"}


def test_a_new_file_never_replaces_one_that_is_there() -> None:
    edited = Edited.parse({"file:1.cedar": "a", "new_name": "1.cedar", "new_text": "b"})
    assert edited.kept == {"1.cedar": "a"}
    assert edited.new_text == "b"


# -- evidence


@given(st.floats(1.0, 1e6), st.floats(0.0, 2.0))
def test_evidence_is_soon_over_in_the_last_quarter_of_its_time(lifetime_s: float, share: float) -> None:
    found = state_of(row(at=NOW, until=NOW + lifetime_s), NOW + share * lifetime_s)
    if share < 0.74:
        assert found == "standing"
    elif 0.76 < share < 0.99:
        assert found == "soon"
    elif share > 1.01:
        assert found == "over"


def test_what_runs_out_what_waits_and_what_is_silent_needs_somebody() -> None:
    made = msgspec.structs.replace(
        facts(),
        kept=(
            row("sakura-ishikari", at=NOW - 60, until=NOW + 3540),
            row("softbank-osaka", at=NOW - 3000, until=NOW + 600),
            row("azure-japan-east", at=NOW - 4000, until=NOW - 1, about="location"),
            row("gone", at=NOW - 4000, until=NOW - 1),
        ),
        enrolled=(
            enrolled(state="waiting"),
            enrolled(id="ishikari-3", name="Ishikari 3", state="stale", heard_at=NOW - 600),
        ),
        proposals=(proposal(), proposal(id=4, actor=CONFIGURATION), proposal(id=5, state="approved")),
    )
    for language in LANGUAGES:
        listed = needs(made, translator(language))
        assert len(listed) == 7
        assert {need.severity for need in listed} == {"act"}
        assert not any("%(" in need.title for need in listed)
        assert all(need.href and need.owner for need in listed)
    english = {need.title: need for need in needs(made, translator("en"))}
    assert "The attestation of SoftBank Osaka runs out soon" in english
    assert "The location proof of Azure Japan East has run out" in english
    assert english["Policy proposal 3 waits for a second person"].owner == "An administrator other than sato"
    assert english["Policy proposal 4 waits for a second person"].owner == "Any administrator"
    assert english["The site Ishikari 2 waits for approval"].href == "/sites#site-ishikari-2"


def test_a_heart_beat_that_is_due_is_no_declaration_that_runs_out() -> None:
    made = facts()
    assert made.state is not None
    live = made.sites[0]
    soon = msgspec.structs.replace(live, site=msgspec.structs.replace(live.site, valid_until=NOW + 60))
    there = msgspec.structs.replace(made, sites=(soon,), declared_until={live.site.id: NOW + 90 * 86_400})
    assert not any("declaration" in need.title for need in needs(there, translator("en")))
    ending = msgspec.structs.replace(there, declared_until={live.site.id: NOW + 86_400})
    assert any("declaration" in need.title for need in needs(ending, translator("en")))


def test_a_suspended_site_is_one_entry_and_leads_to_the_site() -> None:
    made = msgspec.structs.replace(
        facts("ishikari-1"), enrolled=(enrolled(id="sakura-ishikari", source="configuration", suspended=True),)
    )
    listed = [need for need in needs(made, translator("en")) if "suspended" in need.title]
    assert [need.href for need in listed] == ["/sites/sakura-ishikari"]


def test_the_page_of_evidence_has_each_site_once() -> None:
    made = msgspec.structs.replace(facts(), kept=(row(at=NOW - 4000, until=NOW - 1),))
    view = evidence_view(made)
    assert [each.live.site.id for each in view.rows] == [live.site.id for live in made.sites]
    (ishikari,) = [each for each in view.rows if each.live.site.id == "sakura-ishikari"]
    assert ishikari.attestation is not None
    assert ishikari.attestation.state == "over"
    assert ishikari.location is None


# -- consequences and the matrix


def test_suspending_a_site_changes_what_suspending_its_endpoints_would() -> None:
    made = state()
    alone: frozenset[str] = frozenset()
    site = site_suspension(made, "sakura-ishikari", suspended=True, alone=alone, now=NOW)
    assert site == suspension(made, "ishikari-1", now=NOW)
    assert site


def test_resuming_a_site_leaves_out_what_is_suspended_itself() -> None:
    made = state("ishikari-1")
    assert site_suspension(made, "sakura-ishikari", suspended=False, alone=frozenset({"ishikari-1"}), now=NOW) == ()
    assert site_suspension(made, "sakura-ishikari", suspended=False, alone=frozenset(), now=NOW)


def test_a_profile_never_lets_more_pass() -> None:
    made = facts()
    assert made.state is not None
    cedar = msgspec.structs.replace(made, state=msgspec.structs.replace(made.state, policy=POLICY))
    before = matrix_rows(cedar)
    for profile in POLICY.bundle.profiles:
        after = matrix_rows(cedar, TenantFacts(profiles=(profile,)))
        for old, new in zip(before, after, strict=True):
            for was, now_is in zip(old.cells, new.cells, strict=True):
                assert now_is.allowed <= was.allowed, (profile, old.data_class)
                assert now_is.allowed == now_is.endpoints or now_is.reasons


def test_profiles_can_be_chosen_and_stay_in_the_address() -> None:
    assert [name for name, _ in profile_choices(state(), ("gov-cloud",))] == ["", "gov-cloud"]
    assert dict(profile_choices(state(), ()))[""] == 3
    assert Filters.parse({"profiles": "gov-cloud,ismap"}).pairs()["profiles"] == "gov-cloud,ismap"
    assert Filters.parse({"profiles": "<b>"}).profiles == ""
