"""What is on the queues, by the tables."""

from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import leases, new_requests, outbox, subtasks
from db.depths import Depth, depths
from queue_schemas.messages import Started


async def stored(connection: AsyncConnection, tenant: UUID, model: str, number: int) -> list[UUID]:
    request = new_requests.NewRequest(uuid4(), tenant, None, model, "{}", "{}", 1, None, 60.0)
    steps = [new_requests.NewSubtask(uuid4(), f"p{n}", "answer", model) for n in range(number)]
    await new_requests.add(connection, request, steps)
    return [step.id for step in steps]


async def publish(connection: AsyncConnection, ids: list[UUID]) -> None:
    sent = [(each, 1) for each in ids]
    await subtasks.mark_queued(connection, sent)
    await outbox.forget_sent(connection, sent)


async def take(connection: AsyncConnection, ids: list[UUID], worker: str) -> None:
    starts = [
        Started(
            request=uuid4(), subtask=each, attempt=1, execution=uuid4(), delivery=0, worker=worker
        )
        for each in ids
    ]
    await leases.claim(connection, starts, lease_seconds=30)


async def test_what_waits_on_the_queue_and_what_workers_hold_is_counted(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        assert await depths(connection) == {}
        mill = await stored(connection, tenant, "mill", 6)
        quern = await stored(connection, tenant, "quern", 1)
        assert await depths(connection) == {}, "they are in the outbox"
        await publish(connection, [*mill[:5], *quern])
        await take(connection, mill[:2], "one")
        await take(connection, mill[2:3], "other")
        found = await depths(connection)
    assert found == {"mill": Depth(2, {"one": 2, "other": 1}), "quern": Depth(1)}
    assert found["mill"].messages == 5


async def test_what_the_broker_lost_is_not_counted(engine: AsyncEngine, tenant: UUID) -> None:
    async with engine.begin() as connection:
        ids = await stored(connection, tenant, "mill", 3)
        await publish(connection, ids)
        await outbox.republish(connection, [(ids[0], 1)])
        assert await depths(connection) == {"mill": Depth(2)}
