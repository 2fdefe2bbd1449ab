"""Who has a question answered again judges the earlier answer, and nobody else does."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from db import requests
from millrace.one_machine import make_key
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script


def shown_as(message: str, question: str = "q1", user: str = "ann", chat: str = "c1") -> Any:
    """What Open WebUI sends of a message."""
    return {
        "x-millrace-task": "",
        "x-millrace-message-id": message,
        "x-millrace-user-message-id": question,
        "x-openwebui-chat-id": chat,
        "x-openwebui-user-id": user,
    }


async def asked(mill: Mill, content: str = "Why?", model: str = "mill", **more: Any) -> str:
    """The id of a request that was answered a while ago."""
    headers = more.pop("headers", {})
    body = mill.body(content, model, **more)
    answer = await mill.http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    request: str = answer.headers["x-millrace-request-id"]
    return request


async def later(mill: Mill, seconds: int = 60) -> None:
    """That much time goes by."""
    query = """
        UPDATE millrace.requests SET finished_at = finished_at - make_interval(secs => :seconds)
    """
    async with mill.running.engine.begin() as connection:
        await connection.execute(text(query), {"seconds": seconds})


async def retries(mill: Mill, request: str) -> list[tuple[str, float | None, str]]:
    judgements = (await mill.record(request))["judgements"]
    return [(j["rater"], j["score"], j["source"]) for j in judgements if j["kind"] == "retry"]


RETRIED = [("user:ann", None, "system")]


async def test_an_answer_that_is_generated_again_was_retried(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    made = []
    for message in ("m1", "m2", "m3"):
        made.append(await asked(mill, headers=shown_as(message)))
        await later(mill)
    assert [await retries(mill, request) for request in made] == [RETRIED, RETRIED, []]
    rows = await mill.rows("""
        SELECT message_id, user_id, chat_id, user_message_id, request_id::text
          FROM millrace.openwebui_messages ORDER BY message_id
    """)
    assert [tuple(row) for row in rows] == [
        (f"m{number}", "ann", "c1", "q1", request) for number, request in enumerate(made, 1)
    ]


async def test_it_is_noted_while_a_late_message_of_the_earlier_answer_is_stored(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script())
    first = await asked(mill, headers=shown_as("m1"))
    await later(mill)
    async with mill.running.engine.begin() as connection:
        await requests.lock(connection, [UUID(first)])
        await asked(mill, headers=shown_as("m2"))
    assert await retries(mill, first) == RETRIED


async def test_rounds_of_tools_and_models_side_by_side_are_no_retries(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(), a_script("other"))
    rounds = [await asked(mill, content, headers=shown_as("m1")) for content in ("Why?", "Tool")]
    await later(mill, -60)  # however long this machine takes, it is at the same moment
    beside = await asked(mill, model="other", headers=shown_as("m2"))
    await later(mill, 120)
    rounds.append(await asked(mill, "Go on.", headers=shown_as("m1")))
    assert await mill.count("judgements") == 0
    await later(mill)
    await asked(mill, model="other", headers=shown_as("m3"))
    assert await retries(mill, beside) == RETRIED
    await asked(mill, headers=shown_as("m4"))
    assert [await retries(mill, request) for request in rounds] == [[], [], RETRIED]


async def test_the_same_question_again_by_the_same_user_is_a_retry(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    first = await asked(mill, user="ann")
    await later(mill, -60)  # however long this machine takes, it is at the same moment
    at_once = await asked(mill, user="ann")
    assert await retries(mill, first) == []  # nobody read it in that time
    await later(mill, 120)
    for user, content in (("bob", "Why?"), ("ann", "How?"), ("", "Why?")):
        await asked(mill, content, user=user)
    mill.http.headers["Authorization"] = (
        f"Bearer {await make_key(mill.database_url, 'other', 'tests')}"
    )
    await asked(mill, user="ann")
    rows = await mill.rows("SELECT request_id FROM millrace.judgements WHERE kind = 'retry'")
    assert rows == []
    mill.http.headers["Authorization"] = f"Bearer {mill.key}"
    await asked(mill, user="ann")
    assert await retries(mill, at_once) == RETRIED
    assert await retries(mill, first) == []


async def test_the_same_question_on_another_day_is_no_retry(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    first = await asked(mill, user="ann")
    await later(mill, 86_400)
    await asked(mill, user="ann")
    assert await retries(mill, first) == []
    page = await asked(mill, headers=shown_as("m1"))
    await later(mill, 86_400)
    await asked(mill, headers=shown_as("m2"))
    assert await retries(mill, page) == RETRIED


async def test_responses_are_asked_again_too_and_gone_on_with(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())

    async def responded(**more: Any) -> str:
        body = {"model": "mill", "input": "Why?", "user": "ann", **more}
        answer = await mill.http.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
        await later(mill)
        response: str = answer.json()["id"]
        return response

    first = await responded()
    await responded(previous_response_id=first)  # the same words, and another question
    assert await mill.count("judgements") == 0
    await responded()
    assert await retries(mill, first.removeprefix("resp_")) == RETRIED


async def test_what_failed_is_not_judged_by_asking_again(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(faults=[{"kind": "fail", "error_kind": "permanent"}]))
    for message in ("m1", "m2"):
        body, headers = mill.body(), shown_as(message)
        answer = await mill.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code >= 400
        await later(mill)
    assert await mill.count("judgements") == 0


async def test_background_prompts_answer_no_message(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    headers = shown_as("m1") | {"x-millrace-task": "title_generation"}
    first = await asked(mill, headers=headers)
    await later(mill)
    await asked(mill, headers=headers | {"x-millrace-message-id": "m2"})
    assert await retries(mill, first) == []
    assert await mill.count("openwebui_messages") == 0


async def test_a_message_without_a_user_cannot_be_rated_and_is_not_kept(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script())
    await asked(mill, headers={"x-millrace-message-id": "m1"})
    odd = shown_as("m" * 200) | {"x-openwebui-chat-id": ""}
    await asked(mill, headers=odd)
    assert await mill.count("openwebui_messages") == 0


async def test_who_is_given_a_remembered_answer_can_rate_it(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    first = await asked(mill, cache=60, headers=shown_as("m1"))
    again = await asked(mill, cache=60, headers=shown_as("m2", "q2", "bob", "c2"))
    assert again == first
    rows = await mill.rows("""
        SELECT message_id, user_id FROM millrace.openwebui_messages
         WHERE request_id::text = :request ORDER BY message_id
    """, request=first)  # fmt: skip
    assert [tuple(row) for row in rows] == [("m1", "ann"), ("m2", "bob")]


async def test_who_has_an_answer_generated_again_is_not_given_the_same(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script())
    first = await asked(mill, cache=60, headers=shown_as("m1"))
    await later(mill, 5)
    again = await asked(mill, cache=60, headers=shown_as("m2"))
    assert again != first
    assert await retries(mill, first) == RETRIED
