"""The words of a collection: what its sparse search and its statistics are made of.

Who writes here holds the collection's row (`lock`), so publishing into one collection goes one
after the other. Who needs a document's row too takes that first; so nobody waits in a circle. All
of it is for connections of `tenancy.as_tenant`; reading is `millrace.sparse_hits`, see the
migration.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MOST_DRIFT = 0.2
"""So far the average length may be from the one in the stored weights, as a part of it."""

# Postgres takes no more than a megabyte of words at once; no sensible chunk is near that.
_INDEXED_CHARACTERS = 250_000


def storable(query: str) -> str:
    """A query as Postgres takes it: without what no text there can hold."""
    return query.replace("\0", " ").encode("utf-8", "replace").decode()


_LOCK = text("SELECT 1 FROM millrace.collections WHERE id = :collection FOR NO KEY UPDATE")


async def lock(connection: AsyncConnection, collection: UUID) -> None:
    """Hold the collection's statistics for the rest of the transaction."""
    await connection.execute(_LOCK, {"collection": collection})


_INSERT = text(f"""
    WITH parsed AS MATERIALIZED (
        SELECT c.id, c.tenant_id, c.collection_id, c.document_id, k.average_length,
               to_tsvector(CAST(k.language AS regconfig), left(c.text, {_INDEXED_CHARACTERS}))
               AS terms
          FROM millrace.chunks c JOIN millrace.collections k ON k.id = c.collection_id
         WHERE c.document_id = :document
    )
    INSERT INTO millrace.chunk_terms
           (chunk_id, tenant_id, collection_id, document_id, length, terms, keys, weights)
    SELECT p.id, p.tenant_id, p.collection_id, p.document_id, w.length, p.terms, w.keys,
           millrace.term_weights(p.terms, w.length, p.average_length)
      FROM parsed p CROSS JOIN LATERAL (
           SELECT CAST(coalesce(sum(cardinality(u.positions)), 0) AS integer) AS length,
                  array_to_tsvector(coalesce(array_agg(CAST(
                      millrace.term_key(p.collection_id, u.lexeme) AS text)), '{{}}')) AS keys
             FROM unnest(p.terms) u) w
""")
_COUNT_IN = text("""
    INSERT INTO millrace.terms (collection_id, tenant_id, lexeme, chunk_count)
    SELECT t.collection_id, t.tenant_id, u.lexeme, count(*)
      FROM millrace.chunk_terms t CROSS JOIN LATERAL unnest(t.terms) u
     WHERE t.document_id = :document
     GROUP BY t.collection_id, t.tenant_id, u.lexeme ORDER BY u.lexeme
    ON CONFLICT (collection_id, lexeme)
    DO UPDATE SET chunk_count = terms.chunk_count + excluded.chunk_count
""")
_COUNT_OUT = text("""
    WITH gone AS (
        SELECT t.collection_id, u.lexeme, count(*) AS chunk_count
          FROM millrace.chunk_terms t CROSS JOIN LATERAL unnest(t.terms) u
         WHERE t.document_id = :document GROUP BY t.collection_id, u.lexeme
    ), forgotten AS (
        DELETE FROM millrace.terms t USING gone g
         WHERE t.collection_id = g.collection_id AND t.lexeme = g.lexeme
           AND t.chunk_count <= g.chunk_count
    )
    UPDATE millrace.terms t SET chunk_count = t.chunk_count - g.chunk_count FROM gone g
     WHERE t.collection_id = g.collection_id AND t.lexeme = g.lexeme
       AND t.chunk_count > g.chunk_count
""")
_TALLY = text("""
    UPDATE millrace.collections c
       SET chunk_count = c.chunk_count + :sign * d.chunks,
           word_count = c.word_count + :sign * d.words
      FROM (SELECT collection_id, count(*) AS chunks, sum(length) AS words
              FROM millrace.chunk_terms WHERE document_id = :document GROUP BY collection_id) d
     WHERE c.id = d.collection_id
""")


async def index(connection: AsyncConnection, document: UUID) -> None:
    """Take the document's chunks into the index and the statistics. The lock is held."""
    await connection.execute(_INSERT, {"document": document})
    await connection.execute(_COUNT_IN, {"document": document})
    await connection.execute(_TALLY, {"document": document, "sign": 1})


async def unindex(connection: AsyncConnection, document: UUID) -> None:
    """Take the document's chunks out of the statistics, before they go. The lock is held."""
    await connection.execute(_COUNT_OUT, {"document": document})
    await connection.execute(_TALLY, {"document": document, "sign": -1})


_DRIFTED = text(f"""
    UPDATE millrace.collections
       SET average_length = CASE WHEN chunk_count > 0
               THEN CAST(word_count AS double precision) / chunk_count ELSE 0 END
     WHERE id = :collection
       AND (abs(word_count - average_length * chunk_count)
                > {MOST_DRIFT} * average_length * chunk_count OR chunk_count = 0)
""")
_REWEIGH = text("""
    UPDATE millrace.chunk_terms t
       SET weights = millrace.term_weights(t.terms, t.length, c.average_length)
      FROM millrace.collections c
     WHERE c.id = :collection AND t.collection_id = c.id
""")


async def settle(connection: AsyncConnection, collection: UUID) -> bool:
    """Weigh all chunks again if their average length has drifted. The lock is held."""
    values: dict[str, Any] = {"collection": collection}
    if (await connection.execute(_DRIFTED, values)).rowcount == 0:
        return False
    await connection.execute(_REWEIGH, values)
    return True
