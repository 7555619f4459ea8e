"""Policies, evidence and sites in a real browser, from a real control process. Sites and evidence are synthetic."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from test_console import Console, Watched, browser, signed_in

from sekisho.assembly.config import load_config
from sekisho.residency.evidence_store import Evidence, insert_evidence
from sekisho.runtime.database import Database, sqlite_url
from support.accessible import DESKTOP, PHONE, assert_accessible
from support.sites import FakeAgent, Office

__all__ = ["browser"]  # the fixture
pytestmark = [pytest.mark.browser, pytest.mark.journey]
# In place of the rule that keeps confidential work at home
LOOSER = '@id("anywhere")\n@source("a drill")\npermit (principal, action in Action::"serve-guarded", resource);\n'
STRICTER = """@id("own-logs")
@reason_en("Site {site} keeps its logs for {log_retention_days} days; we ask for 9,000. A longer retention would change this.")
@reason_ja("拠点 {site} のログ保存期間は {log_retention_days} 日です。9,000 日以上を求めます。保存期間が延びれば許可されます。")
@source("A drill")
forbid (principal, action in Action::"serve-restricted", resource)
unless { resource.log_retention_days >= 9000 };
"""  # noqa: E501 - a rule's reason is one line


class Federated(Console):
    """With a site that waits, one that is silent, an invitation, and evidence at three ages."""

    def start(self) -> None:
        super().start()
        now = time.time()
        database = Database(sqlite_url(self.home / "control.sqlite"))
        office = Office(database, load_config(None).config.federation)
        self.pins = {}
        for site in ("ishikari-8", "ishikari-9"):
            agent = FakeAgent(site)
            token = office.invite(site, now=now).token
            agent.enrol(office, token, office.declare(site, valid_until=now + 90 * 86_400), now=now)
            self.pins[site] = office.enrolment.enrolments(site)[0].pin
        office.enrolment.approve("ishikari-8", pin=None, now=now - 3600, actor="admin")
        office.invite("ishikari-10", now=now)
        with database.write() as connection:
            insert_evidence(connection, evidence("sakura-ishikari", at=now - 60, until=now + 3540))
            insert_evidence(connection, evidence("softbank-osaka", at=now - 3000, until=now + 600))
            insert_evidence(connection, evidence("azure-japan-east", at=now - 4000, until=now - 400))
            insert_evidence(
                connection,
                evidence("sakura-ishikari", about="location", level="proven", at=now - 60, until=now + 3540, km=212),
            )
        database.close()


def evidence(
    site: str, *, at: float, until: float, about: str = "attestation", level: str = "affirming", km: int = 0
) -> Evidence:
    """Synthetic: nobody measured it."""
    return Evidence(
        id=f"{abs(hash((site, about))):032x}"[:32],
        site=site,
        about=about,
        kind="simulated" if about == "attestation" else "location",
        level=level,
        margin_km=km,
        at=at,
        until=until,
        digest="5e" * 32,
    )


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federated]:
    made = Federated(tmp_path_factory.mktemp("policy"))
    yield made
    made.stop()


@pytest.fixture
def english(browser: Browser, console: Federated) -> Iterator[Watched]:
    yield from signed_in(browser, console, "en")


def add_admin(console: Console, name: str) -> str:
    answer = httpx.post(
        console.url + "/api/v1/admins",
        headers={"Authorization": f"Bearer {console.token}"},
        json={"name": name},
        timeout=30,
        trust_env=False,
    )
    answer.raise_for_status()
    return str(answer.json()["token"])


def sign_in_as(page: Page, console: Console, token: str) -> None:
    page.goto(f"{console.url}/sign-in?lang=en")
    page.fill("input[name=token]", token)
    page.click("main button")
    page.wait_for_url(console.url + "/")


def write_file(page: Page, console: Console, name: str, text: str) -> None:
    """Opens the editor with one more file, not sent yet."""
    page.goto(console.url + "/policies/edit")
    page.locator("form.editor > details > summary").last.click()
    page.fill("input[name=new_name]", name)
    page.fill("textarea[name=new_text]", text)


def assert_refused(watched: Watched) -> None:
    """Chromium reports the 422 of the page itself, and nothing else."""
    assert all("422" in each for each in watched.complaints), watched.complaints
    watched.complaints.clear()


def loosen(page: Page, console: Console) -> None:
    """Opens the editor with a change that lets confidential work go anywhere, not sent yet."""
    page.goto(console.url + "/policies/edit")
    page.get_by_text("2-confidential.cedar").first.click()
    page.fill('textarea[name="file:2-confidential.cedar"]', LOOSER)


SCREENS = (
    "/",
    "/gateway",
    "/gateway?profiles=gov-cloud",
    "/policies",
    "/policies?class=restricted&profile=common",
    "/policies/edit",
    "/evidence",
    "/sites",
    "/sites/sakura-ishikari",
    "/sites/sakura-ishikari?tab=evidence",
)


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_screen_is_accessible_and_fits(
    browser: Browser,
    console: Federated,
    language: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """axe finds nothing, nothing sticks out on a phone; with a proposal that waits and every state of evidence."""
    folder = tmp_path_factory.getbasetemp() / "pictures"
    folder.mkdir(exist_ok=True)
    for watched in signed_in(browser, console, language, bypass_csp=True):
        page = watched.page
        if language == "ja":
            loosen(page, console)
            page.click("button[value=examine]")
            page.screenshot(path=folder / "difference.png", full_page=True)
            page.click("button[value=propose]")
        for number, path in enumerate(SCREENS):
            page.goto(console.url + path)
            for size, name in ((DESKTOP, "desktop"), (PHONE, "phone")):
                page.set_viewport_size(size)
                page.screenshot(path=folder / f"{language}-{name}-{number}.png", full_page=True)
                assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (path, name)
                assert_accessible(page, language=language, turn=number)


def test_the_policy_of_pages_holds(english: Watched, console: Federated) -> None:
    """The fixture fails on any complaint of the browser; here the strict policy is in force."""
    for path in SCREENS:
        answer = english.page.goto(console.url + path)
        assert answer is not None
        assert answer.status == 200, path


def test_what_needs_somebody_stands_on_now(english: Watched, console: Federated) -> None:
    page = english.page
    page.goto(console.url + "/")
    needs = page.locator(".needs").first
    expect(needs).to_contain_text("The site ishikari-9 waits for approval")
    expect(needs).to_contain_text("The agent of ishikari-8 was never heard")
    expect(needs).to_contain_text(re.compile("The attestation of .*Osaka.* runs out soon"))
    expect(needs).to_contain_text(re.compile("The attestation of .*Japan East.* has run out"))
    assert "declaration about" not in needs.inner_text()  # a heart-beat's end is no declaration's end
    expect(page.locator("body")).not_to_contain_text("The attestation of Sakura")


def test_the_editor_keeps_what_is_not_changed(english: Watched, console: Federated) -> None:
    page = english.page
    page.goto(console.url + "/policies/edit")
    page.click("button[value=examine]")
    expect(page.get_by_role("alert")).to_contain_text("these are the files in force")
    assert_refused(english)


def test_a_mistake_is_named_with_its_place_and_nothing_is_lost(english: Watched, console: Federated) -> None:
    page = english.page
    write_file(page, console, "9-own.cedar", 'permit (principal, action in Action::"serve-gaurded", resource);')
    page.fill("input[name=note]", "<b>drill</b>")
    page.click("button[value=propose]")
    expect(page.get_by_role("alert")).to_contain_text("9-own.cedar:1:")
    assert "serve-gaurded" in page.locator('textarea[name="file:9-own.cedar"]').input_value()
    expect(page.locator("input[name=note]")).to_have_value("<b>drill</b>")
    assert_refused(english)


def test_a_narrowing_shows_what_is_lost_and_is_in_force_at_once(english: Watched, console: Federated) -> None:
    page = english.page
    write_file(page, console, "9-own.cedar", STRICTER)
    page.click("button[value=examine]")
    expect(page.locator(".box")).to_contain_text("no second person is needed")
    expect(page.locator(".box del").first).to_be_visible()
    page.click("button[value=propose]")
    page.wait_for_url(re.compile("/policies\\?proposal="))
    expect(page.locator(".box").first).to_contain_text("in force")
    expect(page.locator("table.rules").first).to_contain_text("own-logs")


def test_a_widening_waits_for_another_person(
    browser: Browser,
    english: Watched,
    console: Federated,
) -> None:
    token = add_admin(console, "sato")
    page = english.page
    loosen(page, console)
    page.fill("input[name=note]", "a drill")
    page.click("button[value=examine]")
    expect(page.locator(".box .failed")).to_contain_text("a second person must approve")
    page.click("button[value=propose]")
    page.wait_for_url(re.compile("/policies\\?proposal="))
    number = page.url.rpartition("=")[2]
    expect(page.locator(".why-not").first).to_contain_text("You proposed it")
    assert page.get_by_role("button", name=f"Approve {number}").count() == 0
    late = add_admin(console, "suzuki")
    context = browser.new_context(viewport=DESKTOP, locale="en-US")
    other = context.new_page()
    sign_in_as(other, console, late)
    other.goto(f"{console.url}/policies?proposal={number}")
    expect(other.locator(".why-not").first).to_contain_text("younger than this proposal")
    context.clear_cookies()
    sign_in_as(other, console, token)
    expect(other.locator(".needs").first).to_contain_text(f"Policy proposal {number} waits")
    other.goto(f"{console.url}/policies?proposal={number}")
    other.get_by_role("button", name=f"Approve {number}").click()
    expect(other.locator(".box").first).to_contain_text("approved, not in force yet")
    expect(other.locator(".box").first).to_contain_text("sato")
    other.get_by_role("button", name=f"Withdraw {number}").click()
    expect(other.locator(".box").first).to_contain_text("withdrawn")
    context.close()


def test_a_step_of_a_closed_proposal_says_why_not(english: Watched, console: Federated) -> None:
    page = english.page
    page.goto(console.url + "/policies")
    csrf = page.locator("input[name=csrf]").first.get_attribute("value") or ""
    answer = page.request.post(console.url + "/policies/proposals/999/approve", form={"csrf": csrf})
    assert answer.status == 404
    assert "policy.unknown" in answer.text()


def test_forms_from_elsewhere_change_nothing(english: Watched, console: Federated) -> None:
    for path in (
        "/policies/edit",
        "/policies/proposals/1/withdraw",
        "/policies/proposals/1/approve",
        "/policies/proposals/1/apply",
        "/sites/ishikari-9/approve",
        "/sites/ishikari-9/reject",
        "/sites/sakura-ishikari/suspend",
        "/sites/sakura-ishikari/resume",
    ):
        answer = english.page.request.post(console.url + path, form={"csrf": "0" * 64, "do": "propose"})
        assert answer.status == 403, path
        assert "form.stale" in answer.text(), path


def test_nobody_reads_these_screens_without_the_token(browser: Browser, console: Federated) -> None:
    context = browser.new_context(locale="en-US")
    for path in SCREENS:
        context.new_page().goto(console.url + path)
    assert all("/sign-in" in page.url for page in context.pages)
    context.close()


def test_the_editor_works_without_javascript(browser: Browser, console: Federated) -> None:
    for watched in signed_in(browser, console, "ja", java_script_enabled=False):
        page = watched.page
        loosen(page, console)
        page.click("button[value=examine]")
        expect(page.locator(".box .failed")).to_contain_text("2 人目の承認が必要です")
        expect(page.locator('textarea[name="file:2-confidential.cedar"]')).to_have_value(LOOSER)


def test_a_site_is_suspended_in_one_step_and_resumed(english: Watched, console: Federated) -> None:
    page = english.page
    page.goto(console.url + "/sites/softbank-osaka")
    expect(page.locator(".box .diff > li").first).to_be_visible()
    page.click("text=Suspend softbank-osaka")
    expect(page.locator(".lead .state")).to_contain_text("suspended")
    page.goto(console.url + "/")
    expect(page.locator("main")).to_contain_text("is suspended")
    page.goto(console.url + "/sites/softbank-osaka")
    page.click("text=Resume softbank-osaka")
    expect(page.locator(".lead .state")).to_contain_text("serving")
    page.goto(console.url + "/sites/softbank-osaka?tab=events")
    expect(page.locator("main table").first).to_contain_text("site suspended")


def test_the_matrix_is_that_of_a_profile(english: Watched, console: Federated) -> None:
    page = english.page
    page.goto(console.url + "/gateway")
    before = page.locator("table.matrix").inner_text()
    page.select_option("select[name=profiles]", "gov-cloud")
    page.get_by_role("button", name="Show", exact=True).click()
    assert "profiles=gov-cloud" in page.url
    assert page.locator("table.matrix").inner_text() != before
    expect(page.locator("select[name=profiles]")).to_have_value("gov-cloud")


def test_evidence_has_age_and_end(english: Watched, console: Federated) -> None:
    page = english.page
    page.goto(console.url + "/evidence")
    expect(page.locator("tr", has_text="Ishikari").first).to_contain_text("212 km")
    expect(page.locator("tr", has_text="Osaka").first).to_contain_text("runs out in")
    expect(page.locator("tr", has_text="Japan East").first).to_contain_text("ran out")


def test_a_site_is_approved_by_the_key_that_the_page_showed(english: Watched, console: Federated) -> None:
    """Last: it decides what the other tests look at."""
    page = english.page
    page.goto(console.url + "/sites")
    expect(page.locator("main")).to_contain_text(console.pins["ishikari-9"])
    expect(page.locator("main")).to_contain_text("ishikari-10")
    csrf = page.locator("main input[name=csrf]").first.get_attribute("value") or ""
    other = page.request.post(
        console.url + "/sites/ishikari-9/approve", form={"csrf": csrf, "pin": "sha256:" + "0" * 64}
    )
    assert other.status == 409
    assert "state.conflict" in other.text() or "fingerprint" in other.text()
    page.get_by_role("button", name="approve ishikari-9").click()
    expect(page.locator("#all-title + .scroll tr", has_text="ishikari-9")).to_contain_text("approved")
    expect(page.locator("main")).to_contain_text("No site waits for approval.")
