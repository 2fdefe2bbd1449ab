"""The network between a process and the broker swallows everything, or cuts (B04, B20)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pytest

from millrace.chaos.stack import Stack
from millrace.chaos.tcp_proxy import TcpProxy
from tests.scenarios.conftest import MakeStack
from tests.scenarios.load import (
    MODEL,
    QUICK,
    Load,
    nothing_was_lost_or_applied_twice,
    queues_drain,
    record_agrees,
)

HEARTBEAT_SECONDS = 1
SILENCE_SECONDS = 5
"""Longer than both sides wait for a sign of life, and than a lease."""


@dataclass
class Links:
    """An installation whose masters and whose first worker reach the broker over a proxy each."""

    stack: Stack
    master: TcpProxy
    worker: TcpProxy


@pytest.fixture
async def links(make_stack: MakeStack) -> AsyncIterator[Links]:
    # Where the machine stands still as well, one subtask may be hit several times.
    stack = make_stack(MODEL, **QUICK | {"MILLRACE_MAX_LOSSES": "10"})
    parts = urlsplit(stack.rabbitmq_url)

    def through(port: int | None) -> str:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
        query = f"heartbeat={HEARTBEAT_SECONDS}"
        return urlunsplit(parts._replace(netloc=netloc, query=query))

    async with contextlib.AsyncExitStack() as proxies:
        master, worker = [
            await proxies.enter_async_context(TcpProxy(parts.hostname or "", parts.port or 5672))
            for _ in range(2)
        ]
        stack.rabbitmq_url = through(master.port)
        stack.worker_rabbitmq_url = through(worker.port)
        await stack.start(mill=1)
        stack.rabbitmq_url = stack.worker_rabbitmq_url = through(parts.port)
        stack.start_worker("mill")
        await stack.until_workers(2)
        yield Links(stack, master, worker)
        master.release()
        worker.release()
        await asyncio.to_thread(stack.close)  # the proxies work in this loop


@pytest.mark.parametrize("side", ["worker", "master"])
async def test_a_link_to_the_broker_that_falls_silent_or_is_cut_costs_nobody_an_answer(
    links: Links, side: str
) -> None:
    link: TcpProxy = getattr(links, side)
    async with Load(links.stack) as load:
        await load.until_answered(4)
        link.hold()
        await load.last(SILENCE_SECONDS)
        link.release()
        await load.until_answered(8)
        link.cut()
        await load.until_answered(8)
        link.hold_replies()  # what is sent arrives, and no confirm comes back
        await load.last(SILENCE_SECONDS)
        link.cut()
        link.release()
        await load.until_answered(8)
    load.assert_all_right(28)
    await nothing_was_lost_or_applied_twice(links.stack, 28)
    await record_agrees(links.stack, load.chats)
    await queues_drain(links.stack, consumers=2)
