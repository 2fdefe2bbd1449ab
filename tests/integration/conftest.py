"""A migrated database for each test, copied from one that was migrated once."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate, tenants
from db.engine import create_engine
from tests import servers


async def _migrate(url: str) -> None:
    engine = create_engine(url)
    await migrate.upgrade(engine)
    await engine.dispose()


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database to copy."""
    url = servers.create_database(postgres_url)
    asyncio.run(_migrate(url))
    yield servers.database_name(url)
    servers.drop_database(postgres_url, url)


@pytest.fixture
def migrated_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    url = servers.create_database(postgres_url, template=migrated_template)
    yield url
    servers.drop_database(postgres_url, url)


@pytest.fixture
async def engine(migrated_url: str) -> AsyncGenerator[AsyncEngine, None]:
    """An engine on a migrated database."""
    engine = create_engine(migrated_url, pool_size=5)
    yield engine
    await engine.dispose()


@pytest.fixture
async def tenant(engine: AsyncEngine) -> UUID:
    """A tenant."""
    async with engine.begin() as connection:
        return await tenants.ensure_tenant(connection, "acme")
