"""What a bus promises. `tests/integration/bus/` runs one suite against every implementation.

A bus carries bytes; `queue_schemas.codec` makes messages of them. Four ways to send:

- `publish`: persistent, confirmed, to one queue. For work and for results.
- `stream`: unconfirmed and lossy, to one exclusive queue. For tokens.
- `broadcast`: a copy for every worker, on the `control` fanout.
- `emit`: an event for whoever watches, on the `events` topic exchange.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from queue_schemas.topology import QUARANTINE, Queue

DELETION_SECONDS = 1.0
"""How long a deleted queue is left alone before it is declared again.

RabbitMQ 3.10 tells consumers a moment later. If there is a queue of that name again by then, it
keeps them instead, and what it hands them they never get.
"""


class BusError(Exception):
    """Sending or consuming did not work."""


class Unroutable(BusError):
    """No such queue: the message was returned."""


class QueueFull(BusError):
    """The queue refused the message; nothing was stored."""


class PublishUnknown(BusError):
    """No confirm came in time. The message may or may not be stored: publish it again."""


class BusUnavailable(BusError):
    """There is no connection at the moment; nothing was sent."""


class Delivery(Protocol):
    """One message in a consumer's hands. Exactly one of ack, retry and reject settles it.

    Settling a delivery whose connection is gone does nothing: the broker has given the message
    to somebody else already, and correctness rests on guarded updates.
    """

    @property
    def queue(self) -> str:
        """The queue it was taken from."""

    @property
    def body(self) -> bytes:
        """The message."""

    @property
    def headers(self) -> Mapping[str, object]:
        """Headers as the publisher set them."""

    @property
    def delivery_count(self) -> int:
        """How often it was handed out before; 0 means certainly never."""

    async def ack(self) -> None:
        """Done with it."""

    async def retry(self) -> None:
        """Hand it out again; counts towards the queue's delivery limit."""

    async def reject(self) -> None:
        """Dead-letter it."""


Handler = Callable[[Delivery], Awaitable[None]]
"""Called as a task of its own for every delivery, up to `prefetch` at once.

It settles the delivery. If it raises, the error is logged and the delivery retried. It is
cancelled when the connection is lost, and then must not settle.
"""


class Consumer(Protocol):
    """A running consumption."""

    @property
    def active(self) -> bool:
        """Whether messages can come now: neither cancelled nor waiting for a connection."""

    async def cancel(self) -> None:
        """Stop new deliveries. Those in hand stay in hand and can still be settled."""


@dataclass(frozen=True)
class Depth:
    """How full a queue is. `ready` leaves out what consumers hold."""

    ready: int
    consumers: int


class Bus(Protocol):
    """A connection to the broker, self-healing after it was lost."""

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure these shared queues, `control` and `events` exist."""

    async def publish(
        self,
        queue: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        correlation_id: str | None = None,
    ) -> None:
        """Store a message; returns when the broker has confirmed it.

        Raises Unroutable, QueueFull, PublishUnknown or BusUnavailable.
        """

    async def stream(
        self, queue: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send without waiting for anything. Loss is normal and never raises."""

    async def broadcast(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a copy to every `control.*` queue. Loss is possible and never raises."""

    async def emit(self, routing_key: str, body: bytes) -> None:
        """Tell the watchers of `events`. Loss is possible and never raises."""

    async def consume(self, queue: Queue, handler: Handler, *, prefetch: int) -> Consumer:
        """Take messages from a shared queue, or from an exclusive queue that this call declares.

        `control.*` queues are bound to the `control` exchange.
        """

    async def watch(self, queue: Queue, pattern: str, handler: Handler) -> Consumer:
        """Take events whose routing key matches the topic pattern (`request.*`, `#`)."""

    async def depth(self, queue: str) -> Depth | None:
        """The present depth, never a cached one; None if there is no such queue."""

    async def aclose(self) -> None:
        """Cancel consumers and close; what was not settled is handed out again elsewhere."""


async def quarantine(bus: Bus, delivery: Delivery, reason: str) -> None:
    """Move an unreadable message to `quarantine`, with the reason, and settle it."""
    headers = {"x-millrace-reason": reason[:1000], "x-millrace-queue": delivery.queue}
    await bus.publish(QUARANTINE.name, delivery.body, headers)
    await delivery.ack()
