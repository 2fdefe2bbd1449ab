"""Sparse search scores as the formula says, and finds the best ones for certain."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import chunks, collections
from db.collections import Collection
from db.tenancy import as_tenant
from tests.integration.db.corpus_acts import collection_of, fresh, published, tenant_named

K1, B = 1.2, 0.75
COUNT = 6000
# Zipf: a few words are in most chunks, most words are in a few. Numbers are their own stems.
WORDS = [str(number) for number in range(1000, 3000)]
FREQUENCIES = [1 / rank for rank in range(1, len(WORDS) + 1)]


def bm25(texts: Sequence[str], query: str, average: float) -> list[float]:
    """Score of every text, straight from the formula."""
    counts = [Counter(text.split()) for text in texts]
    scores = [0.0] * len(texts)
    for word in set(query.split()):
        having = sum(word in count for count in counts)
        if not having:
            continue
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for index, count in enumerate(counts):
            tf, length = count[word], count.total()
            scores[index] += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / average))
    return scores


async def found(
    engine: AsyncEngine, collection: Collection, query: str, limit: int = 10, **where: object
) -> list[tuple[str, float]]:
    """(text, score) of the best chunks."""
    async with as_tenant(engine, collection.tenant) as connection:
        scope = await chunks.scope(connection, collection, where or None)
        hits = await chunks.sparse(connection, scope, query, limit)
        loaded = await chunks.load(connection, [hit.chunk for hit in hits])
    return [(loaded[hit.chunk].text, hit.score) for hit in hits]


async def test_scores_are_those_of_the_formula_and_nothing_better_is_missed(
    engine: AsyncEngine, tenant: UUID
) -> None:
    numbers = random.Random(1)
    texts = [
        " ".join(numbers.choices(WORDS, FREQUENCIES, k=numbers.randint(5, 60)))
        for _ in range(COUNT)
    ]
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "all", texts)
    collection = await fresh(engine, collection)
    queries = [
        "1000",
        "1000 1001",
        "1000 1001 1002 1003 1004 1005",
        "2999",
        "2999 1000",
        "1500 1000 1001 1002",
        "1003 1003 1003",
        "1900 2100 2500 1010 1020 1000 nowhere",
        "1900 2100 2500 1010 1020 1000 1001 1002 1003 1004 1005 1006",
        "2997 2998 2999 2990 2991 2992 2993 1000 1001",
        "1000 1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011",
    ]
    for query in queries:
        expected = sorted(bm25(texts, query, collection.average_length), reverse=True)
        for limit in (1, 10, 100):
            best = [score for score in expected[:limit] if score > 0]
            hits = await found(engine, collection, query, limit)
            assert [score for _, score in hits] == pytest.approx(best, abs=1e-4), query


async def test_of_very_many_chunks_enough_are_read_and_scored_right(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """More than are read for one search have these words, so that the best may be missed."""
    numbers = random.Random(2)
    words = WORDS[:6]
    texts = [" ".join(numbers.choices(words, k=6)) for _ in range(12_000)]
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "all", texts)
    collection = await fresh(engine, collection)
    query = " ".join(words)
    scores = bm25(texts, query, collection.average_length)
    by_text = dict(zip(texts, scores, strict=True))
    hits = await found(engine, collection, query, 100)
    assert len(hits) == 100
    assert [score for _, score in hits] == pytest.approx([by_text[t] for t, _ in hits], abs=1e-4)
    assert min(score for _, score in hits) > sorted(scores)[len(scores) // 2]


async def test_weights_follow_the_average_length(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    short = ["apple pear", "apple plum fig"]
    long = ["apple " * 5 + "quince " * 40, "pear " * 60]
    await published(engine, collection, "short", short)
    before = (await fresh(engine, collection)).average_length
    await published(engine, collection, "long", long)
    collection = await fresh(engine, collection)
    assert (before, collection.average_length) == (2.5, 27.5)
    expected = sorted(bm25(short + long, "apple pear", 27.5), reverse=True)
    hits = await found(engine, collection, "apple pear")
    assert [score for _, score in hits] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "the and of",
        "& | ! ( ) <-> :*",
        "'",
        "\\",
        "\0",
        "\ud800",
        "nowhere",
        "%$_;--",
    ],
    ids=ascii,
)
async def test_a_query_without_a_known_word_finds_nothing(
    engine: AsyncEngine, tenant: UUID, query: str
) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "x", ["the apple and the pear of ours"])
    assert await found(engine, await fresh(engine, collection), query) == []


@pytest.mark.parametrize(
    "query", ["apple & |", "!apple", "'apple", "apple:*", "apple\0fig", "apple " * 5000]
)
async def test_a_query_has_no_syntax(engine: AsyncEngine, tenant: UUID, query: str) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "x", ["an apple", "a pear"])
    [(text, score)] = await found(engine, await fresh(engine, collection), query)
    assert text == "an apple"
    assert score > 0


async def test_words_are_stemmed_as_the_collections_language_does(
    engine: AsyncEngine, tenant: UUID
) -> None:
    german = await collection_of(engine, tenant, language="german")
    await published(engine, german, "x", ["Die Bäume wuchsen", "Der Zaun steht"])
    assert [t for t, _ in await found(engine, await fresh(engine, german), "der Baum")] == [
        "Die Bäume wuchsen"
    ]


async def test_only_wanted_documents_are_searched(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "a", ["apple one"], metadata={"shelf": 1, "tags": ["a"]})
    await published(engine, collection, "b", ["apple two"], metadata={"shelf": 2})
    collection = await fresh(engine, collection)
    assert [t for t, _ in await found(engine, collection, "apple", shelf=2)] == ["apple two"]
    assert [t for t, _ in await found(engine, collection, "apple", tags=["a"])] == ["apple one"]
    assert await found(engine, collection, "apple", shelf=3) == []
    assert len(await found(engine, collection, "apple")) == 2


async def test_chunks_without_words_and_with_very_many_can_be_stored(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    numbers = random.Random(1)
    many = " ".join(f"x{numbers.getrandbits(64):016x}" for _ in range(30_000))
    texts = ["", "the of and", "...", "z" * 5000, many, "\u00e4\u4e2d\U0001f600 apple"]
    await published(engine, collection, "x", texts)
    collection = await fresh(engine, collection)
    assert collection.chunk_count == len(texts)
    assert [t for t, _ in await found(engine, collection, "apple")] == [texts[-1]]
    assert [t for t, _ in await found(engine, collection, many.split()[0])] in ([many], [])


async def test_a_collection_of_nothing_but_chunks_without_words_finds_nothing(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "x", ["the", ""])
    assert await found(engine, await fresh(engine, collection), "the apple") == []


async def test_an_unknown_or_deleted_collection_finds_nothing(
    engine: AsyncEngine, tenant: UUID
) -> None:
    collection = await collection_of(engine, tenant)
    await published(engine, collection, "x", ["apple"])
    async with as_tenant(engine, tenant) as connection:
        await collections.remove(connection, tenant, "default")
    assert await found(engine, collection, "apple") == []


async def test_the_search_reads_by_the_index_as_the_role(engine: AsyncEngine, tenant: UUID) -> None:
    collection = await collection_of(engine, tenant)
    other = await collection_of(engine, await tenant_named(engine, "other"))
    await published(engine, other, "x", ["apple"] * 500)
    await published(engine, collection, "x", [f"apple number{n}" for n in range(500)])
    scans = text("""
        SELECT pg_stat_get_xact_numscans('millrace.ix_chunk_terms_keys'::regclass),
               pg_stat_get_xact_tuples_fetched('millrace.chunk_terms'::regclass)
    """)
    async with as_tenant(engine, tenant) as connection:
        before = (await connection.execute(scans)).one()
        scope = await chunks.scope(connection, collection)
        assert len(await chunks.sparse(connection, scope, "number7 nowhere", 10)) == 1
        after = (await connection.execute(scans)).one()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
