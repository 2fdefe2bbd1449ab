"""A subtask that is to be tried again later is not waiting for anybody until then."""

from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import leases, new_requests, outbox, subtasks, waiting, workers
from db.workers import ModelLoad
from queue_schemas.messages import Started

EARLIER = (
    "UPDATE millrace.subtasks SET ready_at = ready_at - interval '400 s'",
    "UPDATE millrace.outbox SET available_at = available_at - interval '400 s', "
    "created_at = created_at - interval '400 s'",
)
"""As if so much time had passed."""


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection, None]:
    async with engine.begin() as connection:
        yield connection


@pytest.fixture
async def request_of(connection: AsyncConnection, tenant: UUID) -> tuple[UUID, UUID]:
    """A request and its one subtask, whose engine asked for 300 seconds."""
    row = new_requests.NewRequest(uuid4(), tenant, None, "m", "{}", "{}", 1, None, 60.0)
    step = new_requests.NewSubtask(uuid4(), "part", "answer", "m")
    await new_requests.add(connection, row, [step])
    assert await subtasks.again(connection, step.id, 1, delay_seconds=300.0)
    return row.id, step.id


async def looked(connection: AsyncConnection) -> ModelLoad:
    return (await workers.loads(connection))["m"]


async def test_before_its_time_it_is_delayed_and_nothing_waits(
    connection: AsyncConnection, request_of: tuple[UUID, UUID]
) -> None:
    load = await looked(connection)
    assert (load.ready, load.delayed) == (0, 1)
    assert (load.oldest_seconds, load.unpublished_seconds) == (0.0, 0.0)
    assert await waiting.place(connection, request_of[0]) is None


async def test_from_then_on_it_waits_and_the_pause_is_no_part_of_it(
    connection: AsyncConnection, request_of: tuple[UUID, UUID]
) -> None:
    for statement in EARLIER:
        await connection.execute(text(statement))
    load = await looked(connection)
    assert (load.ready, load.delayed) == (1, 0)
    assert 100 <= load.oldest_seconds < 200
    assert 100 <= load.unpublished_seconds < 200
    place = await waiting.place(connection, request_of[0])
    assert place is not None
    assert place.number == 1
    await outbox.take(connection, "m", 10, 20.0)
    assert 100 <= (await looked(connection)).unpublished_seconds < 200, "tried once"


async def test_its_wait_for_a_worker_begins_when_the_pause_is_over(
    connection: AsyncConnection, request_of: tuple[UUID, UUID]
) -> None:
    for statement in EARLIER:
        await connection.execute(text(statement))
    start = Started(
        request=request_of[0],
        subtask=request_of[1],
        attempt=2,
        execution=uuid4(),
        delivery=0,
        worker="w",
    )
    [claimed] = await leases.claim(connection, [start], 30)
    assert 100 <= claimed.waited_seconds < 200


async def test_an_outbox_row_that_was_lost_is_made_anew_for_the_same_time(
    connection: AsyncConnection, request_of: tuple[UUID, UUID]
) -> None:
    await connection.execute(text("DELETE FROM millrace.outbox"))
    assert await outbox.enqueue_unsent(connection) == [request_of[1]]
    same = "SELECT o.available_at = s.ready_at FROM millrace.outbox o, millrace.subtasks s"
    assert await connection.scalar(text(same))
