"""What two do to a collection at the same time ends as if one had come after the other."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import chunks, claims, collections, documents, drafts
from db.claims import Outdated
from db.collections import Gone
from db.tenancy import as_tenant
from queue_schemas.states import DocumentState
from tests.integration.db.corpus_acts import (
    Cut,
    add,
    claimed,
    collection_of,
    fresh,
    new_document,
    published,
    put,
)

OTHER = {"method": "words", "size": 7, "overlap": 0}


async def test_a_document_that_is_claimed_while_settings_change_is_not_published(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as changing:
        await collections.change(changing, tenant, "default", chunking=OTHER)
        async with as_tenant(engine, tenant) as connection:
            document = await claimed(connection, await add(connection, collection, "late"))
    with pytest.raises(Outdated):
        async with as_tenant(engine, tenant) as connection:
            await put(connection, document, ["cut as it was before"])
    async with as_tenant(engine, tenant) as connection:
        assert await claims.outdated(connection, document.id)


async def test_a_document_that_is_ready_while_settings_change_is_done_again(
    engine: AsyncEngine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = await collection_of(engine, tenant)
    held, published_meanwhile = collections.hold_all, []

    async def and_then_one_more(*arguments: object) -> None:
        await held(*arguments)  # type: ignore[arg-type]  # passed on as they are
        published_meanwhile.append(await published(engine, collection, "late", ["as before"]))

    monkeypatch.setattr(collections, "hold_all", and_then_one_more)
    async with as_tenant(engine, tenant) as connection:
        await collections.change(connection, tenant, "default", chunking=OTHER)
    async with as_tenant(engine, tenant) as connection:
        found = await documents.find(connection, tenant, published_meanwhile[0].id)
    assert found is not None
    assert found.state is DocumentState.WAITING


async def test_drafts_of_other_settings_are_forgotten_with_the_next_claim(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as changing:
        await collections.change(changing, tenant, "default", chunking=OTHER)
        async with as_tenant(engine, tenant) as connection:
            document = await claimed(connection, await add(connection, collection, "late"))
            await drafts.replace(connection, document.id, document.attempt, [Cut(0, "before")])
            await claims.again(connection, document.id, document.attempt, 0, None)
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, document)
        assert await drafts.counts(connection, document.id) == (0, 0)
        await put(connection, document, ["cut anew"])
    assert (await fresh(engine, collection)).chunk_count == 1


async def test_publishing_holds_the_collection_only_for_its_statistics(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, await add(connection, collection, "x"))
        await drafts.replace(connection, document.id, document.attempt, [Cut(0, "words")])
        vectors = {0: [1.0, 2.0, 3.0]}
        await drafts.put_vectors(connection, document.id, document.attempt, vectors)

    async def publish() -> None:
        async with as_tenant(engine, tenant) as connection:
            await chunks.publish(connection, document.id, document.attempt, "tiny")

    async with as_tenant(engine, tenant) as holding:
        await holding.execute(
            text("SELECT 1 FROM millrace.collections WHERE id = :id FOR NO KEY UPDATE"),
            {"id": collection.id},
        )
        publishing = asyncio.create_task(publish())
        # Another session cannot see the rows, only that the sequence of their ids has moved.
        moved = text("SELECT last_value, is_called FROM millrace.chunks_id_seq")
        async with asyncio.timeout(30), engine.connect() as looking:
            while not (await looking.execute(moved)).one().is_called:  # noqa: ASYNC110 - no event says it
                await asyncio.sleep(0.02)
        assert not publishing.done()
    await publishing
    assert (await fresh(engine, collection)).chunk_count == 1


async def test_a_document_done_again_has_its_new_chunks_only(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    document = await published(engine, collection, "x", ["old words", "more old words"])
    async with as_tenant(engine, tenant) as connection:
        await collections.change(connection, tenant, "default")
        await put(connection, await claimed(connection, document), ["new ones"])
    query = text("SELECT position, text FROM millrace.chunks")
    async with as_tenant(engine, tenant) as connection:
        assert [tuple(row) for row in await connection.execute(query)] == [(0, "new ones")]
        words = await connection.execute(text("SELECT lexeme FROM millrace.terms ORDER BY 1"))
        assert list(words.scalars()) == ["new", "one"]
    now = await fresh(engine, collection)
    assert (now.chunk_count, now.word_count) == (1, 2)


async def test_a_document_for_a_collection_that_is_gone_says_so(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        await collections.remove(connection, tenant, "default")
    with pytest.raises(Gone):
        async with as_tenant(engine, tenant) as connection:
            await add(connection, collection, "late")


async def test_a_failed_document_that_is_sent_again_takes_over_what_is_said_of_it(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, await add(connection, collection, "x"))
        await drafts.replace(connection, document.id, document.attempt, [Cut(0, "as text")])
        await claims.fail(connection, document.id, document.attempt, {"code": "bad_text"})
        again = new_document(collection, "x", media_type="text/csv", metadata={"year": 2026})
        found, created = await documents.add(connection, tenant, again, b"x")
        assert (found.id, created, found.state) == (document.id, False, DocumentState.WAITING)
        assert (found.media_type, found.metadata) == ("text/csv", {"year": 2026})
        assert await drafts.counts(connection, document.id) == (0, 0)


async def test_one_that_is_ready_keeps_what_was_said_of_it(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "x", ["words"], metadata={"year": 2025})
    async with as_tenant(engine, tenant) as connection:
        found = await add(connection, collection, "x", metadata={"year": 2026})
    assert (found.state, found.metadata) == (DocumentState.READY, {"year": 2025})


async def test_who_waits_for_a_row_too_long_is_told(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as holding:
        query = text("SELECT 1 FROM millrace.collections WHERE id = :id FOR UPDATE")
        await holding.execute(query, {"id": collection.id})
        with pytest.raises(DBAPIError, match="lock timeout"):
            async with as_tenant(engine, tenant, lock_timeout="50ms") as connection:
                await collections.remove(connection, tenant, "default")
