"""A server process that starts while the database goes away says so in one line."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from millrace import reach
from millrace.problems import Problem
from tests import servers


async def test_a_database_that_goes_away_while_its_schema_is_looked_at_cannot_be_reached(
    postgres_url: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = migrate.current

    async def end_the_session_first(engine: AsyncEngine) -> str | None:
        admin = await asyncpg.connect(postgres_url)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            servers.database_name(migrated_url),
        )
        await admin.close()
        return await look(engine)

    monkeypatch.setattr(migrate, "current", end_the_session_first)
    with pytest.raises(Problem, match="cannot reach Postgres at"):
        async with reach.migrated(migrated_url, name="test"):
            pass
