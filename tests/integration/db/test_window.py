"""What takes a place in the window of a queue."""

from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import new_requests, outbox, subtasks, workers


async def test_what_the_broker_lost_takes_no_place_on_its_queue(
    engine: AsyncEngine, tenant: UUID
) -> None:
    """Otherwise a full window of lost messages could never be published again."""
    request = new_requests.NewRequest(uuid4(), tenant, None, "m", "{}", "{}", 1, None, 60.0)
    steps = [new_requests.NewSubtask(uuid4(), f"part-{n}", "answer", "m") for n in range(3)]
    async with engine.begin() as connection:
        await new_requests.add(connection, request, steps)
        sent = [(step.id, 1) for step in steps]
        await subtasks.mark_queued(connection, sent)
        await outbox.forget_sent(connection, sent)
        load = (await workers.loads(connection))["m"]
        assert (load.ready, load.queued, load.waiting) == (0, 3, 0)
    async with engine.begin() as connection:
        assert await outbox.republish(connection, [*sent[:2], (steps[2].id, 7)])
        load = (await workers.loads(connection))["m"]
        assert (load.ready, load.queued, load.waiting) == (2, 1, 2)
        states = await connection.scalars(text("SELECT DISTINCT state FROM millrace.subtasks"))
        assert list(states) == ["queued"]
