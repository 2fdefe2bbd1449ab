"""A stream goes on on any replica, with no gap and no repeat (P5, B22, C32)."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import requests
from master import streams
from master.api import stored
from master.api.errors import ApiError
from master.api.response_events import HEAD
from millrace.chaos.stack import until
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, a_script, installations
from tests.integration.master.responses_client import Events, create, replay, resume

MakeMills = Callable[..., Awaitable[list[Mill]]]

WORDS = " ".join(f"word{n}" for n in range(40))
PACED = a_script(text=WORDS, tokens_per_second=60)
QUESTIONS = "1. What is a mill?\n2. What is a wheel?\n3. What is a race?"
WHOLE = [
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@pytest.fixture
async def make_mills(migrated_url: str) -> AsyncGenerator[MakeMills, None]:
    """Makes two masters that serve the models given; ended with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*models: dict[str, Any], **settings: Any) -> list[Mill]:
            made = installations(migrated_url, *models, masters=2, **settings)
            return await stack.enter_async_context(made)

        yield make


def after(word: str) -> Callable[[Events], bool]:
    return lambda got: word in got.text


async def says(got: Events, word: str) -> bool:
    return word in got.text


async def streams_something(mill: Mill) -> bool:
    return len(mill.running.streams) > 0


def request_of(response: str) -> str:
    return response.removeprefix("resp_")


async def agrees(mill: Mill, got: Events) -> dict[str, Any]:
    """The record, after checking that it says what the client saw."""
    assert got.rising(), [event["sequence_number"] for event in got.events]
    record = await mill.until_state(request_of(got.id), "completed")
    assert got.text == record["answer"]
    assert got.last["output"][0]["content"][0]["text"] == record["answer"]
    await mill.idle()
    return record


async def test_a_background_stream_goes_on_on_the_other_replica(
    make_mills: MakeMills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_WATCH_SECONDS", 3600)  # which would heal much
    gates = Gates(11, 20)
    one, other = await make_mills(a_script(text=WORDS), provider=gates)
    got = Events()
    await create(one, got, after("word9 "), background=True)
    joining = asyncio.create_task(resume(other, got))
    await until(lambda: streams_something(other), 30)
    gates.open("mill", 11)
    await until(lambda: says(got, "word19"), 30)  # while it is generated, not with the result
    gates.open("mill")
    await joining
    record = await agrees(one, got)
    assert got.text == WORDS
    assert got.types == WHOLE
    [subtask] = record["subtasks"]
    assert len(subtask["attempts"]) == 1, "it was generated again"


async def test_a_split_goes_on_on_the_other_replica_in_the_middle_of_any_part(
    make_mills: MakeMills,
) -> None:
    one, other = await make_mills(a_script(text="{step} " + WORDS, tokens_per_second=60))
    got = Events()
    asked = {"model": "millrace/split", "input": QUESTIONS, "background": True}
    await create(one, got, after("word20"), **asked)
    await resume(other, got, after("part-2 word0 word1"))
    await resume(one, got)
    record = await agrees(one, got)
    assert got.streams == 3
    assert [len(s["attempts"]) for s in record["subtasks"]] == [1, 1, 1]


@pytest.mark.parametrize("seed", range(6))
async def test_wherever_a_stream_is_cut_its_pieces_are_the_answer(
    make_mills: MakeMills, seed: int
) -> None:
    dice = random.Random(seed)
    mills = await make_mills(a_script(text="{step}: " + WORDS, tokens_per_second=100))
    got = Events()
    asked = {"model": "millrace/split", "input": QUESTIONS, "background": True}

    def cut() -> Callable[[Events], bool]:
        at = len(got.events) + dice.randint(1, 25)
        return lambda got: len(got.events) >= at

    await create(dice.choice(mills), got, cut(), **asked)
    while got.events[-1]["type"] != "response.completed":
        await asyncio.sleep(dice.choice([0, 0, 0.05, 0.3]))  # being away takes time
        await resume(dice.choice(mills), got, cut())
    await agrees(mills[0], got)


async def test_a_request_is_taken_over_before_a_worker_has_it(
    make_mills: MakeMills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_WATCH_SECONDS", 3600)  # which would heal it too
    gates = Gates(0, 20)
    script = a_script(text=WORDS, entry={"slots": 1})
    one, other = await make_mills(script, provider=gates)
    first, second = Events(), Events()
    short = {"background": True, "max_output_tokens": 5}
    await create(one, first, lambda got: bool(got.events), **short)
    await create(one, second, lambda got: bool(got.events), background=True)
    # The second waits at the broker in a message that names the first replica.
    taking_over = asyncio.create_task(resume(other, second))
    await until(lambda: streams_something(other), 30)
    gates.open("mill", 0)
    await until(lambda: says(second, "word19"), 30)  # while it is generated, not with the result
    gates.open("mill")
    await taking_over
    await agrees(one, second)


async def test_everything_can_be_read_again_and_from_any_event_on(make_mills: MakeMills) -> None:
    one, other = await make_mills(PACED)
    got = Events()
    await create(one, got, background=True)
    await agrees(one, got)
    again = await replay(other, got.id)
    assert (again.text, again.types, again.cursor) == (WORDS, WHOLE, got.cursor)
    assert again.rising()
    for position, event in enumerate(got.events[:-1]):
        rest = await replay(other, got.id, event["sequence_number"])
        assert rest.text == "".join(e.get("delta", "") for e in got.events[position + 1 :])
        assert rest.events[-1] | {"response": {}} == got.events[-1] | {"response": {}}
        assert rest.rising()
    for beyond in (got.cursor, got.cursor + 1, 10**9):
        assert (await replay(other, got.id, beyond)).types == ["response.completed"]


async def test_a_full_replay_can_be_cut_at_every_number_that_a_client_may_have(
    make_mills: MakeMills,
) -> None:
    one, other = await make_mills(PACED)
    got = Events()
    await create(one, got, after("word20"), background=True)
    whole = await replay(other, got.id)
    rest = [e for e in whole.events if e["sequence_number"] > got.cursor]
    assert got.text + "".join(e.get("delta", "") for e in rest) == WORDS


async def test_a_number_beyond_what_was_generated_waits(make_mills: MakeMills) -> None:
    one, other = await make_mills(PACED)
    got = Events()
    await create(one, got, after("word2 "), background=True)
    later = WORDS.index("word30")
    rest = await replay(other, got.id, HEAD + later)
    assert rest.text == WORDS[later:]


async def test_clients_on_two_replicas_see_the_same_answer_to_its_end(
    make_mills: MakeMills,
) -> None:
    one, other = await make_mills(a_script(text=WORDS, tokens=200, tokens_per_second=60))
    got = Events()

    async def join() -> Events:
        async def begun() -> bool:
            return "word3" in got.text

        await until(begun, 30)
        return await replay(other, got.id)

    joined = asyncio.create_task(join())
    await create(one, got)
    record = await agrees(one, got)
    assert (await joined).text == record["answer"]


async def test_two_clients_of_one_replica_share_a_stream_and_one_may_leave(
    make_mills: MakeMills,
) -> None:
    one, _ = await make_mills(PACED)
    got, joined = Events(), Events()

    async def join() -> None:
        async def begun() -> bool:
            return "word3" in got.text

        await until(begun, 30)
        joined.events.append(got.events[0])
        await resume(one, joined)

    joining = asyncio.create_task(join())
    # In the foreground: the last one to leave would cancel it.
    await create(one, got, lambda got: "word12" in got.text and len(joined.events) > 1)
    await joining
    record = await one.until_state(request_of(got.id), "completed")
    assert joined.text == record["answer"] == WORDS


async def test_a_foreground_response_whose_only_client_leaves_is_cancelled(
    make_mills: MakeMills,
) -> None:
    one, other = await make_mills(a_script(text=WORDS), provider=Gates(5))  # it never ends
    got = Events()
    await create(one, got, after("word3 "))
    await one.until_state(request_of(got.id), "cancelled")
    rest = await replay(other, got.id, got.cursor)
    assert rest.types == ["response.failed"]
    assert rest.last["status"] == "cancelled"
    assert rest.cursor > got.cursor


async def test_who_only_watched_cancels_nothing_by_leaving(make_mills: MakeMills) -> None:
    one, other = await make_mills(a_script(text=WORDS, tokens=200, tokens_per_second=60))
    got = Events()

    async def watch() -> None:
        async def begun() -> bool:
            return "word3" in got.text

        await until(begun, 30)
        async with other.http.stream("GET", f"/v1/requests/{request_of(got.id)}/events") as answer:
            async for line in answer.aiter_lines():
                if "word1" in line:
                    return

    watching = asyncio.create_task(watch())
    await create(one, got)
    await watching
    await agrees(one, got)


async def test_a_background_response_that_nobody_waits_for_is_answered(
    make_mills: MakeMills,
) -> None:
    one, other = await make_mills(PACED)
    asked = {"model": "mill", "input": "Why?", "background": True}
    answer = await one.http.post("/v1/responses", json=asked)
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    response = answer.json()["id"]
    got = await replay(other, response)
    assert (got.text, got.types) == (WORDS, WHOLE)
    retrieved = (await other.http.get(f"/v1/responses/{response}")).json()
    assert retrieved["status"] == "completed"
    assert retrieved["output"] == got.last["output"]


async def test_a_cancel_on_one_replica_ends_the_streams_of_both(make_mills: MakeMills) -> None:
    one, other = await make_mills(a_script(text=WORDS, tokens=2000, tokens_per_second=60))
    got = Events()
    await create(one, got, after("word3 "), background=True)
    reading = asyncio.gather(*(replay(mill, got.id) for mill in (one, other, other)))

    async def followed() -> bool:
        return len(one.running.streams) == len(other.running.streams) == 1

    await until(followed, 30)
    cancelled = await one.http.post(f"/v1/responses/{got.id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    for stream in await reading:
        assert stream.last["status"] == "cancelled"
    await one.idle()
    again = await one.http.post(f"/v1/responses/{got.id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


async def test_a_stream_that_ended_an_hour_ago_is_gone_and_its_response_is_not(
    make_mills: MakeMills,
) -> None:
    one, other = await make_mills(PACED)
    got = Events()
    await create(one, got, background=True)
    async with one.running.engine.begin() as connection:
        for column in ("created_at", "started_at", "finished_at"):
            earlier = f"UPDATE millrace.requests SET {column} = {column} - CAST(:age AS interval)"
            await connection.execute(text(earlier), {"age": timedelta(minutes=61)})
    path = f"/v1/responses/{got.id}"
    gone = await other.http.get(path, params={"stream": "true"})
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "stream_expired")
    events = await other.http.get(f"/v1/requests/{request_of(got.id)}/events")
    assert (events.status_code, events.json()["error"]["code"]) == (410, "stream_expired")
    kept = await other.http.get(path)
    assert kept.json()["output"][0]["content"][0]["text"] == WORDS


@pytest.mark.parametrize("number", ["-1", "abc", "1.5", "", "9" * 5000])
async def test_a_number_that_is_none_is_refused(make_mills: MakeMills, number: str) -> None:
    one, _ = await make_mills(PACED)
    got = Events()
    await create(one, got, background=True)
    query = {"stream": "true", "starting_after": number}
    for path in (f"/v1/responses/{got.id}", f"/v1/requests/{request_of(got.id)}/events"):
        answer = await one.http.get(path, params=query)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "completed"])
async def test_a_stream_ends_although_nobody_can_reach_its_replica(
    make_mills: MakeMills, cancelled: bool
) -> None:
    gates = Gates(5)
    one, other = await make_mills(PACED, provider=gates)
    got = Events()
    reading = asyncio.create_task(create(one, got, background=True))
    await until(lambda: says(got, "word3"), 30)
    del one.broker.queues[one.running.streams.queue.name]  # with what was in it
    if cancelled:
        await other.http.post(f"/v1/responses/{got.id}/cancel")
    else:
        gates.open("mill")
    async with asyncio.timeout(60):
        await reading
    assert got.rising()
    if cancelled:
        assert got.last["status"] == "cancelled"
        assert WORDS.startswith(got.text)
    else:
        assert got.text == WORDS


async def test_a_worker_that_is_lost_after_the_take_over_costs_no_text(
    make_mills: MakeMills,
) -> None:
    gates = Gates(20)
    one, other = await make_mills(PACED, provider=gates)
    got = Events()
    await create(one, got, after("word5 "), background=True)
    await resume(other, got, after("word12 "))
    await one.worker_buses["mill"].break_connection()
    gates.open("mill")
    await resume(other, got)
    await agrees(one, got)
    assert got.text == WORDS


async def test_the_hour_of_a_replay_is_counted_by_the_databases_clock(
    make_mills: MakeMills,
) -> None:
    one, _ = await make_mills(PACED)
    got = Events()
    await create(one, got, background=True)
    request = UUID(request_of(got.id))
    async with one.running.engine.connect() as connection:
        found = (await requests.load(connection, [request]))[request]
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)  # by the clock of the database, of all machines
    ended = replace(found, finished_at=long_ago, read_at=long_ago + timedelta(minutes=59))
    live = await stored.join(one.running, ended)
    assert one.running.streams.close(live)
    with pytest.raises(ApiError, match="no longer"):
        await stored.join(one.running, replace(ended, read_at=long_ago + timedelta(minutes=61)))
