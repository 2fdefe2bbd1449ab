"""Judgements: one a rater and subject, changeable, and never another tenant's."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import judgements
from db.judgements import NewJudgement, StoredJudgement
from db.models import JudgementKind
from db.tenancy import as_tenant
from tests.integration.db.corpus_acts import asked, judged, tenant_named, thumb


async def put(
    engine: AsyncEngine, tenant: UUID, request: UUID, said: NewJudgement
) -> tuple[StoredJudgement, bool]:
    async with as_tenant(engine, tenant) as connection:
        [stored] = await judgements.put(connection, tenant, request, [said])
    return stored


async def test_a_rater_changes_what_it_said(engine: AsyncEngine, tenant: UUID) -> None:
    request = await asked(engine, tenant)
    first, is_new = await put(engine, tenant, request, thumb(comment="fine"))
    assert is_new
    second, is_new = await put(engine, tenant, request, thumb(score=0.0))
    assert not is_new
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert (second.score, second.comment) == (0.0, None)
    assert second.updated_at > first.updated_at


async def test_saying_the_same_again_is_no_change(engine: AsyncEngine, tenant: UUID) -> None:
    request = await asked(engine, tenant)
    said = thumb(rating={"stars": 10, "thumb": 1}, comment="fine")
    first, _ = await put(engine, tenant, request, said)
    assert await put(engine, tenant, request, said) == (first, False)


async def test_other_raters_kinds_and_subjects_are_other_judgements(
    engine: AsyncEngine, tenant: UUID
) -> None:
    request = await asked(engine, tenant)
    said = [
        thumb(),
        thumb("user:bob"),
        thumb(subject="part-1"),
        NewJudgement(JudgementKind.STOP, "user:alice", thumb().source),
    ]
    async with as_tenant(engine, tenant) as connection:
        stored = await judgements.put(connection, tenant, request, said)
        assert [is_new for _, is_new in stored] == [True] * 4
        found = await judgements.of_request(connection, tenant, request, 10)
        assert len(found) == 4
        assert await judgements.of_request(connection, tenant, request, 2) == found[:2]
        assert await judgements.put(connection, tenant, request, []) == []


async def test_two_who_say_the_same_at_once_make_one(engine: AsyncEngine, tenant: UUID) -> None:
    request = await asked(engine, tenant)
    both = await asyncio.gather(*[put(engine, tenant, request, thumb()) for _ in range(4)])
    assert sorted(is_new for _, is_new in both) == [False, False, False, True]
    assert len({stored.id for stored, _ in both}) == 1


async def test_a_judgement_is_taken_back_once(engine: AsyncEngine, tenant: UUID) -> None:
    stored = await judged(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        assert await judgements.find(connection, tenant, stored.id) == stored
        assert await judgements.delete(connection, tenant, stored.id)
        assert not await judgements.delete(connection, tenant, stored.id)
        assert await judgements.find(connection, tenant, stored.id) is None


async def test_another_tenant_neither_finds_nor_deletes_it(
    engine: AsyncEngine, tenant: UUID
) -> None:
    stored, other = await judged(engine, tenant), await tenant_named(engine, "other")
    async with as_tenant(engine, other) as connection:
        for asking in (tenant, other):
            assert await judgements.find(connection, asking, stored.id) is None
            assert await judgements.of_request(connection, asking, stored.request, 10) == []
            assert not await judgements.delete(connection, asking, stored.id)
    with pytest.raises(DBAPIError, match="row-level security"):
        async with as_tenant(engine, other) as connection:
            await judgements.put(connection, tenant, stored.request, [thumb()])


async def test_it_goes_with_its_request(engine: AsyncEngine, tenant: UUID) -> None:
    stored = await judged(engine, tenant)
    async with engine.begin() as connection:
        query = text("DELETE FROM millrace.requests WHERE id = :id")
        await connection.execute(query, {"id": stored.request})
        assert await judgements.find(connection, tenant, stored.id) is None


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")], ids=str)
async def test_a_score_is_between_0_and_1(engine: AsyncEngine, tenant: UUID, score: float) -> None:
    request = await asked(engine, tenant)
    with pytest.raises(DBAPIError, match="ck_judgements_score"):
        await put(engine, tenant, request, thumb(score=score))


async def test_a_request_that_does_not_exist_cannot_be_judged(
    engine: AsyncEngine, tenant: UUID
) -> None:
    with pytest.raises(DBAPIError, match="fk_judgements_request_id"):
        await put(engine, tenant, uuid4(), thumb())


async def test_an_owner_who_is_no_superuser_writes_for_every_tenant(
    owned_engine: AsyncEngine,
) -> None:
    tenants = [await tenant_named(owned_engine, name) for name in ("acme", "other")]
    requests = [await asked(owned_engine, tenant, "alice") for tenant in tenants]
    async with owned_engine.begin() as connection:
        for tenant, request in zip(tenants, requests, strict=True):
            await judgements.put(connection, tenant, request, [thumb()])
            await judgements.put_stop(connection, request, "the client left")
    for tenant, request in zip(tenants, requests, strict=True):
        async with as_tenant(owned_engine, tenant) as connection:
            found = await judgements.of_request(connection, tenant, request, 10)
            assert {(j.kind, j.rater) for j in found} == {
                (JudgementKind.HUMAN, "user:alice"),
                (JudgementKind.STOP, "user:alice"),
            }
