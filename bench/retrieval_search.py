"""Row 9: search over 100 000 chunks, in the database and through HTTP."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bench.effort import Effort
from bench.retrieval_api import Api
from bench.retrieval_corpus import DIMENSION, Question
from bench.retrieval_filling import (
    Filled,
    Indexes,
    check,
    drop_indexes,
    fill,
    filling,
    make_indexes,
)
from bench.samples import Findings, Limit, Row, percentile, ratios
from bench.site import Millrace
from db import chunks, collections, tenants
from db.chunks import Hit, Scope
from db.engine import create_engine
from db.tenancy import as_tenant
from master.retrieval.embedders.local_models import is_installed
from master.retrieval.embedders.pool import Embedders
from master.retrieval.embedders.protocol import Embedder, Vector
from master.retrieval.rerankers.lexical import Lexical
from master.retrieval.search import Query, Searcher
from queue_schemas.registry import Registry

EMBEDDING: Final = "all-MiniLM-L6-v2"
MODELS: Final = (
    {
        "name": EMBEDDING,
        "provider": "sentence-transformers",
        "capabilities": ["embedding"],
        "context_length": 256,
    },
)
_CHATS: Final = {"name": "chats", "provider": "scripted"}  # no registry is without
_SMALL: Final = 30
_OTHER: Final = 10_000
_LIMIT: Final = 10
_MOST_COMPARED: Final = 50
"""Questions that are answered exactly as well, which takes long."""
_DATABASE_STAGES: Final = ("scope", "dense", "sparse", "load")
_AT_MOST_15_MS: Final = Limit(15, at_least=False)
_RECALL: Final = Limit(0.95, at_least=True)

Leg = Callable[[AsyncConnection, Scope, Question], Awaitable[list[Hit]]]
Filter = Mapping[str, Any] | None


class _Known:
    """An embedder that has the vectors already, so that what is measured is the database."""

    model = EMBEDDING
    max_words = 200

    def __init__(self, vectors: Mapping[str, Vector]) -> None:
        self._vectors = vectors

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        return [self._vectors[text] for text in texts]

    async def check(self) -> int:
        return DIMENSION

    async def aclose(self) -> None:
        pass


class _OnlyKnown(Embedders):
    def __init__(self, embedder: _Known) -> None:
        registry = Registry.model_validate({"models": [_CHATS, *MODELS]})
        super().__init__(lambda: registry)
        self._embedder = embedder

    def get(self, name: str) -> Embedder:
        assert name == EMBEDDING
        return self._embedder


@dataclass
class _Case:
    """Questions to one tenant. Milliseconds, one number a round."""

    name: str
    tenant: UUID
    questions: Sequence[Question]
    filter: Filter = None
    p50: dict[str, list[float]] = field(default_factory=dict)
    p99: dict[str, list[float]] = field(default_factory=dict)
    recall: float = 1.0

    def note(self, what: str, times: Sequence[float]) -> None:
        """Keep the percentiles of a round."""
        self.p50.setdefault(what, []).append(percentile(times, 50))
        self.p99.setdefault(what, []).append(percentile(times, 99))

    def forget(self) -> None:
        """Begin anew."""
        self.p50, self.p99 = {}, {}

    def legs(self) -> str:
        """Medians of the rounds, for a note."""
        parts = [
            f"{leg} {statistics.median(self.p50[leg]):.1f} / {statistics.median(self.p99[leg]):.1f}"
            for leg in ("dense", "sparse")
        ]
        return f"{self.name}: ms p50 / p99 of one leg: {', '.join(parts)}"


def search(mill: Millrace, effort: Effort) -> Findings:
    """Search a large collection beside two others: times, recall, and what HTTP and model add."""
    return asyncio.run(_search(mill, effort))


_PARTS_OF_HTTP: Final = ("client", "master", "model", "database", *_DATABASE_STAGES, "rerank")


async def _search(mill: Millrace, effort: Effort) -> Findings:
    engine = create_engine(mill.database_url, pool_size=2, name="bench")
    try:
        large, small, other, indexes = await _fill(mill, engine, effort.chunks)
        cases = _cases(large, other, effort.searches)
        for case in cases:
            await _run(engine, case, rounds=1)  # so that nothing is met for the first time
            case.forget()
            await _run(engine, case, effort.rounds)
            case.recall = await _recall(engine, case)
        found = await _all_of(engine, small)
    finally:
        await engine.dispose()
    http_rows, http_notes = (
        _through_http(mill, large, effort) if is_installed(EMBEDDING) else ([], [])
    )
    return Findings(
        (*(row for case in cases for row in _rows(case)), found, *http_rows),
        notes=(*(case.legs() for case in cases), _size(indexes, large), *http_notes),
    )


async def _fill(
    mill: Millrace, engine: AsyncEngine, size: int
) -> tuple[Filled, Filled, Filled, Indexes]:
    """A large collection of the tenant whose key we have, and two of others beside it."""
    async with engine.begin() as connection:
        others = [await tenants.ensure_tenant(connection, name) for name in ("small", "other")]
    async with filling(mill.database_url) as connection:
        ours = await connection.fetchval("SELECT tenant_id FROM millrace.api_keys")
        definitions = await drop_indexes(connection)
        sizes = ((ours, size), (others[0], _SMALL), (others[1], size // 10))
        filled = [
            await fill(connection, tenant, EMBEDDING, chunk_count, seed)
            for seed, (tenant, chunk_count) in enumerate(sizes, 2)
        ]
        indexes = await make_indexes(connection, definitions)
        for one in filled:
            await check(connection, one)
    return filled[0], filled[1], filled[2], indexes


def _cases(large: Filled, other: Filled, count: int) -> list[_Case]:
    ordinary = large.made.questions(count)
    of, name = large.tenant, f"{large.chunks} chunks"
    common = large.made.common_questions(count)
    return [
        _Case(name, of, ordinary),
        _Case(f"{name}, a tenth by filter", of, ordinary, {"part": 3}),
        _Case(f"{name}, common words", of, common),
        _Case(f"{other.chunks} beside them", other.tenant, other.made.questions(count)),
    ]


async def _run(engine: AsyncEngine, case: _Case, rounds: int) -> None:
    embedder = _Known({one.text: one.vector for one in case.questions})
    searcher = Searcher(engine, _OnlyKnown(embedder), Lexical())
    for _ in range(rounds):
        whole: list[float] = []
        legs: dict[str, list[float]] = {"dense": [], "sparse": []}
        for question in case.questions:
            query = Query(question.text, "default", top=_LIMIT, filter=case.filter)
            result = await searcher.search(case.tenant, query)
            assert result.hits, f"nothing was found for {question.text}"
            whole.append(_in_database(result.latency_ms))
            for leg, times in legs.items():
                times.append(await _one_leg(engine, case, question, leg))
        for what, times in {"whole": whole, **legs}.items():
            case.note(what, times)


def _in_database(latency_ms: Mapping[str, float]) -> float:
    return sum(latency_ms.get(stage, 0.0) for stage in _DATABASE_STAGES)


async def _one_leg(engine: AsyncEngine, case: _Case, question: Question, leg: str) -> float:
    async with as_tenant(engine, case.tenant) as connection:
        scope = await _scope(connection, case)
        began = time.perf_counter()
        if leg == "dense":
            await chunks.dense(connection, scope, question.vector, _LIMIT, exact=scope.exact)
        else:
            await chunks.sparse(connection, scope, question.text, _LIMIT)
        return 1000 * (time.perf_counter() - began)


async def _scope(connection: AsyncConnection, case: _Case) -> Scope:
    collection = await collections.find(connection, case.tenant, "default")
    assert collection is not None
    return await chunks.scope(connection, collection, case.filter)


async def _recall(engine: AsyncEngine, case: _Case) -> float:
    """The share of the ten nearest that the index finds."""
    shares: list[float] = []
    for question in case.questions[:_MOST_COMPARED]:
        async with as_tenant(engine, case.tenant) as connection:
            scope = await _scope(connection, case)
            nearest, found = [
                await chunks.dense(connection, scope, question.vector, _LIMIT, exact=exact)
                for exact in (True, scope.exact)
            ]
        best = {hit.chunk for hit in nearest}
        shares.append(len(best & {hit.chunk for hit in found}) / len(best))
    return statistics.mean(shares)


async def _all_of(engine: AsyncEngine, small: Filled) -> Row:
    """The tenant with thirty chunks finds all of them, by both ways, and nobody else's."""
    [question] = small.made.questions(1)
    case = _Case("", small.tenant, ())
    async with engine.connect() as connection:
        query = text("SELECT id FROM millrace.chunks WHERE tenant_id = :tenant")
        own = set((await connection.execute(query, {"tenant": small.tenant})).scalars())
    counts: list[float] = []
    for exact in (True, False):
        async with as_tenant(engine, small.tenant) as connection:
            scope = await _scope(connection, case)
            hits = await chunks.dense(connection, scope, question.vector, 100, exact=exact)
            found = {hit.chunk for hit in hits}
            words = await chunks.sparse(connection, scope, question.text, 100)
        assert found | {hit.chunk for hit in words} <= own, "somebody else's chunks were found"
        counts.append(len(found))
    limit = Limit(_SMALL, at_least=True)
    return Row(
        *("9", f"of {_SMALL} chunks beside them", "found"),
        tuple(counts),
        judged=tuple(counts),
        limit=limit,
    )


def _rows(case: _Case) -> list[Row]:
    p50, p99 = tuple(case.p50["whole"]), tuple(case.p99["whole"])
    title = f"search, {case.name}"
    return [
        Row("9", title, "ms p50 in the database", p50, judged=p50, limit=_AT_MOST_15_MS),
        Row("9", title, "ms p99 in the database", p99),
        Row("9", title, "recall@10", (case.recall,), judged=(case.recall,), limit=_RECALL),
    ]


def _size(indexes: Indexes, large: Filled) -> str:
    return (
        f"indexes over {large.chunks} chunks and a tenth more: vectors (HNSW) "
        f"{indexes.vector_seconds:.0f} s, {indexes.vector_megabytes:.0f} MB; "
        f"words (GIN) {indexes.word_seconds:.0f} s, {indexes.word_megabytes:.0f} MB"
    )


def _through_http(mill: Millrace, large: Filled, effort: Effort) -> tuple[list[Row], list[str]]:
    """What a client waits for, and which part of it is the database's and the model's."""
    if not is_installed(EMBEDDING):
        return [], [f"/v1/search was not measured: {EMBEDDING} is not installed"]
    questions = large.made.questions(effort.searches)
    rounds: list[dict[str, float]] = []
    with closing(Api(mill)) as api:
        api.search(questions[0].text)  # loads the model
        for _ in range(effort.rounds):
            times: dict[str, list[float]] = {name: [] for name in _PARTS_OF_HTTP}
            for question in questions:
                seconds, latency_ms = api.search(question.text)
                spent = _parts(1000 * seconds, latency_ms)
                for name, number in spent.items():
                    times[name].append(number)
            rounds.append({name: statistics.median(all_) for name, all_ in times.items()})
    whole = tuple(spent["client"] for spent in rounds)
    database = tuple(spent["database"] for spent in rounds)
    middle = {name: statistics.median(r[name] for r in rounds) for name in _PARTS_OF_HTTP}
    stages = ", ".join(f"{name} {number:.1f}" for name, number in middle.items())
    row = Row(
        *("9", "search through /v1/search", "ms p50", whole, "database alone", database),
        judged=ratios(whole, database),
    )
    return [row], [f"/v1/search, ms p50 by stage: {stages}; the model is {EMBEDDING} in process"]


def _parts(client: float, latency_ms: Mapping[str, float]) -> dict[str, float]:
    """Client: all of it. Master: what is neither the model's nor the database's of that."""
    database, model = _in_database(latency_ms), latency_ms["embed"]
    stages = {name: latency_ms[name] for name in (*_DATABASE_STAGES, "rerank")}
    return {
        "client": client,
        "master": client - database - model,
        "model": model,
        "database": database,
        **stages,
    }
