"""Indexes on embeddings: one for each dimension, made when a collection first needs it."""

import asyncio

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

MOST_DIMENSIONS = 2000

_EXTENSIONS = text("""
    SELECT quote_ident(n.nspname)
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'vector'
""")
_GOOD = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
# Two of them on one table at the same time would wait for each other. Tried again and again
# instead of waited for, because who makes an index waits for all who wait in a transaction.
_TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtext('millrace.hnsw'))")
_UNLOCK = text("SELECT pg_advisory_unlock(hashtext('millrace.hnsw'))")
_PAUSE_SECONDS = 0.1
# Left behind when whoever made it was interrupted: it is kept up to date and never read.
_BROKEN = text("""
    SELECT 1 FROM pg_index i
     WHERE i.indexrelid = to_regclass(:name) AND NOT i.indisvalid
       AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
                        WHERE p.index_relid = i.indexrelid)
""")
_MADE_BY_ANOTHER = (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError)


class DimensionTooLarge(ValueError):
    """pgvector's index takes no vectors of that many dimensions."""


async def ensure_index(engine: AsyncEngine, dimension: int) -> None:
    """Make the index for vectors of that dimension, if there is none. Raises DimensionTooLarge.

    Wants the owner's engine; does not hold up those who write meanwhile.
    """
    if dimension > MOST_DIMENSIONS:
        raise DimensionTooLarge(f"{dimension} dimensions; the index takes {MOST_DIMENSIONS}")
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        name = f"hnsw_chunks_{dimension}"
        while not await connection.scalar(_GOOD, {"name": f"millrace.{name}"}):
            if await connection.scalar(_TRY_LOCK):
                try:
                    await _make(connection, name, dimension)
                finally:
                    await connection.execute(_UNLOCK)
                return
            await asyncio.sleep(_PAUSE_SECONDS)


async def _make(connection: AsyncConnection, name: str, dimension: int) -> None:
    if await connection.scalar(_BROKEN, {"name": f"millrace.{name}"}):
        await connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS millrace.{name}"))
    schema = await connection.scalar(_EXTENSIONS)
    create = text(f"""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON millrace.chunks
         USING hnsw ((embedding::{schema}.vector({dimension})) {schema}.vector_cosine_ops)
         WHERE {schema}.vector_dims(embedding) = {dimension}
    """)
    try:
        await connection.execute(create)
    except DBAPIError as error:
        if not isinstance(getattr(error.orig, "__cause__", None), _MADE_BY_ANOTHER):
            raise
