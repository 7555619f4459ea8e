"""The map of sites in a real browser: what is measured and counted while people look shows up by itself, without
JavaScript it is there too. The measurements are SCRIPTED (their verdicts are not); the control process is real."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sekisho.assembly.configured import loader
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.plane import ControlPlane
from sekisho.federation.border import Reading, Tally, Way, sign, statement
from sekisho.kernel.clock import SystemClock
from sekisho.residency.location.decide import decide, facts
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.model import Claim, Sighting
from sekisho.residency.location.service import Kept
from support.accessible import DESKTOP, PHONE, assert_accessible

pytestmark = [pytest.mark.browser, pytest.mark.journey]
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OSAKA = "softbank-osaka"
GUARDED = Way(site="osaka", peer="us-west", data_class="confidential")
CANARY = Way(site="tokyo", peer="virginia", data_class="public", canary=True)


class Post:
    """A control process on a home that this test writes into as well."""

    def __init__(self, root: Path) -> None:
        self.home = Home.at(root)
        create(self.home)
        ensure_secrets(self.home)
        self.plane = ControlPlane(self.home, load=loader(self.home, None), clock=SystemClock())
        self.key = Ed25519PrivateKey.generate()
        self.plane.borders.trust("jp", self.key.public_key().public_bytes_raw().hex(), now=time.time(), actor="test")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        fd = self._listening.fileno()
        with (root / "control.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sekisho.assembly.control", "--home", str(root), "--fd", str(fd)],
                pass_fds=(fd,),
                stderr=log,
            )
        deadline = time.monotonic() + 180
        while True:
            try:
                if httpx.get(self.url + "/readyz", timeout=10, trust_env=False).is_success:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, "the control plane does not answer"
            time.sleep(0.2)

    @property
    def token(self) -> str:
        return self.home.admin_token.read_text().strip()

    def measure(self, rtt_ms: float, *, landmark: str, latitude: float, longitude: float) -> None:
        now = time.time()
        site = next(each for each in self.plane.federation.effective(now=now).sites if each.id == OSAKA)
        assert site.latitude is not None
        assert site.longitude is not None
        claim = Claim(site=OSAKA, country="JP", latitude=site.latitude, longitude=site.longitude)
        sighting = Sighting(
            landmark=landmark,
            latitude=latitude,
            longitude=longitude,
            position_error_km=1.0,
            rtt_ms=rtt_ms,
            at=now,
            digest=f"{now}",
        )
        finding = decide(claim, (sighting,), natural_earth(), now=now, validity_s=3600.0)
        standing = facts(finding)
        self.plane.evidence.record_location(
            OSAKA,
            verdict=standing.verdict,
            margin_km=standing.margin_km,
            until=standing.until,
            digest=standing.digest,
            detail=msgspec.json.encode(Kept(finding=finding, measurements=())),
            now=now,
            actor="test",
        )

    def state(self, *, guarded: int, canary: int) -> None:
        now = time.time()
        previous = self.plane.borders.last("jp")
        seen = {GUARDED: Tally(out_packets=guarded), CANARY: Tally(out_packets=canary)}
        to_ms = int(now * 1000)
        made = statement(
            border="jp",
            before={},
            after={way: Reading(line=tally, interface=tally, capture=tally) for way, tally in seen.items()},
            from_ms=to_ms - 1000 if previous is None else previous.to_ms,
            to_ms=to_ms,
            previous=previous,
        )
        self.plane.borders.take("jp", (sign(made, self.key),), now=now)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listening.close()
        self.plane.database.close()


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    made = Post(tmp_path_factory.mktemp("map"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield made
        made.close()


def opened(browser: Browser, post: Post, language: str, *, scripts: bool = True) -> tuple[Page, list[str]]:
    context = browser.new_context(locale="en-US", java_script_enabled=scripts)
    context.set_default_timeout(120_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(f"{post.url}/sign-in?lang={language}&next=/gateway/map")
    page.fill("input[name=token]", post.token)
    page.click("main button")
    page.wait_for_url(f"{post.url}/gateway/map")
    return page, complaints


def test_what_is_measured_and_counted_shows_up_while_people_look(browser: Browser, post: Post) -> None:
    page, complaints = opened(browser, post, "en")
    row = page.locator("table.places tr", has_text="SoftBank")
    expect(row).to_contain_text("declared only")
    expect(row).to_contain_text("simulated")
    expect(page.locator("main")).to_contain_text("relay")  # the limits stand on the page
    before = page.locator("img.map").first.get_attribute("src")

    post.measure(1.0, landmark="kobe", latitude=34.69, longitude=135.18)
    post.state(guarded=0, canary=7)
    expect(row).to_contain_text("proven inside", timeout=60_000)
    expect(row).to_contain_text("kobe 1.00 ms")
    assert page.locator("img.map").first.get_attribute("src") != before
    expect(page.locator("main")).to_contain_text("clean")
    guarded = page.locator("tr", has_text="osaka – us-west").locator("td.n")
    expect(guarded).to_have_text(["0", "0", "0"])
    canary = page.locator("tr", has_text="tokyo – virginia").locator("td.n")
    expect(canary).to_have_text(["7", "7", "7"])

    post.measure(3.0, landmark="quincy", latitude=47.23, longitude=-119.85)
    post.state(guarded=1, canary=2)
    expect(row).to_contain_text("contradicted", timeout=60_000)
    expect(page.locator("main")).to_contain_text("something guarded crossed")
    row.get_by_text("draw").click()
    for number in range(2):
        picture = page.locator("img.map").nth(number)
        deadline = time.monotonic() + 120
        while not picture.evaluate("image => image.complete && image.naturalWidth > 0"):
            assert time.monotonic() < deadline, "a picture did not arrive"
            page.wait_for_timeout(100)
    assert complaints == []
    page.context.close()


@pytest.mark.parametrize("language", ["en", "ja"])
def test_it_is_accessible_and_there_without_scripts(browser: Browser, post: Post, language: str) -> None:
    post.measure(1.0, landmark="kobe", latitude=34.69, longitude=135.18)
    plain, _ = opened(browser, post, language, scripts=False)
    expect(plain.locator("table.places")).to_contain_text("kobe")
    plain.context.close()
    context = browser.new_context(locale="en-US", bypass_csp=True)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"{post.url}/sign-in?lang={language}&next=/gateway/map")
    page.fill("input[name=token]", post.token)
    page.click("main button")
    page.wait_for_url(f"{post.url}/gateway/map")
    for number, path in enumerate(("/gateway/map", f"/gateway/map?site={OSAKA}")):
        page.goto(post.url + path)
        for size in (DESKTOP, PHONE):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            assert_accessible(page, language=language, turn=number)
    picture = httpx.get(
        f"{post.url}/gateway/map.svg?in={language}",
        cookies={each["name"]: each["value"] for each in context.cookies()},
        trust_env=False,
        timeout=60,
    )
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert OSAKA in picture.text
    context.close()
