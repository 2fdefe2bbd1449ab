"""How near chunks are that were found by their words. Wants a connection of `tenancy.as_tenant`."""

from collections.abc import Collection as Several
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from db.chunks import Scope
from db.drafts import as_text
from db.statement import Statement

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
