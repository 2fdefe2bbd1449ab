"""Migrations end in the tables that the code knows."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.engine import create_engine
from db.models import SCHEMA
from db.tables import metadata


def _ours(name: str | None, kind: str, _: object) -> bool:
    if kind == "index":
        # One for each dimension, made when a collection first needs it.
        return name is None or not name.startswith("hnsw_")
    return kind != "schema" or name == SCHEMA


def _differences(connection: Connection) -> list[object]:
    # Or the types of pgvector have their schema in front, and nobody knows them.
    connection.execute(text("SET LOCAL search_path = public, extensions"))
    options = {
        "version_table_schema": SCHEMA,
        "include_schemas": True,
        "compare_type": True,
        "include_name": _ours,
    }
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def _move(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.attributes["connection"] = connection
    (command.upgrade if revision == "head" else command.downgrade)(config, revision)


async def test_migrations_end_in_exactly_the_metadata(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


async def test_migrating_twice_changes_nothing(engine: AsyncEngine) -> None:
    assert await migrate.upgrade(engine) == await migrate.current(engine) == migrate.head()


async def test_an_empty_database_says_that_it_was_never_migrated(database_url: str) -> None:
    engine = create_engine(database_url)
    try:
        assert await migrate.current(engine) is None
    finally:
        await engine.dispose()


async def test_a_newer_database_is_refused_with_the_reason(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE millrace.alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.MigrationError, match=r"9999.*newer release"):
        await migrate.upgrade(engine)


async def test_who_reads_for_long_is_not_waited_for_with_everybody_else_behind(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_PATIENCE", "50ms")
    async with engine.begin() as connection:
        await connection.run_sync(_move, "0009")
    async with engine.connect() as reader:
        await reader.execute(text("SELECT count(*) FROM millrace.requests"))
        monkeypatch.setattr(migrate, "_PAUSES", (0.01,))
        with pytest.raises(migrate.MigrationError, match="another transaction holds a table"):
            await migrate.upgrade(engine)
        await reader.rollback()
        assert await migrate.upgrade(engine) == migrate.head()


async def test_pgvector_is_in_the_schema_where_supabase_keeps_extensions(
    engine: AsyncEngine,
) -> None:
    query = """
        SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
         WHERE e.extname = 'vector'
    """
    async with engine.connect() as connection:
        assert await connection.scalar(text(query)) == "extensions"


async def test_every_table_but_workers_carries_the_tenant() -> None:
    without = {name for name, table in metadata.tables.items() if "tenant_id" not in table.c}
    assert without == {"millrace.tenants", "millrace.workers"}


async def test_an_old_pgvector_is_refused_with_the_remedy(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        old = "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'"
        await connection.execute(text(old))
    with pytest.raises(migrate.MigrationError, match="ALTER EXTENSION vector UPDATE"):
        await migrate.upgrade(engine)


async def test_the_corpus_can_be_taken_back_and_made_again(engine: AsyncEngine) -> None:
    for revision in ("0002", "head"):
        async with engine.begin() as connection:
            await connection.run_sync(_move, revision)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
