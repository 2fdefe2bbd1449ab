"""The embedder's HTTP application."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from bus import tracing
from master.api import errors
from master.api.bodies import parsed
from master.api.embedding_shapes import (
    EmbeddingList,
    EmbeddingsRequest,
    check_dimensions,
    embedding_list,
)
from master.api.rerank_shapes import RerankRequest, RerankResult, rerank_result
from master.api.strict_json import JsonLimits, read_json
from master.api.traced import TracedRequests
from master.embedder import metrics, shapes
from master.embedder.loaded import Loaded
from master.metrics.exposition import render
from master.retrieval.embedders.protocol import EmbeddingError, Vector
from master.retrieval.rerankers.protocol import RerankError
from queue_schemas.messages import ErrorKind

log = structlog.get_logger(__name__)
router = APIRouter()
reranking = APIRouter()

_BYTES_OF_A_CHARACTER = 6  # as JSON may escape it


def create_app(loaded: Loaded) -> FastAPI:
    """The application over models that may still be loading."""
    app = FastAPI(
        title="Millrace embedder",
        version=version("millrace"),
        description="One embedding model: texts in, vectors out.",
        docs_url=None,  # its page would load scripts from elsewhere; /openapi.json says it all
        redoc_url=None,
    )
    app.state.loaded = loaded
    app.include_router(router)
    if loaded.reranker is not None:
        app.include_router(reranking)
    errors.install(app)
    if tracing.is_on():
        app.add_middleware(TracedRequests, paths=("/embed", "/rerank", "/v1/"))
    return app


@router.post(
    "/embed",
    response_model=None,
    responses={200: {"model": shapes.Embedded}},
    openapi_extra=shapes.documented(shapes.EmbedBody),
)
async def embed(request: Request) -> Response:
    """Turn one text into a vector."""
    began = time.perf_counter()
    body = shapes.parse(shapes.EmbedBody, await _read(request))
    (vector,) = await _vectors(request, [body.text], "text")
    return _answer(request, began, embedding=vector, dimension=len(vector))


@router.post(
    "/embed/batch",
    response_model=None,
    responses={200: {"model": shapes.EmbeddedBatch}},
    openapi_extra=shapes.documented(shapes.EmbedBatchBody),
)
async def embed_batch(request: Request) -> Response:
    """Turn texts into vectors, in the order of the texts."""
    began = time.perf_counter()
    body = shapes.parse(shapes.EmbedBatchBody, await _read(request))
    vectors = await _vectors(request, body.texts, "texts")
    dimension = len(vectors[0])
    return _answer(request, began, embeddings=vectors, count=len(vectors), dimension=dimension)


@router.post(
    "/v1/embeddings",
    response_model=None,
    responses={200: {"model": EmbeddingList}},
    openapi_extra=shapes.documented(EmbeddingsRequest),
)
async def embeddings(request: Request) -> Response:
    """The same for clients that speak OpenAI's language."""
    asked = parsed(EmbeddingsRequest, await _read(request))
    served = _loaded(request).settings.model
    if asked.model != served:
        raise errors.model_not_found(asked.model, [served])
    vectors = await _vectors(request, asked.input, "input")
    check_dimensions(asked, len(vectors[0]))
    return embedding_list(asked, vectors)


@router.get(
    "/health",
    response_model=None,
    responses={200: {"model": shapes.EmbedderHealth}, 503: {"model": shapes.EmbedderHealth}},
)
async def health(request: Request) -> Response:
    """Whether the model is loaded: for readiness probes."""
    told = _loaded(request).health()
    return JSONResponse(told, status_code=200 if told["model_loaded"] else 503)


@router.get("/metrics", response_class=PlainTextResponse)
async def show_metrics(request: Request) -> Response:
    """Prometheus metrics of this process; as OpenMetrics for who accepts it."""
    collected = metrics.Embedder(ready=_loaded(request).dimension is not None)
    body, media_type = render(collected, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})


@router.get("/info", response_model=None, responses={200: {"model": shapes.EmbedderInfo}})
async def describe(request: Request) -> dict[str, Any]:
    """Model, limits, version, uptime and memory."""
    return _loaded(request).describe()


@reranking.post(
    "/v1/rerank",
    response_model=None,
    responses={200: {"model": RerankResult}},
    openapi_extra=shapes.documented(RerankRequest),
)
@reranking.post("/rerank", response_model=None, include_in_schema=False)
async def rerank(request: Request) -> dict[str, Any]:
    """Order documents by how well they answer the query."""
    asked = parsed(RerankRequest, await _read(request))
    reranker = _loaded(request).reranker
    if reranker is None or asked.model not in {None, reranker.model}:
        raise errors.model_not_found(str(asked.model), [reranker.model] if reranker else [])
    with _counted(request, metrics.Call.RERANK):
        _check_sizes(_ready(request), asked.documents, "documents", most=len(asked.documents))
        try:
            scores = await reranker.score(asked.query, asked.documents)
        except RerankError as error:
            raise _failed(error) from error
    return rerank_result(asked, reranker.model, scores)


def _loaded(request: Request) -> Loaded:
    loaded: Loaded = request.app.state.loaded
    return loaded


def _ready(request: Request) -> Loaded:
    loaded = _loaded(request)
    if loaded.dimension is None:
        raise errors.service_unavailable("the model is still loading", 2.0)
    return loaded


async def _read(request: Request) -> dict[str, Any]:
    settings = _loaded(request).settings
    most = settings.max_texts * settings.max_characters * _BYTES_OF_A_CHARACTER
    limits = JsonLimits(max_bytes=min(max(most, 65_536), JsonLimits.max_bytes))
    return await read_json(request, limits)


@contextmanager
def _counted(request: Request, call: metrics.Call) -> Iterator[None]:
    """Count what becomes of a request that could be read, and its time."""
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        status = error.status if isinstance(error, errors.ApiError) else 500
        metrics.count_refusal(call, status, ready=_loaded(request).dimension is not None)
        raise
    metrics.count_answer(call, time.perf_counter() - began)


async def _vectors(request: Request, texts: list[str], param: str) -> list[Vector]:
    with _counted(request, metrics.Call.EMBED):
        loaded = _ready(request)
        _check_sizes(loaded, texts, param, most=loaded.settings.max_texts)
        try:
            vectors = await loaded.embed(texts)
        except EmbeddingError as error:
            raise _failed(error) from error
    metrics.texts_total.inc(len(texts))
    return vectors


def _check_sizes(loaded: Loaded, texts: list[str], param: str, *, most: int) -> None:
    if len(texts) > most:
        message = f"{param} has {len(texts)} texts; send at most {most} at once"
        raise errors.ApiError(413, "too_many_texts", message, param=param)
    longest = loaded.settings.max_characters
    for index, text in enumerate(texts):
        if len(text) > longest:
            message = f"text {index} has {len(text)} characters; send at most {longest}"
            raise errors.ApiError(413, "text_too_long", message, param=param)


def _failed(error: EmbeddingError | RerankError) -> errors.ApiError:
    if error.code == "engine_busy":
        return errors.service_unavailable(error.message, 1.0)
    log.error("embedder.failed", code=error.code, message=error.message)
    again = "true" if error.kind is ErrorKind.TRANSIENT else "false"
    message = f"the model failed ({error.code}); see the log of the embedder"
    return errors.ApiError(500, error.code, message, headers={"x-should-retry": again})


def _answer(request: Request, began: float, **fields: object) -> Response:
    took = round((time.perf_counter() - began) * 1000, 3)
    answer = {**fields, "model": _loaded(request).settings.model, "processing_ms": took}
    return Response(to_json(answer), media_type="application/json")
