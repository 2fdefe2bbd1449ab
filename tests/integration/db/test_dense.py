"""Dense search: exact where that is fast, by the index elsewhere; vectors are checked."""

import asyncio
import math
from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import chunks, drafts
from db.collections import Collection, DimensionMismatch
from db.tenancy import as_tenant
from tests.integration.db.corpus_acts import (
    MODEL,
    Cut,
    add,
    claimed,
    collection_of,
    directions,
    fresh,
    published,
    tenant_named,
)

DIMENSION = 384


def nearest(vectors: Sequence[Sequence[float]], query: Sequence[float], limit: int) -> list[float]:
    """The best cosines of unit vectors."""
    cosines = (sum(a * b for a, b in zip(vector, query, strict=True)) for vector in vectors)
    return sorted(cosines, reverse=True)[:limit]


async def filled(
    engine: AsyncEngine, tenant: UUID, vectors: list[list[float]], name: str = "default"
) -> Collection:
    collection = await collection_of(engine, tenant, name=name, dimension=len(vectors[0]))
    texts = [f"text {n}" for n in range(len(vectors))]
    await published(engine, collection, "x", texts, vectors)
    return await fresh(engine, collection)


@pytest.mark.parametrize("exact", [True, False])
async def test_the_nearest_come_first_with_their_cosine(
    engine: AsyncEngine, tenant: UUID, exact: bool
) -> None:
    vectors = directions(400, DIMENSION, seed=2)
    collection = await filled(engine, tenant, vectors)
    query = directions(1, DIMENSION, seed=2)[0]
    async with as_tenant(engine, tenant) as connection:
        scope = await chunks.scope(connection, collection)
        hits = await chunks.dense(connection, scope, query, 10, exact=exact)
        loaded = await chunks.load(connection, [hit.chunk for hit in hits])
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert loaded[hits[0].chunk].text == "text 0"
    assert scores == pytest.approx(nearest(vectors, query, 10), abs=1e-5)


async def test_all_are_found_when_fewer_are_there_than_wanted(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await filled(engine, tenant, directions(7, DIMENSION, seed=3))
    async with as_tenant(engine, tenant) as connection:
        scope = await chunks.scope(connection, collection)
        for exact in (True, False):
            hits = await chunks.dense(
                connection, scope, directions(1, DIMENSION, seed=4)[0], 50, exact=exact
            )
            assert len(hits) == 7


@pytest.mark.parametrize("exact", [True, False])
async def test_only_wanted_documents_are_compared(
    engine: AsyncEngine, tenant: UUID, exact: bool
) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    near, far = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    await published(engine, collection, "a", ["near"], [near], metadata={"shelf": 1})
    await published(engine, collection, "b", ["far"], [far], metadata={"shelf": 2})
    async with as_tenant(engine, tenant) as connection:
        for wanted, count in (({"shelf": 2}, 1), ({}, 2), ({"shelf": 9}, 0)):
            scope = await chunks.scope(connection, await fresh(engine, collection), wanted)
            assert scope.chunk_count == count
            hits = await chunks.dense(connection, scope, near, 5, exact=exact)
            assert len(hits) == count


async def test_chunks_are_shown_with_what_their_document_says(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        new = await add(connection, collection, "x", url="https://example.org", metadata={"a": 1})
        document = await claimed(connection, new)
        cut = [Cut(0, "words", ("One", 'a "quoted", part'), 3)]
        await drafts.replace(connection, document.id, document.attempt, cut)
        await chunks.publish(connection, document.id, document.attempt, None)
        ids = list((await connection.execute(text("SELECT id FROM millrace.chunks"))).scalars())
        [chunk] = (await chunks.load(connection, [*ids, 999_999])).values()
    assert chunk == chunks.StoredChunk(
        ids[0], document.id, "x", "https://example.org", {"a": 1}, 0, 3,
        ["One", 'a "quoted", part'], "words",
    )  # fmt: skip


@pytest.mark.parametrize(
    "vector", [[math.nan, 1.0, 0.0], [math.inf, 1.0, 0.0], [1e39, 1.0, 0.0]], ids=str
)
async def test_what_is_no_number_is_refused(
    engine: AsyncEngine, tenant: UUID, vector: list[float]
) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    with pytest.raises(DBAPIError, match=r"vector|range"):
        await published(engine, collection, "x", ["words"], [vector])
    assert (await fresh(engine, collection)).chunk_count == 0


async def test_a_vector_without_direction_is_refused(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    with pytest.raises(IntegrityError, match="ck_chunks_embedding"):
        await published(engine, collection, "x", ["words"], [[0.0, 0.0, 0.0]])


async def test_a_chunk_without_its_vector_is_refused(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, await add(connection, collection, "x"))
        cut = [Cut(0, "one"), Cut(1, "two")]
        await drafts.replace(connection, document.id, document.attempt, cut)
        await drafts.put_vectors(connection, document.id, document.attempt, {1: [1, 0, 0]})
        assert await drafts.counts(connection, document.id) == (2, 1)
        assert await drafts.without_vector(connection, document.id, 10) == [(0, "one")]
        with pytest.raises(IntegrityError, match="embedded_by"):
            await chunks.publish(connection, document.id, document.attempt, MODEL)


async def test_vectors_of_another_dimension_are_refused(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    with pytest.raises(DimensionMismatch, match="3 dimensions, these have 2, 4"):
        await published(engine, collection, "x", ["a", "b"], [[1.0] * 2, [1.0] * 4])
    async with as_tenant(engine, tenant) as connection:
        scope = await chunks.scope(connection, collection)
        with pytest.raises(DimensionMismatch):
            await chunks.dense(connection, scope, [1.0] * 4, 5, exact=True)


async def test_vectors_of_another_model_are_not_compared(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await filled(engine, tenant, [[1.0, 0.0, 0.0]])
    async with as_tenant(engine, tenant) as connection:
        query = "UPDATE millrace.collections SET embedding_model = 'large'"
        await connection.execute(text(query))
    changed = await fresh(engine, collection)
    async with as_tenant(engine, tenant) as connection:
        scope = await chunks.scope(connection, changed)
        assert await chunks.dense(connection, scope, [1.0, 0.0, 0.0], 5, exact=True) == []


_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'millrace.hnsw_chunks_5'::regclass"


async def test_an_index_is_made_for_a_new_dimension(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await filled(engine, tenant, directions(20, 5, seed=5))
    for _ in range(2):
        await chunks.ensure_index(engine, 5)
    async with as_tenant(engine, tenant) as connection:
        assert await connection.scalar(text(_VALID)) is True
        scope = await chunks.scope(connection, collection)
        assert len(await chunks.dense(connection, scope, [1.0] * 5, 9, exact=False)) == 9


async def test_an_index_that_two_make_at_once_is_there_once(engine: AsyncEngine) -> None:
    await asyncio.gather(*[chunks.ensure_index(engine, 5) for _ in range(3)])
    async with engine.begin() as connection:
        assert await connection.scalar(text(_VALID)) is True


async def test_a_broken_index_is_made_again(engine: AsyncEngine) -> None:
    await chunks.ensure_index(engine, 5)
    async with engine.begin() as connection:
        where = _VALID.partition("WHERE")[2]
        await connection.execute(text(f"UPDATE pg_index SET indisvalid = false WHERE {where}"))
    await chunks.ensure_index(engine, 5)
    async with engine.begin() as connection:
        assert await connection.scalar(text(_VALID)) is True


async def test_who_finds_another_making_the_index_goes_on_without(engine: AsyncEngine) -> None:
    async with engine.begin() as other:
        await other.execute(text("SELECT pg_advisory_xact_lock(hashtext('millrace.hnsw'))"))
        assert await chunks.ensure_index(engine, 5, patience_seconds=0.2) is False
    assert await chunks.ensure_index(engine, 5) is True


async def test_who_cannot_finish_the_index_goes_on_and_the_next_one_makes_it_anew(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as forgotten:
        await forgotten.execute(text("LOCK TABLE millrace.chunks IN ROW EXCLUSIVE MODE"))
        assert await chunks.ensure_index(engine, 5, patience_seconds=0.2) is False
    assert await chunks.ensure_index(engine, 5) is True
    async with engine.begin() as connection:
        assert await connection.scalar(text(_VALID)) is True


async def test_making_an_index_leaves_no_lock_and_no_setting_behind(engine: AsyncEngine) -> None:
    await chunks.ensure_index(engine, 5)
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    async with engine.begin() as connection:
        assert await connection.scalar(query) == 0
        assert await connection.scalar(text("SHOW lock_timeout")) == "0"


async def test_too_many_dimensions_are_refused(engine: AsyncEngine) -> None:
    with pytest.raises(chunks.DimensionTooLarge, match="2001"):
        await chunks.ensure_index(engine, 2001)


async def test_the_search_reads_by_the_index_as_the_role(engine: AsyncEngine, tenant: UUID) -> None:
    await filled(engine, await tenant_named(engine, "other"), directions(300, DIMENSION, seed=6))
    collection = await filled(engine, tenant, directions(1500, DIMENSION, seed=7))
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE millrace.chunks"))
    scans = text("SELECT pg_stat_get_xact_numscans('millrace.hnsw_chunks_384'::regclass)")
    query = directions(1, DIMENSION, seed=7)[0]
    async with as_tenant(engine, tenant) as connection:
        before = await connection.scalar(scans)
        scope = await chunks.scope(connection, collection)
        await chunks.dense(connection, scope, query, 10, exact=True)
        assert await connection.scalar(scans) == before
        await chunks.dense(connection, scope, query, 10, exact=False)
        assert await connection.scalar(scans) == before + 1
