"""Indexes on embeddings: one for each dimension, made when a collection first needs it."""

import asyncio
import time

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
# instead of waited for, because who makes an index waits for all who wait in a transaction. A lock
# of a transaction, because a session is not ours alone behind a pooler. Idle, that transaction has
# no snapshot, so nobody waits for it; but the last query's is kept until the next statement.
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('millrace.hnsw'))")
_STAY_IDLE = text("SET LOCAL idle_in_transaction_session_timeout = 0")
_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0
# Left behind when whoever made it was interrupted: it is kept up to date and never read.
_BROKEN = text("""
    SELECT 1 FROM pg_index i
     WHERE i.indexrelid = to_regclass(:name) AND NOT i.indisvalid
       AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
                        WHERE p.index_relid = i.indexrelid)
""")
_INTERRUPTED = ("55P03", "57014")
"""SQLSTATEs: waited too long for others, or took longer than the server allows."""
_MADE_BY_ANOTHER = (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError)


class DimensionTooLarge(ValueError):
    """pgvector's index takes no vectors of that many dimensions."""


async def ensure_index(
    engine: AsyncEngine, dimension: int, patience_seconds: float = _PATIENCE_SECONDS
) -> bool:
    """Make the index for vectors of that dimension, if there is none. Raises DimensionTooLarge.

    Wants the owner's engine; does not hold up those who write meanwhile. False if there is none in
    the end: somebody else makes one for longer than that, or holds the table for so long. Searching
    works without.
    """
    if dimension > MOST_DIMENSIONS:
        raise DimensionTooLarge(f"{dimension} dimensions; the index takes {MOST_DIMENSIONS}")
    name = f"hnsw_chunks_{dimension}"
    until = time.monotonic() + patience_seconds
    while not await _is_there(engine, name):
        async with engine.begin() as holding:
            if await holding.scalar(_TRY_LOCK):
                await holding.execute(_STAY_IDLE)
                await _make_alone(engine, name, dimension, patience_seconds)
                break
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(_PAUSE_SECONDS)
    return await _is_there(engine, name)


async def _is_there(engine: AsyncEngine, name: str) -> bool:
    async with engine.connect() as connection:
        return bool(await connection.scalar(_GOOD, {"name": f"millrace.{name}"}))


async def _make_alone(engine: AsyncEngine, name: str, dimension: int, patience: float) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        # Of each wait for others, and not of the work itself.
        await connection.execute(text(f"SET lock_timeout = '{patience:.3f}s'"))
        try:
            await _make(connection, name, dimension)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _INTERRUPTED:
                raise
        finally:
            await connection.execute(text("RESET lock_timeout"))


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
