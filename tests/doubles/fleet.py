"""A worker at work on a memory bus, seen from a master's side."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from bus.memory import MemoryBroker, MemoryBus
from bus.protocol import Delivery
from queue_schemas import topology
from queue_schemas.codec import KeyRing, decode, encode
from queue_schemas.messages import (
    RESULT,
    STREAM,
    WORKER,
    Completed,
    Failed,
    Heartbeat,
    Message,
    Started,
    SubtaskRequest,
    TokenChunk,
)
from queue_schemas.registry import Model
from worker.consumer import run
from worker.providers.protocol import Provider
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings
from worker.standing import Standing

REPLY_TO = topology.tokens("master-1")
ELSEWHERE = topology.tokens("master-2")


class Mailbox:
    """Everything that came into one queue, decoded."""

    def __init__(self, adapter: Any, key: KeyRing | None) -> None:
        self._adapter = adapter
        self._key = key
        self.messages: list[Any] = []
        self._news = asyncio.Event()

    async def take(self, delivery: Delivery) -> None:
        self.messages.append(decode(self._adapter, delivery.body, delivery.headers, self._key))
        await delivery.ack()
        self._news.set()

    async def wait_for(self, find: Callable[[list[Any]], Any], within_seconds: float = 30.0) -> Any:
        """Wait until `find` gives something true."""
        async with asyncio.timeout(within_seconds):
            while not (found := find(self.messages)):
                self._news.clear()
                await self._news.wait()
        return found


class Fleet:
    """One broker with its queues, workers on it, and what a master would receive."""

    def __init__(self, model: Model, **settings: Any) -> None:
        self.model = model
        self.settings = WorkerSettings(**{"name": "worker-1"} | settings)
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker)
        self.key = self.settings.key_ring
        self.results = Mailbox(RESULT, self.key)
        self.workers = Mailbox(WORKER, self.key)
        self.stream = Mailbox(STREAM, self.key)
        self.elsewhere = Mailbox(STREAM, self.key)
        self.stop = asyncio.Event()
        self.providers: list[Provider] = []
        self.buses: list[MemoryBus] = []
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Fleet":
        await self.bus.declare((*topology.SHARED, topology.subtasks(self.model.slug)))
        await self.bus.consume(topology.RESULTS, self.results.take, prefetch=1000)
        await self.bus.consume(topology.WORKERS, self.workers.take, prefetch=1000)
        await self.bus.consume(REPLY_TO, self.stream.take, prefetch=1000)
        await self.bus.consume(ELSEWHERE, self.elsewhere.take, prefetch=1000)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        for task in self._running:
            task.cancel()
        for bus in (*self.buses, self.bus):
            await bus.aclose()
        await asyncio.gather(*self._running, return_exceptions=True)
        for provider in self.providers:
            await provider.aclose()

    def start(
        self,
        provider: Provider | None = None,
        bus: MemoryBus | None = None,
        standing: Standing | None = None,
        **settings: Any,
    ) -> "asyncio.Task[None]":
        """Run one more worker, on a connection of its own."""
        self.buses.append(bus or MemoryBus(self.broker))
        self.providers.append(provider or make_provider(self.model))
        mine = self.settings.model_copy(update=settings)
        work = run(self.buses[-1], self.model, mine, self.providers[-1], self.stop, standing)
        task = asyncio.create_task(work)
        self._running.append(task)
        return task

    async def submit(self, *subtasks: SubtaskRequest) -> None:
        """Publish subtasks as dispatch does."""
        queue = topology.subtasks(self.model.slug).name
        for subtask in subtasks:
            await self.bus.publish(queue, *encode(subtask, self.key))

    async def order(self, message: Message) -> None:
        """Broadcast a control message."""
        await self.bus.broadcast(*encode(message, self.key))

    async def result(self, subtask: SubtaskRequest, number: int = 1) -> Completed | Failed:
        """Wait for the n-th result of a subtask."""
        found = await self.results.wait_for(
            lambda all_: [r for r in all_ if r.subtask == subtask.subtask][number - 1 : number]
        )
        outcome: Completed | Failed = found[0]
        return outcome

    async def started(self, subtask: SubtaskRequest, number: int = 1) -> Started:
        """Wait for the n-th Started of a subtask, on `workers`."""
        found = await self.workers.wait_for(
            lambda all_: [
                m for m in all_ if isinstance(m, Started) and m.subtask == subtask.subtask
            ][number - 1 : number]
        )
        started: Started = found[0]
        return started

    async def beat(self, find: Callable[[Heartbeat], object]) -> Heartbeat:
        """Wait for a heartbeat."""
        found = await self.workers.wait_for(
            lambda all_: [m for m in all_ if isinstance(m, Heartbeat) and find(m)]
        )
        beat: Heartbeat = found[0]
        return beat

    async def text_seen(self, subtask: SubtaskRequest, text: str) -> list[TokenChunk]:
        """Wait until the streamed chunks of the content add up to at least this text."""
        found: list[TokenChunk] = await self.stream.wait_for(
            lambda all_: (
                text in assembled(all_, subtask.subtask)
                and [m for m in all_ if isinstance(m, TokenChunk)]
            )
        )
        return found

    def waiting(self, queue: str) -> int:
        """Messages that nobody took yet."""
        return len(self.broker.queues[queue].ready)


def assembled(messages: list[Any], subtask: UUID) -> str:
    """The content of a subtask's chunks, in the order they came."""
    return "".join(
        m.text
        for m in messages
        if isinstance(m, TokenChunk) and m.subtask == subtask and m.channel == "content"
    )
