"""What the OpenAPI document says beyond what FastAPI can see."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from master.api.answers import ChatCompletion, ModelResponse
from master.api.chat_schema import ChatRequest
from master.api.conversation_shapes import ConversationChange, ConversationRequest
from master.api.corpus_bodies import (
    CollectionChange,
    CollectionRequest,
    DocumentRequest,
    DocumentSettings,
)
from master.api.embedding_shapes import EmbeddingsRequest
from master.api.feedback_shapes import FeedbackRequest
from master.api.rerank_shapes import RerankRequest
from master.api.responses_schema import ResponsesRequest
from master.api.rule_shapes import RuleDecision, RuleRequest, RuleRollback, RuleTrial
from master.api.search_shapes import SearchRequest


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """Every answer other than success."""

    error: ErrorDetail


_WORDS = {
    400: "The request is not valid",
    401: "The API key is missing or not valid",
    403: "It is another user's",
    404: "No such thing",
    408: "The body came too slowly",
    409: "It was cancelled meanwhile, or is not in a state for that",
    410: "It ended too long ago to be streamed again",
    413: "The body is too large",
    415: "Not a type of content that is read here",
    422: "This Idempotency-Key was used with another body",
    429: "Too much waits already",
    499: "The client left",
    502: "The engine failed",
    503: "Something this server needs is down",
    504: "It took too long",
}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors."""
    return {status: {"model": ErrorEnvelope, "description": _WORDS[status]} for status in statuses}


def success(model: type[BaseModel], *failing: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with this model, or fails in these ways."""
    return {200: {"model": model, "description": "OK"}, **failures(*failing)}


# The schema of one event, which is what those who check a stream hold it against.
EVENT_STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {"data": {"type": "string"}},
            "required": ["data"],
        }
    }
}
CHAT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "The answer, or a stream of chunks that ends with `[DONE]`",
        "content": EVENT_STREAM,
    },
    **failures(*sorted(_WORDS.keys() - {403, 410})),
}
RESPONSE_RESPONSES: dict[int | str, dict[str, Any]] = {
    **CHAT_RESPONSES,
    200: {
        "model": ModelResponse,
        "description": "The response, or a stream of its events",
        "content": EVENT_STREAM,
    },
}
_REF = "#/components/schemas/{model}"


def streamed(model: type[BaseModel], *failing: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with this model, or with a stream."""
    answers = success(model, *failing)
    answers[200]["content"] = EVENT_STREAM
    return answers


def chat_body() -> dict[str, Any]:
    """The request body of a chat completion."""
    return request_body(ChatRequest)


def event_stream(description: str, *failing: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with nothing but events."""
    return {200: {"description": description, "content": EVENT_STREAM}, **failures(*failing)}


def documents_body() -> dict[str, Any]:
    """Files with their settings as a form, or a text or URL as JSON."""
    body = request_body(DocumentRequest)
    files = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"files": files}, "required": ["files"]}
    settings = {"$ref": _REF.format(model=DocumentSettings.__name__)}
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": form | {"x-also": settings}}
    return body


def request_body(model: type[BaseModel]) -> dict[str, Any]:
    """The request body of a route that reads it by itself; `_BODIES` must have the model."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_BODIES: tuple[type[BaseModel], ...] = (
    ChatRequest,
    ConversationChange,
    ConversationRequest,
    CollectionChange,
    CollectionRequest,
    DocumentRequest,
    DocumentSettings,
    EmbeddingsRequest,
    FeedbackRequest,
    RerankRequest,
    RuleDecision,
    RuleRequest,
    RuleRollback,
    RuleTrial,
    SearchRequest,
    ResponsesRequest,
)


def _body_schemas() -> dict[str, Any]:
    pairs: list[tuple[type[BaseModel], JsonSchemaMode]]
    pairs = [(model, "validation") for model in _BODIES]
    _, found = models_json_schema(pairs, ref_template=_REF)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _drop_validation(document: dict[str, Any]) -> None:
    """FastAPI adds a 422 to every route with a parameter; here that is a 400 in the envelope."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def install(app: FastAPI) -> None:
    """Complete the application's OpenAPI document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            made["components"]["schemas"].update(_body_schemas())
            _drop_validation(made)
            made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in made["paths"].items():
                if path.startswith("/v1/"):
                    for operation in operations.values():
                        operation["security"] = [{"key": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI says so
