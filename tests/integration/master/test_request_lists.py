"""Lists of requests: their order, their pages, and what they leave out."""

from typing import Any

import pytest

from millrace.one_machine import make_key
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script
from tests.unit.planning.templates import rag_prompt


@pytest.fixture
async def mill(make_mill: MakeMill) -> Mill:
    return await make_mill(a_script(text="It turns."), a_script("slow", faults=[{"kind": "hang"}]))


async def asked(mill: Mill, *questions: str) -> list[str]:
    """Their ids, the newest first."""
    answers = [await mill.ask(question) for question in questions]
    return [answer.headers["x-millrace-request-id"] for answer in answers][::-1]


async def listed(mill: Mill, **query: Any) -> dict[str, Any]:
    answer = await mill.http.get("/v1/requests", params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_requests_are_listed_with_the_newest_first_and_in_pages(mill: Mill) -> None:
    ids = await asked(mill, "One?\nand more", "Two?", "Three?")
    first = await listed(mill, limit=2)
    assert [each["id"] for each in first["data"]] == ids[:2]
    assert first["has_more"]
    rest = await listed(mill, limit=2, after=first["last_id"])
    [one] = rest["data"]
    assert (one["id"], rest["has_more"]) == (ids[2], False)
    assert (one["question"], one["strategy"], one["state"]) == ("One?", "direct", "completed")
    assert (one["subtasks"], one["ended"], one["model"]) == (1, 1, "mill")
    assert one["tokens"] > 0
    assert one["finished_at"]
    assert (await listed(mill, limit=1, after=ids[2]))["data"] == []


async def test_what_came_with_a_question_and_a_front_ends_own_prompts_are_not_listed_as_words(
    mill: Mill,
) -> None:
    titles = '### Task:\nMake a title: {"title": ""}\n<chat_history>Why?</chat_history>'
    grounded = rag_prompt("What turns?", ("1", "mill.md", "Water turns the wheel."))
    await asked(mill, grounded, titles)
    told = [(each["question"], each["task"]) for each in (await listed(mill))["data"]]
    assert told == [("Title generation", "title_generation"), ("What turns?", None)]


async def test_a_list_can_be_of_some_states_or_of_one_id(mill: Mill) -> None:
    [done] = await asked(mill, "Why?")
    async with mill.stream("Wait", model="slow") as response:
        waiting = response.headers["x-millrace-request-id"]
        for state, ids in (("open", [waiting]), ("completed", [done]), ("failed", [])):
            assert [each["id"] for each in (await listed(mill, state=state))["data"]] == ids
        beginning = done.replace("-", "")[:9].upper()
        assert [each["id"] for each in (await listed(mill, id=beginning))["data"]] == [done]
        whole = waiting.replace("-", "")
        [found] = (await listed(mill, id=whole))["data"]
        assert (found["ended"], found["finished_at"]) == (0, None)
    await mill.until_state(waiting, "cancelled")


async def test_other_tenants_have_lists_of_their_own(mill: Mill) -> None:
    [mine] = await asked(mill, "Why?")
    other = await make_key(mill.database_url, "others", "tests")
    headers = {"Authorization": f"Bearer {other}"}
    answer = await mill.http.get("/v1/requests", headers=headers)
    assert answer.json()["data"] == []
    after = await mill.http.get("/v1/requests", params={"after": mine}, headers=headers)
    assert after.status_code == 404


REFUSED = (
    ({"state": "sleeping"}, 400, "state"),
    ({"id": "3f2"}, 400, "id"),
    ({"id": "3f2a-91"}, 400, "id"),
    ({"limit": "0"}, 400, "limit"),
    ({"after": "nothing"}, 404, "this request"),
    ({"page": "2"}, 400, "unknown parameters"),
)


async def test_what_cannot_be_listed_is_refused(mill: Mill) -> None:
    for query, status, said in REFUSED:
        answer = await mill.http.get("/v1/requests", params=query)
        assert (answer.status_code, said in answer.text) == (status, True), answer.text


async def test_questions_in_parts_and_without_words_are_listed_too(mill: Mill) -> None:
    parts = [{"type": "text", "text": "  \n First line \nsecond"}]
    body = mill.body() | {"messages": [{"role": "user", "content": parts}]}
    await mill.http.post("/v1/chat/completions", json=body)
    [found] = (await listed(mill))["data"]
    assert found["question"] == "First line "
