"""OpenAI's `/v1/embeddings`: the body that is accepted, and the answer."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, to_json
from starlette.responses import Response

from master.api import errors
from master.api.chat_schema import REFUSED
from master.planning.chat import estimate_tokens
from master.retrieval.embedders.openai import to_base64
from master.retrieval.embedders.protocol import Vector

MAX_INPUTS = 2048


def _refuse(words: str) -> PydanticCustomError:
    return PydanticCustomError(REFUSED, "{words}", {"words": words, "field": ""})


def _texts(given: object) -> object:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise _refuse("must be a string or an array of strings")
    if not texts:
        raise _refuse("must not be empty")
    if len(texts) > MAX_INPUTS:
        raise _refuse(f"must have at most {MAX_INPUTS} items")
    for index, text in enumerate(texts):
        if isinstance(text, list) or type(text) is int:
            raise _refuse("has tokens, which no model here takes: send text")
        if not isinstance(text, str):
            raise _refuse(f"must have strings only; item {index} is none")
        if not text:
            raise _refuse(f"must not have an empty string; item {index} is one")
    return texts


_TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
_INPUT_SCHEMA = {
    "anyOf": [
        _TEXT_SCHEMA,
        {"type": "array", "items": _TEXT_SCHEMA, "minItems": 1, "maxItems": MAX_INPUTS},
    ]
}


class EmbeddingsRequest(BaseModel):
    """The body of `/v1/embeddings`. Unknown parameters have no effect."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    model: str = Field(min_length=1, max_length=1024)
    input: Annotated[list[str], BeforeValidator(_texts), WithJsonSchema(_INPUT_SCHEMA)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, le=1_000_000)
    user: str | None = Field(default=None, max_length=512)


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Estimated tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """What `/v1/embeddings` answers."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def check_dimensions(asked: EmbeddingsRequest, dimension: int) -> None:
    """No model here can give shorter vectors. Raises `ApiError` 400."""
    if asked.dimensions not in {None, dimension}:
        message = f"dimensions must be {dimension}: this model's vectors cannot be shortened"
        raise errors.invalid_value(message, "dimensions")


def embedding_list(asked: EmbeddingsRequest, vectors: Sequence[Vector]) -> Response:
    """The answer; written by pydantic, for a list of vectors is slow in the standard library."""
    in_base64 = asked.encoding_format == "base64"
    tokens = sum(estimate_tokens(text) for text in asked.input)
    answer = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": to_base64(vector) if in_base64 else vector,
            }
            for index, vector in enumerate(vectors)
        ],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(to_json(answer), media_type="application/json")
