"""How routes change the corpus: one transaction that neither waits for long nor holds up chat."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from db.collections import Gone
from db.tenancy import as_tenant
from master.api import outages
from master.outages import is_busy
from master.running import Running

LOCK_TIMEOUT: Final = "3s"
"""Whoever publishes may hold a document or a collection for much longer."""

T = TypeVar("T")
Write = Callable[[AsyncConnection], Awaitable[T]]


async def written(master: Running, tenant: UUID, write: Write[T]) -> T:
    """What `write` returns, committed. It is called once more if another was in its way.

    Raises `ApiError` 503 when that one is still there, or the database is away.
    """
    with outages.answered():
        try:
            return await _once(master, tenant, write)
        except Exception as error:
            if not _is_passing(error):
                raise
        try:
            return await _once(master, tenant, write)
        except Gone as error:
            raise outages.being_written() from error


async def _once(master: Running, tenant: UUID, write: Write[T]) -> T:
    settings = {"lock_timeout": LOCK_TIMEOUT}
    async with as_tenant(master.corpus_engine, tenant, **settings) as connection:
        return await write(connection)


def _is_passing(error: Exception) -> bool:
    """Over by now; not so what was waited for in vain."""
    waited = getattr(getattr(error, "orig", None), "sqlstate", None) == "55P03"
    return isinstance(error, Gone) or (is_busy(error) and not waited)
