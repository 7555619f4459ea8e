"""The screen Ledger in a real browser, over a real log of this control plane. The passages are synthetic."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running import free_ports, until

from sekisho.assembly.app import build_app
from sekisho.assembly.configured import loader
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.ledger import log_origin, log_signer
from sekisho.assembly.plane import ControlPlane
from sekisho.kernel.clock import SystemClock
from sekisho.ledger.tlog.entries import decision_entry
from sekisho.ledger.tlog.proof import TlogProof
from sekisho.ledger.tlog.years import open_year
from support.accessible import DESKTOP, PHONE, assert_accessible
from support.control import decision

pytestmark = [pytest.mark.browser, pytest.mark.journey]
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
ENTRIES = 60


class Ledger:
    """A control plane in this process, and a log with `ENTRIES` decisions. Nobody is its witness."""

    def __init__(self, root: Path) -> None:
        self.home = Home.at(root)
        create(self.home)
        ensure_secrets(self.home)
        now_ms = int(time.time() * 1000)
        made = [decision(n, at_ms=now_ms - 60_000 + n) for n in range(ENTRIES)]
        self.id = made[42].id
        entries = [each for each in (decision_entry(msgspec.json.encode(one)) for one in made) if each]
        self.home.ledger.mkdir(mode=0o700, exist_ok=True)
        opened = open_year(
            self.home.ledger,
            origin=log_origin(self.home),
            signer=lambda name: log_signer(self.home, name),
            year=datetime.now(UTC).year,
            at_ms=now_ms,
            entry_id="0" * 32,
        )
        first = opened.log.append([each.data for each in entries])
        opened.index.add(first, entries)
        opened.close()
        self.log = self.home.ledger / f"{opened.year}"
        plane = ControlPlane(self.home, load=loader(self.home, None), clock=SystemClock())
        self.token = plane.admin_token
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.server = uvicorn.Server(uvicorn.Config(build_app(plane), port=port, log_config=None, ws="none"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started, what="the console")
        until(lambda: plane.ledger().counts == ENTRIES, what="the head")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    made = Ledger(tmp_path_factory.mktemp("ledger"))
    yield made
    made.server.should_exit = True
    made.thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield made
        made.close()


def enter(browser: Browser, ledger: Ledger, language: str, **context: object) -> Page:
    page = browser.new_context(viewport=DESKTOP, **context).new_page()  # type: ignore[arg-type]
    page.goto(f"{ledger.url}/sign-in?lang={language}")
    page.fill("input[name=token]", ledger.token)
    page.click("main button")
    page.wait_for_url(ledger.url + "/")
    return page


@pytest.mark.parametrize("language", ["ja", "en"])
def test_the_screen_is_accessible_and_fits(browser: Browser, ledger: Ledger, language: str, tmp_path: Path) -> None:
    page = enter(browser, ledger, language, bypass_csp=True)
    entry = f"/ledger/{ledger.id}"
    paths = ["/ledger", "/ledger?tenant=nobody", "/ledger/pack", entry]
    paths += [f"{entry}?tab={tab}" for tab in ("proof", "events", "raw")]
    for number, path in enumerate(paths):
        answer = page.goto(ledger.url + path)
        assert answer is not None
        assert answer.status == 200, path
        for size, name in ((DESKTOP, "desktop"), (PHONE, "phone")):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (path, name)
            assert_accessible(page, language=language, turn=number)
            page.screenshot(path=tmp_path / f"{language}-{name}-{number}.png", full_page=True)
    page.context.close()


def test_an_entry_is_found_proven_and_its_receipt_downloaded_without_javascript(
    browser: Browser, ledger: Ledger
) -> None:
    page = enter(browser, ledger, "en", java_script_enabled=False)
    page.goto(ledger.url + "/ledger")
    assert page.locator("table.passages tbody tr").count() == 25
    page.fill("input[name=id]", ledger.id)
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".held")).to_contain_text(f"entry 42 of {ENTRIES}")
    page.click("nav.tabs >> text=Proof")
    root = (page.locator(".proof .root text").text_content() or "").split()[-1].rstrip("…")
    assert root in page.locator("table tbody tr").filter(has_text=root).first.inner_text()
    cookies = {each["name"]: each["value"] for each in page.context.cookies()}  # type: ignore[typeddict-item]
    with httpx.Client(cookies=cookies, trust_env=False) as client:
        text = client.get(f"{ledger.url}/ledger/{ledger.id}/receipt/proof")
        assert TlogProof.parse(text.content).index == 42
        assert client.get(f"{ledger.url}/ledger/{ledger.id}/receipt/cose").content.startswith(b"\xd2")
    page.context.close()


def test_every_entry_is_reached_once_by_going_on(browser: Browser, ledger: Ledger) -> None:
    page = enter(browser, ledger, "en")
    page.goto(ledger.url + "/ledger?kind=decision")
    seen: list[str | None] = []
    while True:
        seen += [row.get_attribute("id") for row in page.locator("table.passages tbody tr").all()]
        if not page.locator("a[rel=next]").count():
            break
        page.click("a[rel=next]")
    assert len(seen) == len(set(seen)) == ENTRIES
    page.context.close()


def test_faults_of_a_pack_are_in_words_and_a_changed_log_is_found(browser: Browser, ledger: Ledger) -> None:
    page = enter(browser, ledger, "en")
    page.goto(ledger.url + "/ledger/pack")
    page.fill("input[name=since]", "2026-02-01T00:00")
    page.fill("input[name=until]", "2026-01-01T00:00")
    page.fill("input[name=seed]", "dice")
    page.get_by_role("button", name="Make the pack").click()
    expect(page.get_by_role("alert")).to_contain_text("the period ends before it begins")
    expect(page.locator("input[name=seed]")).to_have_value("dice")
    page.goto(ledger.url + "/ledger")
    page.get_by_role("button", name="Check now").click()
    expect(page.locator("section .held")).to_contain_text(f"All {ENTRIES} entries")
    tile = next((ledger.log / "tile" / "0").rglob("*.p/*"))
    whole = tile.read_bytes()
    tile.chmod(0o600)
    tile.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    page.get_by_role("button", name="Check now").click()
    expect(page.get_by_role("alert")).to_contain_text("The log differs at tile/0/")
    tile.write_bytes(whole)
    page.context.close()
