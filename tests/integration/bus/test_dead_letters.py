"""Dead letters whose queue is away (B39)."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from bus.protocol import Delivery
from bus.rabbitmq import RabbitBus, connect
from millrace.chaos.local_rabbitmq import LocalRabbit
from queue_schemas.topology import DEAD, Queue
from tests.integration.bus.world import depth_is, eventually

WORK = Queue("work", max_length=1000, dead_letter_to=DEAD.name, delivery_limit=3)
VHOST = "dead-letters"
PATIENCE = "dead_letter_worker_publisher_confirm_timeout"


@pytest.fixture
def broker(local_rabbitmq: LocalRabbit) -> Iterator[LocalRabbit]:
    """One that tries after a second to get rid of a dead letter again, not after three minutes."""

    def patience(milliseconds: int) -> None:
        local_rabbitmq.rabbitmqctl(
            "eval", f"application:set_env(rabbit, {PATIENCE}, {milliseconds})."
        )

    patience(1000)
    yield local_rabbitmq
    patience(180_000)


@pytest.fixture
async def bus(broker: LocalRabbit) -> AsyncIterator[RabbitBus]:
    broker.add_vhost(VHOST)
    bus = await connect(broker.url(VHOST), name="test")
    await bus.declare([WORK])
    yield bus
    await bus.aclose()
    broker.delete_vhost(VHOST)


async def test_dead_letters_wait_where_they_died_until_there_is_a_queue_for_them(
    bus: RabbitBus, broker: LocalRabbit
) -> None:
    async def reject(delivery: Delivery) -> None:
        await delivery.reject()

    await bus.consume(WORK, reject, prefetch=1)
    for number in range(5):
        await bus.publish(WORK.name, b"%d" % number)

    async def all_kept() -> bool:
        listing = ("list_queues", "-p", VHOST, "name", "messages")
        return "work\t5" in await asyncio.to_thread(broker.rabbitmqctl, *listing)

    await eventually(all_kept)
    assert await bus.depth(DEAD.name) is None
    await bus.declare([DEAD])
    await depth_is(bus, DEAD.name, 5)
