"""Databases whose owner is no superuser, whom policies bind as well.

Only a superuser may make the extension there, who puts it where many do: in `public`.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.engine import create_engine
from db.tenancy import APP_ROLE
from tests import servers


@asynccontextmanager
async def _owned(postgres_url: str, *grants: str) -> AsyncGenerator[AsyncEngine, None]:
    name, password = f"owner_{secrets.token_hex(4)}", secrets.token_hex(8)
    url = servers.create_database(postgres_url)
    database = servers.database_name(url)
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    await admin.execute(f'ALTER DATABASE "{database}" OWNER TO {name}')
    for grant in grants:
        await admin.execute(f"{grant} TO {name}")
    inside = await asyncpg.connect(url)
    await inside.execute("CREATE EXTENSION vector WITH SCHEMA public")
    await inside.close()
    own = make_url(url).set(username=name, password=password)
    engine = create_engine(own.render_as_string(hide_password=False), pool_size=3)
    try:
        yield engine
    finally:
        await engine.dispose()
        servers.drop_database(postgres_url, url)
        await admin.execute(f"DROP ROLE {name}")
        await admin.close()


@pytest.fixture
async def owned_engine(
    postgres_url: str, migrated_template: str
) -> AsyncGenerator[AsyncEngine, None]:
    """A database that its owner has migrated; the role was there and was granted to it."""
    async with _owned(postgres_url, f"GRANT {APP_ROLE}") as engine:
        await migrate.upgrade(engine)
        yield engine


@pytest.fixture
async def unprivileged_engine(
    postgres_url: str, migrated_template: str
) -> AsyncGenerator[AsyncEngine, None]:
    """An empty database whose owner may neither make roles nor take the one that is there."""
    async with _owned(postgres_url) as engine:
        yield engine
