"""The proxy hurts what passes, and heals."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from millrace.chaos.tcp_proxy import TcpProxy


@pytest.fixture
async def proxy() -> AsyncGenerator[TcpProxy, None]:
    """A proxy in front of a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(1000):
            writer.write(received)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as made:
        yield made


async def said(proxy: TcpProxy, *words: bytes) -> tuple[bytes, float]:
    """What comes back for these words, and after how long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    began = time.monotonic()
    for word in words:
        writer.write(word)
        await writer.drain()
    answer = await reader.readexactly(sum(map(len, words)))
    taken = time.monotonic() - began
    writer.transport.abort()
    return answer, taken


async def test_a_delay_holds_each_way_and_keeps_the_order(proxy: TcpProxy) -> None:
    proxy.delay(0.2)
    answer, seconds = await said(proxy, b"one ", b"two ", b"three")
    assert answer == b"one two three"
    assert seconds >= 0.4


async def test_release_ends_a_delay(proxy: TcpProxy) -> None:
    proxy.delay(600)
    proxy.release()
    answer, seconds = await said(proxy, b"one")
    assert answer == b"one"
    assert seconds < 60


@pytest.mark.parametrize("hold", [TcpProxy.hold, TcpProxy.hold_replies])
async def test_what_was_held_passes_after_release(proxy: TcpProxy, hold: object) -> None:
    assert callable(hold)
    hold(proxy)
    asking = asyncio.create_task(said(proxy, b"one"))
    done, _ = await asyncio.wait({asking}, timeout=0.2)
    assert not done
    proxy.release()
    assert (await asking)[0] == b"one"
