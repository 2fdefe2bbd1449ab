"""People's judgements choose the model that answers; the choice can be seen and forgotten."""

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import pytest

from db import evidence
from db.tenancy import as_tenant
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests.integration.db.answered_chats import voted
from tests.integration.master.mill import Mill, a_script, installation

PATH = "/v1/routing"
PEOPLE = [f"person-{number}" for number in range(6)]


@pytest.fixture
async def mill(migrated_url: str) -> AsyncGenerator[Mill, None]:
    second = a_script("second", text="The second answers.")
    async with installation(migrated_url, a_script("first"), second) as mill:
        yield mill


async def tenant_of(mill: Mill) -> UUID:
    [[tenant]] = await mill.rows("SELECT id FROM millrace.tenants WHERE name = 'acme'")
    return UUID(str(tenant))


async def asked(mill: Mill, **more: Any) -> dict[str, Any]:
    """The record of a question that leaves the model to Millrace."""
    answer = await mill.ask("Why is the sea salt?", "millrace/auto", **more)
    assert answer.status_code == 200, answer.text
    return await mill.record(answer.headers["x-millrace-request-id"])


async def state(mill: Mill, kind: str = "answer") -> dict[str, Any]:
    answer = await mill.http.get(PATH)
    assert answer.status_code == 200, answer.text
    return next(work for work in answer.json()["data"] if work["kind"] == kind)


async def test_people_change_which_model_answers_and_a_reset_takes_it_back(mill: Mill) -> None:
    tenant = await tenant_of(mill)
    before = await asked(mill)
    assert before["subtasks"][0]["model"] == "first"

    await voted(mill.running.engine, tenant, "second", PEOPLE[:1], 1.0, 5)
    one = await state(mill)
    assert (one["chosen"], one["why"]) == ("first", "first")
    assert one["models"][1] == {
        "model": "second",
        "votes": 3.0,
        "raters": 1,
        "mean": 1.0,
        "expected": 0.6154,
        "preferred": False,
        "chosen": False,
        "why": "3 of 10 votes by 1 of 4 people",
    }
    assert (await asked(mill))["subtasks"][0]["model"] == "first"

    await voted(mill.running.engine, tenant, "second", PEOPLE, 1.0, 3)
    many = await state(mill)
    assert (many["chosen"], many["why"], many["counted_since"]) == ("second", "judged", None)
    after = await asked(mill)
    assert [subtask["model"] for subtask in after["subtasks"]] == ["second"]
    assert after["answer"] == "The second answers."
    assert after["reason"].endswith("; judged better for whole questions.")
    assert mill.running.routing.learned(tenant).models == {"answer": "second"}

    other = {"Authorization": f"Bearer {await make_key(mill.database_url, 'other', 'tests')}"}
    theirs = (await mill.http.get(PATH, headers=other)).json()
    assert [work["chosen"] for work in theirs["data"]] == ["first"] * 4
    assert (await mill.http.delete(PATH, headers=other)).status_code == 200
    assert (await state(mill))["chosen"] == "second"

    gone = await mill.http.delete(PATH, params={"kind": "answer"})
    assert gone.status_code == 200, gone.text
    reset = await state(mill)
    assert reset == gone.json()["data"][0]
    assert (reset["chosen"], reset["models"][1]["votes"]) == ("first", 0.0)
    assert reset["counted_since"] is not None
    assert (await asked(mill))["subtasks"][0]["model"] == "first"
    assert await mill.count("judgements") == 23


async def test_a_replica_learns_by_itself_and_adds_steps_by_what_held_when_it_was_asked(
    mill: Mill,
) -> None:
    tenant = await tenant_of(mill)
    await voted(mill.running.engine, tenant, "second", PEOPLE, 1.0, 3)
    await asked(mill)

    async def learned() -> bool:
        return bool(mill.running.routing.learned(tenant).models)

    await until(learned, 30)
    answer = await mill.ask("Why is the sea salt?", "millrace/crew")
    record = await mill.record(answer.headers["x-millrace-request-id"])
    draft = next(each for each in record["subtasks"] if each["step"] == "draft")
    assert draft["model"] == "second"

    routing = mill.running.routing
    async with as_tenant(mill.running.engine, tenant) as connection:
        await evidence.reset(connection, tenant, ["answer"])
    await routing.look_for_news(tenant)
    assert routing.learned(tenant).models == {}


async def test_ratings_over_the_api_count_for_the_model_that_answered(mill: Mill) -> None:
    for user in PEOPLE[:2]:
        record = await asked(mill, user=user)
        body = {"request": record["id"], "rating": -1, "user": user}
        assert (await mill.http.post("/v1/feedback", json=body)).status_code == 201
    first = (await state(mill))["models"][0]
    assert (first["votes"], first["raters"], first["mean"]) == (2.0, 2, 0.0)


async def test_what_cannot_be_asked_is_refused(mill: Mill) -> None:
    for method, params, param in (
        ("GET", {"kind": "answer"}, "kind"),
        ("DELETE", {"kind": "poetry"}, "kind"),
        ("DELETE", {"of": "x"}, "of"),
    ):
        answer = await mill.http.request(method, PATH, params=params)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    nobody = {"Authorization": "Bearer mr-nobody"}
    assert (await mill.http.get(PATH, headers=nobody)).status_code == 401


async def test_a_client_keeps_a_chat_back_from_training(mill: Mill) -> None:
    expected = {}
    for said, kept in (("no", False), ("please not", False), ("Yes", True)):
        record = await asked(mill, metadata={"millrace_training": said})
        expected[record["id"]] = kept
    body = {"model": "first", "input": "Why?", "metadata": {"millrace_training": "no"}}
    made = (await mill.http.post("/v1/responses", json=body)).json()["id"]
    expected[str(UUID(made.removeprefix("resp_")))] = False
    rows = await mill.rows("SELECT id, question ->> 'training' FROM millrace.requests")
    assert {str(id_): said == "true" for id_, said in rows} == expected
