"""What the OpenAPI document says beyond what FastAPI can see."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from master.api.chat_schema import ChatRequest


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
    404: "No such thing",
    408: "The body came too slowly",
    409: "It was cancelled meanwhile",
    413: "The body is too large",
    415: "Not JSON",
    429: "Too much waits already",
    499: "The client left",
    502: "The engine failed",
    503: "Something this server needs is down",
    504: "It took too long",
}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors."""
    return {status: {"model": ErrorEnvelope, "description": _WORDS[status]} for status in statuses}


CHAT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or a stream of chunks that ends with `[DONE]`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **failures(*sorted(_WORDS)),
}
_REF = "#/components/schemas/{model}"


def chat_body() -> dict[str, Any]:
    """The request body of a chat completion."""
    schema = {"$ref": _REF.format(model=ChatRequest.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


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
            schema = ChatRequest.model_json_schema(ref_template=_REF)
            schemas = made["components"]["schemas"]
            schemas.update(schema.pop("$defs", {}))
            schemas[ChatRequest.__name__] = schema
            made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in made["paths"].items():
                if path.startswith("/v1/"):
                    for operation in operations.values():
                        operation["security"] = [{"key": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
