"""`/v1/rerank`: which documents answer a question best, as Jina and Cohere answer."""

import time
from typing import Any

import structlog
from fastapi import APIRouter
from starlette.requests import Request

from master.api import errors
from master.api.bodies import parsed
from master.api.openapi import request_body, success
from master.api.rerank_shapes import RerankRequest, RerankResult, rerank_result
from master.api.state import ring, running
from master.api.strict_json import read_json
from master.retrieval.rerankers.lexical import NAME, Lexical
from master.retrieval.rerankers.protocol import Reranker, RerankError
from queue_schemas.messages import ErrorKind

log = structlog.get_logger(__name__)
router = APIRouter(tags=["Millrace"])


@router.post(
    "/v1/rerank",
    response_model=None,
    response_model_exclude_none=True,
    responses=success(RerankResult, 400, 401, 404, 408, 413, 415, 502, 503),
    openapi_extra=request_body(RerankRequest),
)
async def rerank(request: Request) -> dict[str, Any]:
    """Order documents by how well they answer the query."""
    await ring(request).tenant_of(request.headers, time.monotonic())
    asked = parsed(RerankRequest, await read_json(request))
    reranker = _chosen(running(request).reranker, asked.model)
    try:
        scores = await reranker.score(asked.query, asked.documents)
    except RerankError as error:
        raise _answer(error, reranker.model) from error
    return rerank_result(asked, reranker.model, scores)


def _chosen(configured: Reranker, wanted: str | None) -> Reranker:
    if wanted in {None, configured.model}:
        return configured
    if wanted == NAME:
        return Lexical()
    known = dict.fromkeys((configured.model, NAME))
    raise errors.model_not_found(str(wanted), known)


def _answer(error: RerankError, model: str) -> errors.ApiError:
    log.warning("rerank.failed", model=model, code=error.code, message=error.message)
    if error.kind is ErrorKind.TRANSIENT:
        return errors.service_unavailable(f"the reranker does not answer now ({error.code})")
    message = f"the reranker cannot score ({error.code}); see the log of the server"
    return errors.ApiError(502, error.code, message, headers={"x-should-retry": "false"})
