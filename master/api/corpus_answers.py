"""What `/v1/documents` and `/v1/collections` answer with."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from db.collections import Collection
from db.corpus import Origin, Strategy
from db.documents import StoredDocument
from queue_schemas.states import DocumentStage, DocumentState


class Progress(BaseModel):
    """How far a document is."""

    chunks: int
    embedded: int
    percent: float = Field(ge=0, le=100)


class DocumentError(BaseModel):
    """Why a document failed, or why it is tried again."""

    code: str
    message: str
    status: int


class Document(BaseModel):
    """A document and where it stands."""

    id: str
    object: Literal["document"]
    name: str
    collection: str
    origin: Origin
    url: str | None
    media_type: str | None
    bytes: int
    pages: int | None
    metadata: dict[str, Any]
    replace: bool = Field(description="When it is ready, older ones of its name go.")
    state: DocumentState
    stage: DocumentStage | None
    attempt: int
    progress: Progress
    timings_ms: dict[str, float]
    flags: dict[str, int]
    error: DocumentError | None
    created_at: str
    updated_at: str
    ready_at: str | None
    duplicate: bool | None = Field(None, description="When it was sent: it was there before.")


class DocumentList(BaseModel):
    """Documents, newest first; those that were sent in the order in which they were."""

    object: Literal["list"]
    data: list[Document]
    has_more: bool = False


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: str
    deleted: bool


class Chunking(BaseModel):
    """How documents are cut; sizes are words."""

    method: str
    size: int
    overlap: int


class CollectionAnswer(BaseModel):
    """A collection, and how many documents of it stand where."""

    id: str
    object: Literal["collection"]
    name: str
    strategy: Strategy
    embedding_model: str | None
    dimension: int | None
    language: str
    chunking: Chunking
    dense_weight: float
    chunks: int
    documents: dict[str, int]
    created_at: str


class CollectionList(BaseModel):
    """The collections of a tenant, by name."""

    object: Literal["list"]
    data: list[CollectionAnswer]


def document(stored: StoredDocument) -> dict[str, Any]:
    """A document as JSON."""
    return {
        "id": str(stored.id),
        "object": "document",
        "name": stored.name,
        "collection": stored.collection,
        "origin": stored.origin.value,
        "url": stored.url,
        "media_type": stored.media_type,
        "bytes": stored.byte_count,
        "pages": stored.page_count,
        "metadata": dict(stored.metadata),
        "replace": stored.replaces,
        "state": stored.state.value,
        "stage": stored.stage.value if stored.stage else None,
        "attempt": stored.attempt,
        "progress": _progress(stored),
        "timings_ms": dict(stored.timings),
        "flags": dict(stored.flags),
        "error": dict(stored.error) if stored.error else None,
        "created_at": stored.created_at.isoformat(),
        "updated_at": stored.updated_at.isoformat(),
        "ready_at": _iso(stored.ready_at),
    }


# What is done when a stage begins; the vectors are what takes time.
_BEGUN: Mapping[DocumentStage | None, float] = {
    None: 0.0,
    DocumentStage.PARSE: 0.0,
    DocumentStage.CHUNK: 10.0,
    DocumentStage.EMBED: 15.0,
    DocumentStage.STORE: 95.0,
}
_EMBEDDING = 80.0


def _progress(stored: StoredDocument) -> dict[str, Any]:
    percent = _BEGUN[stored.stage] if stored.state is DocumentState.RUNNING else 0.0
    if stored.stage is DocumentStage.EMBED and stored.chunk_count:
        percent += _EMBEDDING * min(1.0, stored.embedded_count / stored.chunk_count)
    if stored.state is DocumentState.READY:
        percent = 100.0
    return {
        "chunks": stored.chunk_count,
        "embedded": stored.embedded_count,
        "percent": round(percent, 1),
    }


def collection(stored: Collection) -> dict[str, Any]:
    """A collection as JSON."""
    counts = {state.value: stored.documents.get(state, 0) for state in DocumentState}
    return {
        "id": str(stored.id),
        "object": "collection",
        "name": stored.name,
        "strategy": stored.strategy.value,
        "embedding_model": stored.embedding_model,
        "dimension": stored.dimension,
        "language": stored.language,
        "chunking": dict(stored.chunking),
        "dense_weight": stored.dense_weight,
        "chunks": stored.chunk_count,
        "documents": {"total": sum(counts.values()), **counts},
        "created_at": stored.created_at.isoformat(),
    }


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
