"""Documents and rules in a browser: upload, search, approve, take back."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, FilePayload, expect

from tests.integration.master.mill import Mill, a_script, installation
from tests.scenarios.browser import Visit, visit

pytestmark = pytest.mark.asyncio(loop_scope="module")

STONES: FilePayload = {
    "name": "stones <b>.txt",
    "mimeType": "text/plain",
    "buffer": b"The runner stone turns over the bedstone. Its furrows are cut by a mill bill.",
}
WHEELS: FilePayload = {
    "name": "wheels.txt",
    "mimeType": "text/plain",
    "buffer": b"An overshot wheel takes its water at the top, a breastshot wheel at the axle.",
}
BROKEN: FilePayload = {
    "name": "plan.pdf",
    "mimeType": "application/pdf",
    "buffer": b"%PDF-1.7 no more",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mill(shared_url: str) -> AsyncGenerator[Mill]:
    async with installation(shared_url, a_script(), ingest_seconds=0.2) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def seen(browser: Browser, mill: Mill) -> AsyncGenerator[Visit]:
    async with visit(browser, mill.url, mill.key) as made:
        yield made


async def test_uploaded_files_become_ready_before_ones_eyes_and_are_found(seen: Visit) -> None:
    page = seen.page
    await seen.goto("/console/documents")
    form = page.get_by_role("region", name="Upload")
    await form.get_by_label("Files").set_input_files([STONES, WHEELS, BROKEN])
    await form.get_by_label("Collection", exact=True).fill("mills")
    await form.get_by_text("How a new collection is made").click()
    await form.get_by_label("Found by").select_option("sparse")
    await form.get_by_role("button", name="Upload").click()
    await expect(page.get_by_text("3 documents were taken")).to_be_visible()
    for name, state in ((STONES, "ready"), (WHEELS, "ready"), (BROKEN, "failed")):
        row = page.get_by_role("row").filter(has_text=name["name"])
        await expect(row).to_contain_text(state)

    await page.get_by_role("link", name="Search", exact=True).click()
    await page.get_by_label("What to find").fill("runner stone")
    await page.get_by_label("Collection").select_option("mills")
    await page.get_by_role("button", name="Search").click()
    found = page.get_by_role("region", name="1 found in mills")
    await expect(found.get_by_role("link", name="stones <b>.txt")).to_be_visible()
    await expect(found.locator("mark").first).to_have_text("runner")
    for leg in ("Dense (cosine)", "Sparse (BM25)", "Fused", "Ranked again"):
        await expect(found.get_by_text(leg)).to_be_visible()
    await expect(page.get_by_role("region", name="Time taken")).to_contain_text("Sparse")


async def test_a_document_that_failed_says_why_and_can_be_deleted(seen: Visit, mill: Mill) -> None:
    files = {"files": ("cut short.pdf", b"%PDF-1.4 %%")}
    form = {"collection": "others", "strategy": "sparse"}
    (await mill.http.post("/v1/documents", files=files, data=form)).raise_for_status()
    await seen.goto("/console/documents?collection=others")
    row = seen.page.get_by_role("row").filter(has_text="cut short.pdf")
    await expect(row).to_contain_text("failed")  # from now on nothing moves under the mouse
    await seen.page.get_by_role("link", name="cut short.pdf").click()
    stands = seen.page.get_by_role("region", name="Where it stands")
    await expect(stands.get_by_role("button", name="Try again")).to_be_visible()
    await expect(stands).to_contain_text("pdf")
    seen.page.on("dialog", lambda dialog: dialog.accept())
    await seen.page.get_by_role("button", name="Delete document").click()
    await expect(seen.page.get_by_text("The document is deleted.")).to_be_visible()
    await expect(seen.page.get_by_role("link", name="cut short.pdf")).to_have_count(0)


async def test_a_proposal_is_compared_approved_and_taken_back(seen: Visit, mill: Mill) -> None:
    first = await proposed(mill, "Answer in short. <script>alert(1)</script>")
    (await mill.http.post(f"/v1/rules/{first}/approve", json={})).raise_for_status()
    second = await proposed(mill, "Answer in short sentences.")
    page = seen.page
    await seen.goto("/console/rules")
    await page.get_by_role("link", name="brief@2").click()
    changes = page.get_by_role("region", name="What changes from version 1 (active)")
    await expect(changes.locator("del")).to_contain_text(["<script>alert(1)</script>"])
    await expect(changes.locator("ins")).to_contain_text(["sentences"])
    decide = page.get_by_role("region", name="Decide")
    await decide.get_by_label("Note").first.fill("People like it.")
    await decide.get_by_role("button", name="Approve").click()
    await expect(page.get_by_text("Version 2 of brief is active now.")).to_be_visible()
    assert await states(mill, first, second) == ["retired", "active"]

    page.on("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Roll back").click()
    # Not said by the page before, which is there until the answer comes.
    await expect(page.get_by_text("Version 1 of brief is active now.")).to_be_visible()
    assert await states(mill, first, second) == ["active", "retired"]


async def proposed(mill: Mill, words: str) -> str:
    change = {"kind": "prompt", "text": words}
    answer = await mill.http.post("/v1/rules", json={"name": "brief", "change": change})
    assert answer.status_code == 201, answer.text
    rule: str = answer.json()["id"]
    return rule


async def states(mill: Mill, *rules: str) -> list[Any]:
    return [(await mill.http.get(f"/v1/rules/{rule}")).json()["state"] for rule in rules]
