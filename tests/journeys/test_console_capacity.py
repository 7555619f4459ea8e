"""The screen Capacity in a real browser, over a real control plane with 1,000 reservations. They are synthetic."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page
from running import free_ports, until
from test_console import AXE, DESKTOP, PHONE, browser

from sekisho.assembly.app import build_app
from sekisho.capacity.grid import SLOTS_PER_DAY
from sekisho.capacity.model import Quota, Wanted
from support.control import new_plane

__all__ = ["browser"]  # the fixture
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
        dice = random.Random(6)
        wishes = [
            self.wish(
                dice.choice(TENANTS),
                gpus=dice.choice((2, 4, 8, 8, 16)),
                day=dice.randrange(1, 360),
                days=dice.choice((1, 3, 7, 14)),
                priority=dice.choice(("standard", "standard", "critical", "backfill")),
            )
            for _ in range(BOOKED - 1)
        ]
        with ThreadPoolExecutor(16) as many:  # one commit is for many bookings
            list(many.map(lambda wish: self.capacity.book(wish, who="admin"), wishes))
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
        one,
        f"{one}?do=cancel",
        *(f"{one}?tab={tab}" for tab in ("why", "events", "raw")),
        pool,
        "/pools/azure-japan-east.h100",
        *(f"{pool}?tab={tab}" for tab in ("why", "events", "raw")),
        "/reservations/rv-0000",
    ]


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_screen_is_accessible_and_fits(
    browser: Browser, reserved: Reserved, language: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "capacity"
    folder.mkdir(exist_ok=True)
    page = enter(browser, reserved, language, bypass_csp=True)
    for size, name in ((DESKTOP, "desktop"), (PHONE, "phone")):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        for number, path in enumerate(screens(reserved)):
            answer = page.goto(reserved.url + path)
            assert answer is not None
            assert answer.status == (404 if path.endswith("rv-0000") else 200), path
            assert page.locator("html").get_attribute("lang") == language
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (path, name)
            page.screenshot(path=folder / f"{language}-{name}-{number:02d}.png", full_page=True)
            page.evaluate(AXE)
            found = page.evaluate("axe.run()")
            violations = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
            assert violations == [], (path, name)
    page.context.close()
