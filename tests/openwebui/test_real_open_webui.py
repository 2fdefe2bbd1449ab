"""The real Open WebUI: attached by one command, and its users' ratings arrive at our requests.

Not part of `make test`: it needs an installation of 3 GB. `make test-openwebui` makes it.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.cli.command_line import millrace
from tests.integration.master.mill import Mill, a_script, installation
from tests.integration.master.test_asked_again import later
from tests.openwebui.front_end import PASSWORD, PROGRAM_ENV, FrontEnd, User, open_webui

if PROGRAM_ENV not in os.environ:
    pytest.skip("the real Open WebUI is tested by `make test-openwebui`", allow_module_level=True)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

BROWSER = shutil.which("chromium")
IN_THE_PAGE = Path(__file__).with_name("in_the_page.py")
STRATEGIES = {"millrace/auto", "millrace/split", "millrace/rag", "millrace/ensemble"}


@dataclass
class Site:
    """Open WebUI and Millrace, attached to each other."""

    front: FrontEnd
    mill: Mill
    ann: User
    settings: dict[str, str]

    async def run(self, *arguments: str) -> Any:
        """The JSON that `millrace openwebui` prints."""
        ended = await asyncio.to_thread(
            millrace, "openwebui", *arguments, "--json", **self.settings
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    async def pull(self) -> Any:
        return await self.run("pull")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open-webui")


async def connect(front: FrontEnd, mill: Mill, *more: str) -> Any:
    ended = await asyncio.to_thread(
        millrace,
        "openwebui",
        "connect",
        "--email",
        "admin@example.org",
        "--json",
        *more,
        MILLRACE_OPENWEBUI_URL=front.url,
        MILLRACE_OPENWEBUI_PASSWORD=PASSWORD,
        MILLRACE_URL=mill.url,
        MILLRACE_API_KEY=mill.key,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(folder: Path, shared_url: str) -> AsyncGenerator[Site]:
    models = (a_script(text="The mill turns slowly."), a_script("other", text="It stands still."))
    async with installation(shared_url, *models) as mill, open_webui(folder) as front:
        ann = await front.user("ann")
        assert await ann.models() == set()
        would = await connect(front, mill, "--dry-run")
        assert would["changes"]
        assert (await front.admin.get("/openai/config"))["OPENAI_API_BASE_URLS"] != [mill.url]
        found = await connect(front, mill)
        settings = {
            "MILLRACE_OPENWEBUI_URL": front.url,
            "MILLRACE_OPENWEBUI_API_KEY": found["api_key"],
            "MILLRACE_URL": mill.url,
            "DATABASE_URL": shared_url,
        }
        yield Site(front, mill, ann, settings)


async def request_of(site: Site, message: str) -> str:
    rows = await site.mill.rows(
        "SELECT request_id FROM millrace.openwebui_messages WHERE message_id = :message",
        message=message,
    )
    return str(rows[-1][0])


async def test_a_user_sees_every_model_and_strategy(site: Site) -> None:
    offered = await site.ann.models()
    assert {"mill", "other"} | STRATEGIES <= offered


async def test_a_second_run_changes_nothing(site: Site) -> None:
    assert (await connect(site.front, site.mill))["changes"] == []
    found = (await site.run("status"))["open_webui"]
    assert found["connected"]
    assert len(found["headers"]) == 5
    assert (found["hidden"], found["ratings"]) == ([], True)
    assert found["task_model"] == "millrace/auto"


async def test_a_thumb_down_with_a_comment_arrives_at_our_request(site: Site) -> None:
    chat = await site.ann.ask("mill", "Does the mill turn?")
    assert chat.text == "The mill turns slowly."
    request = await request_of(site, chat.message)
    rating = await site.ann.rate(
        chat, -1, reason="not_factual", comment="It stands still.", tags=["Mills"]
    )
    assert (await site.pull())["outcomes"] == {"stored": 1}
    record = await site.mill.record(request)
    [judged] = [each for each in record["judgements"] if each["kind"] == "human"]
    assert (judged["rater"], judged["source"]) == (f"user:{site.ann.id}", "openwebui")
    assert (judged["score"], judged["reason"]) == (0.0, "not_factual")
    assert judged["comment"] == "It stands still."
    assert judged["rating"] == {"thumb": -1, "tags": ["Mills"]}
    assert (await site.pull())["outcomes"] == {}

    await site.ann.post(
        f"/api/v1/evaluations/feedback/{rating}",
        {"type": "rating", "data": {"rating": 1, "comment": "It does!"}},
    )
    assert (await site.pull())["outcomes"] == {"stored": 1}
    record = await site.mill.record(request)
    assert [each["comment"] for each in record["judgements"]] == ["It does!"]

    answer = await site.ann.http.delete(f"/api/v1/evaluations/feedback/{rating}")
    assert answer.is_success
    assert (await site.pull())["withdrawn"] == 1
    assert (await site.mill.record(request))["judgements"] == []


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
async def test_a_thumb_that_is_clicked_in_the_page_arrives_with_what_was_said(
    site: Site, folder: Path
) -> None:
    chat = await site.ann.ask("mill", "Whose mill is it?")
    token = site.ann.http.headers["Authorization"].removeprefix("Bearer ")
    told = {
        "url": site.front.url,
        "token": token,
        "chat": chat.id,
        "comment": "It is the miller's.",
        "browser": BROWSER,
        "picture": str(folder / "rated.png"),
    }
    clicked = await asyncio.to_thread(
        subprocess.run,
        [Path(os.environ[PROGRAM_ENV]).with_name("python"), IN_THE_PAGE],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert clicked.returncode == 0, clicked.stderr
    assert (await site.pull())["outcomes"] == {"stored": 1}
    record = await site.mill.record(await request_of(site, chat.message))
    [judged] = record["judgements"]
    assert (judged["rater"], judged["score"]) == (f"user:{site.ann.id}", 0.0)
    assert (judged["reason"], judged["comment"]) == ("not_factually_correct", told["comment"])


async def test_a_foreign_rating_is_not_believed(site: Site) -> None:
    chat = await site.ann.ask("millrace/auto", "Who owns the mill?")
    eve = await site.front.user("eve")
    await eve.rate(chat, -1, comment="It is mine.")
    assert (await site.pull())["outcomes"] == {"foreign": 1}
    request = await request_of(site, chat.message)
    assert (await site.mill.record(request))["judgements"] == []


async def test_an_answer_that_is_generated_again_was_retried(site: Site) -> None:
    chat = await site.ann.ask("mill", "Is it a good mill?")
    await later(site.mill)
    again = await site.ann.ask("mill", "Is it a good mill?", chat)
    assert again.message != chat.message
    record = await site.mill.record(await request_of(site, chat.message))
    assert [each["kind"] for each in record["judgements"]] == ["retry"]
    assert record["judgements"][0]["rater"] == f"user:{site.ann.id}"


async def test_background_prompts_are_known_by_their_header(site: Site) -> None:
    body = {
        "model": "millrace/ensemble",
        "messages": [{"role": "user", "content": "Why?"}],
        "chat_id": "",
    }
    await site.ann.post("/api/v1/tasks/title/completions", body)
    rows = await site.mill.rows("""
        SELECT question ->> 'task', plan ->> 'strategy', end_user FROM millrace.requests
         ORDER BY created_at DESC LIMIT 1
    """)
    assert tuple(rows[0]) == ("title_generation", "direct", site.ann.id)
