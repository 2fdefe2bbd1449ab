"""What `/v1/search` takes and answers. Pure."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from master.planning.question import COLLECTION_NAME, DEFAULT_COLLECTION
from master.retrieval.search import Hit, SearchResult

_LONGEST_QUERY = 10_000


class SearchRequest(BaseModel):
    """The body of `POST /v1/search`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    query: str = Field(min_length=1, max_length=_LONGEST_QUERY)
    collection: str = Field(default=DEFAULT_COLLECTION, pattern=COLLECTION_NAME)
    strategy: Literal["dense", "sparse", "hybrid"] | None = Field(
        default=None, description="Which legs search; none: as the collection is set up."
    )
    top: Annotated[int, Field(ge=1, le=100)] = 10
    candidates: Annotated[int, Field(ge=1, le=200)] = Field(default=10, description="Of each leg.")
    filter: dict[str, Any] | None = Field(
        default=None, description="What a document's metadata must contain."
    )
    dense_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    rerank: bool = True


class FoundDocument(BaseModel):
    """The document of a hit."""

    id: str
    name: str
    url: str | None
    metadata: dict[str, Any]


class SearchHit(BaseModel):
    """A piece of a document, best first."""

    chunk: int
    document: FoundDocument
    position: int
    page: int | None
    heading: list[str]
    text: str
    score: float = Field(description="0 to 1, of both legs together.")
    rerank_score: float = Field(description="What the order is by.")
    dense_score: float | None = Field(description="Cosine similarity.")
    sparse_score: float | None = Field(description="BM25.")


class SearchAnswer(BaseModel):
    """What was found, and what finding it took."""

    object: Literal["search"]
    collection: str
    hits: list[SearchHit]
    latency_ms: dict[str, float]
    exact: bool = Field(description="Every vector was compared.")
    degraded: list[str] = Field(description="Stages that had to do without their model.")


def search_answer(result: SearchResult) -> dict[str, Any]:
    """What was found, as an answer."""
    return {
        "object": "search",
        "collection": result.collection.name,
        "hits": [_hit(hit) for hit in result.hits],
        "latency_ms": dict(result.latency_ms),
        "exact": result.exact,
        "degraded": list(result.degraded),
    }


def _hit(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "chunk": chunk.id,
        "document": {
            "id": str(chunk.document),
            "name": chunk.document_name,
            "url": chunk.url,
            "metadata": dict(chunk.metadata),
        },
        "position": chunk.position,
        "page": chunk.page,
        "heading": list(chunk.heading_path),
        "text": chunk.text,
        "score": round(hit.fused.score, 6),
        "rerank_score": round(hit.rerank_score, 6),
        "dense_score": hit.fused.dense,
        "sparse_score": hit.fused.sparse,
    }
