"""`/v1/embeddings`: vectors of the registry's embedding models, as OpenAI answers."""

import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from master.api import errors
from master.api.bodies import parsed
from master.api.embedding_shapes import (
    EmbeddingList,
    EmbeddingsRequest,
    check_dimensions,
    embedding_list,
)
from master.api.openapi import request_body, success
from master.api.retrieving import embedding_failure
from master.api.state import ring, running
from master.api.strict_json import read_json
from master.planning.chat import estimate_tokens
from master.retrieval.embedders.protocol import Embedder, EmbeddingError
from master.running import Running
from queue_schemas.registry import Model

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/embeddings",
    response_model=None,
    responses=success(EmbeddingList, 400, 401, 404, 408, 413, 415, 502, 503),
    openapi_extra=request_body(EmbeddingsRequest),
)
async def embeddings(request: Request) -> Response:
    """Turn texts into vectors, in the order of the texts."""
    await ring(request).tenant_of(request.headers, time.monotonic())
    asked = parsed(EmbeddingsRequest, await read_json(request))
    master = running(request)
    model = _model(master, asked.model)
    try:
        embedder = master.embedders.get(model.name)
        _check_lengths(asked, min(model.context_length, _tokens(embedder)))
        vectors = await embedder.embed(asked.input)
    except EmbeddingError as error:
        raise embedding_failure(error, model.name) from error
    check_dimensions(asked, len(vectors[0]))
    return embedding_list(asked, vectors)


def _model(master: Running, name: str) -> Model:
    registry = master.registry()
    model = registry.get(name)
    if model is None or model.chats:
        raise errors.model_not_found(name, [entry.name for entry in registry.embedding_models()])
    return model


def _tokens(embedder: Embedder) -> int:
    return -(-embedder.max_words * 4 // 3)


def _check_lengths(asked: EmbeddingsRequest, limit: int) -> None:
    for index, text in enumerate(asked.input):
        tokens = estimate_tokens(text)
        if tokens > limit:
            message = f"input[{index}] has about {tokens} tokens; this model reads {limit}"
            raise errors.invalid_value(message, "input", "context_length_exceeded")
