"""A real browser for tests: Debian's chromium, pages that leave a picture when a test fails, and screenshots.

What is on the pages of Dagster is the tests' business.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from backfill_dagster_tests.requirements import need

VIEWPORT: ViewportSize = {"width": 1600, "height": 1000}
ANSWER_MS_MAX = 40_000
"""How long a page may take to show what it has been asked for."""

SCREENSHOTS_VARIABLE = "BACKFILL_SCREENSHOTS"
STEADY_TRIES = 10

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whoever else is asked is not found at once, instead of after a time-out where there is no internet.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Window:
    """Chromium, looking at one site.

    Attributes:
        outside: addresses elsewhere that the site's pages have asked for.
    """

    def __init__(self, context: BrowserContext, url: str, *, scratch: Path) -> None:
        self._context = context
        self._url = url
        self._scratch = scratch
        self.outside: list[str] = []
        context.set_default_timeout(ANSWER_MS_MAX)
        context.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        address = urlsplit(url)
        if address.scheme not in ("data", "blob") and address.netloc != urlsplit(self._url).netloc:
            self.outside.append(url)

    @contextmanager
    def page(self, path: str) -> Iterator[Page]:
        """A page of the site; whatever fails on it says where a picture of it is."""
        page = self._context.new_page()
        try:
            page.goto(self._url + path)
            yield page
        except Exception as error:
            self._leave_a_picture(page, error)
            raise
        finally:
            page.close()

    def _leave_a_picture(self, page: Page, error: Exception) -> None:
        path = self._scratch / f"failure_{len(list(self._scratch.glob('failure_*')))}.png"
        try:
            page.screenshot(path=path)
        except PlaywrightError as why:
            error.add_note(f"the browser was at {page.url}; no picture of it: {why}")
        else:
            error.add_note(f"the browser was at {page.url} and showed {path}")

    def shoot(self, page: Page, name: str) -> Path:
        """Take a picture once nothing moves any more; where BACKFILL_SCREENSHOTS says, else where no one looks."""
        folder = Path(os.environ.get(SCREENSHOTS_VARIABLE) or self._scratch)
        folder.mkdir(parents=True, exist_ok=True)
        page.mouse.move(0, 0)
        picture = page.screenshot()
        for _ in range(STEADY_TRIES):
            before, picture = picture, page.screenshot()
            if picture == before:
                break
        path = folder / f"{name}.png"
        path.write_bytes(picture)
        return path


def need_chromium() -> Path:
    """The browser; skips where there is none."""
    found = shutil.which("chromium")
    need(found is not None, "no chromium on PATH: apt-get install chromium")
    assert found is not None
    return Path(found)


@contextmanager
def open_window(chromium: Path, url: str, *, scratch: Path) -> Iterator[Window]:
    """Start the browser with a new profile.

    Not to be held across async tests of the same thread: playwright's own event loop counts as running meanwhile.
    """
    scratch.mkdir(exist_ok=True)
    expect.set_options(timeout=ANSWER_MS_MAX)
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            context = browser.new_context(
                viewport=VIEWPORT, device_scale_factor=1, locale="en-GB", timezone_id="UTC", color_scheme="light"
            )
            yield Window(context, url, scratch=scratch)
        finally:
            browser.close()


def is_uncovered(part: Locator) -> bool:
    """Whether the middle of a part of a page is in view and under nothing else."""
    return bool(
        part.evaluate(
            "part => { const box = part.getBoundingClientRect();"
            " const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);"
            " return top !== null && (part.contains(top) || top.contains(part)); }"
        )
    )


def expect_all(parts: Locator, is_so: Callable[[Locator], list[bool]], *, at_least: int, at_most: int = 1000) -> None:
    """Wait until there are so many of these parts, and something is true of each of them.

    All of them are asked in one step: a page that still draws itself has now more of them and now fewer.
    """
    deadline = time.monotonic() + ANSWER_MS_MAX / 1000
    while not (at_least <= len(found := is_so(parts)) <= at_most and all(found)):
        assert time.monotonic() < deadline, f"after {ANSWER_MS_MAX} ms {is_so.__name__} said {found}"
        parts.page.wait_for_timeout(100)


def is_green(parts: Locator) -> list[bool]:
    """Of each of these parts of a page, whether it is filled with a green."""
    colours = parts.evaluate_all("parts => parts.map(part => getComputedStyle(part).backgroundColor)")
    return [_is_green(colour) for colour in colours]


def _is_green(colour: str) -> bool:
    red, green, blue = (float(number) for number in colour.partition("(")[2].rstrip(")").split(",")[:3])
    return green > 1.3 * max(red, blue)


def is_drawn(canvases: Locator) -> list[bool]:
    """Of each of these canvases, whether anything has been drawn on it."""
    return [
        bool(drawn)
        for drawn in canvases.evaluate_all(
            "all => all.map(c => c.width > 0 && c.height > 0 &&"
            " c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(value => value > 0))"
        )
    ]
