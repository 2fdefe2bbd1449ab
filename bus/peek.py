"""Looking at the messages of a queue without losing one."""

import asyncio
from collections.abc import Sequence

from bus.protocol import Bus, Delivery
from queue_schemas.topology import Queue

PEEK_SECONDS = 2.0
OFTEN_HANDED_OUT = 8
"""Well below every delivery limit, ours (20) and RabbitMQ 4's own."""
_OURS = "x-millrace-"


async def hold(bus: Bus, queue: Queue, limit: int) -> list[Delivery]:
    """Take up to `limit` waiting messages into the hand; settle each, or give it back."""
    depth = await bus.depth(queue.name)
    wanted = min(limit, depth.ready) if depth else 0
    if not wanted:
        return []
    held: list[Delivery] = []
    enough = asyncio.Event()

    async def take(delivery: Delivery) -> None:
        held.append(delivery)
        if len(held) >= wanted:
            enough.set()

    consumer = await bus.consume(queue, take, prefetch=limit)
    try:
        async with asyncio.timeout(PEEK_SECONDS):
            await enough.wait()
    except TimeoutError:
        pass  # somebody else took the rest meanwhile
    finally:
        await consumer.cancel()
    return held


async def give_back(bus: Bus, held: Sequence[Delivery]) -> None:
    """Return what was held, in its order.

    Every return counts towards the delivery limit of the queue. So a message that has been
    returned often is replaced by a fresh copy; dying in between leaves it twice, never lost.
    """
    for delivery in reversed(held):
        if delivery.delivery_count < OFTEN_HANDED_OUT:
            await delivery.retry()
            continue
        headers = {
            name: value
            for name, value in delivery.headers.items()
            if name.startswith(_OURS) and isinstance(value, str)
        }
        await bus.publish(delivery.queue, delivery.body, headers)
        await delivery.ack()
