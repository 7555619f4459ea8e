"""`python docs/pictures/make.py`: the pictures of the console in the READMEs, from a control plane with synthetic
reservations and Debian's Chromium."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "journeys"), str(ROOT / "tests")]

from test_console_capacity import ARGUMENTS, Reserved, enter  # noqa: E402 - found by the path above

SIZE = {"width": 1280, "height": 1040}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        reserved = Reserved(Path(folder))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for language in ("en", "ja"):
            page = enter(browser, reserved, language)
            page.set_viewport_size(SIZE)  # type: ignore[arg-type]
            page.goto(reserved.url + "/capacity?days=91")
            page.screenshot(path=HERE / f"console.{language}.png")
        browser.close()
        reserved.server.should_exit = True
        reserved.thread.join(10)


if __name__ == "__main__":
    main()
