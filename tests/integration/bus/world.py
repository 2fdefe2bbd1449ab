"""What a test of the bus works with."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from bus.protocol import Bus, Delivery
from bus.rabbitmq import RabbitBus


class World(Protocol):
    """A broker to connect to, and its faults."""

    async def connect(self) -> Bus:
        """One more connection, closed after the test."""

    async def break_connection(self, bus: Bus) -> None:
        """Cut it; the bus comes back by itself."""

    def lose_confirms(self, bus: Bus) -> None:
        """Store what is published next, and tell nobody."""

    def restore_confirms(self, bus: Bus) -> None:
        """Undo that."""


class Inbox:
    """A consumer's handler that keeps what it is given, and settles nothing."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._arrived = asyncio.Condition()

    async def __call__(self, delivery: Delivery) -> None:
        async with self._arrived:
            self.deliveries.append(delivery)
            self._arrived.notify_all()

    @property
    def bodies(self) -> list[bytes]:
        """What came, in order."""
        return [delivery.body for delivery in self.deliveries]

    async def wait(self, count: int, *, within_seconds: float = 30.0) -> list[Delivery]:
        """The first `count` deliveries."""
        async with asyncio.timeout(within_seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(self.deliveries) >= count)
        return self.deliveries[:count]


@contextmanager
def impatient(bus: RabbitBus) -> Iterator[None]:
    """Its publishes give up after a second, for as long as confirms cannot come.

    With such a limit a machine that stands still for a moment would lose confirms as well.
    """
    usual, bus._timeout = bus._timeout, 1.0
    try:
        yield
    finally:
        bus._timeout = usual


async def eventually(
    condition: Callable[[], Awaitable[bool]], *, within_seconds: float = 30.0
) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(within_seconds):
        while not await condition():  # noqa: ASYNC110 - a broker has no event to wait for
            await asyncio.sleep(0.02)


async def depth_is(bus: Bus, queue: str, ready: int) -> None:
    """Wait until so many messages are ready."""

    async def settled() -> bool:
        depth = await bus.depth(queue)
        return depth is not None and depth.ready == ready

    await eventually(settled)
