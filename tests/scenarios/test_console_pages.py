"""Every page of the console: usable by keyboard and screen reader, legible, fit for a phone."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from tests.integration.master.mill import Mill
from tests.scenarios import accessibility
from tests.scenarios.browser import PHONE, WIDE, Visit, visit
from tests.scenarios.town import a_town

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = (
    "/console",
    "/console/requests",
    "/console/requests?state=failed",
    "/console/requests/{split}",
    "/console/requests/{crew}",
    "/console/requests/{running}",
    "/console/requests/{failed}",
    "/console/playground",
    "/console/documents",
    "/console/documents/{document}",
    "/console/search",
    "/console/search?query=runner+stone&collection=handbook",
    "/console/rules",
    "/console/rules/{canary}",
    "/console/rules/{proposed}",
    "/console/feedback",
    "/console/workers",
    "/console/dead",
    "/console/dead/{dead}",
    "/console/usage",
)
# Kept by the page: live parts may bring more of them, and move those that are there.
CONTROLS = """() => {
    const stops = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';
    window.controls = [...document.querySelectorAll(stops)].filter((element) =>
        element.tabIndex >= 0 && !element.disabled && element.type !== 'hidden'
        && element.checkVisibility({visibilityProperty: true}));
    return window.controls.length;
}"""
STILL_THERE = """() => [...window.controls.keys()].filter((place) =>
    window.controls[place].isConnected
    && window.controls[place].checkVisibility({visibilityProperty: true}))"""
FOCUSED = """() => {
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    const {outlineStyle, outlineWidth} = getComputedStyle(element);
    const drawn = element.ownerSVGElement && element.querySelector('rect');
    return {
        place: window.controls.indexOf(element),  // what scrolls can have the focus as well
        seen: drawn ? parseFloat(getComputedStyle(drawn).strokeWidth) >= 2
            : outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2,
        what: element.outerHTML.slice(0, 100),
    };
}"""
_OF_REQUESTS = "SELECT id FROM millrace.requests WHERE {} ORDER BY created_at DESC LIMIT 1"
_ROWS = {
    "split": _OF_REQUESTS.format("state = 'completed' AND plan ->> 'strategy' = 'split'"),
    "crew": _OF_REQUESTS.format("state = 'completed' AND plan ->> 'strategy' = 'crew'"),
    "running": _OF_REQUESTS.format("finished_at IS NULL AND plan ->> 'strategy' = 'split'"),
    "failed": _OF_REQUESTS.format("state = 'failed'"),
    "document": "SELECT id FROM millrace.documents WHERE name = 'stones.txt'",
    "canary": "SELECT id FROM millrace.rules WHERE state = 'canary'",
    "proposed": "SELECT id FROM millrace.rules WHERE state = 'proposed'",
    "dead": "SELECT id FROM millrace.subtasks WHERE state = 'dead'",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mill(postgres_url: str, migrated_template: str) -> AsyncGenerator[Mill]:
    async with a_town(postgres_url, migrated_template, copies=120) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def onlooker(browser: Browser, mill: Mill) -> AsyncGenerator[Visit]:
    async with visit(browser, mill.url, mill.key) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def seen(onlooker: Visit) -> AsyncGenerator[Visit]:
    """One window for all that leaves nothing behind: a new one costs a second of the processor."""
    await onlooker.page.set_viewport_size(WIDE)
    await onlooker.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    yield onlooker
    complaints = [*onlooker.complaints]
    onlooker.complaints.clear()
    assert not complaints, "\n".join(complaints)


async def named(mill: Mill, path: str) -> str:
    """The path, with the row that it names."""
    for name, query in _ROWS.items():
        if f"{{{name}}}" in path:
            path = path.format(**{name: (await mill.rows(query))[0][0]})
    return path


@pytest.mark.parametrize("path", [*PAGES, "/docs"])
async def test_a_page_can_be_read_by_everybody_and_fits_a_phone(
    seen: Visit, mill: Mill, path: str
) -> None:
    await seen.goto(await named(mill, path))
    await expect(seen.page.get_by_role("heading", level=1)).to_be_visible()
    found = await accessibility.faults(seen.page)
    found += [f"light: {each}" for each in await accessibility.faint(seen.page)]
    await seen.page.emulate_media(color_scheme="dark")
    found += [f"dark: {each}" for each in await accessibility.faint(seen.page)]
    await seen.page.set_viewport_size(PHONE)
    found += await accessibility.overflow(seen.page)
    assert not found, "\n".join(found)


async def test_the_checks_find_what_is_wrong_with_a_page(browser: Browser) -> None:
    page = await browser.new_page()
    await page.set_content("""
        <body><header></header><h1>Good</h1><h3>Skipped</h3><button></button><input>
        <p id="a" style="color: #999; background: #fff">faint</p><p id="a">twice</p>
        <table><tr><td>no heading</td></tr></table><svg role="img"></svg>
        <svg><rect width="90" height="30" fill="#ccc"/><text y="20" fill="#bbb">lost</text></svg>
        <div style="width: 3000px">wide</div><a href="/" aria-describedby="none">link</a></body>
    """)
    found = "\n".join(await accessibility.faults(page))
    for fault in (
        "no language",
        "no title",
        "0 main",
        "h3 after h1",
        "two elements with the id a",
        "names none",
        "table without headings",
        "a button without a name",
        "a textbox without a name",
        "a image without a name",
        "style in the markup",
    ):
        assert fault in found, found
    faint = "\n".join(await accessibility.faint(page))
    assert "faint" in faint
    assert "lost" in faint
    assert "twice" not in faint
    assert "wide on" in "".join(await accessibility.overflow(page))
    await page.close()


async def test_one_goes_everywhere_by_keyboard_alone(seen: Visit) -> None:
    page = seen.page
    await seen.goto("/console")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    for name in ("Requests", "Playground", "Documents", "Search", "Rules", "Feedback", "Workers"):
        link = page.get_by_role("navigation", name="Console").get_by_role("link", name=name)
        await reach(seen, link)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()


@pytest.mark.parametrize("path", ["/console", "/console/requests/{split}", "/console/documents"])
async def test_focus_visits_every_control_is_seen_and_is_not_trapped(
    seen: Visit, mill: Mill, path: str
) -> None:
    await seen.goto(await named(mill, path))
    await expect(seen.page.get_by_role("heading", level=1)).to_be_visible()
    wanted = await seen.page.evaluate(CONTROLS)
    visited = set()
    for _ in range(wanted + 20):
        await seen.page.keyboard.press("Tab")
        at = await seen.page.evaluate(FOCUSED)
        if at is None:  # past the last one, where the browser's own controls would come
            break
        assert at["seen"], f"nobody sees that the focus is on {at['what']}"
        visited.add(at["place"])
    there = await seen.page.evaluate(STILL_THERE)
    assert len(there) > wanted / 2, "another page than the one that was looked at"
    assert set(there) <= visited


async def test_a_phone_has_the_navigation_behind_a_button(browser: Browser, mill: Mill) -> None:
    async with visit(browser, mill.url, mill.key, viewport=PHONE) as seen:
        await seen.goto("/console")
        navigation = seen.page.get_by_role("navigation", name="Console")
        await expect(navigation).to_be_hidden()
        await seen.page.get_by_role("button", name="Menu").click()
        await navigation.get_by_role("link", name="Workers").click()
        await expect(seen.page.get_by_role("heading", level=1, name="Workers")).to_be_visible()


async def test_dark_colours_are_chosen_and_remembered(browser: Browser, mill: Mill) -> None:
    calm = {"color_scheme": "light", "reduced_motion": "reduce"}  # no colour on its way to another
    async with visit(browser, mill.url, mill.key, **calm) as seen:
        await seen.goto("/console")
        button = seen.page.get_by_role("button", name="Dark colours")
        await expect(button).to_have_attribute("aria-pressed", "false")
        await button.click()
        await seen.goto("/console/rules")
        await expect(button).to_have_attribute("aria-pressed", "true")
        assert await accessibility.faint(seen.page) == []


async def test_without_script_pages_and_forms_work_all_the_same(
    browser: Browser, mill: Mill
) -> None:
    async with visit(browser, mill.url, mill.key, java_script_enabled=False) as seen:
        await seen.goto("/console/requests")
        await seen.page.get_by_label("State").select_option("failed")
        await seen.page.get_by_role("button", name="Find").click()
        rows = seen.page.get_by_role("row")
        await expect(rows.nth(1)).to_contain_text("failed")
        await rows.nth(1).get_by_role("link").first.click()
        await expect(seen.page.get_by_role("heading", name="Timeline")).to_be_visible()


async def reach(seen: Visit, wanted: Locator) -> None:
    """Press Tab until it has the focus, from the beginning of the page."""
    await seen.page.wait_for_load_state()  # a page may put the focus somewhere until then
    await seen.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    await seen.page.locator("body").evaluate("(body) => { body.tabIndex = -1; body.focus(); }")
    for _ in range(40):
        await seen.page.keyboard.press("Tab")
        if await wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"the focus does not come to {wanted}")
