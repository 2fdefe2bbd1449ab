"""A process that does nothing within a transaction loses it; the others go on."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import create_engine
from master.app import _engine
from master.outages import is_away
from master.settings import MasterSettings

HOLD = text("SELECT pg_advisory_xact_lock(4711)")


async def freeze(frozen: AsyncEngine, other: AsyncEngine) -> None:
    """Hold something, and wake up when the other one has it."""
    async with frozen.begin() as connection:
        await connection.execute(HOLD)
        async with other.begin() as waiting, asyncio.timeout(30):
            await waiting.execute(HOLD)
        await connection.execute(text("SELECT 1"))


async def test_what_a_frozen_process_holds_becomes_free(migrated_url: str) -> None:
    frozen = create_engine(migrated_url, pool_size=1, idle_seconds=5)
    other = create_engine(migrated_url, pool_size=1)
    try:
        with pytest.raises(DBAPIError) as refused:
            await freeze(frozen, other)
        assert is_away(refused.value)  # so it is tried again
        async with frozen.begin() as connection:
            assert await connection.scalar(text("SELECT true"))
    finally:
        await frozen.dispose()
        await other.dispose()


async def test_a_master_is_bound_by_it(migrated_url: str) -> None:
    settings = MasterSettings.model_validate({"DATABASE_URL": migrated_url})
    async with _engine(settings, 1) as engine, engine.connect() as connection:
        bound = await connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    assert bound == "1min"
