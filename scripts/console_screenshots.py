"""Take the pictures of docs/console.md: a lived-in console in the system's Chromium.

    .venv/bin/python scripts/console_screenshots.py [FOLDER]

Light and dark, on a desk and on a phone.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Final

import structlog
from playwright.async_api import Browser, Page, ViewportSize, expect

REPOSITORY: Final = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench.console_examples import REQUEST_HEADER  # noqa: E402 - the path first
from db import migrate  # noqa: E402 - the path first
from db.engine import create_engine  # noqa: E402 - the path first
from scripts.palette_png import shrunk  # noqa: E402 - the path first
from tests import servers  # noqa: E402 - the path first
from tests.integration.master.mill import Mill  # noqa: E402 - the path first
from tests.scenarios.browser import Visit, a_browser, visit  # noqa: E402 - the path first
from tests.scenarios.town import SLOWLY, a_town  # noqa: E402 - the path first

SIZES: Final[Mapping[str, ViewportSize]] = {
    "desk": {"width": 1280, "height": 800},
    "phone": {"width": 390, "height": 844},
}
THEMES: Final = ("light", "dark")
SPEED: Final = {"tokens_per_second": 40, "first_token_seconds": 0.4}
COPIES: Final = 20_000
_TRIED = "SELECT id FROM millrace.rules WHERE state = 'canary'"
QUESTION = f"""{SLOWLY}:
1. Why does the wheel of a mill turn?
2. What does the runner stone do?
3. Where does the water go afterwards?"""
# The engine refuses what is to be done at once, the first time.
COMPARED = """1. Why does the wheel of a mill turn?
2. At once: what does the runner stone do?
3. Compare both."""

Show = Callable[[Visit, Mill], Awaitable[None]]


async def overview(seen: Visit, mill: Mill) -> None:
    """What goes on now."""
    await seen.goto("/console")
    await expect(seen.page.get_by_role("heading", name="Overview")).to_be_visible()


async def request(seen: Visit, mill: Mill) -> None:
    """A split that was answered, one part of it by the second attempt."""
    answer = await mill.ask(COMPARED, "millrace/split")
    await seen.goto(f"/console/requests/{answer.headers[REQUEST_HEADER]}")
    await seen.page.get_by_role("heading", name="Timeline").scroll_into_view_if_needed()
    await seen.page.evaluate("scrollTo(0, 0)")


async def playground(seen: Visit, mill: Mill) -> None:
    """A split while its parts are written."""
    await seen.goto("/console/playground")
    await seen.page.get_by_label("Model or strategy").select_option("millrace/split")
    await seen.page.get_by_label("Question").fill(QUESTION)
    await seen.page.get_by_role("button", name="Send").click()
    await _written(seen.page)


async def _written(page: Page) -> None:
    """Wait until a good deal of the answer is there."""
    await expect(page.locator(".reply")).to_contain_text("wood brings")
    await page.evaluate("scrollTo(0, 0)")


async def rules(seen: Visit, mill: Mill) -> None:
    """A rule on trial."""
    await seen.goto(f"/console/rules/{(await mill.rows(_TRIED))[0][0]}")


async def search(seen: Visit, mill: Mill) -> None:
    """What is found, and by which leg."""
    await seen.goto("/console/search?query=runner+stone+dressed&collection=handbook&top=3")


PAGES: Final[Mapping[str, Show]] = {
    "overview": overview,
    "request": request,
    "playground": playground,
    "rules": rules,
    "search": search,
}


async def take(browser: Browser, mill: Mill, folder: Path) -> None:
    """Every page, in every theme and size."""
    blank = await browser.new_page()
    for (size, viewport), theme in product(SIZES.items(), THEMES):
        options = {"viewport": viewport, "color_scheme": theme, "reduced_motion": "reduce"}
        for name, show in PAGES.items():
            async with visit(browser, mill.url, mill.key, **options) as seen:
                await show(seen, mill)
                taken = await shrunk(blank, await seen.page.screenshot(animations="disabled"))
            file = f"console-{name}-{theme}-{size}.png"
            await asyncio.to_thread((folder / file).write_bytes, taken)
            _say(f"{file}: {len(taken) / 1000:.0f} kB")
    await blank.close()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it is a program for a terminal


async def _migrated(admin_url: str) -> str:
    url = servers.create_database(admin_url)
    engine = create_engine(url)
    await migrate.upgrade(engine)
    await engine.dispose()
    return servers.database_name(url)


async def main(folder: Path) -> None:
    """Start a town, look at it, and end it."""
    quietly = structlog.make_filtering_bound_logger("warning")
    structlog.configure(wrapper_class=quietly)
    with servers.postgres() as admin_url:
        template = await _migrated(admin_url)
        async with (
            a_town(admin_url, template, copies=COPIES, slowest=3, **SPEED) as mill,
            a_browser() as browser,
        ):
            await take(browser, mill, folder)


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "docs" / "images"
    given.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(given))
