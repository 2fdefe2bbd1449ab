"""A tenant sees and writes its own rows only, whatever the statement."""

import secrets

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import (
    chunks,
    claims,
    conversations,
    documents,
    drafts,
    evidence,
    exchange_vectors,
    migrate,
    rules,
)
from db.engine import create_engine
from db.rules import NewRule
from db.tables import metadata
from db.tenancy import APP_ROLE, as_tenant
from millrace import reach
from millrace.problems import Problem
from tests.integration.db.corpus_acts import (
    Cut,
    add,
    claimed,
    collection_of,
    directions,
    fresh,
    judged,
    published,
    put,
    tenant_named,
)

CORPUS = ("collections", "documents", "document_bodies", "drafts", "chunks", "chunk_terms", "terms")
BOUND = (*CORPUS, "judgements", "rules", "conversations", "exchange_vectors", "routing_resets")
EARLIER = ("api_keys", "requests", "subtasks", "attempts", "outbox")


async def fill(engine: AsyncEngine, name: str) -> None:
    """A row in every table that the role may use."""
    tenant = await tenant_named(engine, name)
    request = (await judged(engine, tenant)).request
    collection = await collection_of(engine, tenant, dimension=3)
    await published(engine, collection, "first", ["apples and pears"], [[1.0, 2.0, 3.0]])
    async with as_tenant(engine, tenant) as connection:
        document = await claimed(connection, await add(connection, collection, "second"))
        await drafts.replace(connection, document.id, document.attempt, [Cut(0, "x")])
        rule = NewRule("brief", "prompt", {"kind": "prompt", "text": "Be brief."})
        await rules.propose(connection, tenant, rule)
        await evidence.reset(connection, tenant, ["answer"])
        said = await conversations.add(connection, tenant, "ada")
        await exchange_vectors.put(connection, said.id, "tiny", [(request, [1.0, 2.0])])


async def count(connection: AsyncConnection, table: str) -> int:
    found: int = (
        await connection.execute(text(f"SELECT count(*) FROM millrace.{table}"))
    ).scalar_one()
    return found


@pytest.mark.parametrize("table", BOUND)
async def test_without_a_tenant_the_role_sees_nothing(engine: AsyncEngine, table: str) -> None:
    await fill(engine, "acme")
    async with engine.begin() as connection:
        assert await count(connection, table) > 0
        await connection.execute(text(f"SET LOCAL ROLE {APP_ROLE}"))
        assert await count(connection, table) == 0
        await connection.execute(text("SET LOCAL millrace.tenant = ''"))
        assert await count(connection, table) == 0


@pytest.mark.parametrize("table", BOUND)
async def test_a_tenant_sees_its_own_rows_only(engine: AsyncEngine, table: str) -> None:
    await fill(engine, "acme")
    await fill(engine, "other")
    acme = await tenant_named(engine, "acme")
    async with engine.begin() as connection:
        everything = await count(connection, table)
    async with as_tenant(engine, acme) as connection:
        assert await count(connection, table) == everything / 2
        query = text(f"SELECT DISTINCT tenant_id FROM millrace.{table}")
        assert (await connection.execute(query)).scalars().all() == [acme]


@pytest.mark.parametrize("table", EARLIER)
async def test_the_role_may_not_even_ask_for_requests_and_keys(
    engine: AsyncEngine, table: str
) -> None:
    async with as_tenant(engine, await tenant_named(engine, "acme")) as connection:
        with pytest.raises(DBAPIError, match="permission denied"):
            await count(connection, table)


async def test_every_table_with_a_tenant_is_secured(engine: AsyncEngine) -> None:
    query = text("""
        SELECT relname FROM pg_class
         WHERE relnamespace = 'millrace'::regnamespace AND relrowsecurity AND relforcerowsecurity
    """)
    async with engine.begin() as connection:
        secured = set((await connection.execute(query)).scalars())
    assert secured == {
        table.name for table in metadata.tables.values() if "tenant_id" in table.columns
    }


async def test_rows_of_another_tenant_cannot_be_written(engine: AsyncEngine) -> None:
    acme, other = await tenant_named(engine, "acme"), await tenant_named(engine, "other")
    row = text("""
        INSERT INTO millrace.collections (id, tenant_id, name, strategy)
        VALUES (gen_random_uuid(), :tenant, 'stolen', 'sparse')
    """)
    with pytest.raises(DBAPIError, match="row-level security"):
        async with as_tenant(engine, acme) as connection:
            await connection.execute(row, {"tenant": other})


async def test_rows_cannot_be_given_to_another_tenant(engine: AsyncEngine) -> None:
    acme, other = await tenant_named(engine, "acme"), await tenant_named(engine, "other")
    await collection_of(engine, acme)
    query = text("UPDATE millrace.collections SET tenant_id = :tenant")
    with pytest.raises(DBAPIError, match="row-level security"):
        async with as_tenant(engine, acme) as connection:
            await connection.execute(query, {"tenant": other})


async def test_the_search_function_gives_nothing_of_another_tenant(engine: AsyncEngine) -> None:
    await fill(engine, "acme")
    acme, other = await tenant_named(engine, "acme"), await tenant_named(engine, "other")
    collection = await fresh(engine, await collection_of(engine, acme))
    whole = chunks.Scope(collection, None, 1)
    async with as_tenant(engine, acme) as connection:
        assert len(await chunks.sparse(connection, whole, "apples", 10)) == 1
        assert len(await chunks.dense(connection, whole, [1, 2, 3], 10, exact=True)) == 1
    async with as_tenant(engine, other) as connection:
        assert await chunks.sparse(connection, whole, "apples", 10) == []
        assert await chunks.dense(connection, whole, [1, 2, 3], 10, exact=True) == []
        assert await chunks.dense(connection, whole, [1, 2, 3], 10, exact=False) == []


async def test_the_setting_and_the_role_end_with_the_transaction(engine: AsyncEngine) -> None:
    acme = await tenant_named(engine, "acme")
    async with engine.connect() as connection:
        query = text("SELECT current_user, current_setting('millrace.tenant', true)")
        before = (await connection.execute(query)).one()
    for _ in range(engine.pool.size()):  # type: ignore[attr-defined] # the pool of the fixture has a size
        async with as_tenant(engine, acme, **{"hnsw.ef_search": "77"}) as connection:
            assert (await connection.execute(query)).one() == (APP_ROLE, str(acme))
            assert await connection.scalar(text("SHOW hnsw.ef_search")) == "77"
    async with engine.connect() as connection:
        user, setting = (await connection.execute(query)).one()
    assert (user, setting or None) == (before[0], None)


async def test_the_role_can_be_taken_by_an_owner_who_is_no_superuser(
    owned_engine: AsyncEngine,
) -> None:
    await fill(owned_engine, "acme")
    await fill(owned_engine, "other")
    acme = await tenant_named(owned_engine, "acme")
    async with owned_engine.begin() as connection:
        assert await connection.scalar(text("SHOW is_superuser")) == "off"
        assert await count(connection, "chunks") == 0
        assert await count(connection, "document_bodies") == 0
        await connection.execute(text("UPDATE millrace.documents SET name = 'mine'"))
        assert await count(connection, "documents") == 4
    async with as_tenant(owned_engine, acme) as connection:
        assert await count(connection, "chunks") == 1
        names = await connection.execute(text("SELECT name FROM millrace.documents"))
        assert sorted(names.scalars()) == ["first", "second"]
    collection = await fresh(owned_engine, await collection_of(owned_engine, acme))
    async with as_tenant(owned_engine, acme) as connection:
        whole = await chunks.scope(connection, collection)
        assert len(await chunks.sparse(connection, whole, "pears", 10)) == 1
        assert len(await chunks.dense(connection, whole, [1, 2, 3], 10, exact=False)) == 1


async def test_an_owner_who_is_no_superuser_finds_what_waits_and_migrates_again(
    owned_engine: AsyncEngine,
) -> None:
    tenant = await tenant_named(owned_engine, "acme")
    collection = await collection_of(owned_engine, tenant)
    async with as_tenant(owned_engine, tenant) as connection:
        document = await add(connection, collection, "first")
    async with owned_engine.begin() as connection:
        assert await claims.waiting(connection, 10) == [(tenant, document.id)]
    await chunks.ensure_index(owned_engine, 5)
    assert await migrate.upgrade(owned_engine) == migrate.head()
    async with as_tenant(owned_engine, tenant) as connection:
        await put(connection, await claimed(connection, document), ["some words"])
        assert await documents.remove(connection, tenant, document.id)


async def test_whoever_may_not_make_the_role_is_told_what_to_do(
    postgres_url: str, unprivileged_engine: AsyncEngine
) -> None:
    admin = await asyncpg.connect(postgres_url)
    exists = await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APP_ROLE)
    await admin.close()
    assert exists, "another database of the server has made it by now"
    with pytest.raises(
        migrate.MigrationError, match=r"may not become.*GRANT millrace_app TO owner_"
    ):
        await migrate.upgrade(unprivileged_engine)


async def test_a_tenant_with_few_chunks_among_many_finds_all_its_own(engine: AsyncEngine) -> None:
    many, few = await tenant_named(engine, "many"), await tenant_named(engine, "few")
    big = await collection_of(engine, many, dimension=384)
    vectors = directions(2030, 384, seed=1)
    texts = ["the same words everywhere"] * 2000
    await published(engine, big, "big", texts, vectors[:2000])
    small = await collection_of(engine, few, dimension=384)
    await published(engine, small, "small", texts[:30], vectors[2000:])
    small = await fresh(engine, small)
    async with as_tenant(engine, few) as connection:
        whole = await chunks.scope(connection, small)
        assert (whole.chunk_count, whole.exact) == (30, True)
        own = {row[0] for row in await connection.execute(text("SELECT id FROM millrace.chunks"))}
        for exact in (True, False):
            hits = await chunks.dense(connection, whole, vectors[0], 50, exact=exact)
            assert {hit.chunk for hit in hits} == own
        assert {hit.chunk for hit in await chunks.sparse(connection, whole, "words", 50)} == own
    assert len(own) == 30


async def test_a_second_user_is_refused_until_it_is_a_member_of_the_first(
    owned_engine: AsyncEngine, postgres_url: str
) -> None:
    await migrate.check_user(owned_engine)
    owner, second = owned_engine.url.username, f"second_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE ROLE {second} LOGIN PASSWORD 'only for tests'")
    url = owned_engine.url.set(username=second, password="only for tests")
    engine = create_engine(url.render_as_string(hide_password=False), pool_size=1)
    try:
        with pytest.raises(migrate.Stranger, match=f'GRANT "{owner}" TO "{second}"'):
            await migrate.check_user(engine)
        with pytest.raises(Problem, match=f'shows nothing of it to {second}; run: GRANT "{owner}"'):
            async with reach.migrated(url.render_as_string(hide_password=False), name="test"):
                pass
        await admin.execute(f'GRANT "{owner}" TO "{second}"')
        await migrate.check_user(engine)
        await fill(engine, "acme")
        async with engine.begin() as connection:
            assert await count(connection, "documents") == 2
    finally:
        await engine.dispose()
        await admin.execute(f"DROP ROLE {second}")
        await admin.close()


async def test_in_an_empty_database_nobody_is_a_stranger(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    await migrate.check_user(engine)
    await engine.dispose()
