"""Workers that nobody hears, and leases that are over because of that."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import text

from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.mill import Mill

LEASE_OVER = """
    UPDATE millrace.subtasks SET lease_until = now() - interval '1 second' WHERE state = 'running'
"""


@asynccontextmanager
async def silence(mill: Mill) -> AsyncGenerator[None, None]:
    """What workers say is not read meanwhile; what was read before may still be written."""
    consumers = mill.broker.queues[topology.WORKERS.name].consumers
    kept = [consumers.popleft() for _ in range(len(consumers))]

    async def all_heard() -> bool:
        return not any(consumer._in_hand for consumer in kept)

    await until(all_heard, 30)
    try:
        yield
    finally:
        consumers.extend(kept)


async def end_leases(mill: Mill) -> None:
    """As if nobody had been heard for that long."""
    async with mill.running.engine.begin() as connection:
        await connection.execute(text(LEASE_OVER))


async def attempts(mill: Mill) -> dict[str, int]:
    """At which attempt the one subtask of each model is."""
    return dict(await mill.rows("SELECT model, attempt FROM millrace.subtasks"))
