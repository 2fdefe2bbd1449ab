"""Collections, and statistics that stay right whatever happens to documents."""

import asyncio
import random
from collections import Counter
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import claims, collections, documents
from db.collections import (
    Collection,
    DimensionMismatch,
    NewCollection,
    UnknownLanguage,
)
from db.corpus import Strategy
from db.tenancy import as_tenant
from db.terms import MOST_DRIFT
from queue_schemas.states import DocumentState
from tests.integration.db.corpus_acts import (
    add,
    claimed,
    collection_of,
    fresh,
    published,
    put,
    tenant_named,
)

WORDS = [f"w{number}x" for number in range(40)]


async def check_statistics(engine: AsyncEngine, collection: Collection) -> None:
    """What is stored is what counting anew gives."""
    async with as_tenant(engine, collection.tenant) as connection:
        stored = await collections.find(connection, collection.tenant, collection.name)
        assert stored is not None
        terms = dict((await connection.execute(text(
            "SELECT lexeme, chunk_count FROM millrace.terms WHERE collection_id = :c"
        ), {"c": collection.id})).all())  # fmt: skip
        texts = (await connection.execute(text(
            "SELECT text FROM millrace.chunks WHERE collection_id = :c"
        ), {"c": collection.id})).scalars().all()  # fmt: skip
        stale = await connection.scalar(
            text("""
                SELECT count(*) FROM millrace.chunk_terms
                 WHERE collection_id = :c
                   AND weights <> millrace.term_weights(terms, length, :average)
            """),
            {"c": collection.id, "average": stored.average_length},
        )
    assert stale == 0
    assert terms == Counter(word for chunk in texts for word in set(chunk.split()))
    lengths = [len(chunk.split()) for chunk in texts]
    assert (stored.chunk_count, stored.word_count) == (len(texts), sum(lengths))
    if texts:
        real = sum(lengths) / len(lengths)
        assert abs(real - stored.average_length) <= MOST_DRIFT * stored.average_length


def some_texts(numbers: random.Random) -> list[str]:
    return [
        " ".join(numbers.choices(WORDS, k=numbers.randint(1, 12) ** 2))
        for _ in range(numbers.randint(0, 4))
    ]


async def publish_again(
    connection: AsyncConnection, collection: Collection, name: str, texts: list[str]
) -> None:
    document = await add(connection, collection, name)
    query = "UPDATE millrace.documents SET state = 'waiting', ready_at = NULL WHERE id = :id"
    await connection.execute(text(query), {"id": document.id})
    await put(connection, await claimed(connection, document), texts)


@pytest.mark.parametrize("seed", range(4))
async def test_statistics_stay_right(engine: AsyncEngine, tenant: UUID, seed: int) -> None:
    numbers = random.Random(seed)
    collection = await collection_of(engine, tenant)
    other = await collection_of(engine, tenant, name="other")
    await published(engine, other, "other", ["w1x w2x"])
    for _ in range(12):
        name = f"document {numbers.randint(0, 4)}"
        async with as_tenant(engine, tenant) as connection:
            if numbers.random() < 0.3:
                document = await add(connection, collection, name)
                await documents.remove(connection, tenant, document.id)
            else:
                await publish_again(connection, collection, name, some_texts(numbers))
        await check_statistics(engine, collection)
    await check_statistics(engine, other)


async def test_an_attempt_that_is_rolled_back_leaves_no_trace(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "one", ["w1x w2x"])
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, await add(connection, collection, "two"))
        await put(connection, document, ["w1x w3x"])
        await connection.rollback()
    await check_statistics(engine, collection)
    assert (await fresh(engine, collection)).chunk_count == 1


async def test_documents_with_the_same_words_are_published_at_once(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)

    async def publish(number: int) -> None:
        order = random.Random(number).sample(WORDS, len(WORDS))
        for part in range(3):
            await published(engine, collection, f"{number}/{part}", [" ".join(order)] * 3)

    async def publish_and_remove(number: int) -> None:
        for part in range(3):
            document = await published(engine, collection, f"{number}-{part}", [" ".join(WORDS)])
            async with as_tenant(engine, tenant) as connection:
                assert await documents.remove(connection, tenant, document.id)

    await asyncio.gather(*[publish(n) for n in range(3)], publish_and_remove(8))
    await check_statistics(engine, collection)
    assert (await fresh(engine, collection)).chunk_count == 27


async def test_a_reindex_while_documents_are_published_waits_for_nobody_for_ever(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)

    async def publish(number: int) -> None:
        for part in range(4):
            try:
                await published(engine, collection, f"{number}/{part}", [" ".join(WORDS)] * 2)
            except (claims.Fenced, claims.Outdated):
                continue

    async def reindex() -> None:
        for _ in range(4):
            async with as_tenant(engine, tenant) as connection:
                await collections.change(connection, tenant, "default", language="simple")

    await asyncio.gather(publish(1), publish(2), reindex(), reindex())
    await check_statistics(engine, collection)


async def test_a_collection_is_made_once(engine: AsyncEngine, tenant: UUID) -> None:
    new = NewCollection("notes", Strategy.HYBRID, "tiny", "german")
    other = NewCollection("notes", Strategy.SPARSE)

    async def make(wanted: NewCollection) -> Collection:
        async with as_tenant(engine, tenant) as connection:
            return await collections.ensure(connection, tenant, wanted)

    first = await make(new)
    assert (first.strategy, first.embedding_model, first.language) == (
        Strategy.HYBRID, "tiny", "german",
    )  # fmt: skip
    assert first.chunking == {"method": "words", "size": 512, "overlap": 50}
    assert (first.dense_weight, first.dimension) == (0.7, None)
    assert await make(other) == first


async def test_a_collection_that_is_made_by_all_at_once_is_one(
    engine: AsyncEngine, tenant: UUID
) -> None:
    made = await asyncio.gather(*[collection_of(engine, tenant) for _ in range(4)])
    assert len({collection.id for collection in made}) == 1


async def test_vectors_need_a_model(engine: AsyncEngine, tenant: UUID) -> None:
    with pytest.raises(IntegrityError):
        async with as_tenant(engine, tenant) as connection:
            await collections.ensure(connection, tenant, NewCollection("x", Strategy.DENSE, None))


async def test_an_unknown_language_is_refused(engine: AsyncEngine, tenant: UUID) -> None:
    async with as_tenant(engine, tenant) as connection:
        with pytest.raises(UnknownLanguage, match="klingon"):
            await collections.ensure(connection, tenant, NewCollection(language="klingon"))
        await collections.ensure(connection, tenant, NewCollection("x", Strategy.SPARSE))
        with pytest.raises(UnknownLanguage):
            await collections.change(connection, tenant, "x", language="english; DROP TABLE x")
        assert {"english", "german", "simple"} <= set(await collections.languages(connection))


async def test_documents_are_counted_by_state(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    await collection_of(engine, tenant, name="another")
    await published(engine, collection, "one", ["w1x"])
    async with as_tenant(engine, tenant) as connection:
        await add(connection, collection, "two")
        await add(connection, collection, "three")
        listed = await collections.of(connection, tenant)
        found = await collections.find(connection, tenant, "default", counted=True)
    counts = {DocumentState.READY: 1, DocumentState.WAITING: 2}
    assert [(one.name, one.documents) for one in listed] == [("another", {}), ("default", counts)]
    assert found is not None
    assert found.documents == counts


async def test_the_first_dimension_is_the_collections(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    async with as_tenant(engine, tenant) as connection:
        assert (await collections.fix_dimension(connection, collection, 3)).dimension == 3
        with pytest.raises(DimensionMismatch, match="another dimension than 4"):
            await collections.fix_dimension(connection, collection, 4)
        changed = await collections.change(connection, tenant, "default", embedding_model="large")
        assert changed is not None
        assert (changed.dimension, changed.embedding_model) == (None, "large")
        with pytest.raises(DimensionMismatch, match="another model"):
            await collections.fix_dimension(connection, collection, 3)
        assert (await collections.fix_dimension(connection, changed, 4)).dimension == 4


@pytest.mark.parametrize(
    ("settings", "done_again"),
    [
        ({}, True),
        ({"dense_weight": 0.3}, False),
        ({"language": "german"}, True),
        ({"chunking": {"method": "sentences", "size": 100, "overlap": 0}}, True),
        ({"strategy": Strategy.SPARSE, "dense_weight": 0.1}, True),
    ],
    ids=["nothing", "weight", "language", "chunking", "strategy"],
)
async def test_changes_do_documents_again_where_they_must(
    engine: AsyncEngine, tenant: UUID, settings: dict[str, object], done_again: bool
) -> None:
    collection = await collection_of(engine, tenant, dimension=3)
    await published(engine, collection, "one", ["w1x"], [[1.0, 0.0, 0.0]])
    async with as_tenant(engine, tenant) as connection:
        changed = await collections.change(connection, tenant, "default", **settings)  # type: ignore[arg-type] # several types of settings
        [document] = await documents.page(connection, tenant)
    assert changed is not None
    assert {name: getattr(changed, name) for name in settings} == settings
    assert changed.dimension == 3
    assert document.state is (DocumentState.WAITING if done_again else DocumentState.READY)
    await check_statistics(engine, collection)


async def test_a_collection_is_deleted_with_all_that_is_in_it(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    kept = await collection_of(engine, tenant, name="kept")
    await published(engine, collection, "one", ["w1x"])
    await published(engine, kept, "two", ["w1x"])
    async with as_tenant(engine, tenant) as connection:
        assert await collections.remove(connection, tenant, "default")
        assert not await collections.remove(connection, tenant, "default")
        assert not await collections.remove(connection, tenant, "never there")
        for table in ("documents", "document_bodies", "chunks", "chunk_terms", "terms"):
            query = text(f"SELECT count(*) FROM millrace.{table}")
            assert await connection.scalar(query) == 1
    await check_statistics(engine, kept)


async def test_tenants_may_use_the_same_names(engine: AsyncEngine, tenant: UUID) -> None:
    mine = await collection_of(engine, tenant)
    theirs = await collection_of(engine, await tenant_named(engine, "other"))
    assert mine.id != theirs.id
