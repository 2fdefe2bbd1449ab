"""Conversations in the database: whose they are, what is due, and what deleting leaves."""

import json
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import conversations, exchange_vectors, new_requests, requests, summaries
from db.conversations import StoredConversation
from db.summaries import Due
from db.tenancy import as_tenant
from queue_schemas.states import RequestState
from tests.integration.db.corpus_acts import tenant_named

QUESTION = '{"messages": [{"role": "user", "content": "Why?"}], "task": null}'


async def begun(engine: AsyncEngine, tenant: UUID, user: str | None = "ada") -> StoredConversation:
    async with as_tenant(engine, tenant) as connection:
        return await conversations.add(connection, tenant, user)


async def asked(
    engine: AsyncEngine,
    of: StoredConversation,
    answer: str | None = "Because.",
    question: str = QUESTION,
) -> UUID:
    """A request of a conversation; answered, unless the answer is None."""
    row = new_requests.NewRequest(
        uuid4(), of.tenant, of.end_user, "mill", question, "{}", 1, None, 600.0, conversation=of.id
    )
    async with engine.begin() as connection:
        await new_requests.add(connection, row, [])
        if answer is not None:
            state = RequestState.COMPLETED
            await requests.finish(connection, row.id, state, answer=answer, finish_reason="stop")
    return row.id


def writes(until: datetime, exchanges: int) -> str:
    """The question of a request that writes a summary."""
    note = summaries.note(until, exchanges)
    return json.dumps({"messages": [], "task": "conversation_summary", "response": note})


async def touched(engine: AsyncEngine, of: StoredConversation) -> None:
    async with as_tenant(engine, of.tenant) as connection:
        await conversations.touch(connection, of.tenant, of.id, "A title", due=True)


async def due(engine: AsyncEngine) -> list[Due]:
    async with engine.begin() as connection:
        return await summaries.due(connection, 10)


async def test_a_name_is_one_conversation_of_each_user(engine: AsyncEngine, tenant: UUID) -> None:
    async with as_tenant(engine, tenant) as connection:
        first, again, other = [
            await conversations.ensure(connection, tenant, user, "diary")
            for user in ("ada", "ada", None)
        ]
    assert (first.id, first.end_user, other.end_user) == (again.id, "ada", None)
    assert first.id != other.id


async def test_exchanges_are_answers_in_their_order(engine: AsyncEngine, tenant: UUID) -> None:
    of = await begun(engine, tenant)
    ids = [await asked(engine, of, f"answer {number}") for number in range(4)]
    await asked(engine, of, None)
    async with engine.begin() as connection:
        await requests.hide(connection, ids[1])
        newest = await conversations.newest(connection, tenant, of.id, 2)
        since = await conversations.since(connection, tenant, of.id, newest[0].at, 9)
        until = await conversations.until(
            connection, tenant, of.id, (newest[0].at, newest[0].request), 9
        )
        assert [one.request for one in newest] == ids[2:]
        assert [one.answer for one in since] == ["answer 3"]
        assert [one.request for one in until] == [ids[0], ids[2]]
        assert await conversations.counts(connection, tenant, [of.id]) == {of.id: 3}
        other = await tenant_named(engine, "other")
        assert await conversations.newest(connection, other, of.id, 9) == []


async def test_a_summary_is_due_when_nobody_waits_and_begun_once(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    assert await due(engine) == []
    await touched(engine, of)
    waiting = await asked(engine, of, None)
    assert await due(engine) == []
    async with engine.begin() as connection:
        await requests.finish(connection, waiting, RequestState.FAILED, error="{}")
    [found] = await due(engine)
    until = found.since - timedelta(hours=1)
    writing, too_late = [await asked(engine, of, None, writes(until, n)) for n in (3, 9)]
    async with engine.begin() as connection:
        assert not await summaries.begin(connection, found, waiting)  # it writes no summary
        assert await summaries.begin(connection, found, writing)
        assert not await summaries.begin(connection, found, too_late)
        await summaries.put_off(connection, found, None)  # no more than that it was begun
        assert await summaries.take(connection, 60.0) == []
        await requests.finish(
            connection, writing, RequestState.COMPLETED, answer=" S. ", finish_reason="stop"
        )
        assert await summaries.take(connection, 60.0) == [(of.id, "completed")]
        assert await summaries.take(connection, 60.0) == []
    async with as_tenant(engine, tenant) as connection:
        stored = await conversations.find(connection, tenant, of.id)
    assert stored is not None
    assert stored.summary == {
        "text": "S.",
        "until": until.isoformat(),
        "exchanges": 3,
        "request": str(writing),
    }
    assert await due(engine) == []


async def test_a_summary_that_failed_leaves_the_older_one_and_is_due_later(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    await touched(engine, of)
    [found] = await due(engine)
    writing = await asked(engine, of, "  ", writes(found.since, 3))
    async with engine.begin() as connection:
        await summaries.begin(connection, found, writing)
        assert await summaries.take(connection, 60.0) == [(of.id, "completed")]
        query = "SELECT summary, summarise_at > now() FROM millrace.conversations"
        assert tuple((await connection.execute(text(query))).one()) == (None, True)


async def test_a_summary_that_fails_again_and_again_waits_until_more_is_said(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    await touched(engine, of)
    for left in range(summaries.MOST_FAILURES, 0, -1):
        [found] = await due(engine)
        async with engine.begin() as connection:
            await summaries.fail(connection, found, 0.0)
        assert len(await due(engine)) == (left > 1)
    await touched(engine, of)
    [found] = await due(engine)
    async with engine.begin() as connection:
        await summaries.fail(connection, found, 0.0)
    assert await due(engine) == []


@pytest.mark.parametrize(("hours", "left"), [(0, None), (1, None), (-1, "S.")])
async def test_a_summary_is_dropped_with_what_it_covers(
    engine: AsyncEngine, tenant: UUID, hours: int, left: str | None
) -> None:
    of = await begun(engine, tenant)
    await touched(engine, of)
    [found] = await due(engine)
    until = found.since + timedelta(hours=hours)
    writing = await asked(engine, of, "S.", writes(until, 3))
    async with engine.begin() as connection:
        await summaries.begin(connection, found, writing)
        await summaries.take(connection, 60.0)
        await summaries.drop(connection, of.id, found.since)
    async with as_tenant(engine, tenant) as connection:
        stored = await conversations.find(connection, tenant, of.id)
    assert stored is not None
    assert (stored.summary or {}).get("text") == left
    assert len(await due(engine)) == (left is None)


async def test_what_is_being_summarised_is_not_taken_when_a_part_of_it_was_deleted(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    await touched(engine, of)
    [found] = await due(engine)
    writing = await asked(engine, of, "S.", writes(found.since, 3))
    async with engine.begin() as connection:
        await summaries.begin(connection, found, writing)
        await summaries.drop(connection, of.id, found.since)
        assert await summaries.take(connection, 60.0) == []
        assert not await summaries.begin(connection, found, writing)
    assert len(await due(engine)) == 1


async def test_the_last_turns_come_with_the_rounds_of_their_tools(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    first = [{"role": "system", "content": "S"}, {"role": "user", "content": "Why?"}]
    round_ = [{"role": "system", "content": "S"}, {"role": "tool", "content": "42"}]
    ids = [
        await asked(engine, of, question=json.dumps({"messages": messages, "task": None}))
        for messages in (first, first, round_, round_, first)
    ]
    async with engine.begin() as connection:

        async def last(turns: int, limit: int = 9) -> list[UUID]:
            found = await conversations.last_turns(connection, tenant, of.id, turns, limit)
            return [one.request for one in found]

        assert [await last(turns) for turns in (1, 2, 3)] == [ids[4:], ids[1:], ids]
        assert await last(3, limit=2) == ids[3:]


async def test_of_a_question_no_more_is_read_than_is_needed(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    content = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "AAAA"}}]
    question = {
        "messages": [{"role": "user", "content": content}],
        "task": None,
        "remembered": {"messages": ["BBBB"], "note": "BBBB", "turns": 2, "system": []},
        "response": {"instructions": "Be brief.", "tools": ["BBBB"]},
    }
    request = await asked(engine, of, question=json.dumps(question))
    plain = await asked(engine, of)
    async with engine.begin() as connection:
        [whole, _] = await conversations.newest(connection, tenant, of.id, 9)
        worded = await conversations.by_request(connection, tenant, [of.id], [request, plain])
        [since, _] = await conversations.since(connection, tenant, of.id, None, 9, in_words=True)
    assert whole.question == {
        "messages": question["messages"],
        "response": {"instructions": "Be brief."},
        "remembered": {"system": [], "turns": 2},
    }
    assert since.question == worded[request].question
    assert since.question["messages"] == [{"role": "user", "content": content[:1]}]
    assert worded[plain].question["messages"] == json.loads(QUESTION)["messages"]


async def test_vectors_are_found_within_one_person_only(engine: AsyncEngine, tenant: UUID) -> None:
    people = [await begun(engine, tenant, user) for user in ("ada", "ada", "bob", None, None)]
    for number, of in enumerate(people):
        request = await asked(engine, of)
        async with as_tenant(engine, tenant) as connection:
            vector = [1.0, float(number)]
            await exchange_vectors.put(connection, of.id, "tiny", [(request, vector)])

    async def near(user: str | None, of: StoredConversation, model: str = "tiny") -> list[UUID]:
        async with as_tenant(engine, tenant) as connection:
            who = (tenant, user, of.id)
            found = await exchange_vectors.nearest(connection, who, model, [1.0, 0.0], 9)
            return [one.conversation for one in found]

    ada, ada_too, bob, nobody, _ = people
    assert await near("ada", ada) == [ada.id, ada_too.id]
    assert await near("bob", bob) == [bob.id]
    assert await near(None, nobody) == [nobody.id]
    assert await near("ada", ada, "other") == []


async def test_vectors_are_due_once_until_something_is_said(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    request = await asked(engine, of)
    async with engine.begin() as connection:
        [taken] = await exchange_vectors.take(connection, 9, 60.0)
        assert await exchange_vectors.take(connection, 9, 60.0) == []
        assert await exchange_vectors.missing(connection, of.id, "tiny", 9) == [request]
    async with as_tenant(engine, tenant) as connection:
        await exchange_vectors.put(connection, of.id, "tiny", [(request, [1.0])])
    meanwhile = await asked(engine, of)
    async with engine.begin() as connection:
        await exchange_vectors.release(connection, taken, None)
        [taken] = await exchange_vectors.take(connection, 9, 60.0)
        assert await exchange_vectors.missing(connection, of.id, "tiny", 9) == [meanwhile]
        assert await exchange_vectors.missing(connection, of.id, "another", 9) == [
            meanwhile,
            request,
        ]
        await exchange_vectors.release(connection, taken, None)
        assert await exchange_vectors.take(connection, 9, 60.0) == []


async def test_who_looks_before_the_question_is_stored_does_not_lose_it(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    await touched(engine, of)  # what is remembered was read; the request is not stored yet
    async with engine.begin() as connection:
        for taken in await exchange_vectors.take(connection, 9, 60.0):
            await exchange_vectors.release(connection, taken, None)
    await asked(engine, of)
    async with engine.begin() as connection:
        assert [one.id for one in await exchange_vectors.take(connection, 9, 60.0)] == [of.id]


async def test_a_deleted_conversation_takes_its_vectors_and_lets_its_requests_be(
    engine: AsyncEngine, tenant: UUID
) -> None:
    of = await begun(engine, tenant)
    request = await asked(engine, of)
    async with as_tenant(engine, tenant) as connection:
        await exchange_vectors.put(connection, of.id, "tiny", [(request, [1.0])])
        await conversations.delete(connection, tenant, of.id)
        await exchange_vectors.put(connection, of.id, "tiny", [(request, [1.0])])  # too late
    async with engine.begin() as connection:
        stored = await requests.find(connection, request, tenant)
        assert stored is not None
        assert stored.conversation is None
        left = "SELECT count(*) FROM millrace.exchange_vectors"
        assert await connection.scalar(text(left)) == 0
    with pytest.raises(IntegrityError, match="fk_requests_conversation_id"):
        await asked(engine, of)
