"""Lists of requests: what passes, and how long words are looked for."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import listed, tenants
from db.listed import Filter, TooMany
from queue_schemas.states import RequestState
from tests.integration.db.answered_chats import answered, said


def asked(*words: str) -> dict[str, object]:
    """A question whose user said these things, one after the other."""
    return {"messages": [{"role": "user", "content": each} for each in words]}


async def found(engine: AsyncEngine, tenant: UUID, which: Filter | None = None) -> list[UUID]:
    async with engine.begin() as connection:
        return [each.id for each in await listed.listed(connection, tenant, 10, which)]


async def test_each_filter_lets_through_what_is_like_it(engine: AsyncEngine, tenant: UUID) -> None:
    async with engine.begin() as connection:
        other = await tenants.ensure_tenant(connection, "others")
        await answered(connection, other, question=asked("a mill"))
        plain = await answered(connection, tenant, question=asked("A 100% mill"), end_user="alice")
        split = await answered(
            connection, tenant, question=asked("a mill", "Races_now?"), plan={"strategy": "split"}
        )
        failed = {"state": "failed", "model": "wheel"}
        broken = await answered(connection, tenant, **failed)
        late = await answered(connection, tenant, **failed | {"state": "expired"})
        stopped = await answered(connection, tenant, **failed | {"state": "cancelled"})
        error = text(
            """UPDATE millrace.requests SET error = '{"code": "x"}' WHERE id = ANY(:ids)"""
        )
        await connection.execute(error, {"ids": [broken, late, stopped]})
        await said(connection, tenant, plain, score=0.0)
        [first] = await listed.listed(connection, tenant, 1, Filter(ids=[plain]))
        # In one transaction all have the same time; the list wants an order.
        later = text("UPDATE millrace.requests SET created_at = now() + :by WHERE id = :id")
        for number, id_ in enumerate((plain, split, broken, late, stopped)):
            await connection.execute(later, {"by": timedelta(hours=number), "id": id_})
    assert first.score == 0.0
    assert await found(engine, tenant) == [stopped, late, broken, split, plain]
    middle = first.created_at + timedelta(minutes=30)
    for which, expected in (
        (Filter(states={RequestState.FAILED}), [broken]),
        (Filter(states={RequestState.COMPLETED}), [split, plain]),
        (Filter(states=listed.OPEN), []),
        (Filter(states=listed.UNANSWERED), [late, broken]),
        (Filter(strategy="split"), [split]),
        (Filter(model="wheel"), [stopped, late, broken]),
        (Filter(end_user="alice"), [plain]),
        (Filter(since=middle), [stopped, late, broken, split]),
        (Filter(until=middle), [plain]),
        (Filter(beginning=split.hex[:12]), [split]),
        (Filter(words=("MILL", "100%")), [plain]),
        (Filter(words=("mill",)), [plain]),  # what was said before is not the question
        (Filter(words=("races_",)), [split]),
        (Filter(words=("races%",)), []),
        (Filter(words=("mill\\",)), []),
        (Filter(ids=[plain, broken]), [broken, plain]),
    ):
        assert await found(engine, tenant, which) == expected, which


async def test_documents_that_came_with_a_question_are_neither_shown_nor_searched(
    engine: AsyncEngine, tenant: UUID
) -> None:
    prompt = asked("### Task:\nAnswer.\n<context><source>a weir</source></context>\nWho mills?")
    async with engine.begin() as connection:
        grounded = await answered(connection, tenant, question=prompt | {"asked": "Who mills?"})
        [one] = await listed.listed(connection, tenant, 5)
    assert one.question == "Who mills?"
    assert await found(engine, tenant, Filter(words=("who", "mills"))) == [grounded]
    assert await found(engine, tenant, Filter(words=("weir",))) == []


async def test_a_background_prompt_is_listed_as_what_it_is_for(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        prompt = asked("### Task:\nGenerate tags") | {"recognised": "tags_generation"}
        await answered(connection, tenant, question=prompt)
        [one] = await listed.listed(connection, tenant, 5)
    assert (one.question, one.task) == ("Tags generation", "tags_generation")


async def test_what_its_owner_deleted_is_listed_without_words_and_not_found_by_them(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        hidden = await answered(connection, tenant, question=asked("a mill") | {"hidden": True})
        [one] = await listed.listed(connection, tenant, 5)
    assert (one.id, one.question) == (hidden, None)
    assert await found(engine, tenant, Filter(words=("mill",))) == []


async def test_what_no_index_has_is_not_looked_for_forever(
    engine: AsyncEngine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "SEARCH_SECONDS", 0.05)
    async with engine.begin() as busy:
        await busy.execute(text("LOCK TABLE millrace.requests"))
        for which in (Filter(words=("mill",)), Filter(strategy="none has it")):
            with pytest.raises(TooMany):
                await found(engine, tenant, which)
