"""`millrace eval retrieval`: load a set for a tenant of its own, ask, measure, clean up.

The set goes through the same database and the same search as everything else; only the reading
and cutting of documents is left out, since a passage is found as a whole.
"""

import hashlib
import secrets
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db import chunks, claims, collections, documents, drafts, migrate, tenants
from db.collections import Collection, NewCollection
from db.corpus import Origin, Strategy
from db.documents import NewDocument
from db.engine import create_engine
from db.tenancy import as_tenant
from master.retrieval.chunking import Draft
from master.retrieval.embedders.pool import Embedders
from master.retrieval.evaluation.outcome import Evaluation, K, Leg, LegOutcome, judged
from master.retrieval.evaluation.sets import Question, RetrievalSet
from master.retrieval.rerankers.lexical import Lexical
from master.retrieval.search import DEGRADED_DENSE, Query, Searcher
from millrace import reach
from millrace.embedded_postgres import embedded_postgres
from millrace.problems import Problem

_COLLECTION = "evaluation"
_TOGETHER = 200
"""Passages that are embedded and stored at once; each such part is one document."""
_LEASE_SECONDS = 600.0

_STRATEGIES = {
    Leg.DENSE: Strategy.DENSE,
    Leg.SPARSE: Strategy.SPARSE,
    Leg.HYBRID: Strategy.HYBRID,
    Leg.RERANKED: Strategy.HYBRID,
}

Told = Callable[[str, int, int], None]
"""What is done, how many of how many."""


@dataclass(frozen=True)
class Wanted:
    """How to search. `model`: of the registry, None for words alone."""

    model: str | None
    language: str
    candidates: int
    dense_weight: float


@asynccontextmanager
async def database(url: str | None) -> AsyncGenerator[AsyncEngine, None]:
    """The database at the URL, else an embedded one that is gone afterwards. Raises Problem."""
    name = "millrace eval"
    async with AsyncExitStack() as stack:
        if url:
            yield await stack.enter_async_context(reach.migrated(url, name=name))
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-eval-"))
        url = await stack.enter_async_context(embedded_postgres(Path(folder) / "postgres"))
        engine = create_engine(url, pool_size=2, name=name)
        stack.push_async_callback(engine.dispose)
        await migrate.upgrade(engine)
        yield engine


async def evaluate(
    engine: AsyncEngine, embedders: Embedders, asked: RetrievalSet, wanted: Wanted, told: Told
) -> Evaluation:
    """Measure each leg alone, then both. Raises Problem, EmbeddingError, UnknownLanguage."""
    async with _tenant(engine) as tenant:
        collection = await _collection(engine, tenant, embedders, wanted)
        await _load(engine, embedders, collection, asked, told)
        searcher = Searcher(engine, embedders, Lexical())
        outcomes = await _ask_all(searcher, tenant, asked, wanted, told)
    return Evaluation(
        name=asked.name,
        language=wanted.language,
        model=wanted.model,
        passages=len(asked.passages),
        questions=len(asked.questions),
        left_out=asked.left_out,
        candidates=wanted.candidates,
        dense_weight=wanted.dense_weight,
        legs=tuple(outcomes),
    )


@asynccontextmanager
async def _tenant(engine: AsyncEngine) -> AsyncGenerator[UUID, None]:
    """A tenant that nobody else has, taken away with everything it has."""
    name = f"retrieval-evaluation-{secrets.token_hex(8)}"
    async with engine.begin() as connection:
        tenant = await tenants.ensure_tenant(connection, name)
    try:
        yield tenant
    finally:
        async with as_tenant(engine, tenant) as connection:
            await collections.remove(connection, tenant, _COLLECTION)
        async with engine.begin() as connection:
            await tenants.remove_tenant(connection, tenant)


async def _collection(
    engine: AsyncEngine, tenant: UUID, embedders: Embedders, wanted: Wanted
) -> Collection:
    new = NewCollection(
        name=_COLLECTION,
        strategy=Strategy.HYBRID if wanted.model else Strategy.SPARSE,
        embedding_model=wanted.model,
        language=wanted.language,
        dense_weight=wanted.dense_weight,
    )
    async with as_tenant(engine, tenant) as connection:
        made = await collections.ensure(connection, tenant, new)
    if wanted.model is None:
        return made
    dimension = await embedders.get(wanted.model).check()
    await chunks.ensure_index(engine, dimension)
    async with as_tenant(engine, tenant) as connection:
        return await collections.fix_dimension(connection, made, dimension)


async def _load(
    engine: AsyncEngine,
    embedders: Embedders,
    collection: Collection,
    asked: RetrievalSet,
    told: Told,
) -> None:
    # A passage without any text is in some sets, and cannot be found by anything.
    texts = [(number, passage.content) for number, passage in enumerate(asked.passages)]
    texts = [(number, text) for number, text in texts if text]
    for start in range(0, len(texts), _TOGETHER):
        told("passages", start, len(texts))
        await _store(engine, embedders, collection, texts[start : start + _TOGETHER])
    told("passages", len(texts), len(texts))


async def _store(
    engine: AsyncEngine,
    embedders: Embedders,
    collection: Collection,
    texts: list[tuple[int, str]],
) -> None:
    """One document, whose chunks are at the passages' own numbers."""
    tenant, model = collection.tenant, collection.embedding_model
    vectors = await embedders.get(model).embed([text for _, text in texts]) if model else []
    name = f"passages from {texts[0][0]}"
    digest = hashlib.sha256(name.encode()).digest()
    new = NewDocument(collection.id, name, Origin.TEXT, digest)
    async with as_tenant(engine, tenant) as connection:
        document, _ = await documents.add(connection, tenant, new, b"")
        claimed = await claims.claim(connection, tenant, document.id, _LEASE_SECONDS)
        if claimed is None:
            raise Problem("somebody else took the evaluation's passages; try again.")
        cut = [Draft(number, text, (), None) for number, text in texts]
        await drafts.replace(connection, document.id, claimed.attempt, cut)
        if model:
            numbered = {number: v for (number, _), v in zip(texts, vectors, strict=True)}
            await drafts.put_vectors(connection, document.id, claimed.attempt, numbered)
        await chunks.publish(connection, document.id, claimed.attempt, model)


async def _ask_all(
    searcher: Searcher, tenant: UUID, asked: RetrievalSet, wanted: Wanted, told: Told
) -> list[LegOutcome]:
    """Every question to each leg in turn, so that a busy moment slows down all of them alike."""
    legs = tuple(Leg) if wanted.model else (Leg.SPARSE,)
    for leg in legs:  # the first query of a kind also prepares statements; it is not measured
        await _ask(searcher, tenant, leg, asked.questions[0], wanted)
    found: dict[Leg, list[list[str]]] = {leg: [] for leg in legs}
    spent: dict[Leg, list[float]] = {leg: [] for leg in legs}
    for done, question in enumerate(asked.questions):
        told("questions", done, len(asked.questions))
        for leg in legs:
            numbers, milliseconds = await _ask(searcher, tenant, leg, question, wanted)
            found[leg].append([asked.passages[number].id for number in numbers])
            spent[leg].append(milliseconds)
    told("questions", len(asked.questions), len(asked.questions))
    return [judged(leg, asked.questions, found[leg], spent[leg]) for leg in legs]


async def _ask(
    searcher: Searcher, tenant: UUID, leg: Leg, question: Question, wanted: Wanted
) -> tuple[list[int], float]:
    """The numbers of the passages found, and the milliseconds it took."""
    query = Query(
        question.text,
        _COLLECTION,
        strategy=_STRATEGIES[leg],
        candidates=wanted.candidates,
        top=K,
        dense_weight=wanted.dense_weight,
        rerank=leg is Leg.RERANKED,
    )
    result = await searcher.search(tenant, query)
    if DEGRADED_DENSE in result.degraded:
        raise Problem("the embedding model went away; what was measured would not be a hybrid.")
    return [hit.chunk.position for hit in result.hits], result.latency_ms["total"]
