"""Chats in a browser, across a real RabbitMQ: parts that stream, stopping, rating, lost lines."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Route, expect

from millrace.chaos.stack import Stack, until
from millrace.chaos.tcp_proxy import TcpProxy
from tests import forking, servers
from tests.integration.master.mill import a_script
from tests.scenarios.browser import Visit, visit

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPLIT = "1. Why does the wheel turn?\n2. What does the stone do?\n3. Where does the water go?"
WORDS = 16
HOSTILE = "<img src=x onerror=alert(1)> <script>alert(2)</script>"
SCRIPT = a_script(
    tokens=WORDS,
    tokens_per_second=8,
    rules=[{"contains": "hostile", "text": HOSTILE}, {"contains": "brief", "text": "Yes."}],
    faults=[
        {"kind": "slow", "contains": "for ever", "after_tokens": 2, "seconds": 60},
        # Each part of SPLIT: there is much to be seen while they are written.
        {"kind": "slow", "contains": " does the ", "after_tokens": 2, "seconds": 1.2},
    ],
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    tmp_path_factory: pytest.TempPathFactory,
    shared_url: str,
    rabbitmq: servers.Rabbit,
) -> AsyncGenerator[Stack]:
    """A master and a worker, both processes of their own."""
    vhost = f"test-{secrets.token_hex(6)}"
    rabbitmq.add_vhost(vhost)
    folder = tmp_path_factory.mktemp("stack")
    made = Stack(
        folder, shared_url, rabbitmq.url(vhost), {"models": [SCRIPT]}, launch=forking.launch
    )
    try:
        await made.start(mill=1)
        yield made
    finally:
        made.close()
        print(made.logs())
        rabbitmq.delete_vhost(vhost)


@pytest_asyncio.fixture(loop_scope="module")
async def seen(browser: Browser, stack: Stack) -> AsyncGenerator[Visit]:
    async with visit(browser, stack.url, stack.key) as made:
        yield made


async def ask(seen: Visit, question: str, model: str = "mill") -> Locator:
    """Ask in the playground; the turn that answers."""
    if "/playground" not in seen.page.url:
        await seen.goto("/console/playground")
    await seen.page.get_by_label("Model or strategy").select_option(model)
    await seen.page.get_by_label("Question").fill(question)
    await seen.page.get_by_role("button", name="Send").click()
    return seen.page.get_by_role("log", name="Chat").get_by_role("article").last


async def request_of(turn: Locator) -> str:
    """The id of a turn's request, once the turn has ended."""
    link = await turn.get_by_role("link", name="Look at the request").get_attribute("href")
    assert link is not None
    return link.rpartition("/")[2]


async def test_a_wrong_key_is_refused_and_the_right_one_leads_where_one_wanted_to_go(
    browser: Browser, stack: Stack
) -> None:
    async with visit(browser, stack.url) as seen:
        page = seen.page
        seen.expected.add(401)
        await seen.goto("/console/workers")
        await page.get_by_label("API key").fill("mr-wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("not valid")
        await page.get_by_label("API key").fill(stack.key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page).to_have_url(f"{stack.url}/console/workers")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        await seen.goto("/console")
        await expect(page.get_by_label("API key")).to_be_visible()


async def test_the_parts_of_a_split_are_seen_while_they_are_written(
    seen: Visit, stack: Stack
) -> None:
    turn = await ask(seen, SPLIT, "millrace/split")
    steps = turn.get_by_role("listitem")
    await expect(steps).to_have_count(3)
    for number in range(3):
        await expect(steps.nth(number)).to_contain_text("running")
        await expect(steps.nth(number).locator("pre")).to_be_visible()
        await expect(steps.nth(number).locator("pre")).not_to_be_empty()
    await expect(turn.get_by_role("link", name="Look at the request")).to_have_count(0)
    for number in range(3):
        await expect(steps.nth(number)).to_contain_text("succeeded")
    record = await stack.ended(await request_of(turn))
    assert len(record["subtasks"]) == 3
    await expect(turn.locator(".reply").get_by_role("heading", level=2)).to_have_count(3)
    await expect(turn.locator(".bill")).to_contain_text("first text after")

    await turn.get_by_role("link", name="Look at the request").click()
    page = seen.page
    await expect(page.get_by_role("region", name="Plan", exact=True).first).to_be_visible()
    node = page.get_by_role("link", name="What does the stone do?, mill, succeeded")
    await node.press("Enter")
    await expect(page).to_have_url(f"{seen.url}/console/requests/{record['id']}#part-part-2")
    answer = page.get_by_role("region", name="Answer")
    await expect(answer.get_by_role("heading", level=3)).to_have_count(3)
    await answer.get_by_text("As it was written").click()
    assert await answer.locator("pre").text_content() == record["answer"]


async def test_an_answer_that_cannot_be_formatted_stays_as_it_came(
    seen: Visit, stack: Stack
) -> None:
    failed = asyncio.Event()

    async def fail(route: Route) -> None:
        await route.fulfill(status=503)
        failed.set()

    seen.expected.add(503)
    await seen.page.route("**/console/requests/*/answer", fail)
    turn = await ask(seen, "1. What is a mill?\n2. What is a race?", "millrace/split")
    record = await stack.ended(await request_of(turn))
    assert "## " in record["answer"]
    async with asyncio.timeout(60):
        await failed.wait()

    async def as_it_came() -> bool:
        return bool(await turn.locator(".reply").text_content() == record["answer"])

    await until(as_it_came, 60)


async def test_stop_cancels_what_is_written_and_escape_does_as_well(
    seen: Visit, stack: Stack
) -> None:
    turn = await ask(seen, "Talk for ever.")
    await expect(turn.locator(".reply")).not_to_be_empty()
    await seen.page.get_by_role("button", name="Stop").click()
    await expect(turn).to_contain_text("cancelled")
    assert (await stack.ended(await request_of(turn)))["state"] == "cancelled"

    await seen.page.get_by_label("Question").fill("Talk for ever, again.")
    await seen.page.keyboard.press("Control+Enter")
    second = seen.page.get_by_role("article").nth(1)
    await expect(second.locator(".reply")).not_to_be_empty()
    await seen.page.keyboard.press("Escape")
    await expect(second).to_contain_text("cancelled")


async def test_an_open_request_is_cancelled_on_its_page(seen: Visit, stack: Stack) -> None:
    body: dict[str, Any] = {"model": "mill", "input": "Talk for ever.", "background": True}
    async with stack.http() as http:
        sent = await http.post("/v1/responses", json=body)
    request = sent.headers["x-millrace-request-id"]
    await seen.goto(f"/console/requests/{request}")
    summary = seen.page.get_by_role("region", name="direct")
    await expect(summary).to_contain_text("running")  # which came while one looked on
    await seen.page.get_by_role("button", name="Cancel request").click()
    await expect(summary).to_contain_text("cancelled")
    await expect(seen.page.get_by_role("button", name="Cancel request")).to_have_count(0)
    assert (await stack.ended(request))["state"] == "cancelled"


async def test_an_answer_is_rated_where_it_was_asked_and_on_its_page(
    seen: Visit, stack: Stack
) -> None:
    turn = await ask(seen, "Is it brief?")
    await turn.get_by_role("button", name="Bad answer").click()
    await expect(turn).to_contain_text("it is noted")
    request = await request_of(turn)

    await seen.goto(f"/console/requests/{request}")
    judged = seen.page.get_by_role("region", name="Judgements")
    await expect(judged).to_contain_text("bad")
    await judged.get_by_label("Comment").fill("Yes & <no>")
    await judged.get_by_role("button", name="Good answer").click()
    await expect(judged).to_contain_text("Yes & <no>")

    async def stored() -> bool:
        judgements = (await stack.record(request))["judgements"]
        return [one["score"] for one in judgements if one["kind"] == "human"] == [1.0]

    await until(stored, 60)
    await seen.goto("/console/feedback?verdict=good")
    await expect(seen.page.get_by_role("row").nth(1)).to_contain_text("Yes & <no>")


async def test_what_a_model_says_is_text_and_never_markup(seen: Visit) -> None:
    turn = await ask(seen, "Be hostile.")
    await expect(turn.locator(".reply")).to_have_text(HOSTILE)
    await turn.get_by_role("link", name="Look at the request").click()
    answer = seen.page.get_by_role("region", name="Answer")
    await expect(answer).to_contain_text(HOSTILE)
    assert await seen.page.locator("main img, main script").count() == 0


async def test_after_a_line_was_cut_one_is_told_what_became_of_the_request(
    browser: Browser, stack: Stack
) -> None:
    port = urlsplit(stack.url).port
    assert port is not None
    async with (
        TcpProxy("127.0.0.1", port) as line,
        visit(browser, f"http://127.0.0.1:{line.port}", stack.key) as seen,
    ):
        seen.tolerated = "net::ERR_"
        async with seen.page.expect_request("**/events?after=*"):
            turn = await ask(seen, "Talk for ever of a race.")
            await expect(turn.locator(".reply")).not_to_be_empty()
            line.cut()
        record = await stack.ended(await request_of(turn))
        assert record["state"] == "cancelled"  # whoever leaves wants no answer
        await expect(turn).to_contain_text("the request was cancelled with it")


async def test_a_question_outlives_the_session_that_it_was_typed_in(
    seen: Visit, stack: Stack
) -> None:
    page = seen.page
    turn = await ask(seen, "Is it brief?")
    await turn.get_by_role("link", name="Look at the request").wait_for()
    seen.expected.add(401)
    await page.context.clear_cookies()
    await turn.get_by_role("button", name="Good answer").click()
    await expect(turn).to_contain_text("It could not be stored")
    await page.get_by_label("Question").fill("Is it still here?")
    await page.get_by_role("button", name="Send").click()
    await page.get_by_label("API key").fill(stack.key)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_label("Question")).to_have_value("Is it still here?")
    await expect(page.get_by_label("Model or strategy")).to_have_value("mill")
    await page.reload()
    await expect(page.get_by_label("Question")).to_have_value("")  # it is kept no longer than that


async def test_a_page_whose_subject_is_gone_says_so_and_asks_no_more(seen: Visit) -> None:
    asked: list[str] = []
    answers = [(200, "event: gone\ndata: this mill does not exist\n\n"), (200, "data: a\n\n")]
    seen.expected.add(404)
    seen.tolerated = "htmx:sse:error"

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        status, body = answers.pop(0) if answers else (404, "")
        kind = "text/event-stream" if status == 200 else "text/html"
        await route.fulfill(status=status, body=body, content_type=kind)

    await seen.page.route("**/console/live/workers", answer)
    for said in ("this mill does not exist", "is not there any more"):
        await seen.goto("/console/workers")
        await expect(seen.page.get_by_text(said)).to_be_visible()
        await expect(seen.page.locator("#stale")).to_be_hidden()
    # One that told, one that broke off, and the one after it which found nothing.
    assert len(asked) == 3
