"""The bus over RabbitMQ.

Three connections, because RabbitMQ stops reading from a connection that publishes while memory
or disk run short: acknowledgements must not wait behind that, nor tokens behind confirmed work.
"""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from aio_pika.exceptions import (
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from aiormq import Channel
from aiormq.exceptions import ChannelLockedResource
from pamqp.commands import Basic

from bus.connection import CONNECT_SECONDS, Connection, bus_errors, open_connection
from bus.consumption import Binding, Consumption
from bus.protocol import (
    BusError,
    BusUnavailable,
    Depth,
    Handler,
    PublishUnknown,
    QueueFull,
    Unroutable,
)
from bus.sender import Outgoing, Sender
from queue_schemas.topology import CONTROL_EXCHANGE, EVENTS_EXCHANGE, Queue

T = TypeVar("T")

PERSISTENT, TRANSIENT = 2, 1
_HANGS_SECONDS = 1.0
"""Within the time that anybody who asks a queue has the patience for."""
WATCH_PREFETCH = 100


async def connect(url: str, *, name: str, publish_timeout_seconds: float = 10.0) -> "RabbitBus":
    """Connect to the broker. Raises `BusUnavailable` with the cause and the remedy."""
    connections: list[Connection] = []
    try:
        for role in ("publish", "consume", "stream"):
            connections.append(await open_connection(url, f"{name} {role}"))  # noqa: PERF401 - those opened are closed on failure
        bus = RabbitBus(*connections, publish_timeout_seconds=publish_timeout_seconds)
        await bus.start()
    except BaseException:
        for connection in connections:
            await connection.aclose()
        raise
    return bus


class RabbitBus:
    """Three connections to RabbitMQ, self-healing."""

    def __init__(
        self,
        publish: Connection,
        consume: Connection,
        stream: Connection,
        *,
        publish_timeout_seconds: float,
    ) -> None:
        self._connections = (publish, consume, stream)
        self._publisher = Sender(publish, confirms=True)
        self._streamer = Sender(stream, confirms=False)
        self._timeout = publish_timeout_seconds
        self._consumptions: list[Consumption] = []
        self._working: set[asyncio.Task[Any]] = set()
        self._one_at_a_time = asyncio.Lock()
        # Never one id twice: aiormq tells returned messages apart by it.
        self._message_prefix = secrets.token_hex(6)
        self._message_numbers = itertools.count()

    async def start(self) -> None:
        """Open the channels to send on."""
        await self._publisher.start()
        await self._streamer.start()

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure these shared queues, `control` and `events` exist."""
        await self._apart(lambda: self._declare_all(queues))

    async def _declare_all(self, queues: Sequence[Queue]) -> None:
        publish = self._connections[0]
        with bus_errors("declaring queues"):
            channel = await publish.channel()
            try:
                await channel.exchange_declare(
                    CONTROL_EXCHANGE, exchange_type="fanout", durable=True
                )
                await channel.exchange_declare(EVENTS_EXCHANGE, exchange_type="topic", durable=True)
                for queue in queues:
                    await _declare(channel, queue)
            finally:
                await channel.close()

    async def publish(
        self,
        queue: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        correlation_id: str | None = None,
    ) -> None:
        """Store a message; returns when the broker has confirmed it."""
        properties = Basic.Properties(
            delivery_mode=PERSISTENT,
            message_id=f"{self._message_prefix}-{next(self._message_numbers)}",
            headers=dict(headers) if headers else None,
            correlation_id=correlation_id,
        )
        confirmation = asyncio.get_running_loop().create_future()
        outgoing = Outgoing("", queue, body, properties, confirmation)
        self._publisher.put(outgoing)
        try:
            async with asyncio.timeout(self._timeout):
                await confirmation
        except PublishError as error:
            raise Unroutable(f"there is no queue {queue!r}") from error
        except DeliveryError as error:
            raise QueueFull(f"queue {queue!r} refused the message: it is full") from error
        except TimeoutError as error:
            if outgoing.channel is None:
                raise BusUnavailable("RabbitMQ takes no messages; nothing was sent") from error
            raise PublishUnknown(f"no confirm within {self._timeout:g} s") from error
        finally:
            self._publisher.forget(outgoing)

    async def stream(
        self, queue: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send without waiting for anything."""
        await self._send("", queue, body, headers)

    async def broadcast(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a copy to every `control.*` queue."""
        await self._send(CONTROL_EXCHANGE, "", body, headers)

    async def emit(self, routing_key: str, body: bytes) -> None:
        """Tell the watchers of `events`."""
        await self._send(EVENTS_EXCHANGE, routing_key, body, None)

    async def consume(self, queue: Queue, handler: Handler, *, prefetch: int) -> Consumption:
        """Take messages from a shared queue, or from an exclusive one of this connection."""
        binding = Binding(CONTROL_EXCHANGE, "") if queue.name.startswith("control.") else None
        return await self._consume(queue, handler, prefetch, binding)

    async def watch(self, queue: Queue, pattern: str, handler: Handler) -> Consumption:
        """Take events whose routing key matches the topic pattern."""
        return await self._consume(
            queue, handler, WATCH_PREFETCH, Binding(EVENTS_EXCHANGE, pattern)
        )

    async def depth(self, queue: str) -> Depth | None:
        """The present depth, asked on a fresh channel; None if there is no such queue."""
        return await self._apart(lambda: self._ask_depth(queue), others_wait_seconds=_HANGS_SECONDS)

    async def _ask_depth(self, queue: str) -> Depth | None:
        consume = self._connections[1]  # the one that a memory alarm does not block
        with bus_errors(f"asking for the depth of {queue!r}"):
            channel = await consume.channel()
            try:
                found = await channel.queue_declare(queue, passive=True)
            except ChannelNotFoundEntity:
                return None
            except ChannelLockedResource as error:
                raise BusError(f"queue {queue!r} is exclusive to another connection") from error
            finally:
                await channel.close()
        return Depth(ready=found.message_count or 0, consumers=found.consumer_count or 0)

    async def aclose(self) -> None:
        """Cancel consumers and close; what was not settled is handed out again elsewhere."""
        for consumption in self._consumptions:
            await consumption.abandon()
        self._consumptions.clear()
        for task in self._working:
            task.cancel()
        await self._publisher.aclose()
        await self._streamer.aclose()
        await asyncio.gather(*(connection.aclose() for connection in self._connections))

    async def _apart(
        self, work: Callable[[], Awaitable[T]], *, others_wait_seconds: float = CONNECT_SECONDS
    ) -> T:
        """Work on a channel of its own in a task that its caller's cancellation does not reach.

        A channel that is closed while it is being opened takes the whole connection with it; so
        does the answer to a missing queue, where several come at once and aiormq drops its
        acknowledgement of one. Hence one after the other; but a queue that does not answer must not
        hold up the others, so they wait only for so long.
        """

        async def bounded() -> T:
            with bus_errors("waiting for an answer of RabbitMQ"):
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await work()

        async def alone() -> T:
            async with self._one_at_a_time:
                working = self._start(bounded())
                await asyncio.wait({working}, timeout=others_wait_seconds)
            return await working

        return await asyncio.shield(self._start(alone()))

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # else asyncio complains where the caller waits no longer

    async def _send(
        self, exchange: str, key: str, body: bytes, headers: Mapping[str, str] | None
    ) -> None:
        properties = Basic.Properties(
            delivery_mode=TRANSIENT, headers=dict(headers) if headers else None
        )
        self._streamer.put(Outgoing(exchange, key, body, properties))
        await self._streamer.relax()

    async def _consume(
        self, queue: Queue, handler: Handler, prefetch: int, binding: Binding | None
    ) -> Consumption:
        consume = self._connections[1]
        consumption = Consumption(consume, queue, handler, prefetch=prefetch, binding=binding)
        await consumption.start()
        self._consumptions.append(consumption)
        return consumption


async def _declare(channel: Channel, queue: Queue) -> None:
    try:
        await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments()))
        if queue.events is not None:
            await channel.queue_bind(queue.name, EVENTS_EXCHANGE, queue.events)
    except ChannelPreconditionFailed as error:
        raise BusError(
            f"queue {queue.name!r} exists with other arguments: {error}; "
            f"delete it or give it the arguments {queue.arguments()}"
        ) from error
