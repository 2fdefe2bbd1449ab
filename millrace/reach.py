"""Opening what a server process needs, with one clear line when that fails."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.engine import DatabaseUrlError, create_engine
from millrace.problems import Problem, reaching

_START_POSTGRES = "Start it or set DATABASE_URL."


@asynccontextmanager
async def database(
    url: str, *, name: str, seconds: float = 10.0
) -> AsyncGenerator[AsyncEngine, None]:
    """An engine whose database answers. Raises `Problem`."""
    try:
        engine = create_engine(url, pool_size=1, name=name)
    except DatabaseUrlError as error:
        raise Problem(f"{error}.") from error
    try:
        with reaching("Postgres", url, _START_POSTGRES):
            async with asyncio.timeout(seconds), engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def migrated(url: str, *, name: str) -> AsyncGenerator[AsyncEngine, None]:
    """An engine whose database has this release's schema. Raises `Problem`."""
    async with database(url, name=name) as engine:
        with reaching("Postgres", url, _START_POSTGRES):
            try:
                await migrate.check_user(engine)
            except migrate.Stranger as stranger:
                raise Problem(f"{stranger}.") from stranger
            found, wanted = await migrate.current(engine), migrate.head()
        if found != wanted:
            never = "was never migrated"
            state = never if found is None else f"is at revision {found}, not at {wanted}"
            raise Problem(f"the database {state}. Run `millrace migrate`.")
        yield engine
