"""Statements that go past SQLAlchemy keep its transactions, its errors and its pool."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import create_engine
from db.statement import Statement
from master.outages import is_outage

ADD = Statement("INSERT INTO notes (id, said) VALUES (:id, :said)")
ALL = Statement("SELECT id, said FROM notes WHERE id >= :least OR id = :least ORDER BY id")
WHO = Statement("SELECT pg_backend_pid()")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """One connection, so that each test meets it again."""
    engine = create_engine(database_url, pool_size=1)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE notes (id integer PRIMARY KEY, said text)"))
    yield engine
    await engine.dispose()


async def notes(engine: AsyncEngine) -> list[tuple[int, str]]:
    async with engine.connect() as connection:
        rows = await ALL.run(connection, {"least": 0})
    return [(row["id"], row["said"]) for row in rows]


async def test_without_a_transaction_it_commits_by_itself(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await ADD.run(connection, {"said": "one: :two ::three", "id": 1})

    assert await notes(engine) == [(1, "one: :two ::three")]


async def test_a_transaction_that_it_is_the_first_in_takes_it_back(engine: AsyncEngine) -> None:
    async with engine.connect() as connection, connection.begin() as transaction:
        await ADD.run(connection, {"id": 1, "said": "gone"})
        await transaction.rollback()

    assert await notes(engine) == []


async def test_it_shares_a_transaction_with_statements_of_sqlalchemy(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO notes VALUES (1, 'theirs')"))
        await ADD.run(connection, {"id": 2, "said": "ours"})
        assert len(await ALL.run(connection, {"least": 1})) == 2

    assert [said for _, said in await notes(engine)] == ["theirs", "ours"]


async def test_its_errors_are_sqlalchemys_and_take_the_transaction_back(
    engine: AsyncEngine,
) -> None:
    async def add_twice() -> None:
        async with engine.begin() as connection:
            await ADD.run(connection, {"id": 1, "said": "first"})
            await ADD.run(connection, {"id": 1, "said": "again"})

    with pytest.raises(IntegrityError) as caught:
        await add_twice()

    assert getattr(caught.value.orig, "sqlstate", None) == "23505"
    assert not is_outage(caught.value)
    assert await notes(engine) == []


@pytest.mark.parametrize("begins", [False, True], ids=["alone", "in a transaction"])
async def test_a_connection_that_died_is_an_outage_and_is_not_met_again(
    engine: AsyncEngine, database_url: str, begins: bool
) -> None:
    other = create_engine(database_url, pool_size=1)

    async def lose_the_connection() -> None:
        async with engine.connect() as connection:
            if begins:
                await connection.begin()
            (row,) = await WHO.run(connection, {})
            async with other.connect() as killer:
                kill = text("SELECT pg_terminate_backend(:pid)")
                await killer.execute(kill, {"pid": row["pg_backend_pid"]})
            await ADD.run(connection, {"id": 1, "said": "lost"})

    with pytest.raises(DBAPIError) as caught:
        await lose_the_connection()
    await other.dispose()

    assert is_outage(caught.value)
    assert await notes(engine) == []
