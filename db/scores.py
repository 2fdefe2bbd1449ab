"""How chunks that one leg found score in the other one.

Both want a connection of `tenancy.as_tenant`.
"""

from collections.abc import Collection as Several
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from db.chunks import Scope
from db.drafts import as_text
from db.statement import Statement
from db.terms import storable

_COSINES = Statement("""
    SELECT c.id, 1 - (c.embedding <=> (SELECT CAST(CAST(:vector AS text) AS vector))) AS score
      FROM millrace.chunks c
     WHERE c.id = ANY (CAST(:chunks AS bigint[])) AND c.tenant_id = :tenant
       AND c.embedded_by = :model AND vector_dims(c.embedding) = :dimension
""")


async def cosines(
    connection: AsyncConnection, scope: Scope, vector: Sequence[float], chunks: Several[int]
) -> dict[int, float]:
    """Cosine similarity by chunk; those without a vector of the collection's model are missing."""
    if not chunks:
        return {}
    values = {
        "vector": as_text(vector),
        "chunks": list(chunks),
        "tenant": scope.collection.tenant,
        "model": scope.collection.embedding_model,
        "dimension": len(vector),
    }
    return {row["id"]: row["score"] for row in await _COSINES.run(connection, values)}


_BM25 = Statement("""
    WITH asked AS (
        SELECT ('{' || string_agg(w.index || ':' || w.idf, ',') || '}/1000000000')::sparsevec
               AS weights
          FROM (SELECT millrace.term_index(t.lexeme) AS index,
                       max(ln(1 + (c.chunk_count - t.chunk_count + 0.5::float8)
                                  / (t.chunk_count + 0.5::float8)))::real AS idf
                  FROM millrace.collections c
                 CROSS JOIN LATERAL
                       unnest(to_tsvector(c.language::regconfig, left(:query, 20000))) q
                  JOIN millrace.terms t
                    ON t.collection_id = c.id AND t.tenant_id = c.tenant_id
                   AND t.lexeme = q.lexeme
                 WHERE c.id = :collection AND c.tenant_id = :tenant
                 GROUP BY 1) w
    )
    SELECT t.chunk_id AS id, -(t.weights <#> a.weights) AS score
      FROM millrace.chunk_terms t CROSS JOIN asked a
     WHERE t.chunk_id = ANY (CAST(:chunks AS bigint[])) AND t.tenant_id = :tenant
       AND a.weights IS NOT NULL
""")


async def bm25(
    connection: AsyncConnection, scope: Scope, query: str, chunks: Several[int]
) -> dict[int, float]:
    """BM25 by chunk, as `chunks.sparse` scores; 0 for those that share no word."""
    if not chunks:
        return {}
    values = {
        "query": storable(query),
        "collection": scope.collection.id,
        "tenant": scope.collection.tenant,
        "chunks": list(chunks),
    }
    return {row["id"]: row["score"] for row in await _BM25.run(connection, values)}
