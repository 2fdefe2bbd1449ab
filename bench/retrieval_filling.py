"""Collections that are written straight into the tables, as ingesting them would leave them."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import asyncpg
from pgvector.asyncpg import register_vector

from bench.retrieval_corpus import DIMENSION, Numbers, Synthetic

PARTS: Final = 10
"""A document's metadata say which tenth of the collection it is in."""
Connection: TypeAlias = "asyncpg.Connection[Any]"  # subscripted in the stubs only
INDEX: Final = f"millrace.hnsw_chunks_{DIMENSION}"
_CHUNKS_OF_A_DOCUMENT: Final = 50
_COLUMNS: Final = (
    *("tenant_id", "collection_id", "document_id", "position"),
    *("text", "embedding", "embedded_by"),
)
_DOCUMENTS = f"""
    INSERT INTO millrace.documents (id, tenant_id, collection_id, name, origin, digest, metadata,
                                    state, ready_at, attempt, chunk_count, embedded_count)
    SELECT id, $1, $2, 'document ' || n, 'text', sha256(uuid_send(id)),
           jsonb_build_object('part', n % {PARTS}), 'ready', now(), 1, chunks, chunks
      FROM unnest($3::uuid[], $4::integer[]) WITH ORDINALITY d(id, chunks, n)
"""
_COLLECTION = """
    INSERT INTO millrace.collections
           (id, tenant_id, name, strategy, embedding_model, dimension, language, chunking)
    VALUES ($1, $2, 'default', 'hybrid', $3, $4, 'english', '{}')
"""
# What `terms.index` and `terms.settle` do for a document, for a whole collection.
_COUNTED = (
    """
    CREATE TEMP TABLE parsed AS
    SELECT c.id, c.document_id, p.terms, w.length, w.keys
      FROM millrace.chunks c
     CROSS JOIN LATERAL (SELECT to_tsvector('english', c.text) AS terms OFFSET 0) p
     CROSS JOIN LATERAL (
           SELECT sum(cardinality(u.positions))::integer AS length,
                  array_to_tsvector(array_agg(
                      millrace.term_key(c.collection_id, u.lexeme)::text)) AS keys
             FROM unnest(p.terms) u) w
     WHERE c.collection_id = '{collection}'
    """,
    """
    UPDATE millrace.collections c
       SET chunk_count = p.chunks, word_count = p.words, average_length = p.words / p.chunks
      FROM (SELECT count(*) AS chunks, sum(length)::float8 AS words FROM parsed) p
     WHERE c.id = '{collection}'
    """,
    """
    INSERT INTO millrace.chunk_terms
           (chunk_id, tenant_id, collection_id, document_id, length, terms, keys, weights)
    SELECT p.id, c.tenant_id, c.id, p.document_id, p.length, p.terms, p.keys,
           millrace.term_weights(p.terms, p.length, c.average_length)
      FROM parsed p CROSS JOIN millrace.collections c WHERE c.id = '{collection}' ORDER BY p.id
    """,
    """
    INSERT INTO millrace.terms (collection_id, tenant_id, lexeme, chunk_count)
    SELECT '{collection}', '{tenant}', u.lexeme, count(*)
      FROM parsed p CROSS JOIN LATERAL unnest(p.terms) u GROUP BY u.lexeme
    """,
    "DROP TABLE parsed",
)
_DEFINITIONS = """
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'millrace'
       AND indexname IN ('hnsw_chunks_384', 'ix_chunk_terms_keys')
"""


@dataclass(frozen=True)
class Filled:
    """A collection that was written."""

    tenant: UUID
    collection: UUID
    chunks: int
    made: Synthetic


@dataclass(frozen=True)
class Indexes:
    """What making the indexes over everything took, and how large they are."""

    vector_seconds: float
    vector_megabytes: float
    word_seconds: float
    word_megabytes: float


@asynccontextmanager
async def filling(url: str) -> AsyncGenerator[Connection]:
    """A connection of the owner that knows vectors."""
    connection = await asyncpg.connect(url, timeout=10, command_timeout=1800)
    try:
        await register_vector(connection, schema="extensions")
        await connection.execute("SET search_path = millrace, extensions; SET jit = off")
        yield connection
    finally:
        await connection.close()


async def fill(connection: Connection, tenant: UUID, model: str, chunks: int, seed: int) -> Filled:
    """Write one collection, without touching the indexes on vectors and words."""
    made, collection = Synthetic(seed), uuid4()
    sizes = [_CHUNKS_OF_A_DOCUMENT] * (chunks // _CHUNKS_OF_A_DOCUMENT)
    sizes += [rest] if (rest := chunks % _CHUNKS_OF_A_DOCUMENT) else []
    documents = [uuid4() for _ in sizes]
    await connection.execute(_COLLECTION, collection, tenant, model, DIMENSION)
    await connection.execute(_DOCUMENTS, tenant, collection, documents, sizes)
    vectors = made.vectors(chunks)
    before = (tenant, collection)
    await connection.copy_records_to_table(
        "chunks",
        schema_name="millrace",
        columns=_COLUMNS,
        records=(
            (*before, document, position, text, vector, model)
            for document, position, text, vector in _rows(made, documents, sizes, vectors)
        ),
    )
    for statement in _COUNTED:
        await connection.execute(statement.format(collection=collection, tenant=tenant))
    return Filled(tenant, collection, chunks, made)


def _rows(
    made: Synthetic, documents: Sequence[UUID], sizes: Sequence[int], vectors: Numbers
) -> Iterator[tuple[UUID, int, str, Numbers]]:
    rest = iter(vectors)
    for document, size in zip(documents, sizes, strict=True):
        for position, text in enumerate(made.document(size)):
            yield document, position, text, next(rest)


async def drop_indexes(connection: Connection) -> list[str]:
    """Take the indexes on vectors and words away, so that rows are written fast."""
    definitions = [row[0] for row in await connection.fetch(_DEFINITIONS)]
    await connection.execute(f"DROP INDEX {INDEX}, millrace.ix_chunk_terms_keys")
    return sorted(definitions, key=lambda definition: "hnsw" not in definition)


async def make_indexes(connection: Connection, definitions: list[str]) -> Indexes:
    """Make them again over all rows, and have the planner know all tables."""
    await connection.execute("SET maintenance_work_mem = '512MB'")
    found: list[float] = []
    for definition in definitions:
        began = time.perf_counter()
        await connection.execute(definition)
        found.append(time.perf_counter() - began)
        name = f"millrace.{definition.split()[2]}"
        found.append(await connection.fetchval("SELECT pg_relation_size($1::text::regclass)", name))
    await connection.execute("VACUUM ANALYZE")
    return Indexes(found[0], found[1] / 2**20, found[2], found[3] / 2**20)


_RECOUNT = """
    SELECT count(*) FILTER (WHERE p.terms @@ w.query), min(w.chunk_count)
      FROM millrace.chunks c
     CROSS JOIN LATERAL (SELECT to_tsvector('english', c.text) AS terms OFFSET 0) p
     CROSS JOIN (SELECT lexeme, chunk_count, quote_literal(lexeme)::tsquery AS query
                   FROM millrace.terms
                  WHERE collection_id = $1 ORDER BY md5(lexeme) LIMIT 10) w
     WHERE c.collection_id = $1 GROUP BY w.lexeme
"""
_UNLIKE = """
    SELECT count(*) FROM (
        SELECT t.weights, to_tsvector('english', c.text) AS terms, k.average_length
          FROM millrace.chunks c JOIN millrace.chunk_terms t ON t.chunk_id = c.id
          JOIN millrace.collections k ON k.id = c.collection_id
         WHERE c.collection_id = $1 ORDER BY c.id LIMIT 100) s
     WHERE weights::text <> millrace.term_weights(terms, (
               SELECT sum(cardinality(positions))::integer FROM unnest(terms)),
               average_length)::text
"""


async def check(connection: Connection, filled: Filled) -> None:
    """Some words are counted as one by one, and some chunks weigh what they should."""
    for real, kept in await connection.fetch(_RECOUNT, filled.collection):
        assert real == kept, f"{kept} chunks instead of {real} are counted for a word"
    unlike = await connection.fetchval(_UNLIKE, filled.collection)
    assert unlike == 0, f"{unlike} of 100 chunks have other weights than they should"
