"""Running an installation from a browser: what goes on, dead letters, keys."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from tests.integration.master.mill import Mill, a_script, installation
from tests.scenarios.browser import Visit, visit
from worker.providers.scripted import Script, Scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOOMED = {
    "kind": "fail",
    "contains": "doomed",
    "error_kind": "poison",
    "code": "engine_crashed",
    "message": "it ran out of memory",
}
SLOW = {"kind": "slow", "contains": "no hurry", "after_tokens": 1, "seconds": 30}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mill(shared_url: str) -> AsyncGenerator[Mill]:
    async with installation(shared_url, a_script(faults=[DOOMED, SLOW])) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def seen(browser: Browser, mill: Mill) -> AsyncGenerator[Visit]:
    async with visit(browser, mill.url, mill.key) as made:
        yield made


async def test_the_overview_follows_what_goes_on_without_being_loaded_again(
    seen: Visit, mill: Mill
) -> None:
    await seen.goto("/console")
    still_open = seen.page.get_by_text("Open", exact=True).locator("..")
    await expect(still_open).to_contain_text("0")
    async with mill.stream("There is no hurry."):
        await expect(still_open).to_contain_text("1")
    await expect(still_open).to_contain_text("0")
    assert await seen.page.evaluate("performance.getEntriesByType('navigation').length") == 1


async def test_a_worker_is_shown_with_its_slots(seen: Visit) -> None:
    await seen.goto("/console/workers")
    row = seen.page.get_by_role("row").filter(has_text="mill-1")
    await expect(row).to_contain_text("live")
    await expect(row).to_contain_text("0 / 8")


async def test_a_dead_letter_is_done_again_once_its_engine_is_well(seen: Visit, mill: Mill) -> None:
    refused = await mill.ask("I am doomed.")
    assert refused.status_code >= 500
    await seen.goto("/console/dead")
    letter = seen.page.get_by_role("row").filter(has_text="engine_crashed")
    await expect(letter).to_contain_text("it ran out of memory")
    await letter.get_by_role("link").first.click()
    await expect(seen.page.get_by_role("region", name="Attempts").first).to_contain_text("mill-1")
    await seen.page.get_by_text("Show the prompt").click()
    await expect(seen.page.get_by_text("I am doomed.")).to_be_visible()

    engine = mill.providers["mill"]
    assert isinstance(engine, Scripted)
    engine._script = Script()
    await seen.page.get_by_role("button", name="Do again").click()
    answer = seen.page.get_by_role("region", name="Answer")
    await expect(answer).to_contain_text("mill answers answer: I am doomed.")
    await seen.goto("/console/dead")
    await expect(seen.page.get_by_text("No dead letter waits")).to_be_visible()


async def test_a_key_is_shown_once_signs_in_and_is_revoked(
    browser: Browser, seen: Visit, mill: Mill
) -> None:
    await seen.goto("/console/usage")
    await seen.page.get_by_label("Name of a new key").fill("for the <i>neighbour</i>")
    await seen.page.get_by_role("button", name="Make a key").click()
    made = seen.page.get_by_role("status").get_by_role("code")
    key = await made.inner_text()
    await seen.goto("/console/usage")
    await expect(seen.page.get_by_text(key)).to_have_count(0)

    async with visit(browser, mill.url, key) as neighbour:
        await neighbour.goto("/console/workers")
        await expect(neighbour.page.get_by_role("button", name="Sign out")).to_be_visible()
        seen.page.on("dialog", lambda dialog: dialog.accept())
        row = seen.page.get_by_role("row").filter(has_text="for the <i>neighbour</i>")
        await row.get_by_role("button", name="Revoke").click()
        await expect(row).to_contain_text("revoked")
        neighbour.expected.add(401)
        await neighbour.goto("/console/workers")
        await expect(neighbour.page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_live_parts_are_live_on_a_slow_line_too(seen: Visit) -> None:
    async def late(route: Route) -> None:
        await asyncio.sleep(1)  # the extension comes long after what it extends
        await route.continue_()

    await seen.page.route("**/hx-sse.min.js*", late)
    async with seen.page.expect_request("**/console/live/overview"):
        await seen.goto("/console")
