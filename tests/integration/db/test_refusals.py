"""How long the broker has been refusing messages."""

from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import new_requests, outbox, workers

REFUSED_LONG_AGO = "UPDATE millrace.outbox SET refused_at = refused_at - interval '100 seconds'"
OLD = "UPDATE millrace.outbox SET created_at = now() - interval '1 hour'"


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection, None]:
    async with engine.begin() as connection:
        yield connection


@pytest.fixture
async def subtask(connection: AsyncConnection, tenant: UUID) -> UUID:
    """A subtask whose outbox row is an hour old."""
    request = new_requests.NewRequest(uuid4(), tenant, None, "m", "{}", "{}", 1, None, 60.0)
    step = new_requests.NewSubtask(uuid4(), "part", "answer", "m")
    await new_requests.add(connection, request, [step])
    await connection.execute(text(OLD))
    return step.id


async def refusing_seconds(connection: AsyncConnection) -> float:
    return (await workers.outbox_load(connection)).unpublishable_seconds


async def test_a_row_that_waits_for_another_reason_says_nothing_of_the_broker(
    connection: AsyncConnection, subtask: UUID
) -> None:
    await outbox.postpone(connection, subtask, 1, 5.0, "no such model", refused=False)
    assert await refusing_seconds(connection) == 0.0


async def test_refusing_counts_from_the_first_refusal_and_not_from_the_rows_birth(
    connection: AsyncConnection, subtask: UUID
) -> None:
    await outbox.postpone(connection, subtask, 1, 5.0, "no connection", refused=True)
    assert await refusing_seconds(connection) < 50
    await connection.execute(text(REFUSED_LONG_AGO))
    await outbox.postpone(connection, subtask, 1, 5.0, "no connection", refused=True)
    assert 100 <= await refusing_seconds(connection) < 200


async def test_another_reason_ends_the_refusal(connection: AsyncConnection, subtask: UUID) -> None:
    await outbox.postpone(connection, subtask, 1, 5.0, "no connection", refused=True)
    await connection.execute(text(REFUSED_LONG_AGO))
    await outbox.postpone(connection, subtask, 1, 5.0, "no such model", refused=False)
    assert await refusing_seconds(connection) == 0.0


async def test_a_row_that_was_refused_once_and_now_waits_for_room_says_nothing(
    connection: AsyncConnection, subtask: UUID
) -> None:
    await outbox.postpone(connection, subtask, 1, -60.0, "no connection", refused=True)
    await connection.execute(text(REFUSED_LONG_AGO))
    assert await refusing_seconds(connection) == 0.0


async def test_a_confirmed_row_ends_the_refusal(connection: AsyncConnection, subtask: UUID) -> None:
    await outbox.postpone(connection, subtask, 1, 5.0, "no connection", refused=True)
    await connection.execute(text(REFUSED_LONG_AGO))
    await outbox.forget_sent(connection, [(subtask, 1)])
    assert await refusing_seconds(connection) == 0.0
