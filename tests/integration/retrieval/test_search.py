"""From a question to pieces of documents: both legs, their fusion, and what happens without one."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import chunks, scores
from db.collections import Collection
from db.corpus import Strategy
from db.tenancy import as_tenant
from master.retrieval.embedders.options import Prefixes
from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import Embedder, EmbeddingError, Vector
from master.retrieval.rerankers.lexical import Lexical
from master.retrieval.rerankers.protocol import RerankError
from master.retrieval.search import (
    EmbeddingModelMismatch,
    Query,
    Searcher,
    UnknownCollection,
)
from queue_schemas.messages import ErrorKind
from tests.doubles.embedding_engine import vector_of
from tests.integration.db.corpus_acts import collection_of, fresh, published, tenant_named

DIMENSION = 16
TEXTS = [
    "The weir holds the water back so that the wheel turns evenly.",
    "A miller takes a tenth of the flour as his wage.",
    "Error E-4711 means that the sluice is blocked by branches.",
    "Flour is stored dry and cool, and away from mice.",
    "The wheel turns a shaft, and the shaft turns the stone.",
    "In winter the race freezes, and the mill stands still.",
]


class Counting:
    """An embedder whose vectors count words; or one that fails."""

    model = "tiny"
    max_words = 400

    def __init__(self, dimension: int = DIMENSION, error: EmbeddingError | None = None) -> None:
        self.dimension = dimension
        self.error = error
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.texts += texts
        if self.error:
            raise self.error
        return [vector_of(text, self.dimension) for text in texts]

    async def check(self) -> int:
        return self.dimension

    async def aclose(self) -> None:
        pass


class One(Embedders):
    """Has one embedder under every name."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def get(self, name: str) -> Embedder:
        return self._embedder

    def prefixes(self, name: str) -> Prefixes:
        return Prefixes(query_prefix="query: ", document_prefix="document: ")


class Broken(Lexical):
    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        raise RerankError(ErrorKind.TRANSIENT, "engine_unreachable", "gone")


@pytest.fixture
async def filled(engine: AsyncEngine, tenant: UUID) -> Collection:
    collection = await collection_of(engine, tenant, dimension=DIMENSION)
    for number, text in enumerate(TEXTS):
        year = {"year": 2020 + number % 2}
        vectors = [vector_of(text, DIMENSION)]
        await published(engine, collection, f"document {number}", [text], vectors, metadata=year)
    return await fresh(engine, collection)


def searcher(engine: AsyncEngine, embedder: Embedder | None = None) -> Searcher:
    return Searcher(engine, One(embedder or Counting()), Lexical())


async def test_every_hit_has_the_scores_of_both_legs(
    engine: AsyncEngine, filled: Collection
) -> None:
    result = await searcher(engine).search(
        filled.tenant, Query("why is the sluice blocked?", "default", candidates=2, top=4)
    )
    assert result.hits[0].chunk.text == TEXTS[2]
    assert len(result.hits) >= 2
    assert all(h.fused.dense is not None and h.fused.sparse is not None for h in result.hits)
    assert [h.rerank_score for h in result.hits] == sorted(
        (h.rerank_score for h in result.hits), reverse=True
    )
    assert result.exact
    assert result.degraded == ()
    stages = {"scope", "embed", "dense", "sparse", "load", "rerank", "total"}
    assert result.latency_ms.keys() == stages
    assert all(ms >= 0 for ms in result.latency_ms.values())


async def test_a_leg_scores_what_the_other_one_found_as_it_would_itself(
    engine: AsyncEngine, filled: Collection
) -> None:
    query, vector = "the wheel turns the stone", vector_of("the wheel turns the stone", DIMENSION)
    async with as_tenant(engine, filled.tenant) as connection:
        scope = await chunks.scope(connection, filled)
        dense = await chunks.dense(connection, scope, vector, 10, exact=True)
        sparse = await chunks.sparse(connection, scope, query, 10)
        ids = [hit.chunk for hit in dense]
        near = await scores.cosines(connection, scope, vector, ids)
        words = {
            hit.chunk: hit.score
            for hit in await chunks.sparse(connection, scope, query, 1, also=ids)
        }
    assert near == pytest.approx({hit.chunk: hit.score for hit in dense}, abs=1e-6)
    assert {id_: s for id_, s in words.items() if s} == pytest.approx(
        {hit.chunk: hit.score for hit in sparse}, abs=1e-6
    )


@pytest.mark.parametrize("strategy", [Strategy.DENSE, Strategy.SPARSE])
async def test_one_leg_can_be_asked_alone(
    engine: AsyncEngine, filled: Collection, strategy: Strategy
) -> None:
    embedder = Counting()
    result = await searcher(engine, embedder).search(
        filled.tenant, Query("flour of the miller", "default", strategy=strategy, top=2)
    )
    [first, *_] = result.hits
    assert first.chunk.text == TEXTS[1]
    assert (first.fused.dense is None) == (strategy is Strategy.SPARSE)
    assert (first.fused.sparse is None) == (strategy is Strategy.DENSE)
    assert bool(embedder.texts) == (strategy is Strategy.DENSE)


async def test_only_documents_with_the_wanted_metadata_are_found(
    engine: AsyncEngine, filled: Collection
) -> None:
    asked = Query("flour wheel mill", "default", top=10, filter={"year": 2021})
    result = await searcher(engine).search(filled.tenant, asked)
    assert {hit.chunk.metadata["year"] for hit in result.hits} == {2021}
    nothing = Query("flour", "default", filter={"year": 1066})
    assert (await searcher(engine).search(filled.tenant, nothing)).hits == []


async def test_a_collection_of_somebody_else_does_not_exist(
    engine: AsyncEngine, filled: Collection
) -> None:
    other = await tenant_named(engine, "other")
    for tenant, name in ((filled.tenant, "nowhere"), (other, "default")):
        with pytest.raises(UnknownCollection):
            await searcher(engine).search(tenant, Query("flour", name))


async def test_without_its_embedding_model_words_alone_are_searched_and_it_says_so(
    engine: AsyncEngine, filled: Collection
) -> None:
    gone = Counting(error=EmbeddingError(ErrorKind.TRANSIENT, "engine_unreachable", "gone"))
    result = await searcher(engine, gone).search(filled.tenant, Query("E-4711", "default"))
    assert result.hits[0].chunk.text == TEXTS[2]
    assert result.degraded == ("dense",)
    with pytest.raises(EmbeddingError):
        await searcher(engine, gone).search(
            filled.tenant, Query("E-4711", "default", strategy=Strategy.DENSE)
        )


async def test_a_model_that_does_not_work_at_all_is_an_error(
    engine: AsyncEngine, filled: Collection
) -> None:
    wrong = Counting(error=EmbeddingError(ErrorKind.PERMANENT, "model_not_found", "gone"))
    with pytest.raises(EmbeddingError):
        await searcher(engine, wrong).search(filled.tenant, Query("E-4711", "default"))


async def test_vectors_of_another_dimension_name_the_remedy(
    engine: AsyncEngine, filled: Collection
) -> None:
    with pytest.raises(EmbeddingModelMismatch, match="millrace reindex default"):
        await searcher(engine, Counting(dimension=8)).search(
            filled.tenant, Query("flour", "default")
        )


async def test_without_its_reranker_the_fused_order_stands(
    engine: AsyncEngine, filled: Collection
) -> None:
    broken = Searcher(engine, One(Counting()), Broken())
    result = await broken.search(filled.tenant, Query("the miller's flour", "default"))
    assert result.degraded == ("rerank",)
    assert [h.rerank_score for h in result.hits] == [h.fused.score for h in result.hits]


async def test_what_is_longer_than_the_model_reads_is_cut(
    engine: AsyncEngine, filled: Collection
) -> None:
    embedder = Counting()
    await searcher(engine, embedder).search(filled.tenant, Query("flour " * 5000, "default"))
    [text] = embedder.texts
    assert text.split() == ["query:"] + ["flour"] * 400


class Narrow(Counting):
    """Takes a few characters only, whatever it says of words."""

    longest = 40

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        vectors = await super().embed(texts)
        if any(len(text) > self.longest for text in texts):
            raise EmbeddingError(ErrorKind.PERMANENT, "context_length_exceeded", "too long")
        return vectors


async def test_a_question_of_more_tokens_than_the_model_takes_is_shortened(
    engine: AsyncEngine, filled: Collection
) -> None:
    embedder = Narrow()
    result = await searcher(engine, embedder).search(filled.tenant, Query("流" * 200, "default"))
    assert result.degraded == ()
    assert [len(text) for text in embedder.texts] == [207, 107, 57, 32]


async def test_a_question_that_is_still_too_long_is_looked_up_by_its_words(
    engine: AsyncEngine, filled: Collection
) -> None:
    query = Query("E-4711 " * 2000, "default")
    result = await searcher(engine, Narrow()).search(filled.tenant, query)
    assert result.hits[0].chunk.text == TEXTS[2]
    assert result.degraded == ("dense",)
    with pytest.raises(EmbeddingError):
        await searcher(engine, Narrow()).search(
            filled.tenant, replace(query, strategy=Strategy.DENSE)
        )


@pytest.mark.parametrize(
    "text",
    ["foo & |", "((", "'", "a:*b", "\\", "!", "the and of", "\0weir", "🙂", "weir " * 3000, "<->"],
    ids=range(11),
)
async def test_no_question_is_a_syntax_error(
    engine: AsyncEngine, filled: Collection, text: str
) -> None:
    for strategy in Strategy:
        await searcher(engine).search(filled.tenant, Query(text, "default", strategy=strategy))


async def test_an_empty_collection_has_no_hits(engine: AsyncEngine, tenant: UUID) -> None:
    await collection_of(engine, tenant, name="empty", dimension=DIMENSION)
    assert (await searcher(engine).search(tenant, Query("flour", "empty"))).hits == []
