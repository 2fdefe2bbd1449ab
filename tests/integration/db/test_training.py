"""What may be exported to train models: only what everybody concerned lets go."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import training
from db.models import JudgementKind
from tests.integration.db.answered_chats import answered, said, step
from tests.integration.db.corpus_acts import tenant_named

YEAR = 365 * 86_400.0


async def ids(engine: AsyncEngine, tenant: str | None = None, since: float = YEAR) -> list[UUID]:
    async with engine.connect() as connection:
        return [rated.id async for rated in training.rated(connection, tenant, since)]


async def consent(engine: AsyncEngine, tenant: str, allowed: bool) -> bool:
    async with engine.begin() as connection:
        return await training.set_consent(connection, tenant, allowed)


async def test_nothing_is_read_of_a_tenant_that_has_not_said_yes(engine, tenant) -> None:
    other = await tenant_named(engine, "other")
    async with engine.begin() as connection:
        mine, theirs = [await answered(connection, each) for each in (tenant, other)]
        await said(connection, tenant, mine)
        await said(connection, other, theirs)
    assert await ids(engine) == []
    assert await consent(engine, "acme", True)
    assert not await consent(engine, "nobody", True)
    assert await ids(engine) == await ids(engine, "acme") == [mine]
    assert await ids(engine, "other") == []
    async with engine.connect() as connection:
        assert await training.consents(connection) == [("acme", True), ("other", False)]
    assert await consent(engine, "acme", False)
    assert await ids(engine) == []


async def test_only_whole_answers_that_people_said_something_of_are_read(engine, tenant) -> None:
    await consent(engine, "acme", True)
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    async with engine.begin() as connection:
        good = await answered(connection, tenant)
        await said(connection, tenant, good)
        retried = await answered(connection, tenant, created_at=long_ago)
        await said(connection, tenant, retried, "a", None, JudgementKind.RETRY)
        await answered(connection, tenant)
        judged = await answered(connection, tenant)
        await said(connection, tenant, judged, "x", 1.0, JudgementKind.CHECK)
        for row in ({"finish_reason": "length"}, {"error": '{"code": "part_failed"}'}):
            await said(connection, tenant, await answered(connection, tenant, **row))
        task = await answered(connection, tenant, step(kind="task"))
        await said(connection, tenant, task)
    assert await ids(engine) == [retried, good]
    assert await ids(engine, since=3600.0) == [good]


async def test_what_was_kept_back_or_deleted_is_not_read_nor_what_went_on_from_it(
    engine, tenant
) -> None:
    await consent(engine, "acme", True)
    async with engine.begin() as connection:

        async def judged(question: dict, **row: object) -> UUID:
            request = await answered(connection, tenant, question=question, **row)
            await said(connection, tenant, request)
            return request

        kept = await judged({"training": False})
        deleted = await judged({"hidden": True})
        follow_up = await judged({"training": True}, previous_id=kept)
        await judged({}, previous_id=follow_up)
        await judged({}, previous_id=deleted)
        first = await judged({"training": True})
        second = await judged({}, previous_id=first)
    assert set(await ids(engine)) == {first, second}


async def test_a_conversation_is_read_as_long_as_it_is_there_and_all_of_it_may_be(
    engine, tenant
) -> None:
    await consent(engine, "acme", True)
    chats = {name: uuid4() for name in ("open", "kept", "gone")}
    async with engine.begin() as connection:
        for chat in (chats["open"], chats["kept"]):
            insert = "INSERT INTO millrace.conversations (id, tenant_id) VALUES (:id, :tenant)"
            await connection.execute(text(insert), {"id": chat, "tenant": tenant})

        async def judged(name: str, there: bool = True, **question: object) -> UUID:
            remembered = {"conversation": str(chats[name])} | question.pop("remembered", {})
            row = {"conversation_id": chats[name]} if there else {}
            asked = {"remembered": remembered} | question
            request = await answered(connection, tenant, question=asked, **row)
            await said(connection, tenant, request)
            return request

        good = await judged("open")
        await judged("open", remembered={"note": "What was said in other chats."})
        await judged("kept")
        await judged("kept", training=False)
        erased = {"steps": [step(), step("draft", messages=[])]}
        await said(connection, tenant, await answered(connection, tenant, plan=erased))
        await judged("gone", there=False)
    assert await ids(engine) == [good]


async def test_what_has_words_of_a_conversation_is_read_only_if_all_of_it_may_be(
    engine, tenant
) -> None:
    """What goes on from one of its responses is given all of it, whoever kept what back."""
    await consent(engine, "acme", True)
    chats = {name: uuid4() for name in ("open", "kept", "recalling", "erased")}
    async with engine.begin() as connection:
        insert = text("INSERT INTO millrace.conversations (id, tenant_id) VALUES (:id, :tenant)")
        for chat in chats.values():
            await connection.execute(insert, {"id": chat, "tenant": tenant})

        async def judged(chat: str | None = None, **more: Any) -> UUID:
            row = {"conversation_id": chats[chat]} if chat else {}
            request = await answered(connection, tenant, **row, **more)
            await said(connection, tenant, request)
            return request

        await judged("kept", question={"training": False})
        allowed = await judged("kept")
        await judged(previous_id=await judged(previous_id=allowed))
        recalled = {"recalled": [{"request": str(allowed)}], "note": "What was said there."}
        await judged("recalling", question={"remembered": recalled})
        await judged(previous_id=await judged("recalling"))
        emptied = await judged("erased", plan={"steps": [step(messages=[])]})
        await judged("erased")
        await judged(previous_id=emptied)
        good = await judged("open")
        followed = await judged(previous_id=good)
    assert set(await ids(engine)) == {good, followed}


async def test_the_same_question_comes_together_with_all_that_was_said(engine, tenant) -> None:
    await consent(engine, "acme", True)
    other = [{"role": "user", "content": "How?"}]
    async with engine.begin() as connection:
        for messages in (None, other, None, other):
            question = {"messages": messages} if messages else {}
            request = await answered(connection, tenant, question=question)
            await said(connection, tenant, request, "a", 0.5, correction="No.", comment="hm")
            await said(connection, tenant, request, "b", None, JudgementKind.RETRY)
    async with engine.connect() as connection:
        found = [rated async for rated in training.rated(connection, None, YEAR)]
    assert [rated.same == found[0].same for rated in found] == [True, True, False, False]
    [one, *_] = found
    assert (one.tenant, one.answer) == ("acme", "the answer")
    assert {(j["kind"], j["rater"], j["score"], j["correction"]) for j in one.judgements} == {
        ("human", "user:a", 0.5, "No."),
        ("retry", "user:b", None, None),
    }
    assert one.steps == [
        {"step": "answer", "kind": "answer", "model": "mill", "text": "text of answer"}
    ]
    assert one.plan["strategy"] == "direct"
