"""The two implementations of the bus, each with the faults that the suite provokes."""

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from bus.memory import MemoryBroker, MemoryBus
from bus.protocol import Bus, PublishUnknown
from bus.rabbitmq import RabbitBus, connect
from millrace.chaos.tcp_proxy import TcpProxy
from tests.integration.bus.world import World, impatient


class MemoryWorld:
    """Connections to one `MemoryBroker`."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._broker = MemoryBroker()
        self._stack = stack

    async def connect(self) -> MemoryBus:
        bus = MemoryBus(self._broker)
        self._stack.push_async_callback(bus.aclose)
        return bus

    async def break_connection(self, bus: Bus) -> None:
        assert isinstance(bus, MemoryBus)
        await bus.break_connection()

    def lose_confirms(self, bus: Bus) -> None:
        assert isinstance(bus, MemoryBus)
        self._broker.inject(PublishUnknown("the confirm got lost"), stored=True)

    def restore_confirms(self, bus: Bus) -> None:
        assert isinstance(bus, MemoryBus)


class RabbitWorld:
    """Connections to one virtual host, each through a proxy of its own."""

    def __init__(self, url: str, stack: contextlib.AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self._proxies: dict[RabbitBus, TcpProxy] = {}
        self._impatience = contextlib.ExitStack()

    async def connect(self) -> RabbitBus:
        parts = urlsplit(self._url)
        proxy = TcpProxy(parts.hostname or "", parts.port or 5672)
        await self._stack.enter_async_context(proxy)
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}"
        bus = await connect(urlunsplit(parts._replace(netloc=netloc)), name="conformance")
        self._stack.push_async_callback(bus.aclose)
        self._stack.callback(proxy.release)
        self._proxies[bus] = proxy
        return bus

    async def break_connection(self, bus: Bus) -> None:
        assert isinstance(bus, RabbitBus)
        self._proxies[bus].cut()

    def lose_confirms(self, bus: Bus) -> None:
        assert isinstance(bus, RabbitBus)
        self._proxies[bus].hold_replies()
        self._impatience.enter_context(impatient(bus))

    def restore_confirms(self, bus: Bus) -> None:
        assert isinstance(bus, RabbitBus)
        self._impatience.close()
        self._proxies[bus].release()


@pytest.fixture(params=["memory", "rabbitmq"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Where the suite connects."""
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryWorld(stack)
        else:
            yield RabbitWorld(request.getfixturevalue("rabbitmq_url"), stack)


@pytest.fixture
async def bus(world: World) -> Bus:
    """One connection."""
    return await world.connect()
