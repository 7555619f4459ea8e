"""The page that verifies a receipt: in a real browser, with real receipts, and without a request."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running import free_ports, until

from sekisho.assembly.app import build_app
from sekisho.assembly.configured import loader
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.plane import ControlPlane
from sekisho.kernel.clock import SystemClock
from support.accessible import assert_accessible
from support.ledger import NOW_S, LedgerLab, decision

pytestmark = [pytest.mark.browser, pytest.mark.journey]
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A control plane whose only ledger is a policy: no log, no key, nothing that could verify for the browser."""
    home = Home.at(tmp_path_factory.mktemp("home"))
    create(home)
    ensure_secrets(home)
    plane = ControlPlane(home, load=loader(home, None), clock=SystemClock())
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(build_app(plane), port=port, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, what="the console")
    until(lambda: list((home.ledger / "policy").glob("*.policy")), what="the policies")
    for file in (home.ledger / "policy").glob("*.policy"):
        file.unlink()
    (home.ledger / "policy" / "2026.policy").write_bytes(POLICY["text"])
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


POLICY: dict[str, bytes] = {}


@pytest.fixture(scope="module", autouse=True)
def receipts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("lab")
    lab = LedgerLab(folder)
    lab.log([decision(number) for number in range(77)])
    lab.publish()
    service = lab.service()
    made = {}
    for name, number in (("first", 0), ("middle", 42), ("last", 76)):
        receipt = service.receipt(decision(number).id.hex(), None, now_ms=NOW_S * 1000)
        assert isinstance(receipt, bytes)
        made[name] = receipt
    cose = service.receipt(decision(3).id.hex(), None, now_ms=NOW_S * 1000, form="cose")
    assert isinstance(cose, bytes)
    POLICY["text"] = lab.policy.encode()
    yield made | {"cose": cose}
    lab.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    assert executable is not None, "`make test` installs Debian's Chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(locale="en-US")
    made = context.new_page()
    failures: list[str] = []
    made.on("pageerror", lambda error: failures.append(str(error)))
    made.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
    made.goto(f"{url}/receipts/verify")
    yield made
    context.close()
    assert failures == []


def give(page: Page, data: bytes) -> None:
    page.locator("[data-verdict]").evaluate("element => { element.textContent = ''; }")
    page.locator("#receipt-file").set_input_files(
        [{"name": "r.tlog-proof", "mimeType": "text/plain", "buffer": data}]
    )
    expect(page.locator("[data-verdict]")).not_to_have_text("")


@pytest.mark.parametrize("name", ["first", "middle", "last"])
def test_the_browser_verifies_without_sending_anything(page: Page, receipts: dict[str, bytes], name: str) -> None:
    asked: list[str] = []
    # The tab's icon may still be on its way.
    page.on("request", lambda request: "mark.svg" in request.url or asked.append(f"{request.method} {request.url}"))
    give(page, receipts[name])
    expect(page.locator("[data-verdict]")).to_have_text("This receipt holds.")
    facts = page.locator("[data-facts]").inner_text()
    for words in ("ishikari · sakura · JP", "jp-only, fresh-evidence", "ab" * 32, "sekisho.example/log/2026"):
        assert words in facts
    assert facts.count("sekisho.example/w/") == 3
    assert asked == []


def test_no_changed_byte_is_accepted_in_the_browser(page: Page, receipts: dict[str, bytes]) -> None:
    """Every byte, by the same function that the page uses."""
    good = receipts["middle"]
    give(page, good)
    accepted = page.evaluate(
        """async (good) => {
            const policies = document.querySelector("receipt-check").policies;
            const accepted = [];
            for (let at = 0; at < good.length; at++) {
                for (const byte of new Set([good[at] ^ 1, good[at] ^ 0x20])) {
                    const changed = Uint8Array.from(good);
                    changed[at] = byte;
                    try { await verify(changed, policies, Date.now() / 1000); accepted.push([at, byte]); } catch { }
                }
            }
            await verify(Uint8Array.from(good), policies, Date.now() / 1000);
            return accepted;
        }""",
        list(good),
    )
    assert accepted == []


def test_refusals_are_said_in_words(page: Page, receipts: dict[str, bytes]) -> None:
    lines = receipts["middle"].split(b"\n")
    give(page, b"\n".join(lines[:-2]) + b"\n")
    expect(page.locator("[data-verdict]")).to_contain_text("Too few witnesses cosigned. [receipt.quorum]")
    give(page, b"\n".join([lines[0], lines[1], b"index 41", *lines[3:]]))
    expect(page.locator("[data-verdict]")).to_contain_text("[receipt.forged]")
    give(page, b"nothing of the kind")
    expect(page.locator("[data-verdict]")).to_contain_text("[receipt.malformed]")
    give(page, receipts["cose"])
    expect(page.locator("[data-verdict]")).to_contain_text("command line")
    expect(page.locator("[data-facts]")).to_be_hidden()


def test_the_page_is_accessible_strict_and_japanese(page: Page, url: str, receipts: dict[str, bytes]) -> None:
    give(page, receipts["first"])
    assert_accessible(page)
    assert "unsafe" not in httpx.get(f"{url}/receipts/verify").headers["content-security-policy"]
    page.goto(f"{url}/receipts/verify?lang=ja")
    give(page, receipts["first"])
    expect(page.locator("[data-verdict]")).to_have_text("この受領証は正当です。")
