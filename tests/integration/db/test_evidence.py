"""What people said, counted by kind of work and model: bounded, fresh, and nobody else's."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import evidence
from db.models import JudgementKind
from db.tenancy import as_tenant
from tests.integration.db.answered_chats import answered, said, step, voted
from tests.integration.db.corpus_acts import tenant_named


async def counted(engine: AsyncEngine, tenant) -> dict[tuple[str, str], tuple[float, float, int]]:
    async with engine.connect() as connection:
        found = await evidence.of_tenant(connection, tenant, 3.0)
    return {(v.work, v.model): (round(v.votes, 4), round(v.good, 4), v.raters) for v in found.votes}


async def test_votes_count_for_the_model_and_the_work_of_the_step(engine, tenant) -> None:
    async with engine.begin() as connection:
        one = await answered(connection, tenant, end_user="a")
        two = await answered(connection, tenant, step(model="big", work="code"), end_user="a")
        none = await answered(connection, tenant, step(work=None), end_user="a")
        other = await answered(connection, tenant, end_user="b")
        mute = await answered(connection, tenant, end_user="c")
        for request, rater, score in ((one, "a", 1.0), (other, "b", 0.5), (two, "a", 0.0)):
            await said(connection, tenant, request, rater, score)
        await said(connection, tenant, none, "a")
        await said(connection, tenant, mute, "c", None, comment="hm")
        await said(connection, tenant, two, "judge", 1.0, JudgementKind.CHECK)
        await said(connection, tenant, two, "c", None, JudgementKind.STOP)
    assert await counted(engine, tenant) == {
        ("answer", "mill"): (2.0, 1.5, 2),
        ("code", "big"): (1.0, 0.0, 1),
    }


async def test_one_rater_counts_no_more_than_three_votes(engine, tenant) -> None:
    await voted(engine, tenant, "mill", ["loud"], 0.0, 8)
    await voted(engine, tenant, "mill", ["a", "b"], 1.0, 1)
    assert await counted(engine, tenant) == {("answer", "mill"): (5.0, 2.0, 3)}


async def test_many_names_on_one_answer_are_one_vote(engine, tenant) -> None:
    anyone = [f"anyone-{number}" for number in range(5)]
    async with engine.begin() as connection:
        of_ann = await answered(connection, tenant, end_user="ann")
        of_nobody = [await answered(connection, tenant) for _ in range(2)]
        for request in (of_ann, *of_nobody):
            for name in anyone:
                await said(connection, tenant, request, name)
    assert await counted(engine, tenant) == {("answer", "mill"): (2.0, 2.0, 1)}
    async with engine.begin() as connection:
        await said(connection, tenant, of_ann, "ann", 0.0)
    assert await counted(engine, tenant) == {("answer", "mill"): (3.0, 2.0, 2)}


async def test_the_whole_answer_is_shared_out_among_what_was_shown(engine, tenant) -> None:
    parts = [step("part-1", work="part"), step("part-2", "big", work="part")]
    candidates = [step("c-1", kind="candidate"), step("c-2", "big", kind="candidate")]
    async with engine.begin() as connection:
        for rater, score, part, candidate in (("a", 1.0, "", ""), ("b", 0.0, "part-2", "c-1")):
            split = await answered(connection, tenant, *parts, end_user=rater)
            await said(connection, tenant, split, rater, score, subject=part)
            chosen = {"plan": {"chosen": "c-2"}, "end_user": rater}
            picked = await answered(connection, tenant, *candidates, **chosen)
            await said(connection, tenant, picked, rater, score, subject=candidate)
    assert await counted(engine, tenant) == {
        ("part", "mill"): (0.5, 0.5, 1),
        ("part", "big"): (1.5, 0.5, 2),
        ("answer", "mill"): (1.0, 0.0, 1),
        ("answer", "big"): (1.0, 1.0, 1),
    }


async def test_the_model_that_answered_counts_and_not_the_one_that_was_planned(
    engine, tenant
) -> None:
    async with engine.begin() as connection:
        request = await answered(connection, tenant)
        moved = "UPDATE millrace.subtasks SET model = 'other' WHERE request_id = :id"
        await connection.execute(text(moved), {"id": request})
        await said(connection, tenant, request)
    assert list(await counted(engine, tenant)) == [("answer", "other")]


async def test_an_answer_that_was_made_again_counts_a_little_against_it(engine, tenant) -> None:
    async with engine.begin() as connection:
        request = await answered(connection, tenant, end_user="a")
        await said(connection, tenant, request, "a", None, JudgementKind.RETRY)
        assert await counted(engine, tenant) == {}, "not committed yet"
    assert await counted(engine, tenant) == {("answer", "mill"): (0.25, 0.0, 1)}
    async with engine.begin() as connection:
        await said(connection, tenant, request, "a", 1.0)
    assert await counted(engine, tenant) == {("answer", "mill"): (1.0, 1.0, 1)}


async def test_what_was_said_before_a_reset_or_long_ago_counts_no_more(engine, tenant) -> None:
    await voted(engine, tenant, "mill", ["a"], 1.0, 1)
    async with engine.begin() as connection:
        await said(connection, tenant, await answered(connection, tenant, step(work="code")))
    async with as_tenant(engine, tenant) as connection:
        await evidence.reset(connection, tenant, ["answer"])
        await evidence.reset(connection, tenant, ["answer", "rag"])
    assert list(await counted(engine, tenant)) == [("code", "mill")]
    await voted(engine, tenant, "mill", ["b"], 0.5, 1)
    assert await counted(engine, tenant) == {
        ("answer", "mill"): (1.0, 0.5, 1),
        ("code", "mill"): (1.0, 1.0, 1),
    }
    async with engine.begin() as connection:
        long_ago = "UPDATE millrace.judgements SET updated_at = now() - interval '91 days'"
        await connection.execute(text(long_ago))
    assert await counted(engine, tenant) == {}
    async with engine.connect() as connection:
        found = await evidence.of_tenant(connection, tenant, 3.0)
    assert set(found.resets) == {"answer", "rag"}


async def test_the_stamp_tells_that_there_is_something_new(engine, tenant) -> None:
    async def stamp() -> object:
        async with engine.connect() as connection:
            return await evidence.stamp(connection, tenant)

    seen = [await stamp()]
    await voted(engine, tenant, "mill", ["a", "b"], 1.0, 1)
    seen.append(await stamp())
    assert await stamp() == seen[-1]
    async with as_tenant(engine, tenant) as connection:
        await connection.execute(text("DELETE FROM millrace.judgements WHERE rater = 'user:a'"))
    seen.append(await stamp())
    async with as_tenant(engine, tenant) as connection:
        again = "UPDATE millrace.judgements SET score = 0, updated_at = clock_timestamp()"
        await connection.execute(text(again))
    seen.append(await stamp())
    async with as_tenant(engine, tenant) as connection:
        await evidence.reset(connection, tenant, ["rag"])
    seen.append(await stamp())
    assert len(set(seen)) == len(seen)


async def test_a_tenant_neither_sees_nor_resets_what_another_one_said(engine, tenant) -> None:
    other = await tenant_named(engine, "other")
    await voted(engine, tenant, "mill", ["a"], 1.0, 1)
    async with as_tenant(engine, other) as connection:
        await evidence.reset(connection, other, ["answer"])
        seen = await connection.scalar(text("SELECT count(*) FROM millrace.routing_resets"))
    assert seen == 1
    assert await counted(engine, other) == {}
    assert await counted(engine, tenant) == {("answer", "mill"): (1.0, 1.0, 1)}
    async with as_tenant(engine, tenant) as connection:
        seen = await connection.scalar(text("SELECT count(*) FROM millrace.routing_resets"))
    assert seen == 0
    with pytest.raises(Exception, match="row-level security"):
        async with as_tenant(engine, other) as connection:
            await evidence.reset(connection, tenant, ["answer"])
