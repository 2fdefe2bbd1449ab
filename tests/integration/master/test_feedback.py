"""What people, judges and clients make of answers is stored, shown, changed and taken back."""

import asyncio
import contextlib
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script
from tests.integration.master.test_growing_plans import JUDGE, ROLES, STRICT, TWO, WRITERS, make

PATH = "/v1/feedback"
ALICE = {"x-openwebui-user-id": "alice"}
BOB = {"x-openwebui-user-id": "bob"}


async def asked(mill: Mill, model: str = "mill", **more: Any) -> str:
    """The id of a request that was answered."""
    answer = await mill.ask("Why is the sea salt?", model, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-millrace-request-id"])


async def say(mill: Mill, request: str, **said: Any) -> httpx2.Response:
    headers = said.pop("headers", {})
    return await mill.http.post(PATH, json={"request": request, **said}, headers=headers)


async def listed(mill: Mill, request: str) -> list[dict[str, Any]]:
    answer = await mill.http.get(PATH, params={"request": request})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    assert found == (await mill.record(request))["judgements"]
    return found


async def stranger(mill: Mill) -> dict[str, str]:
    """The headers of another tenant."""
    return {"Authorization": f"Bearer {await make_key(mill.database_url, 'other', 'tests')}"}


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- what a plan's steps say ---------------------------------------------------------------------


async def test_every_verdict_of_an_ensemble_is_stored(make_mill: MakeMill) -> None:
    mill = await make(make_mill)
    request = await asked(mill, "millrace/ensemble")
    steps = {each["step"]: each["id"] for each in (await mill.record(request))["subtasks"]}
    found = await listed(mill, request)
    assert {(j["rater"], j["subject"], j["score"]) for j in found} == {
        ("step:judge-1", "candidate-1", 0.2),
        ("step:judge-1", "candidate-2", 0.8),
        ("step:judge-2", "candidate-2", 0.2),
        ("step:judge-2", "candidate-1", 0.8),
    }
    assert {(j["kind"], j["source"], j["reason"]) for j in found} == {
        ("choice", "plan", "it says more")
    }
    assert all(each["subtask"] == steps[each["subject"]] for each in found)


@pytest.mark.parametrize(
    ("strategy", "kind", "subject", "score"),
    [("crew", "review", "draft", 0.7), ("router", "check", "answer", 0.75)],
)
async def test_reviews_and_checks_are_stored(
    make_mill: MakeMill, strategy: str, kind: str, subject: str, score: float
) -> None:
    mill = await make(make_mill)
    [made] = await listed(mill, await asked(mill, f"millrace/{strategy}"))
    assert (made["kind"], made["subject"], made["score"]) == (kind, subject, score)
    assert made["rating"]["passed"] is True


async def being_revised(make_mill: MakeMill) -> tuple[Mill, str]:
    """A crew's request whose draft was rejected, and whose revision takes long."""
    slow = a_script(
        "mill",
        text="The draft.",
        rules=[{"contains": "Say more.", "text": "word " * 1000}],
        tokens_per_second=20,
    )
    mill = await make_mill(slow, WRITERS[1], STRICT, roles=ROLES, ensemble=TWO)
    body = {"model": "millrace/crew", "input": "Why?", "background": True, "user": "alice"}
    created = (await mill.http.post("/v1/responses", json=body)).json()
    request = created["id"].removeprefix("resp_")

    async def revised() -> bool:
        steps = (await mill.record(request))["subtasks"]
        return any(s["step"] == "revision" and s["state"] == "running" for s in steps)

    await until(revised, 30)
    assert await listed(mill, request) == []
    return mill, request


async def test_what_was_said_before_a_request_was_cancelled_is_kept(make_mill: MakeMill) -> None:
    mill, request = await being_revised(make_mill)
    for _ in range(2):  # the second changes nothing
        await mill.http.delete(f"/v1/requests/{request}")
    review, stop = sorted(await listed(mill, request), key=lambda judged: judged["kind"])
    assert (review["kind"], review["score"], review["subject"]) == ("review", 0.3, "draft")
    assert (stop["kind"], stop["rater"], stop["score"]) == ("stop", "user:alice", None)
    assert (stop["source"], stop["reason"]) == ("system", "the client cancelled it")


async def test_what_was_said_before_a_request_expired_is_kept(make_mill: MakeMill) -> None:
    mill, request = await being_revised(make_mill)
    async with mill.running.engine.begin() as connection:
        await connection.execute(text("UPDATE millrace.requests SET deadline_at = now()"))
    await mill.until_state(request, "expired")
    assert [judged["kind"] for judged in await listed(mill, request)] == ["review"]


async def test_a_client_that_leaves_has_judged_too(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(tokens=1000, tokens_per_second=20))
    asking = asyncio.create_task(mill.ask())

    async def begun() -> str | None:
        rows = await mill.rows("SELECT id FROM millrace.requests WHERE state = 'running'")
        return str(rows[0][0]) if rows else None

    request = await until(begun, 30)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await mill.until_state(request, "cancelled")
    [stop] = await listed(mill, request)
    assert (stop["kind"], stop["rater"], stop["reason"]) == ("stop", "user:", "the client left")


async def test_a_plain_answer_has_no_judgements(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    assert await listed(mill, await asked(mill)) == []


async def test_a_judge_whose_words_cannot_be_stored_judged_nothing(make_mill: MakeMill) -> None:
    odd = '{"verdict": "accept", "score": 70, "comments": "half \\ud800"}'
    mill = await make_mill(*WRITERS, a_script("judge", text=odd), roles=ROLES, ensemble=TWO)
    request = await asked(mill, "millrace/crew")
    assert (await mill.record(request))["state"] == "completed"
    assert await listed(mill, request) == []


# --- what people say -----------------------------------------------------------------------------


async def test_a_person_rates_changes_and_withdraws(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    request = await asked(mill)
    first = await say(mill, request, rating=-1, reason="not_factual", comment="It is blue.")
    assert first.status_code == 201, first.text
    made = first.json()
    assert (made["kind"], made["rater"], made["source"]) == ("human", "user:", "api")
    assert (made["score"], made["rating"]) == (0.0, {"thumb": -1})
    assert (made["reason"], made["comment"]) == ("not_factual", "It is blue.")
    again = await say(mill, request, rating=-1, reason="not_factual", comment="It is blue.")
    assert (again.status_code, again.json()) == (200, made)
    changed = await say(mill, request, rating=1, stars=10, correction="It is green.")
    assert changed.status_code == 200
    assert changed.json()["id"] == made["id"]
    assert changed.json()["rating"] == {"thumb": 1, "stars": 10}
    assert await listed(mill, request) == [changed.json()]
    assert (changed.json()["score"], changed.json()["comment"]) == (1.0, None)
    gone = await mill.http.delete(f"{PATH}/{made['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await listed(mill, request) == []
    assert code(await mill.http.delete(f"{PATH}/{made['id']}")) == (404, "not_found")


async def test_a_part_is_judged_apart_from_the_whole(make_mill: MakeMill) -> None:
    mill = await make(make_mill)
    request, other = await asked(mill, "millrace/ensemble"), await asked(mill)
    part = (await mill.record(request))["subtasks"][1]
    whole = await say(mill, request, rating=1)
    made = await say(mill, request, subtask=part["id"], stars=1)
    assert (whole.status_code, made.status_code) == (201, 201)
    assert (made.json()["subject"], made.json()["subtask"]) == ("candidate-2", part["id"])
    assert (whole.json()["subject"], whole.json()["subtask"]) == ("", None)
    foreign = await say(mill, other, subtask=part["id"], rating=1)
    assert code(foreign) == (404, "not_found")
    assert foreign.json()["error"]["param"] == "subtask"
    assert len(await listed(mill, request)) == 6


async def test_only_who_asked_may_judge(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    request = await asked(mill, user="alice")
    for more in ({"headers": BOB}, {"user": "bob"}, {}, {"headers": BOB, "user": "alice"}):
        assert code(await say(mill, request, rating=1, **more)) == (403, "other_user")
    made = await say(mill, request, rating=1, headers=ALICE)
    assert (made.status_code, made.json()["rater"]) == (201, "user:alice")
    assert (await say(mill, request, rating=-1, user="alice")).status_code == 200
    path = f"{PATH}/{made.json()['id']}"
    assert code(await mill.http.delete(path)) == (403, "other_user")
    assert code(await mill.http.delete(path, headers=BOB)) == (403, "other_user")
    assert (await mill.http.delete(path, params={"user": "alice"})).status_code == 204


async def test_who_was_given_the_answer_of_another_may_judge_it(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    first = await asked(mill, user="alice", cache=60)
    assert await asked(mill, user="bob", cache=60) == first
    made = [await say(mill, first, rating=1, user=user) for user in ("alice", "bob")]
    assert [answer.json()["rater"] for answer in made] == ["user:alice", "user:bob"]


async def test_where_nobody_was_named_everybody_may_judge_once(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    request = await asked(mill)
    raters = [{"headers": ALICE}, {"headers": BOB}, {}]
    answers = [await say(mill, request, rating=1, **who) for who in raters]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert [j["rater"] for j in await listed(mill, request)] == [
        "user:alice",
        "user:bob",
        "user:",
    ]


async def test_a_list_that_is_cut_says_so(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    request = await asked(mill)
    for user in range(101):
        assert (await say(mill, request, rating=1, user=f"user-{user}")).status_code == 201
    answer = (await mill.http.get(PATH, params={"request": request})).json()
    assert (len(answer["data"]), answer["has_more"]) == (100, True)
    assert answer["data"][0]["rater"] == "user:user-0"


async def test_a_very_long_name_is_the_same_person(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    request = await asked(mill, user="a" * 500)
    assert (await say(mill, request, rating=1, user="a" * 500)).status_code == 201


async def test_another_tenant_sees_and_judges_nothing(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    request = await asked(mill)
    made = (await say(mill, request, rating=1)).json()
    other = await stranger(mill)
    assert code(await say(mill, request, rating=-1, headers=other)) == (404, "not_found")
    query = await mill.http.get(PATH, params={"request": request}, headers=other)
    assert code(query) == (404, "not_found")
    assert code(await mill.http.delete(f"{PATH}/{made['id']}", headers=other)) == (404, "not_found")
    assert await listed(mill, request) == [made]


async def test_what_has_not_ended_cannot_be_judged(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(tokens=1000, tokens_per_second=20))
    async with mill.stream() as response:
        request = response.headers["x-millrace-request-id"]
        assert code(await say(mill, request, rating=1)) == (409, "not_ended")
    await mill.until_state(request, "cancelled")
    assert (await say(mill, request, rating=-1)).status_code == 201


async def test_what_a_judge_said_cannot_be_withdrawn(make_mill: MakeMill) -> None:
    mill = await make(make_mill, JUDGE)
    request = await asked(mill, "millrace/crew")
    [review] = await listed(mill, request)
    assert code(await mill.http.delete(f"{PATH}/{review['id']}")) == (404, "not_found")
    assert await listed(mill, request) == [review]


async def test_bad_feedback_is_refused_with_the_place(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    request = await asked(mill)
    refused: list[tuple[dict[str, Any], str | None, str]] = [
        ({}, "rating", "invalid_value"),
        ({"comment": "  "}, "rating", "invalid_value"),
        ({"rating": 7}, "rating", "invalid_value"),
        ({"rating": True}, "rating", "invalid_type"),
        ({"stars": 11}, "stars", "invalid_value"),
        ({"rating": 1, "reason": "x" * 201}, "reason", "invalid_value"),
        ({"comment": "x" * 4001}, "comment", "invalid_value"),
        ({"comment": "a\0b"}, "comment", "invalid_unicode"),
        ({"rating": 1, "request": "mine"}, "request", "invalid_value"),
        ({"rating": 1, "request": 7}, "request", "invalid_type"),
        ({"rating": 1, "subtask": "draft"}, "subtask", "invalid_value"),
        ({"rating": 1, "tags": []}, "tags", "unknown_parameter"),
    ]
    for said, param, expected in refused:
        answer = (
            await say(mill, request, **said)
            if "request" not in said
            else (await mill.http.post(PATH, json=said))
        )
        assert code(answer) == (400, expected), said
        assert answer.json()["error"]["param"] == param, said
    missing = await mill.http.post(PATH, json={"rating": 1})
    assert code(missing) == (400, "missing_required_parameter")
    assert await mill.count("judgements") == 0


async def test_unknown_ids_are_not_found_and_strangers_not_let_in(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    for id_ in (str(uuid4()), "mine", "%00"):
        assert code(await mill.http.delete(f"{PATH}/{id_}")) == (404, "not_found")
        assert code(await mill.http.get(f"{PATH}?request={id_}")) == (404, "not_found")
    assert code(await say(mill, str(uuid4()), rating=1)) == (404, "not_found")
    assert (await mill.http.get(PATH)).status_code == 400
    odd = await mill.http.get(PATH, params={"request": str(uuid4()), "of": "x"})
    assert code(odd) == (400, "unknown_parameter")
    nobody = {"Authorization": "Bearer mr-nobody"}
    assert code(await say(mill, str(uuid4()), rating=1, headers=nobody)) == (401, "invalid_api_key")
