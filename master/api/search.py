"""`POST /v1/search`: what documents say about something, with every score."""

import time
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request

from db.corpus import Strategy
from master.api import errors, outages, retrieving
from master.api.bodies import parsed, unknown_fields, warn_of
from master.api.openapi import request_body, success
from master.api.search_shapes import SearchAnswer, SearchRequest, search_answer
from master.api.state import ring, running
from master.api.strict_json import read_json
from master.retrieval.search import Query, SearchResult
from master.running import Running

router = APIRouter(tags=["Millrace"])


@router.post(
    "/v1/search",
    response_model=None,
    responses=success(SearchAnswer, 400, 401, 404, 408, 409, 413, 415, 502, 503),
    openapi_extra=request_body(SearchRequest),
)
async def search(request: Request) -> dict[str, Any]:
    """Find pieces of your documents by meaning, by words, or by both."""
    master = running(request)
    key = await ring(request).tenant_of(request.headers, time.monotonic())
    raw = await read_json(request)
    warn_of(unknown_fields(raw, SearchRequest), strict=True)
    return search_answer(await found(master, key.tenant, parsed(SearchRequest, raw)))


async def found(master: Running, tenant: UUID, asked: SearchRequest) -> SearchResult:
    """What documents of this tenant say. Raises `ApiError` 400, 404, 409, 502 or 503."""
    if not asked.query.strip():
        raise errors.invalid_value("query must not be blank", "query")
    query = Query(
        asked.query,
        asked.collection,
        strategy=Strategy(asked.strategy) if asked.strategy else None,
        candidates=max(asked.candidates, asked.top),
        top=asked.top,
        filter=asked.filter,
        dense_weight=asked.dense_weight,
        rerank=asked.rerank,
    )
    with outages.answered(), retrieving.answered(asked.collection):
        return await master.searcher.search(tenant, query)
