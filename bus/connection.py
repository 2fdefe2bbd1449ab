"""One self-healing AMQP connection, and what its errors mean.

aio-pika brings the connection back; channels are opened afresh by whoever used them, so that one
queue that cannot be declared any more stops its own consumer and nobody else's.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import cast
from urllib.parse import urlsplit, urlunsplit

import aio_pika
from aio_pika.abc import AbstractRobustConnection
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ConnectionClosed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from aiormq import Channel
from yarl import URL

from bus.protocol import BusUnavailable

CONNECT_SECONDS = 10.0
RECONNECT_SECONDS = 1.0
HEARTBEAT_SECONDS = 15
FRAMES_BUFFERED = 1000


class NotABroker(BusUnavailable):
    """The URL names no broker: waiting helps nobody."""


class Connection:
    """A connection that comes back after it was lost."""

    def __init__(self, robust: AbstractRobustConnection) -> None:
        self._robust = robust

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel; waits while there is no connection."""
        await self._robust.ready()
        transport = self._robust.transport
        if transport is None:
            raise BusUnavailable("the connection to RabbitMQ is lost")
        channel = await transport.connection.channel(
            publisher_confirms=confirms,
            on_return_raises=confirms,
            frame_buffer_size=FRAMES_BUFFERED,
            timeout=CONNECT_SECONDS,
        )
        return cast(Channel, channel)

    @property
    def is_up(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._robust.connected.is_set()

    async def aclose(self) -> None:
        """Close for good."""
        await self._robust.close()


async def open_connection(url: str, name: str) -> Connection:
    """Connect. Raises `BusUnavailable` with the cause and the remedy."""
    if not _is_amqp(url):
        raise NotABroker(
            f"{redact(url)!r} is not a RabbitMQ URL: write amqp://user:password@host:5672/vhost"
        )
    try:
        target = URL(url)
        if "heartbeat" not in target.query:
            target = target.update_query(heartbeat=HEARTBEAT_SECONDS)
        robust = await aio_pika.connect_robust(
            target,
            timeout=CONNECT_SECONDS,
            reconnect_interval=RECONNECT_SECONDS,
            client_properties={"connection_name": name},
        )
    except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
        raise BusUnavailable(_why_not(url, error)) from error
    return Connection(robust)


@contextlib.contextmanager
def bus_errors(doing: str) -> Iterator[None]:
    """Make bus errors of the library's.

    When a connection dies, aiormq throws CancelledError at those who wait for it, although nobody
    cancelled them. The other way round, it answers a cancellation with the error of a channel that
    is closed at that moment, and with Python 3.11 even as if nothing had been.
    """
    before = _cancellations()
    try:
        yield
    except asyncio.CancelledError as error:
        if _cancellations() > before:
            raise
        raise BusUnavailable(f"the connection was lost while {doing}") from error
    except Exception as error:
        if _cancellations() > before:
            raise asyncio.CancelledError from error
        if isinstance(error, (*CONNECTION_EXCEPTIONS, TimeoutError)):
            raise BusUnavailable(f"RabbitMQ failed while {doing}: {error!r}") from error
        raise
    if _cancellations() > before:
        raise asyncio.CancelledError


def redact(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}"))


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _is_amqp(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"amqp", "amqps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        return False


def _why_not(url: str, error: BaseException) -> str:
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or 5672}"
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return (
            f"RabbitMQ at {place} refused the login of {parts.username or 'guest'!r}: "
            "check user and password in RABBITMQ_URL"
        )
    if isinstance(error, ConnectionClosed | InvalidFrameError):
        # aiormq says InvalidFrameError where the broker closes instead of opening the virtual host
        vhost = parts.path.removeprefix("/") or "/"
        return (
            f"RabbitMQ at {place} refused virtual host {vhost!r}: "
            "create it with `rabbitmqctl add_vhost` and grant the user access"
        )
    if isinstance(error, TimeoutError):
        return f"RabbitMQ at {place} did not answer in {CONNECT_SECONDS:g} s: is the address right?"
    return f"cannot reach RabbitMQ at {place} ({error}): is it running? check RABBITMQ_URL"
