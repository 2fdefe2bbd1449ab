"""Answers that are given again: opt-in, exact, not too old, each tenant for itself."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from millrace.one_machine import make_key
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

ODD = a_script(text="{prompt} is answered", tokens_per_second=200)


async def asked(mill: Mill, content: str = "Why?", **more: Any) -> httpx2.Response:
    answer = await mill.ask(content, **{"cache": 60} | more)
    assert answer.status_code == 200, answer.text
    return answer


def request_of(answer: httpx2.Response) -> str:
    return answer.headers["x-millrace-request-id"]


async def test_the_same_question_has_the_same_answer_without_work(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    first = await asked(mill)
    again = await asked(mill)
    assert [a.headers["x-millrace-cache"] for a in (first, again)] == ["miss", "hit"]
    assert again.json()["choices"] == first.json()["choices"]
    assert request_of(again) == request_of(first)
    assert await mill.count("subtasks") == 1
    found = await mill.http.get("/metrics")
    assert 'millrace_cache_total{found="yes"}' in found.text


async def test_it_is_streamed_like_any_other(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    first = await mill.streamed(cache=60)
    again = await mill.streamed(cache=60)
    assert again.headers["x-millrace-cache"] == "hit"
    assert again.text == first.text == "Why? is answered"
    assert again.ends_once()
    assert again.finish_reasons == ["stop"]


async def test_nothing_is_given_again_unasked(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    await asked(mill)
    for cache in ({}, {"cache": 0}):
        answer = await mill.ask(**cache)
        assert "x-millrace-cache" not in answer.headers
    assert await mill.count("requests") == 3


@pytest.mark.parametrize(
    "change",
    [
        {"content": "Why not?"},
        {"temperature": 0.5},
        {"max_tokens": 50},
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "user", "content": "?"}]},
    ],
    ids=["message", "temperature", "limit", "conversation"],
)
async def test_what_differs_in_anything_is_another_question(
    make_mill: MakeMill, change: dict[str, Any]
) -> None:
    mill = await make_mill(ODD)
    await asked(mill)
    assert (await asked(mill, **change)).headers["x-millrace-cache"] == "miss"


async def test_who_streams_or_is_named_otherwise_asks_the_same(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    await asked(mill, user="alice")
    assert (await mill.streamed(cache=60, user="bob")).headers["x-millrace-cache"] == "hit"


async def test_what_a_model_said_that_is_no_longer_served_is_not_given_again(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(ODD, ODD | {"name": "other"})
    await asked(mill, model="other")
    mill.running.view.registry = lambda: mill.registry.model_copy(
        update={"models": mill.registry.models[:1]}
    )
    answer = await mill.ask(model="other", cache=60)
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_an_answer_that_is_too_old_is_not_given_again(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    first = await asked(mill)
    async with mill.running.engine.begin() as connection:
        await connection.execute(
            text("UPDATE millrace.requests SET finished_at = now() - interval '61 s'")
        )
    again = await asked(mill)
    assert again.headers["x-millrace-cache"] == "miss"
    assert request_of(again) != request_of(first)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"faults": [{"kind": "fail", "error_kind": "permanent", "after_tokens": 1}]}, None),
        ({"text": "a long answer that is cut"}, 2),
    ],
    ids=["failed", "cut off"],
)
async def test_an_answer_that_is_not_whole_is_not_given_again(
    make_mill: MakeMill, options: dict[str, Any], limit: int | None
) -> None:
    mill = await make_mill(a_script(**options))
    body = {"max_tokens": limit} if limit else {}
    for _ in range(2):
        answer = await mill.ask(cache=60, **body)
        assert answer.headers.get("x-millrace-cache") != "hit"
    assert await mill.count("requests") == 2


async def test_another_tenant_gets_an_answer_of_its_own(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    await asked(mill)
    other = await make_key(mill.database_url, "other", "tests")
    answer = await mill.http.post(
        "/v1/chat/completions",
        json=mill.body(cache=60),
        headers={"Authorization": f"Bearer {other}"},
    )
    assert answer.headers["x-millrace-cache"] == "miss"


async def test_a_master_can_be_set_to_it_and_a_client_can_refuse(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD, cache_seconds=60)
    await mill.ask()
    assert (await mill.ask()).headers["x-millrace-cache"] == "hit"
    assert "x-millrace-cache" not in (await mill.ask(cache=0)).headers


async def test_what_is_looked_up_in_documents_is_answered_anew(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    for _ in range(2):
        answer = await mill.ask(model="millrace/router", cache=60)
        assert "x-millrace-cache" not in answer.headers


async def test_many_at_once_are_answered(make_mill: MakeMill) -> None:
    mill = await make_mill(ODD)
    answers = await asyncio.gather(*(asked(mill) for _ in range(20)))
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1


@pytest.mark.parametrize("cache", [-1, 1.5, "60", True, 10**9])
async def test_a_bad_age_is_refused(make_mill: MakeMill, cache: Any) -> None:
    mill = await make_mill(ODD)
    answer = await mill.ask(cache=cache)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cache")
