"""Conversations in the database: whose they are, what is due, and what deleting leaves."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import conversations, exchange_vectors, requests, summaries
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
    engine: AsyncEngine, of: StoredConversation, answer: str | None = "Because."
) -> UUID:
    """A request of a conversation; answered, unless the answer is None."""
    row = requests.NewRequest(
        uuid4(), of.tenant, of.end_user, "mill", QUESTION, "{}", 1, None, 600.0, conversation=of.id
    )
    async with engine.begin() as connection:
        await requests.add(connection, row, [])
        if answer is not None:
            state = RequestState.COMPLETED
            await requests.finish(connection, row.id, state, answer=answer, finish_reason="stop")
    return row.id


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
    writing = await asked(engine, of, None)
    async with engine.begin() as connection:
        until = found.since - timedelta(hours=1)
        assert await summaries.begin(connection, found, writing, until, 3)
        assert not await summaries.begin(connection, found, waiting, until, 9)
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
    writing = await asked(engine, of, "  ")
    async with engine.begin() as connection:
        await summaries.begin(connection, found, writing, found.since, 3)
        assert await summaries.take(connection, 60.0) == [(of.id, "completed")]
        query = "SELECT summary, summarise_at > now() FROM millrace.conversations"
        assert tuple((await connection.execute(text(query))).one()) == (None, True)


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
    await touched(engine, of)
    async with engine.begin() as connection:
        [taken] = await exchange_vectors.take(connection, 9, 60.0)
        assert await exchange_vectors.take(connection, 9, 60.0) == []
        assert await exchange_vectors.missing(connection, of.id, "tiny", 9) == [request]
    async with as_tenant(engine, tenant) as connection:
        await exchange_vectors.put(connection, of.id, "tiny", [(request, [1.0])])
    await touched(engine, of)  # meanwhile
    async with engine.begin() as connection:
        await exchange_vectors.release(connection, taken, None)
        [taken] = await exchange_vectors.take(connection, 9, 60.0)
        assert await exchange_vectors.missing(connection, of.id, "tiny", 9) == []
        assert await exchange_vectors.missing(connection, of.id, "another", 9) == [request]
        await exchange_vectors.release(connection, taken, None)
        assert await exchange_vectors.take(connection, 9, 60.0) == []


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
