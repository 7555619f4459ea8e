"""The console in a real browser, from a real control process. The passages and the worker are synthetic."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from sekisho.assembly.config import load_config
from sekisho.gateway.settings import EndpointSnapshot, WorkerSnapshot
from support.accessible import DESKTOP, PHONE, assert_accessible
from support.control import decision, refusal, write_segment

pytestmark = [pytest.mark.browser, pytest.mark.journey]
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


class Console:
    """A control plane with 40 synthetic passages and one stand-in for a worker."""

    def __init__(self, home: Path) -> None:
        self.home = home
        now_ms = int(time.time() * 1000)
        self.allowed = decision(1, at_ms=now_ms - 60_000)
        self.refused = refusal(2, at_ms=now_ms - 30_000, data_class="restricted")
        older = [decision(n, at_ms=now_ms - 3_600_000 + n * 1000, tenant="manufacturer") for n in range(3, 41)]
        write_segment(home, 0, 1, [*older, self.allowed, self.refused])
        (home / "run").mkdir()
        self.config = home / "federation.toml"
        # The demonstration's sites are behind agents, which this control plane without a supervisor has none of: here
        # they are served as they stand in the configuration.
        default = resources.files("sekisho.assembly").joinpath("default.toml").read_text("utf-8")
        self.config.write_text(re.sub(r"(?m)^simulated = true\n", "", default))
        self._worker = socket.socket(socket.AF_UNIX)
        self._worker.bind(str(home / "run" / "worker-0.sock"))
        self._worker.listen(16)
        threading.Thread(target=self._answer, daemon=True).start()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.start()

    def start(self) -> None:
        fd = self._listening.fileno()
        with (self.home / "control.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "sekisho.assembly.control", "--home", str(self.home)),
                    *("--config", str(self.config), "--fd", str(fd)),
                ],
                pass_fds=(fd,),
                stderr=log,
            )
        httpx.get(self.url + "/readyz", timeout=60, trust_env=False).raise_for_status()
        deadline = time.monotonic() + 20
        while len(self.api("/api/v1/passages?limit=100")["passages"]) < 40:
            assert time.monotonic() < deadline, "the journals were not read"
            time.sleep(0.05)

    def api(self, path: str) -> dict[str, list[object]]:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(self.url + path, headers=headers, timeout=30, trust_env=False)
        answer.raise_for_status()
        return dict(answer.json())

    @property
    def token(self) -> str:
        return (self.home / "secrets" / "admin_token").read_text().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        self._listening.close()
        self._worker.close()

    def _answer(self) -> None:
        federation = load_config(None).config.federation
        while True:
            try:
                client, _ = self._worker.accept()
            except OSError:
                return  # the test is over
            with client:
                client.sendall(
                    msgspec.json.encode(
                        WorkerSnapshot(
                            index=0,
                            pid=1,
                            at=time.time(),
                            started_at=time.time(),
                            table_version=1 << 40,
                            table_issued_at=time.time(),
                            policy="",
                            connections=1,
                            in_flight=1,
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
                                    in_flight=1,
                                    slots=endpoint.slots,
                                    ewma_first_byte_ms=40.0,
                                    ejected_for_s=0.0,
                                    requests=10,
                                    failures=1,
                                )
                                for endpoint in federation.endpoints
                            ),
                            counters={'sekisho_requests_total{tenant="hospital"}': 3.0},
                            histograms={"sekisho_duration_seconds": ((1, 2, 3), 0.5)},
                            bounds=(0.1, 1.0),
                        )
                    )
                )


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    made = Console(tmp_path_factory.mktemp("console"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "Debian's chromium is needed: `make debian` installs it"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


class Watched:
    """A page of which everything that should never happen is kept."""

    def __init__(self, context: BrowserContext, console: Console) -> None:
        self.page: Page = context.new_page()
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        own = urlsplit(console.url).netloc
        self.page.on(
            "request", lambda asked: None if urlsplit(asked.url).netloc == own else self.elsewhere.append(asked.url)
        )
        # Content Security Policy violations are console errors in Chromium.
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))


def signed_in(browser: Browser, console: Console, language: str, **context: object) -> Iterator[Watched]:
    made = browser.new_context(viewport=DESKTOP, locale="en-US", timezone_id="Asia/Tokyo", **context)  # type: ignore[arg-type]
    watched = Watched(made, console)
    page = watched.page
    page.goto(f"{console.url}/sign-in?lang={language}")
    page.fill("input[name=token]", console.token)
    page.click("main button")
    page.wait_for_url(console.url + "/")
    yield watched
    made.close()
    assert watched.elsewhere == []
    assert watched.complaints == []


@pytest.fixture
def english(browser: Browser, console: Console) -> Iterator[Watched]:
    yield from signed_in(browser, console, "en")


def screens(console: Console) -> list[str]:
    passage = f"/passages/{console.allowed.id}"
    refused = f"/passages/{console.refused.id}"
    tabs = ("why", "events", "raw")
    return [
        "/",
        "/gateway",
        "/gateway?verdict=refused&class=restricted",
        "/gateway?tenant=developer",
        "/gateway/why",
        "/gateway/why?tenant=hospital&class=restricted&model=gpt-4o-mini",
        "/gateway/why?tenant=hospital&class=restricted&model=gpt-9",
        "/gateway/dry-run",
        "/gateway/map",
        "/gateway/dry-run?site=sakura-ishikari&country=US",
        passage,
        *(f"{passage}?tab={tab}" for tab in tabs),
        refused,
        f"{refused}?tab=why",
        "/sites/azure-us-west-2",
        *(f"/sites/azure-us-west-2?tab={tab}" for tab in tabs),
        "/endpoints/ishikari-1",
        *(f"/endpoints/ishikari-1?tab={tab}" for tab in tabs),
        "/keys",
        "/settings",
        "/api/docs",
    ]


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_screen_is_accessible_and_fits(browser: Browser, console: Console, language: str) -> None:
    """axe finds nothing, nothing sticks out on a phone, nothing comes from elsewhere, the policy is never broken."""
    for watched in signed_in(browser, console, language, bypass_csp=True):
        page = watched.page
        for number, path in enumerate(screens(console)):
            page.goto(console.url + path)
            assert page.locator("html").get_attribute("lang") == language
            for size in (DESKTOP, PHONE):
                page.set_viewport_size(size)
                assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (path, size)
                assert_accessible(page, language=language, turn=number)


def test_the_strict_policy_holds_on_every_screen(english: Watched, console: Console) -> None:
    """The fixture fails on any complaint of the browser; here the policy is in force."""
    for path in screens(console):
        answer = english.page.goto(console.url + path)
        assert answer is not None
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_nobody_gets_in_without_the_token(browser: Browser, console: Console) -> None:
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(console.url + "/gateway?class=restricted")
    assert urlsplit(page.url).path == "/sign-in"
    page.fill("input[name=token]", "wrong")
    page.click("main button")
    expect(page.get_by_role("alert")).to_contain_text("not the admin token")
    page.fill("input[name=token]", console.token)
    page.click("main button")
    page.wait_for_url(console.url + "/gateway?class=restricted")
    (cookie,) = [each for each in context.cookies() if each["name"] == "sekisho_session"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.click("details.menu summary")
    page.click("text=Sign out")
    page.goto(console.url + "/")
    assert urlsplit(page.url).path == "/sign-in"
    context.close()


def test_the_language_switch_keeps_page_and_filters(english: Watched, console: Console) -> None:
    page = english.page
    page.goto(console.url + "/gateway?verdict=refused&class=restricted")
    page.click("text=日本語")
    assert page.url == console.url + "/gateway?verdict=refused&class=restricted"
    expect(page.locator("h1")).to_have_text("関所")
    expect(page.locator("select[name=verdict]")).to_have_value("refused")


def test_new_passages_appear_by_themselves_and_can_be_paused(english: Watched, console: Console) -> None:
    page = english.page
    page.goto(console.url + "/gateway")
    fresh = decision(77, at_ms=int(time.time() * 1000))
    write_segment(console.home, 5, 1, [fresh])
    expect(page.locator(f"#p-{fresh.id}")).to_be_visible(timeout=10_000)
    page.click("text=Pause")
    assert "live=off" in page.url
    later = decision(78, at_ms=int(time.time() * 1000))
    write_segment(console.home, 6, 1, [later])
    page.wait_for_timeout(3_500)
    assert page.locator(f"#p-{later.id}").count() == 0
    page.click("text=Go on live")
    expect(page.locator(f"#p-{later.id}")).to_be_visible(timeout=10_000)


def test_pages_of_passages_meet_without_gaps(english: Watched, console: Console) -> None:
    page = english.page
    seen: list[str | None] = []
    page.goto(console.url + "/gateway?tenant=manufacturer")
    while True:
        seen += [row.get_attribute("id") for row in page.locator("table.passages tbody tr").all()]
        older = page.locator("a[rel=next]")
        if older.count() == 0:
            break
        older.click()
    assert len(seen) == len(set(seen)) == 38
    page.click("a[rel=prev]")
    assert page.locator("table.passages tbody tr").first.get_attribute("id") == seen[0]


def test_times_are_in_the_viewers_zone_with_utc_on_hover(english: Watched, console: Console) -> None:
    page = english.page
    page.goto(f"{console.url}/passages/{console.allowed.id}")
    shown = page.locator("time").first
    title = shown.get_attribute("title") or ""
    utc = re.fullmatch(r"(\d{4}-\d\d-\d\d) (\d\d):(\d\d:\d\d) UTC", title)
    assert utc, title
    assert shown.inner_text().endswith(f"{(int(utc[2]) + 9) % 24:02d}:{utc[3]}")


def test_everything_works_without_javascript(browser: Browser, console: Console) -> None:
    for watched in signed_in(browser, console, "en", java_script_enabled=False):
        page = watched.page
        page.goto(console.url + "/gateway")
        assert page.locator("time").first.inner_text().endswith("UTC")
        page.select_option("form.filters select[name=verdict]", "refused")
        page.click("text=Filter")
        expect(page.locator("table.passages tbody tr")).to_have_count(1)
        page.goto(console.url + "/gateway")
        page.get_by_role("button", name="Explain").click()
        expect(page.locator("#answer")).to_contain_text("Allowed")


def test_suspending_says_what_it_changes_and_can_be_undone(english: Watched, console: Console) -> None:
    page = english.page
    page.goto(console.url + "/sites/sakura-ishikari")
    page.click("main tbody a")
    endpoint = page.locator("h1").inner_text().split()[-1]
    expect(page.locator(".box .diff > li")).to_have_count(4)
    page.click(f"text=Suspend {endpoint}")
    expect(page.locator(".lead .state")).to_contain_text("suspended")
    page.goto(console.url + "/")
    expect(page.locator(".needs")).to_contain_text(f"{endpoint} is suspended")
    page.click("text=Resume it")
    page.click(f"text=Resume {endpoint}")
    expect(page.locator(".lead .state")).to_contain_text("serving")
    page.click("text=Events")
    expect(page.locator("main table").first).to_contain_text("endpoint suspended")


def test_a_key_is_shown_once_and_revoking_asks_first(english: Watched, console: Console) -> None:
    page = english.page
    page.goto(console.url + "/keys")
    page.fill("input[name=label]", "<b>ward</b> & 3")
    page.click("text=Make it")
    plain = page.locator(".made pre").inner_text()
    assert plain.startswith("sk-")
    expect(page.locator("main")).to_contain_text("<b>ward</b> & 3")
    page.goto(console.url + "/keys")
    assert plain not in page.content()
    row = page.locator("tr", has_text="<b>ward</b> & 3")
    row.get_by_text("Revoke…").click()
    expect(page.locator("#ask")).to_be_visible()
    page.click("text=Revoke it")
    expect(page.locator("tr", has_text="<b>ward</b> & 3")).to_contain_text("revoked")


def test_a_form_from_elsewhere_changes_nothing(browser: Browser, console: Console) -> None:
    for watched in signed_in(browser, console, "en"):
        answer = watched.page.request.post(console.url + "/endpoints/ishikari-1/suspend", form={"csrf": "0" * 64})
        assert answer.status == 403
        assert "form.stale" in answer.text()
        status = console.api("/api/v1/status")
        assert not any(row["suspended"] for row in status["endpoints"])  # type: ignore[index]


def test_first_paint_comes_within_a_second(english: Watched, console: Console) -> None:
    for path in ("/", "/gateway"):
        english.page.goto(console.url + path)
        painted = english.page.evaluate(
            """() => new Promise((found) => new PerformanceObserver((list) => {
                for (const each of list.getEntriesByName("first-contentful-paint")) found(each.startTime);
            }).observe({ type: "paint", buffered: true }))"""
        )
        assert painted < 1000, (path, painted)


def test_metrics_carry_the_worker(console: Console) -> None:
    text = httpx.get(console.url + "/metrics", timeout=30, trust_env=False).text
    assert 'sekisho_requests_total{tenant="hospital",worker="0"} 3.0' in text
    assert 'sekisho_duration_seconds_bucket{le="+Inf",worker="0"} 3.0' in text
    assert "sekisho_workers_answering 1.0" in text


def test_a_control_plane_that_dies_is_said_and_taken_back(browser: Browser, console: Console) -> None:
    """Last in this file: it kills the control plane. What is old must not look live."""
    context = browser.new_context(viewport=DESKTOP, locale="en-US")
    page = context.new_page()
    page.goto(f"{console.url}/sign-in?lang=en")
    page.fill("input[name=token]", console.token)
    page.click("main button")
    page.goto(console.url + "/gateway")
    console.kill()
    note = page.locator("live-region > .failed")
    expect(note).to_contain_text("Updates stopped arriving", timeout=20_000)
    console.start()
    expect(note).to_have_count(0, timeout=20_000)
    context.close()
