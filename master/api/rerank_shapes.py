"""`/v1/rerank` as Jina and Cohere have it: the body that is accepted, and the answer."""

import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from master.api.chat_schema import REFUSED
from master.planning.chat import estimate_tokens

MAX_DOCUMENTS = 1000


def _text_of(given: object) -> object:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str):
        words = {"words": "must be a string, or an object with a `text`", "field": ""}
        raise PydanticCustomError(REFUSED, "{words}", words)
    return text


_DOCUMENT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    ]
}
_Document = Annotated[str, BeforeValidator(_text_of), WithJsonSchema(_DOCUMENT_SCHEMA)]


class RerankRequest(BaseModel):
    """The body of `/v1/rerank`. Unknown parameters have no effect."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    model: str | None = Field(default=None, min_length=1, max_length=1024)
    query: str = Field(min_length=1, max_length=100_000)
    documents: Annotated[
        list[_Document], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)
    ]
    top_n: int | None = Field(default=None, ge=1, le=1_000_000)
    return_documents: bool | None = None


class RerankedDocument(BaseModel):
    """The text that was scored."""

    text: str


class Reranked(BaseModel):
    """One document's place; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: RerankedDocument | None = None


class RerankUsage(BaseModel):
    """Estimated tokens."""

    prompt_tokens: int
    total_tokens: int


class RerankResult(BaseModel):
    """What `/v1/rerank` answers: the best first."""

    id: str
    model: str
    results: list[Reranked]
    usage: RerankUsage


def rerank_result(asked: RerankRequest, model: str, scores: Sequence[float]) -> dict[str, Any]:
    """The answer; of equal scores, the earlier document comes first."""
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    tokens = sum(estimate_tokens(text) for text in (asked.query, *asked.documents))
    return {
        "id": f"rerank-{secrets.token_hex(12)}",
        "model": model,
        "results": [_entry(asked, index, scores[index]) for index in order[: asked.top_n]],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _entry(asked: RerankRequest, index: int, score: float) -> dict[str, Any]:
    entry: dict[str, Any] = {"index": index, "relevance_score": score}
    if asked.return_documents:
        entry["document"] = {"text": asked.documents[index]}
    return entry
