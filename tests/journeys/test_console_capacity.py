"""The screen Capacity in a real browser, over a real control plane with 1,000 reservations. They are synthetic."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect
from running import free_ports, until
from test_console import ARGUMENTS, browser

from sekisho.assembly.app import build_app
from sekisho.capacity import store
from sekisho.capacity.authority import take
from sekisho.capacity.grid import SLOTS_PER_DAY
from sekisho.capacity.model import Part, Placement, Quota, Reservation, Wanted
from support.accessible import DESKTOP, PHONE, assert_accessible
from support.control import new_plane

__all__ = ["ARGUMENTS", "browser"]  # the fixture, and what docs/pictures/make.py takes
pytestmark = [pytest.mark.browser, pytest.mark.journey]
POOLS = (
    ("sakura-ishikari", "h200", 512, 620),
    ("softbank-osaka", "b200", 256, 900),
    ("azure-japan-east", "h100", 256, 480),
    ("azure-us-west-2", "h100", 512, 300),
)
TENANTS = ("hospital", "manufacturer", "developer")
BOOKED = 1_000


class Reserved:
    """A control plane in this process. Pools, a thousand bookings, a waitlist, quotas and maintenance."""

    def __init__(self, root: Path) -> None:
        self.plane = new_plane(root)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.server = uvicorn.Server(uvicorn.Config(build_app(self.plane), port=port, log_config=None, ws="none"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started, what="the console")
        office = self.plane.reservations.office
        self.capacity, self.life, self.survey = office.capacity, office.life, office.survey
        for site, gpu, gpus, yen in POOLS:
            self.capacity.set_pool(
                site=site, gpu=gpu, gpus=gpus, tenant_limit=None, yen_per_gpu_hour=yen, who="admin"
            )
        self.today = int(time.time()) // 86_400 * SLOTS_PER_DAY
        self.first = self.book("hospital", gpus=64, day=10, days=14, gpu="h200", data_class="confidential")
        self._fill(random.Random(6))
        self.life.block(
            "softbank-osaka.b200",
            first=self.today + 5 * SLOTS_PER_DAY,
            until=self.today + 8 * SLOTS_PER_DAY,
            gpus=128,
            who="admin",
        )
        self.capacity.set_quota(
            Quota(pool=0, tenant="hospital", cohort="medical", nominal=64, lends=32, borrows=0),
            pool="azure-japan-east.h100",
            who="admin",
        )
        self.life.join_waitlist(self.wish("hospital", gpus=400, day=12, days=14, gpu="h200"))

    def _fill(self, dice: random.Random) -> None:
        """The rest of the thousand in one transaction; the second guard looks at each."""
        pools = {pool.number: pool for pool in self.capacity.pools()}
        with self.plane.database.write(alone=False) as connection:
            for _ in range(BOOKED - 1):
                wish = self.wish(
                    dice.choice(TENANTS),
                    gpus=dice.choice((2, 4, 8, 8, 16, 32)),
                    day=dice.randrange(1, 360),
                    days=dice.choice((1, 3, 7, 14)),
                    priority=dice.choice(("standard", "standard", "critical", "backfill")),
                )
                part = Part(pool=dice.choice(list(pools)), gpus=wish.gpus)
                placed = Placement(parts=(part,), first=wish.first, until=wish.first + wish.slots)
                booking = self.capacity.booking(wish, placed, pools)
                take(connection, booking)
                made = Reservation(id=booking.id, version=1, body=booking.body)
                store.insert(connection, made, now=time.time(), who="admin", why="booked")

    def wish(
        self,
        tenant: str,
        *,
        gpus: int,
        day: int,
        days: int,
        gpu: str = "",
        data_class: str = "internal",
        priority: str = "standard",
    ) -> Wanted:
        first = self.today + day * SLOTS_PER_DAY
        return Wanted(
            tenant=tenant,
            data_class=data_class,
            gpu_models=(gpu,) if gpu else (),
            gpus=gpus,
            gpus_min=gpus,
            first=first,
            latest=first,
            slots=days * SLOTS_PER_DAY,
            priority=priority,  # type: ignore[arg-type]
        )

    def book(self, tenant: str, **wish: object) -> str:
        return self.capacity.book(self.wish(tenant, **wish), who="admin").id  # type: ignore[arg-type]

    def day(self, days: int) -> str:
        """In a form, for somebody in Japan: 9 o'clock there is midnight UTC."""
        at = datetime.fromtimestamp(self.today * 900, UTC) + timedelta(days=days, hours=9)
        return at.strftime("%Y-%m-%dT%H:%M")


@pytest.fixture(scope="module")
def reserved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reserved]:
    made = Reserved(tmp_path_factory.mktemp("reserved"))
    yield made
    made.server.should_exit = True
    made.thread.join(10)


def enter(browser: Browser, reserved: Reserved, language: str, **context: object) -> Page:
    page = browser.new_context(viewport=DESKTOP, timezone_id="Asia/Tokyo", **context).new_page()  # type: ignore[arg-type]
    page.goto(f"{reserved.url}/sign-in?lang={language}")
    page.fill("input[name=token]", reserved.plane.admin_token)
    page.click("main button")
    page.wait_for_url(reserved.url + "/")
    return page


def question(reserved: Reserved, *, gpus: int = 64, gpu: str = "h100", tenant: str = "hospital") -> str:
    return (
        f"/capacity/find?tenant={tenant}&class=confidential&gpus={gpus}&gpu={gpu}&start={reserved.day(40)}"
        "&length=2&unit=weeks&zone=Asia/Tokyo"
    )


def screens(reserved: Reserved) -> list[str]:
    one = f"/reservations/{reserved.first}"
    pool = "/pools/softbank-osaka.b200"
    return [
        "/capacity",
        "/capacity?by=tenant",
        "/capacity?pool=sakura-ishikari.h200&days=91",
        "/capacity?tenant=hospital&days=366",
        "/capacity?state=cancelled",
        "/capacity/find",
        question(reserved),
        question(reserved, gpu="h200"),
        question(reserved, gpus=100_000),
        question(reserved, gpu="z9"),
        "/capacity/waitlist",
        "/capacity/pools",
        "/capacity/notices",
        "/capacity/throughput",
        one,
        f"{one}?do=cancel",
        *(f"{one}?tab={tab}" for tab in ("why", "events", "raw")),
        pool,
        "/pools/azure-japan-east.h100",
        *(f"{pool}?tab={tab}" for tab in ("why", "events", "raw")),
        "/reservations/rv-0000",
    ]


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_screen_is_accessible_and_fits(browser: Browser, reserved: Reserved, language: str) -> None:
    """axe finds nothing, and nothing sticks out on a desk or on a telephone."""
    page = enter(browser, reserved, language, bypass_csp=True)
    for number, path in enumerate(screens(reserved)):
        answer = page.goto(reserved.url + path)
        assert answer is not None
        assert answer.status == (404 if path.endswith("rv-0000") else 200), path
        assert page.locator("html").get_attribute("lang") == language
        for size in (PHONE, DESKTOP):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (path, size)
            assert_accessible(page, language=language, turn=number)
    page.context.close()


def test_a_window_is_found_booked_changed_and_cancelled_without_javascript(
    browser: Browser, reserved: Reserved
) -> None:
    page = enter(browser, reserved, "en", java_script_enabled=False)
    page.goto(reserved.url + "/capacity/find")
    page.select_option("select[name=class]", "confidential")
    page.fill("input[name=gpus]", "64")
    page.check("input[name=gpu][value=h100]")
    page.fill("input[name=start]", reserved.day(400))
    page.fill("input[name=length]", "2")
    page.select_option("select[name=unit]", "weeks")
    page.get_by_role("button", name="Ask").click()
    # the hospital has 64 GPUs of its own of the pool in Japan; the pool overseas is closed to its class
    expect(page.locator("#answer")).to_contain_text("Yes: 64 × azure-japan-east.h100")
    closed = page.locator("tr").filter(has_text="closed by the policy")
    expect(closed).to_contain_text("site-in-jurisdiction")
    page.get_by_role("button", name="Book").first.click()
    expect(page.locator("h1")).to_contain_text("Reservation of hospital")
    name = page.url.rsplit("/", 1)[1]
    held = reserved.capacity.get(name)
    assert (held.body.gpus, held.body.until - held.body.first) == (64, 14 * 96)

    page.get_by_text("Shrink", exact=True).click()
    page.fill("form:has(input[value=shrink]) input[name=gpus]", "32")
    page.get_by_role("button", name="Show what comes back").click()
    half = f"{held.body.price_yen // 2:,}"
    expect(page.locator("#consequence")).to_contain_text(f"¥{half}")  # a year ahead everything comes back
    assert reserved.capacity.get(name) == held, "nothing was done yet"
    page.get_by_role("button", name="Shrink it").click()
    assert reserved.capacity.get(name).body.gpus == 32

    page.get_by_role("link", name="Cancel…").click()
    button = page.get_by_role("button", name="Cancel it")
    expect(button).to_contain_text(f"¥{half} back")
    button.click()
    expect(page.locator(".lead")).to_contain_text("cancelled")
    assert reserved.capacity.get(name).body.refund_yen == held.body.price_yen
    page.get_by_role("link", name="Events").click()
    assert [row.inner_text() for row in page.locator("tbody tr td:nth-child(4)").all()] == [
        "cancelled",
        "shrunk",
        "booked",
    ]
    page.context.close()


def test_what_somebody_else_changed_meanwhile_is_not_changed_blindly(browser: Browser, reserved: Reserved) -> None:
    name = reserved.book("developer", gpus=8, day=410, days=2)
    page = enter(browser, reserved, "ja")
    page.goto(f"{reserved.url}/reservations/{name}?do=cancel")
    held = reserved.capacity.get(name)
    reserved.life.extend(name, until=held.body.until + 4, version=None, who="another")
    page.locator("#consequence button").click()
    expect(page.get_by_role("alert")).to_contain_text("ほかの人が先に変更しました")
    assert reserved.capacity.get(name).body.state == "booked"
    page.context.close()


def test_an_offer_that_is_gone_says_so_and_brings_new_ones(browser: Browser, reserved: Reserved) -> None:
    page = enter(browser, reserved, "en")
    page.goto(reserved.url + question(reserved, gpu="h200", gpus=8))
    remaining = page.locator("count-down")
    expect(remaining).to_have_text(re.compile(r"^[0-4]:[0-5]\d$"))
    page.locator("input[name=offer]").first.evaluate("field => { field.value = 'rv-long-gone' }")
    page.get_by_role("button", name="Book").first.click()
    expect(page.get_by_role("alert").first).to_contain_text("reserve.offer_gone")
    assert page.get_by_role("button", name="Book").count() >= 6
    page.context.close()


def test_the_waitlist_says_why_it_waits_and_what_leaving_costs(browser: Browser, reserved: Reserved) -> None:
    wish = reserved.wish("manufacturer", gpus=500, day=10, days=14, gpu="h200")
    joined = reserved.life.join_waitlist(wish)
    page = enter(browser, reserved, "en")
    page.goto(reserved.url + "/capacity/waitlist")
    row = page.locator(f"#{joined.id}")
    expect(row).to_contain_text("Of 500 GPUs")
    row.get_by_role("link", name="Take off").click()
    expect(page.locator(".box-danger")).to_contain_text("loses its place")
    page.get_by_role("button", name="Take it off").click()
    expect(page.locator(f"#{joined.id}")).to_have_count(0)
    page.context.close()


def test_maintenance_shows_whom_it_touches_before_it_is_done(browser: Browser, reserved: Reserved) -> None:
    name = reserved.book("developer", gpus=200, day=700, days=2, gpu="b200")
    page = enter(browser, reserved, "en")
    page.goto(reserved.url + "/pools/softbank-osaka.b200")
    form = page.locator("form:has(input[value=block])")
    form.locator("input[name=start]").fill(reserved.day(700))
    form.locator("input[name=end]").fill(reserved.day(702))
    form.locator("input[name=gpus]").fill("100")
    form.get_by_role("button").click()
    expect(page.locator("#consequence")).to_contain_text("1 reservation is planned anew")
    assert reserved.capacity.get(name).version == 1
    page.get_by_role("button", name="Take them out").click()
    after = reserved.capacity.get(name)
    assert after.version == 2
    page.goto(reserved.url + "/capacity/notices")
    expect(page.locator("tbody")).to_contain_text(name)
    page.goto(reserved.url + "/")
    expect(page.locator("main")).to_contain_text(f"The reservation {name}")
    page.context.close()


def test_every_reservation_is_reached_once_and_no_page_is_a_flood(browser: Browser, reserved: Reserved) -> None:
    page = enter(browser, reserved, "en")
    page.goto(reserved.url + "/capacity?days=1461&tenant=developer")
    seen: list[str] = []
    while True:
        rows = page.locator("table.passages tbody th").all_inner_texts()
        assert len(rows) <= 25
        assert page.locator(".timeline-bars a").count() == len(rows), "what the table has, the picture has"
        seen += rows
        following = page.locator("a[rel=next]")
        if not following.count():
            break
        page.goto(reserved.url + str(following.get_attribute("href")))
    known = reserved.capacity.reservations(tenant="developer", state="booked", limit=2000)
    assert sorted(seen) == sorted(each.id for each in known)
    page.context.close()


def test_the_picture_is_reached_by_keyboard(browser: Browser, reserved: Reserved) -> None:
    page = enter(browser, reserved, "en")
    page.goto(reserved.url + "/capacity?days=366")
    page.locator(".timeline-bars a").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.timeline-bars') !== null")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/reservations/rv-"))
    page.context.close()


def test_forms_from_elsewhere_change_nothing(browser: Browser, reserved: Reserved) -> None:
    page = enter(browser, reserved, "en")
    for path in (
        "/capacity/find",
        f"/reservations/{reserved.first}",
        "/capacity/pools",
        "/pools/softbank-osaka.b200",
        "/capacity/waitlist/rv-1/leave",
    ):
        answer = page.request.post(reserved.url + path, form={"do": "cancel", "version": "1", "csrf": "0" * 64})
        assert answer.status == 403, path
    assert reserved.capacity.get(reserved.first).version == 1
    page.context.close()
