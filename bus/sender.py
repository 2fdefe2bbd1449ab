"""Writing messages to one channel, many at a time.

Callers put messages into a line; one task takes what has gathered, writes it with one system
call and waits until the socket has it. That costs a fraction of a library publish per message,
and it always knows whether a message that failed had left.
"""

import asyncio
import struct
from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import pamqp.frame
import structlog
from aiormq import Channel
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from bus.connection import RECONNECT_SECONDS, Connection, bus_errors
from bus.protocol import BusError, BusUnavailable, PublishUnknown

log = structlog.get_logger(__name__)

BATCH_BYTES = 256 * 1024
LONGEST_LINE = 20_000
"""Unconfirmed messages that may wait; beyond, the oldest are dropped."""


@dataclass(eq=False, slots=True)
class Outgoing:
    """A message on its way. Without `confirmation` nobody waits for its fate."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties
    confirmation: "asyncio.Future[object] | None" = None
    channel: Channel | None = None
    """Set as soon as it may have left."""


class Sender:
    """Sends on a channel of its own, and opens another one when that is lost."""

    def __init__(self, connection: Connection, *, confirms: bool) -> None:
        self._connection = connection
        self._confirms = confirms
        self._line: deque[Outgoing] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._channel: Channel | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the first channel."""
        with bus_errors("opening a channel"):
            self._channel = await self._connection.channel(confirms=self._confirms)
        self._keeper = asyncio.create_task(self._keep(self._channel))

    def put(self, outgoing: Outgoing) -> None:
        """Send a message soon."""
        if self._confirms:
            if self._channel is None or self._channel.is_closed:
                raise BusUnavailable("there is no connection to RabbitMQ at the moment")
        elif len(self._line) >= LONGEST_LINE:
            self._line.popleft()
        self._line.append(outgoing)
        self._wake.set()
        self._idle.clear()

    def forget(self, outgoing: Outgoing) -> None:
        """Its caller waits no longer; a return that comes late is nobody's."""
        if outgoing.channel is not None and outgoing.properties.message_id is not None:
            outgoing.channel.message_id_delivery_tag.pop(outgoing.properties.message_id, None)

    async def relax(self) -> None:
        """Let the writer run, for callers that never wait for anything."""
        if len(self._line) > LONGEST_LINE // 100:
            await asyncio.sleep(0)

    async def aclose(self, *, within_seconds: float = 1.0) -> None:
        """Write what waits, and stop."""
        if self._line:
            await asyncio.wait({asyncio.ensure_future(self._idle.wait())}, timeout=within_seconds)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    async def _keep(self, channel: Channel) -> None:
        try:
            while True:
                await self._serve(channel)
                self._channel = None
                self._fail_what_was_sent(channel)
                self._fail_what_waits()
                channel = self._channel = await self._reopen()
        finally:
            self._fail_what_was_sent(channel)
            self._fail_what_waits()

    async def _serve(self, channel: Channel) -> None:
        """Write until the channel is closed."""
        writing = asyncio.create_task(self._write_all(channel))
        closing = channel.closing
        try:
            await asyncio.wait({writing, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writing.cancel()
            await asyncio.wait({writing})
        if not writing.cancelled() and (error := writing.exception()):
            log.warning("channel_lost", error=repr(error))
            await asyncio.wait({asyncio.ensure_future(channel.close())})

    async def _reopen(self) -> Channel:
        why_not = ""
        while True:
            try:
                with bus_errors("opening a channel"):
                    return await self._connection.channel(confirms=self._confirms)
            except BusError as error:
                if str(error) != why_not:  # not every second of an outage
                    why_not = str(error)
                    log.warning("channel_not_opened", error=why_not)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _write_all(self, channel: Channel) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._line:
                payload = self._take_batch(channel)
                written = channel.create_future()
                await channel.write_queue.put(ChannelFrame(payload, False, written))
                await written
            self._idle.set()

    def _take_batch(self, channel: Channel) -> bytes:
        batch = bytearray()
        while self._line and len(batch) < BATCH_BYTES:
            outgoing = self._line.popleft()
            confirmation = outgoing.confirmation
            if confirmation is not None and confirmation.done():
                continue  # its caller gave up
            try:
                batch += _marshal(outgoing, channel, mandatory=self._confirms)
            except (ValueError, TypeError, OverflowError, struct.error) as error:
                _fail(confirmation, BusError(f"not a possible message: {error}"))
                continue
            outgoing.channel = channel
            if confirmation is not None:
                channel.delivery_tag += 1
                channel.confirmations[channel.delivery_tag] = confirmation
                tags = channel.message_id_delivery_tag
                tags[outgoing.properties.message_id or ""] = channel.delivery_tag
        return bytes(batch)

    def _fail_what_was_sent(self, channel: Channel) -> None:
        for confirmation in channel.confirmations.values():
            _fail(confirmation, PublishUnknown("the connection was lost before the confirm came"))
        channel.confirmations.clear()

    def _fail_what_waits(self) -> None:
        if self._confirms:
            for outgoing in self._line:
                _fail(outgoing.confirmation, BusUnavailable("the connection to RabbitMQ was lost"))
            self._line.clear()


def _marshal(outgoing: Outgoing, channel: Channel, *, mandatory: bool) -> bytes:
    number, body = channel.number, outgoing.body
    header = ContentHeader(body_size=len(body), properties=outgoing.properties)
    frames = [
        _publish_frame(number, outgoing.exchange, outgoing.routing_key, mandatory),
        pamqp.frame.marshal(header, number),
    ]
    size = channel.max_content_size
    frames += [
        pamqp.frame.marshal(ContentBody(body[start : start + size]), number)
        for start in range(0, len(body), size)
    ]
    return b"".join(frames)


@lru_cache(maxsize=1024)
def _publish_frame(number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return pamqp.frame.marshal(method, number)


def _fail(confirmation: "asyncio.Future[object] | None", error: BusError) -> None:
    if confirmation is not None and not confirmation.done():
        confirmation.set_exception(error)
