"""The bus of one process: the same promises as RabbitMQ's, without a server.

One `MemoryBroker` is shared; a `MemoryBus` is one connection to it. Everything happens on one
event loop, so nobody sees a step half done.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field

import structlog

from bus.protocol import BusError, BusUnavailable, Depth, Handler, QueueFull, Unroutable
from queue_schemas.topology import Queue

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Message:
    body: bytes
    headers: Mapping[str, str]
    delivery_count: int = 0


@dataclass(eq=False, slots=True)
class _MemoryQueue:
    broker: "MemoryBroker"
    spec: Queue
    owner: "MemoryBus | None" = None
    pattern: str | None = None
    ready: deque[_Message] = field(default_factory=deque)
    consumers: deque["MemoryConsumer"] = field(default_factory=deque)

    def put(self, message: _Message) -> None:
        if len(self.ready) >= self.spec.max_length:
            if not self.spec.exclusive and self.spec.events is None:
                raise QueueFull(f"queue {self.spec.name!r} is full: {self.spec.max_length}")
            self.ready.popleft()
        self.ready.append(message)
        self.hand_out()

    def hand_out(self) -> None:
        while self.ready and (consumer := self._next_with_room()):
            consumer.take(self.ready.popleft())

    def give_back(self, messages: Sequence[_Message]) -> None:
        """Return messages to the head in their order; beyond the limit, dead-letter them."""
        limit = self.spec.delivery_limit
        for message in reversed(messages):
            message.delivery_count += 1
            if limit is not None and message.delivery_count > limit:
                self.dead_letter(message)
            else:
                self.ready.appendleft(message)
        self.hand_out()

    def dead_letter(self, message: _Message) -> None:
        target = self.broker.queues.get(self.spec.dead_letter_to or "")
        if target is not None:
            target.ready.append(_Message(message.body, message.headers))
            target.hand_out()

    def _next_with_room(self) -> "MemoryConsumer | None":
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.has_room:
                return consumer
        return None


class MemoryBroker:
    """The queues that all connections share."""

    def __init__(self) -> None:
        self.queues: dict[str, _MemoryQueue] = {}
        self._faults: deque[tuple[BusError, bool]] = deque()

    def inject(self, error: BusError, *, stored: bool) -> None:
        """Let the next publish raise `error`, with its message stored all the same or not."""
        self._faults.append((error, stored))

    def next_fault(self) -> tuple[BusError | None, bool]:
        """What the next publish has to raise, and whether to store its message."""
        return self._faults.popleft() if self._faults else (None, True)

    def ensure(
        self, spec: Queue, owner: "MemoryBus | None" = None, pattern: str | None = None
    ) -> _MemoryQueue:
        """The queue of that name, made now if there is none."""
        fresh = _MemoryQueue(self, spec, owner, pattern)
        queue = self.queues.setdefault(spec.name, fresh)
        if queue.owner is not owner:
            raise BusError(f"queue {spec.name!r} is exclusive to another connection")
        if queue.spec != spec:
            raise BusError(
                f"queue {spec.name!r} exists with other arguments: {queue.spec.arguments()}, "
                f"not {spec.arguments()}; delete it or use the same arguments everywhere"
            )
        return queue

    def discard(self, queue: _MemoryQueue) -> None:
        """Delete a queue with all that is in it."""
        if self.queues.get(queue.spec.name) is queue:
            del self.queues[queue.spec.name]
        queue.ready.clear()

    def fan_out(self, routing_key: str | None, body: bytes, headers: Mapping[str, str]) -> None:
        """Put a copy into every queue that watches this key; without a key, into `control.*`."""
        for queue in tuple(self.queues.values()):
            if routing_key is None:
                wanted = queue.spec.name.startswith("control.")
            else:
                wanted = queue.pattern is not None and matches(queue.pattern, routing_key)
            if wanted:
                queue.put(_Message(body, headers))


class MemoryDelivery:
    """A message in a consumer's hands."""

    def __init__(self, consumer: "MemoryConsumer", message: _Message) -> None:
        self._consumer = consumer
        self._queue = consumer.queue
        self.message = message
        self.delivery_count = message.delivery_count
        self.settled = False

    @property
    def queue(self) -> str:
        """The queue it was taken from."""
        return self._queue.spec.name

    @property
    def body(self) -> bytes:
        """The message."""
        return self.message.body

    @property
    def headers(self) -> Mapping[str, object]:
        """Headers as the publisher set them."""
        return self.message.headers

    async def ack(self) -> None:
        """Done with it."""
        if self._settle():
            self._queue.hand_out()

    async def retry(self) -> None:
        """Hand it out again."""
        if self._settle():
            self._queue.give_back([self.message])

    async def reject(self) -> None:
        """Dead-letter it."""
        if self._settle():
            self._queue.dead_letter(self.message)
            self._queue.hand_out()

    def _settle(self) -> bool:
        if self.settled:
            raise BusError(f"a delivery of {self.queue!r} was settled twice")
        self.settled = True
        return self._consumer.let_go(self)


class MemoryConsumer:
    """A running consumption of one connection."""

    def __init__(self, queue: _MemoryQueue, handler: Handler, prefetch: int) -> None:
        self.queue = queue
        self._handler = handler
        self._prefetch = prefetch
        self._cancelled = False
        self._in_hand: dict[MemoryDelivery, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._attach()

    @property
    def active(self) -> bool:
        """Whether messages can come now."""
        return self in self.queue.consumers

    @property
    def has_room(self) -> bool:
        """Whether the prefetch allows one more."""
        return len(self._in_hand) < self._prefetch

    def take(self, message: _Message) -> None:
        """Hand a message to the handler, in a task of its own."""
        delivery = MemoryDelivery(self, message)
        self._in_hand[delivery] = None
        # What is bound to the sender's task (names for its log lines, its span) is not the
        # handler's, as it would not be in another process.
        handling = self._handle(delivery)
        task = asyncio.get_running_loop().create_task(handling, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def let_go(self, delivery: MemoryDelivery) -> bool:
        """Whether the delivery was still ours to settle."""
        if delivery not in self._in_hand:
            return False
        del self._in_hand[delivery]
        return True

    async def cancel(self) -> None:
        """Stop new deliveries; those in hand can still be settled."""
        if not self._cancelled:
            self._cancelled = True
            self._detach()

    def lose_connection(self) -> set[asyncio.Task[None]]:
        """Cancel the handlers and give everything back; returns the tasks that are ending."""
        if not self._cancelled:
            self._detach()
        messages = [delivery.message for delivery in self._in_hand]
        self._in_hand.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if not self.queue.spec.exclusive:
            self.queue.give_back(messages)
        return tasks

    def resume(self) -> None:
        """Consume again after the connection came back."""
        if not self._cancelled:
            old = self.queue
            self.queue = old.broker.ensure(old.spec, old.owner, old.pattern)
            self._attach()

    def _attach(self) -> None:
        self.queue.consumers.append(self)
        self.queue.hand_out()

    def _detach(self) -> None:
        self.queue.consumers.remove(self)
        if self.queue.spec.exclusive and not self.queue.consumers:
            self.queue.broker.discard(self.queue)

    async def _handle(self, delivery: MemoryDelivery) -> None:
        try:
            await self._handler(delivery)
        except Exception:
            log.exception("delivery_failed", queue=delivery.queue)
            if not delivery.settled:
                await delivery.retry()


class MemoryBus:
    """One connection to a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._consumers: list[MemoryConsumer] = []
        self._closed = False

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure these shared queues exist."""
        self._require_connection()
        for queue in queues:
            self._broker.ensure(queue, pattern=queue.events)

    async def publish(
        self,
        queue: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        correlation_id: str | None = None,
    ) -> None:
        """Store a message."""
        await asyncio.sleep(0)  # as any broker would, let the others run
        self._require_connection()
        error, stored = self._broker.next_fault()
        if stored:
            target = self._broker.queues.get(queue)
            if target is None:
                raise Unroutable(f"there is no queue {queue!r}")
            target.put(_Message(body, dict(headers or {})))
        if error is not None:
            raise error

    async def stream(
        self, queue: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send without waiting for anything."""
        await asyncio.sleep(0)
        target = self._broker.queues.get(queue)
        if target is not None and not self._closed:
            try:
                target.put(_Message(body, dict(headers or {})))
            except QueueFull:
                log.debug("stream_dropped", queue=queue)

    async def broadcast(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a copy to every `control.*` queue."""
        await asyncio.sleep(0)
        if not self._closed:
            self._broker.fan_out(None, body, dict(headers or {}))

    async def emit(self, routing_key: str, body: bytes) -> None:
        """Tell the watchers of `events`."""
        await asyncio.sleep(0)
        if not self._closed:
            self._broker.fan_out(routing_key, body, {})

    async def consume(self, queue: Queue, handler: Handler, *, prefetch: int) -> MemoryConsumer:
        """Take messages from a shared queue, or from an exclusive one of this connection."""
        return self._consume(queue, None, handler, prefetch)

    async def watch(self, queue: Queue, pattern: str, handler: Handler) -> MemoryConsumer:
        """Take events whose routing key matches the topic pattern."""
        return self._consume(queue, pattern, handler, prefetch=100)

    async def depth(self, queue: str) -> Depth | None:
        """The present depth."""
        self._require_connection()
        found = self._broker.queues.get(queue)
        return Depth(len(found.ready), len(found.consumers)) if found else None

    async def break_connection(self) -> None:
        """Lose the connection and come back at once, as a network fault would have it."""
        await self._lose_connection()
        for consumer in self._consumers:
            consumer.resume()

    async def aclose(self) -> None:
        """Close; what was not settled is handed out again elsewhere."""
        self._closed = True
        await self._lose_connection()
        self._consumers.clear()

    def _consume(
        self, queue: Queue, pattern: str | None, handler: Handler, prefetch: int
    ) -> MemoryConsumer:
        self._require_connection()
        owner = self if queue.exclusive else None
        consumer = MemoryConsumer(self._broker.ensure(queue, owner, pattern), handler, prefetch)
        self._consumers.append(consumer)
        return consumer

    async def _lose_connection(self) -> None:
        ending: set[asyncio.Task[None]] = set()
        for consumer in self._consumers:
            ending |= consumer.lose_connection()
        current = asyncio.current_task()
        await asyncio.gather(*(t for t in ending if t is not current), return_exceptions=True)

    def _require_connection(self) -> None:
        if self._closed:
            raise BusUnavailable("this connection is closed")


def matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic pattern fits: `*` is one word, `#` any number of words."""
    return _words_match(pattern.split("."), routing_key.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[i:]) for i in range(len(words) + 1))
    return bool(words) and pattern[0] in {"*", words[0]} and _words_match(pattern[1:], words[1:])
