"""The private Postgres of the chaos kit keeps what was committed, whatever is done to it."""

from collections.abc import Callable, Iterator

import asyncpg
import pytest

from millrace.chaos.local_postgres import LocalPostgres
from millrace.chaos.machine import Unavailable, accepts


@pytest.fixture(scope="module")
def postgres() -> Iterator[LocalPostgres]:
    try:
        with LocalPostgres() as server:
            yield server
    except Unavailable as error:
        pytest.skip(str(error))


async def execute(server: LocalPostgres, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(server.url())
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "end",
    [LocalPostgres.stop, LocalPostgres.stop_immediately, LocalPostgres.kill],
    ids=["in order", "immediately", "SIGKILL"],
)
async def test_what_was_committed_is_there_after_the_next_start(
    postgres: LocalPostgres, end: Callable[[LocalPostgres], None]
) -> None:
    await execute(postgres, "CREATE TABLE IF NOT EXISTS kept (word text)")
    await execute(postgres, "INSERT INTO kept VALUES ('flour')")
    before = await execute(postgres, "SELECT word FROM kept")
    open_session = await asyncpg.connect(postgres.url())
    end(postgres)
    assert not accepts(postgres.port)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await open_session.execute("SELECT 1")
    open_session.terminate()
    postgres.start()
    assert await execute(postgres, "SELECT word FROM kept") == before


async def test_a_restart_ends_the_sessions(postgres: LocalPostgres) -> None:
    session = await asyncpg.connect(postgres.url())
    postgres.restart()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await session.execute("SELECT 1")
    session.terminate()


async def test_it_has_pgvector(postgres: LocalPostgres) -> None:
    await execute(postgres, "CREATE EXTENSION IF NOT EXISTS vector")
    [row] = await execute(postgres, "SELECT '[1,2]'::vector <-> '[1,3]'::vector")
    assert row[0] == 1.0


def test_closing_it_leaves_nothing() -> None:
    try:
        server = LocalPostgres().start()
    except Unavailable as error:
        pytest.skip(str(error))
    server.close()
    assert not accepts(server.port)
    assert not server._root.exists()
