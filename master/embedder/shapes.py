"""Bodies and answers of the embedder's own routes."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from master.api.bodies import refusal

_Text = Annotated[str, Field(min_length=1)]
_Body = TypeVar("_Body", bound=BaseModel)


class EmbedBody(BaseModel):
    """`/embed`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    text: _Text


class EmbedBatchBody(BaseModel):
    """`/embed/batch`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    texts: Annotated[list[_Text], Field(min_length=1, fail_fast=True)]


class Embedded(BaseModel):
    """One vector."""

    embedding: list[float]
    dimension: int
    model: str
    processing_ms: float


class EmbeddedBatch(BaseModel):
    """One vector for each text."""

    embeddings: list[list[float]]
    count: int
    dimension: int
    model: str
    processing_ms: float


class EmbedderHealth(BaseModel):
    """Whether it can be asked."""

    status: str
    model_loaded: bool
    uptime_seconds: float
    memory_mb: float | None


class EmbedderInfo(EmbedderHealth):
    """Model, limits and how many texts wait; longer texts than `max_tokens` are cut."""

    model: str
    dimension: int | None
    max_tokens: int
    max_characters: int
    max_texts: int
    batch_size: int
    waiting: int
    cross_encoder: str | None
    version: str


def parse(kind: type[_Body], body: Mapping[str, JsonValue]) -> _Body:
    """Check a body. Raises `ApiError` 400."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise refusal(error) from None


def documented(kind: type[BaseModel]) -> dict[str, Any]:
    """The request body of a route that reads it by itself, for the OpenAPI document."""
    schema = kind.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
