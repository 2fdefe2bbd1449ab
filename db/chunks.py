"""Chunks: published parts of documents, and the two ways to find them.

Vectors travel as text (`[1,2,…]`), which needs no codec on the connection. All functions
want a connection of `tenancy.as_tenant`.
"""

from collections.abc import Collection as Several
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db import claims, documents, terms
from db.collections import Collection, DimensionMismatch
from db.corpus import chunks as chunk_table
from db.corpus import drafts as draft_table
from db.drafts import as_text
from db.indexes import DimensionTooLarge, ensure_index
from db.statement import Statement
from db.terms import storable

__all__ = [
    "EXACT_BELOW",
    "DimensionTooLarge",
    "Hit",
    "Scope",
    "StoredChunk",
    "dense",
    "ensure_index",
    "load",
    "publish",
    "scope",
    "sparse",
]

EXACT_BELOW = 5000
"""So many chunks are compared one by one: that is fast enough, and misses nothing."""


@dataclass(frozen=True)
class Scope:
    """Where to search: a collection, or some of its documents; how many chunks that is at most."""

    collection: Collection
    documents: tuple[UUID, ...] | None
    chunk_count: int

    @property
    def exact(self) -> bool:
        """Whether it is small enough to compare all of it."""
        return self.chunk_count <= EXACT_BELOW


@dataclass(frozen=True)
class Hit:
    """A chunk that was found. Score: cosine similarity (dense), BM25 (sparse)."""

    chunk: int
    score: float


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as it is shown, with what its document says of itself."""

    id: int
    document: UUID
    document_name: str
    url: str | None
    metadata: Mapping[str, Any]
    position: int
    page: int | None
    heading_path: Sequence[str]
    text: str


_STORE = text("""
    INSERT INTO millrace.chunks (tenant_id, collection_id, document_id, position, text,
                                 heading_path, page, embedding, embedded_by)
    SELECT d.tenant_id, :collection, d.document_id, d.position, d.text, d.heading_path, d.page,
           CASE WHEN CAST(:embedded_by AS text) IS NOT NULL THEN d.embedding END, :embedded_by
      FROM millrace.drafts d WHERE d.document_id = :document ORDER BY d.position
""")
_READY = text("""
    UPDATE millrace.documents
       SET state = 'ready', stage = NULL, lease_until = NULL, error = NULL, tries = 0,
           chunk_count = :count, embedded_count = :embedded, ready_at = now(), updated_at = now()
     WHERE id = :document
""")


async def publish(
    connection: AsyncConnection, document: UUID, attempt: int, embedded_by: str | None
) -> int:
    """Drafts become the document's chunks, and it is ready; returns how many. Raises Fenced.

    All in the caller's transaction, statistics included, and without the documents that this one
    replaces. `embedded_by`: None if without vectors. Raises Outdated if the collection's settings
    are others than when the document was claimed.
    """
    older = await documents.hold_older(connection, document)
    collection = (await claims.hold(connection, document, attempt)).collection_id
    own = chunk_table.c.document_id == document
    last = await connection.scalar(select(func.max(chunk_table.c.id)).where(own))
    values = {"collection": collection, "document": document, "embedded_by": embedded_by}
    # Before the collection is held: with vectors it is by far the longest part.
    count = (await connection.execute(_STORE, values)).rowcount
    await terms.lock(connection, collection)
    if await claims.outdated(connection, document):
        raise claims.Outdated(f"document {document} was cut or embedded by other settings")
    await documents.take_out(connection, older)
    await terms.unindex(connection, document)
    if last is not None:
        await connection.execute(chunk_table.delete().where(own, chunk_table.c.id <= last))
    await terms.index(connection, document)
    await terms.settle(connection, collection)
    await connection.execute(draft_table.delete().filter_by(document_id=document))
    told = {"document": document, "count": count, "embedded": count if embedded_by else 0}
    await connection.execute(_READY, told)
    return count


_FILTERED = text("""
    SELECT id, chunk_count FROM millrace.documents
     WHERE tenant_id = :tenant AND collection_id = :collection
       AND metadata @> CAST(:wanted AS jsonb)
""")


async def scope(
    connection: AsyncConnection, collection: Collection, wanted: Mapping[str, Any] | None = None
) -> Scope:
    """The whole collection, or its documents whose metadata contain what is `wanted`."""
    if wanted is None:
        return Scope(collection, None, collection.chunk_count)
    values = {
        "tenant": collection.tenant,
        "collection": collection.id,
        "wanted": to_json(wanted).decode(),
    }
    found = (await connection.execute(_FILTERED, values)).all()
    return Scope(collection, tuple(row.id for row in found), sum(row.chunk_count for row in found))


_TUNE = Statement("""
    SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),
           set_config('hnsw.max_scan_tuples', '200000', true),
           set_config('hnsw.scan_mem_multiplier', '8', true),
           set_config('hnsw.ef_search', CAST(:width AS text), true)
""")


# The vector is a subquery so that it is read once, and not again for every chunk. Only the cast
# matches an index, so comparing one by one needs nothing but to leave it out.
@cache
def _nearest(dimension: int, exact: bool, filtered: bool) -> Statement:
    cast = "" if exact else f"::vector({dimension})"
    some = "AND c.document_id = ANY (CAST(:documents AS uuid[]))" if filtered else ""
    return Statement(f"""
        SELECT c.id, c.embedding{cast} <=> (SELECT CAST(CAST(:vector AS text) AS vector)) AS far
          FROM millrace.chunks c
         WHERE c.tenant_id = :tenant AND c.collection_id = :collection AND c.embedded_by = :model
           AND vector_dims(c.embedding) = {dimension} {some}
         ORDER BY far LIMIT :limit
    """)


async def dense(
    connection: AsyncConnection,
    scope: Scope,
    vector: Sequence[float],
    limit: int,
    *,
    exact: bool,
) -> list[Hit]:
    """The nearest chunks by cosine, best first. Raises DimensionMismatch.

    With `exact` all are compared; else the index is asked, which may miss a few. A tenant whose
    chunks are so few among all that the index finds too little gets the exact answer.
    """
    collection = scope.collection
    if collection.dimension is None or scope.documents == ():
        return []
    if len(vector) != collection.dimension:
        raise DimensionMismatch(
            f"the collection {collection.name} has vectors of {collection.dimension} dimensions, "
            f"not of {len(vector)}"
        )
    values = {
        "tenant": collection.tenant,
        "collection": collection.id,
        "model": collection.embedding_model,
        "documents": scope.documents,
        "vector": as_text(vector),
        "limit": limit,
    }
    filtered = scope.documents is not None
    if not exact:
        await _TUNE.run(connection, {"width": str(min(max(2 * limit, 100), 1000))})
    query = _nearest(collection.dimension, exact, filtered)
    hits = [Hit(row["id"], 1 - row["far"]) for row in await query.run(connection, values)]
    if not exact and len(hits) < min(limit, scope.chunk_count):
        return await dense(connection, scope, vector, limit, exact=True)
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk))


_SPARSE = Statement("""
    SELECT chunk_id, score
      FROM millrace.sparse_hits(:collection, :query, CAST(:documents AS uuid[]), :limit,
                                CAST(:also AS bigint[]))
""")


async def sparse(
    connection: AsyncConnection,
    scope: Scope,
    query: str,
    limit: int,
    also: Several[int] = (),
) -> list[Hit]:
    """The best chunks by BM25, best first. Chunks that share no word are not among them.

    After them come those of `also` that are not among the best, in no order; what shares no word
    scores 0, if any word of the query is known at all.
    Exact in collections of up to 8 000 chunks. In larger ones about 1 000 that have the weightiest
    words together are compared, and a better one may be missed.
    """
    values = {
        "collection": scope.collection.id,
        "query": storable(query),
        "documents": scope.documents,
        "limit": limit,
        "also": list(also),
    }
    rows = await _SPARSE.run(connection, values)
    return [Hit(row["chunk_id"], row["score"]) for row in rows]


_LOAD = Statement("""
    SELECT c.id, c.document_id AS document, d.name AS document_name, d.url,
           d.metadata::text AS metadata, c.position, c.page, c.heading_path, c.text
      FROM millrace.chunks c JOIN millrace.documents d ON d.id = c.document_id
     WHERE c.id = ANY (CAST(:chunks AS bigint[]))
""")


async def load(connection: AsyncConnection, chunks: Several[int]) -> dict[int, StoredChunk]:
    """Chunks by id; those that are gone meanwhile are missing."""
    rows = await _LOAD.run(connection, {"chunks": list(chunks)})
    return {
        row["id"]: StoredChunk(**{**row, "metadata": from_json(row["metadata"])}) for row in rows
    }
