"""A document that replaces those of its name: when it is ready, and not before."""

import asyncio
import hashlib
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import chunks, claims, collections, documents, drafts
from db.claims import Fenced
from db.collections import Collection
from db.corpus import Origin
from db.documents import NewDocument, StoredDocument
from db.tenancy import as_tenant
from tests.integration.db.corpus_acts import Cut, claimed, collection_of, fresh, put

ERROR = {"code": "no_text", "message": "it has pictures only", "status": 422}


async def send(
    connection: AsyncConnection,
    collection: Collection,
    content: str,
    name: str = "a.md",
    *,
    replaces: bool = True,
) -> StoredDocument:
    """As the API does."""
    digest = hashlib.sha256(content.encode()).digest()
    new = NewDocument(collection.id, name, Origin.UPLOAD, digest, replaces=replaces)
    stored, _ = await documents.add(connection, collection.tenant, new, content.encode())
    if replaces and stored.state == "ready":
        await documents.remove_older(connection, stored)
    return stored


async def ready(
    engine: AsyncEngine,
    collection: Collection,
    content: str,
    name: str = "a.md",
    *,
    replaces: bool = True,
) -> StoredDocument:
    async with as_tenant(engine, collection.tenant) as connection:
        sent = await send(connection, collection, content, name, replaces=replaces)
        await put(connection, await claimed(connection, sent), [content])
    return sent


async def texts(engine: AsyncEngine) -> list[str]:
    """What can be found."""
    async with engine.connect() as connection:
        query = text("SELECT c.text FROM millrace.chunks c ORDER BY c.text")
        return list((await connection.execute(query)).scalars())


async def names(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        query = text("SELECT name FROM millrace.documents ORDER BY name")
        return list((await connection.execute(query)).scalars())


async def test_the_old_one_is_found_until_the_new_one_is_ready(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    await ready(engine, collection, "one wheel")
    async with as_tenant(engine, tenant) as connection:
        new = await send(connection, collection, "two wheels turning")
        assert new.replaces
    assert await texts(engine) == ["one wheel"]
    async with as_tenant(engine, tenant) as connection:
        await put(connection, await claimed(connection, new), ["two wheels turning"])
    assert await texts(engine) == ["two wheels turning"]
    assert await names(engine) == ["a.md"]
    now = await fresh(engine, collection)
    assert (now.chunk_count, now.word_count) == (1, 3)
    async with engine.connect() as connection:
        query = text("SELECT lexeme FROM millrace.terms ORDER BY 1")
        assert list((await connection.execute(query)).scalars()) == ["turn", "two", "wheel"]


async def test_without_a_word_both_are_kept(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    await ready(engine, collection, "one")
    await ready(engine, collection, "two", replaces=False)
    assert await texts(engine) == ["one", "two"]


async def test_other_names_and_collections_are_left(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    other = await collection_of(engine, tenant, name="other")
    await ready(engine, collection, "one", "b.md")
    await ready(engine, other, "two")
    await ready(engine, collection, "three")
    assert await texts(engine) == ["one", "three", "two"]


async def test_one_that_failed_leaves_the_old_one(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    await ready(engine, collection, "one")
    async with as_tenant(engine, tenant) as connection:
        new = await claimed(connection, await send(connection, collection, "two"))
        assert await claims.fail(connection, new.id, new.attempt, ERROR)
    assert await texts(engine) == ["one"]
    await ready(engine, collection, "three")
    assert await texts(engine) == ["three"]
    assert await names(engine) == ["a.md"]


async def test_the_same_content_again_is_the_same_document(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    first = await ready(engine, collection, "one")
    async with as_tenant(engine, tenant) as connection:
        again = await send(connection, collection, "one")
    assert (again.id, again.created_at) == (first.id, first.created_at)
    assert await texts(engine) == ["one"]


async def test_what_was_before_can_come_back(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    for content in ("one", "two", "one"):
        await ready(engine, collection, content)
    assert await texts(engine) == ["one"]


async def test_the_old_content_sent_last_wins_over_a_new_one_that_waits(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    first = await ready(engine, collection, "one")
    async with as_tenant(engine, tenant) as connection:
        new = await claimed(connection, await send(connection, collection, "two"))
        assert (await send(connection, collection, "one")).id == first.id
        with pytest.raises(Fenced):
            await claims.hold(connection, new.id, new.attempt)
    assert await texts(engine) == ["one"]
    assert await names(engine) == ["a.md"]


async def test_a_file_that_moved_takes_its_name_along(engine: AsyncEngine, tenant: UUID) -> None:
    """Else the file that came in its place would take its content away."""
    collection = await collection_of(engine, tenant)
    first = await ready(engine, collection, "one", "a.md")
    async with as_tenant(engine, tenant) as connection:
        moved = await send(connection, collection, "one", "b.md")
        assert (moved.id, moved.name, moved.state) == (first.id, "b.md", "ready")
    await ready(engine, collection, "two", "a.md")
    assert await texts(engine) == ["one", "two"]
    assert await names(engine) == ["a.md", "b.md"]


async def test_one_that_waits_is_replaced_too(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        old = await claimed(connection, await send(connection, collection, "one"))
    await ready(engine, collection, "two")
    async with as_tenant(engine, tenant) as connection:
        with pytest.raises(Fenced):
            await claims.hold(connection, old.id, old.attempt)
    assert await names(engine) == ["a.md"]


async def test_indexing_anew_takes_nothing_away(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    first = await ready(engine, collection, "one")
    await ready(engine, collection, "two", replaces=False)
    async with as_tenant(engine, tenant) as connection:
        await collections.change(connection, tenant, collection.name)
        await put(connection, await claimed(connection, first), ["one again"])
    assert await texts(engine) == ["one again", "two"]


async def test_many_versions_at_once_leave_the_last_one(engine: AsyncEngine, tenant: UUID) -> None:
    """Published while others hold all of them, without a deadlock."""
    collection = await collection_of(engine, tenant)
    async with as_tenant(engine, tenant) as connection:
        sent = [
            await claimed(connection, await send(connection, collection, f"version {number}"))
            for number in range(6)
        ]
        for number, document in enumerate(sent):
            cut = [Cut(0, f"version {number}")]
            await drafts.replace(connection, document.id, document.attempt, cut)

    async def publish(document: StoredDocument) -> None:
        try:
            async with as_tenant(engine, tenant) as connection:
                await chunks.publish(connection, document.id, document.attempt, None)
        except Fenced:
            pass  # a later one was faster

    async def read_all() -> None:
        async with as_tenant(engine, tenant) as connection:
            query = "SELECT 1 FROM millrace.documents ORDER BY id FOR UPDATE"
            await connection.execute(text(query))

    await asyncio.gather(*map(publish, sent), *[read_all() for _ in range(6)])
    assert await texts(engine) == ["version 5"]
    assert await names(engine) == ["a.md"]


async def test_documents_are_found_by_name_or_the_beginning_of_an_id(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    one = await ready(engine, collection, "one", "a.md")
    await ready(engine, collection, "two", "facade")
    async with as_tenant(engine, tenant) as connection:

        async def found(match: str) -> list[str]:
            page = await documents.page(connection, tenant, match=match)
            return [document.name for document in page]

        assert await found("a.md") == ["a.md"]
        assert await found("facade") == ["facade"]
        assert await found("a.m") == []
        assert await found("a%") == []
        for length in (6, 9, 20, 36):
            assert await found(str(one.id)[:length].upper()) == ["a.md"]
        assert await found(str(one.id)[:5]) == []
