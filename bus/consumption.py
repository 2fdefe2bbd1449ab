"""Taking messages from one queue, on a channel of its own, for as long as anybody wants."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import structlog
from aio_pika.exceptions import (
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelLockedResource

from bus.connection import RECONNECT_SECONDS, Connection, bus_errors
from bus.protocol import DELETION_SECONDS, BusError, Handler
from queue_schemas.topology import Queue

log = structlog.get_logger(__name__)

DELIVERY_COUNT_HEADER = "x-delivery-count"


@dataclass(frozen=True)
class Binding:
    """How an exclusive queue is fed."""

    exchange: str
    pattern: str


class RabbitDelivery:
    """A message in a consumer's hands."""

    __slots__ = ("_consumption", "_message", "settled")

    def __init__(self, consumption: "Consumption", message: DeliveredMessage) -> None:
        self._consumption = consumption
        self._message = message
        self.settled = False

    @property
    def queue(self) -> str:
        """The queue it was taken from."""
        return self._consumption.queue.name

    @property
    def body(self) -> bytes:
        """The message."""
        return self._message.body

    @property
    def headers(self) -> Mapping[str, object]:
        """Headers as the publisher set them, and those that dead-lettering adds."""
        headers = self._message.header.properties.headers or {}
        return {key: value for key, value in headers.items() if key != DELIVERY_COUNT_HEADER}

    @property
    def delivery_count(self) -> int:
        """How often it was handed out before."""
        count = (self._message.header.properties.headers or {}).get(DELIVERY_COUNT_HEADER, 0)
        # Only quorum queues count; of the others, all we know is that it was handed out once.
        return max(count, int(bool(self._message.redelivered))) if isinstance(count, int) else 0

    async def ack(self) -> None:
        """Done with it."""
        if channel := self._settle():
            with contextlib.suppress(ChannelInvalidStateError):
                await channel.basic_ack(self._message.delivery_tag or 0, wait=False)

    async def retry(self) -> None:
        """Hand it out again."""
        await self._reject(requeue=True)

    async def reject(self) -> None:
        """Dead-letter it."""
        await self._reject(requeue=False)

    async def _reject(self, *, requeue: bool) -> None:
        if channel := self._settle():
            tag = self._message.delivery_tag or 0
            with contextlib.suppress(ChannelInvalidStateError):
                await channel.basic_reject(tag, requeue=requeue, wait=False)

    def _settle(self) -> Channel | None:
        """The channel to tell, unless the message is somebody else's by now."""
        if self.settled:
            raise BusError(f"a delivery of {self.queue!r} was settled twice")
        self.settled = True
        self._consumption.let_go(self)
        channel = cast(Channel, self._message.channel)
        return None if channel.is_closed else channel


class Consumption:
    """A running consumption; resumes on a new channel whenever the old one is lost."""

    def __init__(
        self,
        connection: Connection,
        queue: Queue,
        handler: Handler,
        *,
        prefetch: int,
        binding: Binding | None = None,
    ) -> None:
        self.queue = queue
        self._connection = connection
        self._handler = handler
        self._prefetch = prefetch
        self._binding = binding
        self._in_hand: set[RabbitDelivery] = set()
        self._wake = asyncio.Event()
        self._cancelled = False
        self._stopped_by_broker = False
        self._channel: Channel | None = None
        self._tag = ""
        self._keeper: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether the broker hands out messages to it."""
        channel = self._channel
        open_ = channel is not None and not channel.is_closed
        return open_ and not (self._cancelled or self._stopped_by_broker)

    async def start(self) -> None:
        """Begin. Raises BusError where the queue cannot be consumed."""
        await self._open()
        self._keeper = asyncio.create_task(self._keep())

    async def cancel(self) -> None:
        """Stop new deliveries; those in hand can still be settled."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._channel is not None and not self._channel.is_closed:
            try:
                with bus_errors(f"cancelling the consumer of {self.queue.name!r}"):
                    await self._channel.basic_cancel(self._tag)
            except BusError as error:
                log.debug("consumer_already_gone", queue=self.queue.name, error=str(error))
        self._wake.set()

    async def abandon(self) -> None:
        """Stop looking after it; the connection is about to be closed."""
        self._cancelled = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    def let_go(self, delivery: RabbitDelivery) -> None:
        """A delivery was settled."""
        self._in_hand.discard(delivery)
        if self._cancelled and not self._in_hand:
            self._wake.set()

    async def _keep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            channel = self._channel
            lost = self._stopped_by_broker or channel is None or channel.is_closed
            if self._cancelled and (lost or not self._in_hand):
                await self._close(channel)
                return
            if lost:
                await self._close(channel)
                await self._reopen()

    async def _reopen(self) -> None:
        self._in_hand.clear()
        if self._stopped_by_broker and not self.queue.exclusive:
            await asyncio.sleep(DELETION_SECONDS)  # others consume it, and may not know yet
        why_not = ""
        while not self._cancelled:
            try:
                await self._open()
            except BusError as error:
                if str(error) != why_not:  # not every second of an outage
                    why_not = str(error)
                    log.warning("consumer_not_resumed", queue=self.queue.name, error=why_not)
                await asyncio.sleep(RECONNECT_SECONDS)
            else:
                return

    async def _open(self) -> None:
        name = self.queue.name
        with bus_errors(f"beginning to consume {name!r}"):
            try:
                await self._consume(declare=self.queue.exclusive)
            except ChannelNotFoundEntity:
                await self._consume(declare=True)
            except ChannelLockedResource as error:
                raise BusError(f"queue {name!r} is exclusive to another connection") from error
            except ChannelPreconditionFailed as error:
                raise BusError(f"queue {name!r} exists with other arguments: {error}") from error

    async def _consume(self, *, declare: bool) -> None:
        channel = await self._connection.channel()
        try:
            if declare:
                await self._declare(channel)
            await channel.basic_qos(prefetch_count=self._prefetch)
            channel.on_consumer_cancel_callbacks.add(self._on_broker_cancel)
            self._stopped_by_broker = False
            consuming = await channel.basic_consume(self.queue.name, self._deliver)
        except BaseException:
            await self._close(channel)
            raise
        self._channel, self._tag = channel, consuming.consumer_tag or ""
        channel.closing.add_done_callback(lambda _: self._wake.set())

    async def _declare(self, channel: Channel) -> None:
        queue = self.queue
        await channel.queue_declare(
            queue.name,
            durable=not queue.exclusive,
            exclusive=queue.exclusive,
            auto_delete=queue.exclusive,
            arguments=dict(queue.arguments()),
        )
        if self._binding is not None:
            await channel.queue_bind(
                queue.name, self._binding.exchange, routing_key=self._binding.pattern
            )

    async def _deliver(self, message: DeliveredMessage) -> None:
        delivery = RabbitDelivery(self, message)
        self._in_hand.add(delivery)
        try:
            await self._handler(delivery)
        except Exception:
            log.exception("delivery_failed", queue=self.queue.name)
            if not delivery.settled:
                await delivery.retry()

    def _on_broker_cancel(self, _: object) -> None:
        self._stopped_by_broker = True
        self._wake.set()

    async def _close(self, channel: Channel | None) -> None:
        """Close in a task that nobody's cancellation reaches; a dead channel may complain."""
        if channel is not None and not channel.is_closed:
            await asyncio.wait({asyncio.ensure_future(channel.close())})
