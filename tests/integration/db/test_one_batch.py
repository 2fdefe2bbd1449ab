"""What is written together: a confirm, a claim and a bill of the same attempt."""

from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.memory import MemoryBroker
from db import new_requests
from master.facts import Confirmed
from master.fleet import queues
from queue_schemas.messages import ErrorKind, Failed, Started
from tests.integration.db.replica import REGISTRY, Replica


async def test_a_bill_for_what_was_told_to_stop_leaves_the_subtask_queued(
    engine: AsyncEngine, tenant: UUID, migrated_url: str
) -> None:
    """Its execution ends nothing, and the message that the broker confirmed is still to be had."""
    replica = Replica("one", engine, MemoryBroker(), migrated_url)
    await replica.bus.declare(queues(REGISTRY))
    request = new_requests.NewRequest(
        uuid4(), tenant, None, "mill", "{}", "{}", 1, "tokens.x", 60.0
    )
    step = new_requests.NewSubtask(uuid4(), "answer", "answer", "mill")
    async with engine.begin() as connection:
        await new_requests.add(connection, request, [step])
    started = Started(
        request=request.id, subtask=step.id, attempt=1, execution=uuid4(), delivery=0, worker="w"
    )
    bill = Failed(
        **started.model_dump(include={"request", "subtask", "attempt", "execution", "worker"}),
        kind=ErrorKind.TRANSIENT,
        code="cancelled",
        message="it was told to stop",
    )
    await replica.write([Confirmed(request.id, step.id, 1), started, bill])
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT state FROM millrace.subtasks"))
        waiting = await connection.execute(text("SELECT count(*) FROM millrace.outbox"))
        assert (found.scalar_one(), waiting.scalar_one()) == ("queued", 0)
    await replica.bus.aclose()
