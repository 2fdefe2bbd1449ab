"""The system's Chromium, driven by Playwright, and everything that a page must not do.

Whoever opens a page by `Visit` learns at the end of complaints in its console, of what its content
security policy refused, of failures in its scripts, and of requests to another origin.
"""

import contextlib
import os
import re
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    async_playwright,
    expect,
)

REPOSITORY = Path(__file__).parents[2]
WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
SECONDS = 60.0
"""That a page gets for anything, on a slow machine."""
# Nothing but our pages is to be loaded, and nothing to be asked of its maker's servers.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
_VIOLATION = """
    document.addEventListener('securitypolicyviolation', (event) => {
        console.error(`policy: ${event.violatedDirective} refused ${event.blockedURI}`);
    });
"""
_FAILED_LOAD = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


def chromium() -> str:
    """The program. Skips the test where there is none."""
    given = os.environ.get("MILLRACE_TEST_CHROMIUM")
    known = REPOSITORY / ".chromium" / "program"
    if given is None and known.exists():
        given = known.read_text("utf-8").strip()
    found = given or shutil.which("chromium") or shutil.which("google-chrome")
    if found is not None and shutil.which(found):
        return found
    why_not = REPOSITORY / ".chromium" / "why-not"
    reason = why_not.read_text("utf-8").strip() if why_not.exists() else "nobody looked for it"
    pytest.skip(f"there is no Chromium: {reason}. scripts/ensure-chromium says what to do")


@contextlib.asynccontextmanager
async def a_browser() -> AsyncGenerator[Browser]:
    """A Chromium for as long as the block runs."""
    expect.set_options(timeout=1000 * SECONDS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=_ARGUMENTS, timeout=1000 * 60
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Visit:
    """One person's look at the console."""

    page: Page
    url: str
    expected: set[int] = field(default_factory=set)
    """Statuses of answers that the story is about; others from 400 on are complaints."""
    tolerated: str | None = None
    """What the console's messages may say without being complaints."""
    complaints: list[str] = field(default_factory=list)

    async def goto(self, path: str) -> None:
        """Load a page of the console."""
        await self.page.goto(f"{self.url}{path}")

    def watch(self, page: Page) -> None:
        """Note what a page must not do."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("request", self._asked)
        page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        known = _FAILED_LOAD.match(message.text) or (self.tolerated or "\0") in message.text
        if message.type in {"error", "warning"} and not known:
            where = message.location.get("url", "")
            self.complaints.append(f"console: {message.text} ({where})")

    def _asked(self, request: Request) -> None:
        outside = urlsplit(request.url).scheme not in {"data", "blob"}
        if outside and not request.url.startswith(f"{self.url}/"):
            self.complaints.append(f"another origin: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.complaints.append(f"{response.status}: {response.url}")


@contextlib.asynccontextmanager
async def visit(
    browser: Browser, url: str, key: str | None = None, **options: Any
) -> AsyncGenerator[Visit]:
    """A visitor with cookies of their own, signed in where a key is given.

    Raises AssertionError at the end if a page did what it must not.
    """
    context: BrowserContext = await browser.new_context(**{"viewport": WIDE} | options)
    context.set_default_timeout(1000 * SECONDS)
    try:
        await context.add_init_script(_VIOLATION)
        page = await context.new_page()
        made = Visit(page, url)
        made.watch(page)
        if key is not None:
            await _sign_in(context, url, key)
        yield made
        assert not made.complaints, "\n".join(made.complaints)
    finally:
        await context.close()


async def _sign_in(context: BrowserContext, url: str, key: str) -> None:
    """Without a page, which takes a tenth of the time."""
    answer = await context.request.post(f"{url}/console/login", form={"key": key}, max_redirects=0)
    assert answer.status == 303, await answer.text()
