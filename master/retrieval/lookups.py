"""Looking up what the steps of a plan want to know, and putting it into them."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from uuid import UUID

from bus import tracing
from master.planning.grounding import LATER, ground
from master.planning.plan import Plan, Retrieved, Source
from master.planning.question import Fleet, Question, Retrieval
from master.retrieval.search import Hit, Query, Searcher, SearchResult, UnknownCollection

_AT_ONCE = 3
"""Searches of one request; each holds a connection of the pool."""


async def look_up(
    searcher: Searcher, tenant: UUID, plan: Plan, question: Question, fleet: Fleet
) -> Plan:
    """The plan with what was found for each of its steps. Raises what `Searcher.search` does."""
    wanted = {step.key: step.lookup for step in plan.steps if step.lookup}
    if plan.lookup:
        wanted[LATER] = plan.lookup
    if question.retrieval is None or not wanted:
        return plan
    retrieval = question.retrieval
    turns = asyncio.Semaphore(_AT_ONCE)

    async def search(text: str) -> SearchResult:
        async with turns:
            with tracing.span("look up") as looking:
                found = await searcher.search(tenant, _query(text, retrieval))
                looking.note(hits=len(found.hits))
            return found

    # Not a task group: the caller knows the search's own errors, and not groups of them.
    texts = list(dict.fromkeys(wanted.values()))
    try:
        found_by_text = await asyncio.gather(*map(search, texts))
    except UnknownCollection:
        if not retrieval.optional:
            raise
        return plan
    results = dict(zip(texts, found_by_text, strict=True))
    found = {key: [_source(hit) for hit in results[text].hits] for key, text in wanted.items()}
    return ground(plan, found, question, fleet, _report(retrieval, results))


def _query(text: str, retrieval: Retrieval) -> Query:
    return Query(
        text,
        retrieval.collection,
        candidates=retrieval.candidates,
        top=retrieval.top,
        filter=retrieval.filter,
    )


def _source(hit: Hit) -> Source:
    return Source(
        number=1,
        chunk=hit.chunk.id,
        document=hit.chunk.document,
        name=hit.chunk.document_name,
        url=hit.chunk.url,
        page=hit.chunk.page,
        heading=tuple(hit.chunk.heading_path),
        position=hit.chunk.position,
        text=hit.chunk.text,
        score=hit.fused.score,
        rerank_score=hit.rerank_score,
        metadata=dict(hit.chunk.metadata),
        steps=(),
    )


def _report(retrieval: Retrieval, results: Mapping[str, SearchResult]) -> Retrieved:
    spent: Counter[str] = Counter()
    for result in results.values():
        spent.update(result.latency_ms)
    return Retrieved(
        collection=retrieval.collection,
        latency_ms={stage: round(ms, 3) for stage, ms in spent.items()},
        exact=all(result.exact for result in results.values()),
        degraded=tuple(sorted({stage for result in results.values() for stage in result.degraded})),
    )
