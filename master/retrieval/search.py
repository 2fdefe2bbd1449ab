"""Search: from a question to the pieces of documents that answer it.

embed → candidates of each leg → fuse → rerank → top. Each stage is timed. A hybrid search whose
embedding model is away goes on with words alone and says so.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import chunks, collections, scores
from db.chunks import Scope, StoredChunk
from db.collections import Collection
from db.corpus import Strategy
from db.tenancy import as_tenant
from master.metrics.searches import Found, count_search
from master.retrieval.embedders.long_texts import embed_beginning, is_too_long
from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import Embedder, EmbeddingError, Vector
from master.retrieval.fusion import Fused, fuse, rerank_score
from master.retrieval.rerankers.protocol import Reranker, RerankError
from queue_schemas.messages import ErrorKind

log = structlog.get_logger(__name__)

_EMBED_SECONDS = 15.0
"""A model that has to be loaded first may take about as long."""
DEGRADED_DENSE = "dense"
DEGRADED_RERANK = "rerank"


class UnknownCollection(LookupError):
    """The tenant has no collection of that name."""


class WithoutVectors(ValueError):
    """The collection is sparse, and only vectors were asked."""


class EmbeddingModelMismatch(ValueError):
    """The collection's vectors are of another model or dimension than what embeds now."""


@dataclass(frozen=True)
class Query:
    """What to find."""

    text: str
    collection: str
    strategy: Strategy | None = None
    """Which legs; None: the collection's."""
    candidates: int = 10
    """Of each leg."""
    top: int = 3
    filter: Mapping[str, Any] | None = None
    """What a document's metadata must contain."""
    dense_weight: float | None = None
    """Of the dense leg in the fusion, 0 to 1; None: the collection's."""
    rerank: bool = True


@dataclass(frozen=True)
class Hit:
    """A piece of a document that was found, with its scores."""

    chunk: StoredChunk
    fused: Fused
    rerank_score: float
    """What the order is by; the fused score where nothing was reranked."""


@dataclass(frozen=True)
class SearchResult:
    """The best pieces, best first, and what finding them took."""

    collection: Collection
    hits: Sequence[Hit]
    latency_ms: Mapping[str, float]
    """By stage: embed, scope, dense, sparse, load, rerank, and total."""
    exact: bool
    """Every vector in scope was compared; otherwise an approximate index was used."""
    degraded: tuple[str, ...]
    """Stages that had to do without their model."""


@dataclass
class _Times:
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - began) * 1000
            self.ms[stage] = round(self.ms.get(stage, 0.0) + spent, 3)


class Searcher:
    """Searches the corpus of any tenant."""

    def __init__(self, engine: AsyncEngine, embedders: Embedders, reranker: Reranker) -> None:
        self._engine = engine
        self._embedders = embedders
        self._reranker = reranker

    async def search(self, tenant: UUID, query: Query) -> SearchResult:
        """Find the best pieces.

        Raises UnknownCollection, WithoutVectors, EmbeddingModelMismatch, EmbeddingError (where only
        vectors could answer), or the database's errors.
        """
        times = _Times()
        try:
            with times.of("total"):
                found = await self._search(tenant, query, times)
        except Exception as error:
            asked_wrongly = isinstance(error, UnknownCollection | WithoutVectors)
            count_search(Found.REFUSED if asked_wrongly else Found.FAILED, times.ms)
            raise
        count_search(_outcome(found), times.ms)
        return found

    async def _search(self, tenant: UUID, query: Query, times: _Times) -> SearchResult:
        degraded: list[str] = []
        with times.of("scope"):
            collection = await self._collection(tenant, query.collection)
        strategy = query.strategy or collection.strategy
        if strategy is Strategy.DENSE and collection.strategy is Strategy.SPARSE:
            raise WithoutVectors(collection.name)
        vector: Vector | None = None
        if strategy is not Strategy.SPARSE:
            with times.of("embed"):
                vector = await self._embed(query.text, collection, strategy)
            if vector is None:
                strategy = Strategy.SPARSE
                degraded.append(DEGRADED_DENSE)
        async with as_tenant(self._engine, tenant) as connection:
            with times.of("scope"):
                scope = await chunks.scope(connection, collection, query.filter)
            fused = await _candidates(connection, scope, query, strategy, vector, times)
            with times.of("load"):
                found = await chunks.load(connection, [one.chunk for one in fused])
        with times.of("rerank"):
            hits = await self._rank(query, fused, found, degraded)
        exact = vector is None or scope.exact
        return SearchResult(collection, hits[: query.top], times.ms, exact, tuple(degraded))

    async def _collection(self, tenant: UUID, name: str) -> Collection:
        async with as_tenant(self._engine, tenant) as connection:
            found = await collections.find(connection, tenant, name)
        if found is None:
            raise UnknownCollection(name)
        return found

    async def _embed(self, text: str, collection: Collection, strategy: Strategy) -> Vector | None:
        """The question's vector; None where words must do."""
        if collection.embedding_model is None or collection.dimension is None:
            return None
        try:
            embedder = self._embedders.get(collection.embedding_model)
            prefix = self._embedders.prefixes(collection.embedding_model).query_prefix
            vector = await _in_time(embedder, text, prefix)
        except EmbeddingError as error:
            passes = error.kind is ErrorKind.TRANSIENT or is_too_long(error)
            if strategy is Strategy.DENSE or not passes:
                raise
            log.warning("search.without_vectors", collection=collection.name, error=str(error))
            return None
        if len(vector) != collection.dimension:
            raise EmbeddingModelMismatch(
                f"the collection {collection.name!r} has vectors of {collection.dimension} "
                f"dimensions, and {collection.embedding_model} now gives {len(vector)}: "
                f"`millrace reindex {collection.name}` embeds its documents again"
            )
        return vector

    async def _rank(
        self,
        query: Query,
        fused: Sequence[Fused],
        found: Mapping[int, StoredChunk],
        degraded: list[str],
    ) -> list[Hit]:
        # A chunk may have been deleted since it was found.
        there = [one for one in fused if one.chunk in found]
        scores = [one.score for one in there]
        if query.rerank and there:
            try:
                judged = await self._reranker.score(
                    query.text, [found[one.chunk].text for one in there]
                )
            except RerankError as error:
                log.warning("search.without_reranking", error=str(error))
                degraded.append(DEGRADED_RERANK)
            else:
                scores = [
                    rerank_score(one.score, score) for one, score in zip(there, judged, strict=True)
                ]
        hits = [Hit(found[o.chunk], o, s) for o, s in zip(there, scores, strict=True)]
        return sorted(hits, key=lambda hit: -hit.rerank_score)


def _outcome(found: SearchResult) -> Found:
    if found.degraded:
        return Found.DEGRADED
    return Found.HITS if found.hits else Found.NOTHING


async def _in_time(embedder: Embedder, text: str, prefix: str) -> Vector:
    """Somebody waits for the answer: an engine that hangs is as good as away."""
    try:
        async with asyncio.timeout(_EMBED_SECONDS):
            return await embed_beginning(embedder, text, prefix)
    except TimeoutError as error:
        message = f"it gave no vector within {_EMBED_SECONDS:g} s"
        raise EmbeddingError(ErrorKind.TRANSIENT, "engine_slow", message) from error


async def _candidates(
    connection: AsyncConnection,
    scope: Scope,
    query: Query,
    strategy: Strategy,
    vector: Vector | None,
    times: _Times,
) -> list[Fused]:
    """The candidates of both legs, each scored by both."""
    dense: dict[int, float] | None = None
    sparse: dict[int, float] | None = None
    if vector is not None:
        with times.of("dense"):
            hits = await chunks.dense(
                connection, scope, vector, query.candidates, exact=scope.exact
            )
            dense = {hit.chunk: hit.score for hit in hits}
    if strategy is not Strategy.DENSE:
        with times.of("sparse"):
            hits = await chunks.sparse(
                connection, scope, query.text, query.candidates, also=tuple(dense or ())
            )
            sparse = {hit.chunk: hit.score for hit in hits}
    if dense is not None and sparse is not None and vector is not None:
        with times.of("dense"):
            dense |= await scores.cosines(connection, scope, vector, sparse.keys() - dense.keys())
    weight = scope.collection.dense_weight if query.dense_weight is None else query.dense_weight
    return fuse(dense, sparse, weight, scope.collection.chunk_count)
