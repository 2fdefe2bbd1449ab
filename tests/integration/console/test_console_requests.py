"""Requests and the playground in the console, over real HTTP."""

import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text

from db import requests
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests.integration.console.browsing import Person, signed_in, words
from tests.integration.master.mill import Mill, a_script, installation

REQUESTS = "/console/requests"
HOSTILE = '</pre><script>alert("1")</script>'
SPLIT = "1. What is a sluice?\n2. What is STUCK?\n3. What is a race?"
ONLY = "?\n\nAnswer only"
"""Comes after the part that is to be answered; prompts name the other parts, too."""
FAULTS = [
    {"kind": "hang", "contains": f"STUCK{ONLY}", "after_tokens": 1},
    {"kind": "fail", "contains": f"sluice{ONLY}", "attempts": [1], "message": "busy at first"},
    {"kind": "hang", "contains": "hang for good", "after_tokens": 1},
]
RULES = [{"contains": "hostile", "text": f"{HOSTILE} said the model"}]
THOUGHTS = "first one thinks well"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(shared_url: str) -> AsyncGenerator[Mill]:
    models = a_script(faults=FAULTS, rules=RULES), a_script("thinker", reasoning=THOUGHTS)
    async with installation(shared_url, *models) as made:
        yield made


async def asked(mill: Mill, question: str, **more: Any) -> str:
    """The id of an answered request."""
    answer = await mill.ask(question, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-millrace-request-id"])


async def played(person: Person, status: int = 200, **body: Any) -> list[tuple[str, Any]]:
    """The events of a question in the playground, to the end."""
    headers = {"x-csrf-token": person.token}
    async with person.http.stream(
        "POST", "/console/playground/chat", json=body, headers=headers
    ) as answer:
        assert answer.status_code == status
        return [event async for event in events(answer)]


async def events(answer: Any) -> AsyncGenerator[tuple[str, Any]]:
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def said(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


async def test_requests_are_listed_filtered_and_searched(mill: Mill, person: Person) -> None:
    assert "Nothing was asked yet" in await person.get(REQUESTS)
    first = await asked(mill, "Why do WHEELS turn?\nIn detail.", user="alice")
    second = await asked(mill, f"{HOSTILE} What is flour?")
    page = await person.get(REQUESTS)
    assert page.index(second) < page.index(first)
    assert HOSTILE not in page
    assert "alice" in words(page)
    for query, found in (
        ({"q": first[:6]}, {first}),
        ({"q": "wheels why"}, {first}),
        ({"q": "100%"}, set()),
        ({"user": "alice"}, {first}),
        ({"user": "bob"}, set()),
        ({"state": "completed", "strategy": "direct", "model": "mill"}, {first, second}),
        ({"state": "open"}, set()),
        ({"state": "unanswered"}, set()),
        ({"since": "2001-01-01T00:00", "until": "2002-01-01T00:00"}, set()),
        ({"since": "2001-01-01T00:00"}, {first, second}),
    ):
        answer = await person.http.get(REQUESTS, params=query)
        assert answer.status_code == 200
        assert {id_ for id_ in (first, second) if id_ in answer.text} == found, query
    for query in (
        {"state": "asleep"},
        {"since": "yesterday"},
        {"q": "x" * 301},
        {"q": "a\0b"},
        {"until": "0001-01-01T00:00+23:59"},
    ):
        answer = await person.http.get(REQUESTS, params=query)
        assert answer.status_code == 400, query
        assert "<html" in answer.text


async def test_the_list_goes_on_after_its_last_row(
    mill: Mill, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("master.console.requests.PAGE", 2)
    ids = [await asked(mill, f"Question {number}?", user="u&1") for number in range(3)]
    first = await person.get(f"{REQUESTS}?user=u%261")
    assert (ids[2] in first, ids[1] in first, ids[0] in first) == (True, True, False)
    after = f"{REQUESTS}?user=u%261&after={ids[1]}"
    assert after.replace("&", "&amp;") in first
    second = await person.get(after)
    assert (ids[0] in second, ids[1] in second) == (True, False)
    await person.get(f"{REQUESTS}?after=nonsense", status=404)


async def test_the_beginning_of_an_id_leads_to_the_page_of_the_only_request_that_has_it(
    mill: Mill, person: Person
) -> None:
    request = await asked(mill, "What is short?")
    answer = await person.http.get(f"{REQUESTS}/{request[:8].upper()}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{REQUESTS}/{request}")
    assert "Timeline" in await person.get(f"{REQUESTS}/{request}")
    for other in (request[:3], f"{request[:8]}g", "0" * 8):
        await person.get(f"{REQUESTS}/{other}", status=404)


async def test_nobody_sees_what_another_tenant_asked(mill: Mill, person: Person) -> None:
    request = await asked(mill, "What is ours?")
    key = await make_key(mill.database_url, "others", "tests")
    async with signed_in(mill.url, key) as stranger:
        assert request not in await stranger.get(REQUESTS)
        assert request not in await stranger.get(f"{REQUESTS}?q={request[:8]}")
        assert request not in await stranger.get(f"{REQUESTS}/rows?ids={request}")
        await stranger.get(f"{REQUESTS}/{request[:8]}", status=404)
        for path in ("", "/whole", "/live", "/parts/answer"):
            await stranger.get(f"{REQUESTS}/{request}{path}", status=404)
        for path in ("cancel", "feedback"):
            await stranger.post(f"{REQUESTS}/{request}/{path}", status=404, rating="1")
        for path in ("bill", "events"):
            answer = await stranger.http.get(f"/console/playground/{request}/{path}")
            assert answer.status_code == 404
    assert request in await person.get(REQUESTS)


async def test_a_split_is_shown_while_it_runs_and_can_be_cancelled(
    mill: Mill, person: Person
) -> None:
    async with mill.stream(SPLIT, "millrace/split") as response:
        request = response.headers["x-millrace-request-id"]
        page = f"{REQUESTS}/{request}"

        async def far() -> bool:
            states = [each["state"] for each in (await mill.record(request))["subtasks"]]
            return sorted(states) == ["running", "succeeded", "succeeded"]

        await until(far, 60)
        shown = await person.get(page)
        assert "3 steps in 1 stage: 2 succeeded, 1 running" in words(shown)
        assert "busy at first" in words(shown)
        assert "try 2" in words(shown)
        assert 'class="phase-failed"' in shown
        assert "Cancel request" in shown
        assert f'hx-sse:connect="{page}/live"' in shown
        assert f"{REQUESTS}/live?ids=" in await person.get(REQUESTS)
        async with person.http.stream("GET", f"{page}/live") as live:
            lines = live.aiter_lines()
            first = await anext(lines)
            assert first.startswith("data: ")
            await person.post(f"{page}/cancel")
            while "cancelled" not in await anext(lines):
                pass
    ended = await person.get(page)
    assert "Cancel request" not in ended
    assert "hx-sse:connect" not in ended
    assert "Rate the answer" in ended
    await person.post(f"{page}/cancel")  # twice is no mistake


async def test_an_answer_is_rated_and_rated_again_by_who_asked(mill: Mill, person: Person) -> None:
    request = await asked(mill, "something hostile")
    page = f"{REQUESTS}/{request}"
    shown = await person.get(page)
    assert HOSTILE not in shown
    assert "said the model" in words(shown)
    assert "1 step in 1 stage: 1 succeeded" in words(shown)
    await person.post(f"{page}/feedback", rating="1", comment="<b>well</b> done")
    await person.post(f"{page}/feedback", rating="-1", correction="Otherwise.")
    [judged] = (await mill.record(request))["judgements"]
    assert (judged["score"], judged["correction"], judged["comment"]) == (0.0, "Otherwise.", None)
    assert "Otherwise." in words(await person.get(page))
    assert "bad" in words(await person.get(REQUESTS))
    await person.post(f"{page}/feedback", status=400)
    await person.post(f"{page}/feedback", status=403, csrf="forged", rating="1")
    assert "said the model" in await person.get(f"{page}/parts/answer")
    await person.get(f"{page}/parts/other", status=404)
    async with mill.running.engine.begin() as connection:
        await requests.hide(connection, UUID(request))
    hidden = words(await person.get(page))
    assert "Deleted by its owner" in hidden
    assert "said the model" not in hidden
    assert "something hostile" not in hidden
    await person.get(f"{page}/parts/answer", status=404)
    assert "deleted by its owner" in await person.get(REQUESTS)
    theirs = await asked(mill, "Why?", user="alice")
    page = f"{REQUESTS}/{theirs}"
    assert "alice asked; only they can judge" in words(await person.get(page))
    await person.post(f"{page}/feedback", status=403, rating="1")


async def test_a_plan_that_cannot_be_read_is_an_error_of_its_own(
    mill: Mill, person: Person
) -> None:
    request = await asked(mill, "What is bran?")
    await broken(mill, request)
    answer = await mill.http.get(f"/v1/requests/{request}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (500, "plan_broken")
    assert answer.headers["x-should-retry"] == "false"
    assert "the plan cannot be read" in words(await person.get(f"{REQUESTS}/{request}", status=500))
    live = await person.http.get(f"{REQUESTS}/{request}/live")
    assert live.text.startswith("event: gone\ndata: this request is stored, but")
    for path, status in (("bill", 500), ("events", 500)):
        answer = await person.http.get(f"/console/playground/{request}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (status, "plan_broken")


async def broken(mill: Mill, request: str) -> None:
    """A request whose stored plan nobody can read."""
    async with mill.running.engine.begin() as connection:
        await connection.execute(
            text("UPDATE millrace.requests SET plan = '{\"steps\": 1}' WHERE id = :id"),
            {"id": UUID(request)},
        )


async def test_the_playground_shows_plan_parts_and_answer(mill: Mill, person: Person) -> None:
    assert "millrace/split" in await person.get("/console/playground")
    question = SPLIT.replace("STUCK", "a weir")
    got = await played(person, model="millrace/split", messages=said(question), system="Be short.")
    names = [name for name, _ in got]
    assert names[:2] == ["accepted", "plan"]
    assert names[-1] == "end"
    request = got[0][1]["request"]
    steps = [step["key"] for step in got[1][1]["steps"]]
    assert len(steps) == 3
    record = await mill.record(request)
    assert "".join(found["text"] for name, found in got if name == "text") == record["answer"]
    parts: dict[str, str] = {}
    for name, found in got:
        if name == "part" and "text" in found:
            parts[found["step"]] = ("" if found["anew"] else parts[found["step"]]) + found["text"]
    assert set(parts) == set(steps)
    assert all(text in record["answer"] for text in parts.values())
    last = {
        found["step"]: found["state"] for name, found in got if name == "part" and "state" in found
    }
    assert set(last.values()) == {"succeeded"}
    assert got[-1][1]["state"] == "completed"
    bill = (await person.http.get(f"/console/playground/{request}/bill")).json()
    assert bill["tokens"] == record["usage"]["total_tokens"]
    again = await person.http.get(f"/console/playground/{request}/events?after=5")
    texts = [json.loads(line[6:]) for line in again.text.splitlines() if line.startswith("data: ")]
    assert "".join(found["text"] for found in texts if "at" in found) == record["answer"][5:]


async def test_who_comes_back_to_the_playground_is_told_no_thought_twice(
    person: Person,
) -> None:
    got = await played(person, model="thinker", messages=said("Why?"))
    thoughts = [found for name, found in got if name == "reasoning"]
    assert "".join(found["text"] for found in thoughts) == THOUGHTS
    assert thoughts[-1]["thought"] == len(THOUGHTS)
    path = f"/console/playground/{got[0][1]['request']}/events"
    for query, rest in (("", THOUGHTS), ("thought=5", THOUGHTS[5:]), ("thought=9999", "")):
        async with person.http.stream("GET", f"{path}?after=0&{query}") as answer:
            again = [event async for event in events(answer)]
        assert "".join(found["text"] for name, found in again if name == "reasoning") == rest
        assert again[-1][0] == "end"
    for query in ("thought=-1", "thought=x", "thought=1e3", f"thought={'9' * 16}"):
        assert (await person.http.get(f"{path}?{query}")).status_code == 400


async def test_markup_stays_text_in_the_playground_and_stop_cancels(person: Person) -> None:
    got = await played(person, model="mill", messages=said("something hostile"), temperature=0.5)
    text = "".join(found["text"] for name, found in got if name == "text")
    assert text == f"{HOSTILE} said the model"
    script = (await person.http.get("/console/static/playground.js")).text
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script
    headers = {"x-csrf-token": person.token}
    body = {"model": "mill", "messages": said("hang for good")}
    async with person.http.stream(
        "POST", "/console/playground/chat", json=body, headers=headers
    ) as answer:
        following = events(answer)
        _, accepted = await anext(following)
        await person.post(f"{REQUESTS}/{accepted['request']}/cancel")
        rest = [event async for event in following]
    name, end = rest[-1]
    assert (name, end["state"], end["error"]["code"]) == ("end", "cancelled", "cancelled")
    assert end["error"]["remedy"]


async def test_what_the_playground_cannot_take_is_said_with_a_remedy(person: Person) -> None:
    headers = {"x-csrf-token": person.token}
    fine = {"model": "mill", "messages": said("Why?")}
    for change, status, code in (
        ({"model": "nix"}, 404, "model_not_found"),
        ({"messages": []}, 400, "invalid_value"),
        ({"messages": "Why?", "system": "Be short."}, 400, "invalid_type"),
        ({"model": None}, 400, "invalid_type"),
        ({"temperature": 9}, 400, "invalid_value"),
        ({"model": "millrace/rag", "collection": "x y"}, 400, "invalid_value"),
        ({"model": "millrace/rag", "collection": "none"}, 404, "collection_not_found"),
    ):
        body = {**fine, **change}
        answer = await person.http.post("/console/playground/chat", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.json()["remedy"]
    for headers in (
        {},
        {"x-csrf-token": "x"},
        {"x-csrf-token": person.token, "origin": "http://evil.example"},
    ):
        answer = await person.http.post("/console/playground/chat", json=fine, headers=headers)
        assert answer.status_code in {400, 403, 415}
