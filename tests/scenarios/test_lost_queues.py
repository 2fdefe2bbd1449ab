"""Somebody deletes or replaces queues while several clients ask (B17, B18, B19, B21)."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest

from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.stack import Stack, until
from queue_schemas import topology
from tests.forking import launch
from tests.scenarios.load import (
    MODEL,
    QUICK,
    Load,
    nothing_was_lost_or_applied_twice,
    query,
    queues_drain,
    record_agrees,
)

OTHER = MODEL | {"name": "other"}


@pytest.fixture
def vhost(local_rabbitmq: LocalRabbit) -> Iterator[str]:
    vhost = f"test-{secrets.token_hex(6)}"
    local_rabbitmq.add_vhost(vhost)
    yield vhost
    local_rabbitmq.delete_vhost(vhost)


@pytest.fixture
def stack(
    tmp_path: Path, migrated_url: str, local_rabbitmq: LocalRabbit, vhost: str
) -> Iterator[Stack]:
    models = {"models": [MODEL, OTHER]}
    stack = Stack(
        tmp_path, migrated_url, local_rabbitmq.url(vhost), models, dict(QUICK), launch=launch
    )
    yield stack
    stack.close()
    print(stack.logs())


async def delete(stack: Stack, queue: topology.Queue) -> None:
    async with await aio_pika.connect(stack.rabbitmq_url) as operator:
        await (await operator.channel()).queue_delete(queue.name)


async def test_queues_that_are_deleted_under_load_come_back_with_their_consumers(
    stack: Stack,
) -> None:
    await stack.start(mill=2)
    async with Load(stack) as load:
        await load.until_answered(4)
        for queue in (topology.subtasks("mill"), topology.RESULTS, topology.WORKERS):
            await delete(stack, queue)
            await load.until_answered(8)
    load.assert_all_right(28)
    await nothing_was_lost_or_applied_twice(stack, 28)
    await record_agrees(stack, load.chats)
    await queues_drain(stack, consumers=2)


async def test_a_queue_that_was_replaced_by_a_strange_one_harms_no_other_model(
    stack: Stack, local_rabbitmq: LocalRabbit, vhost: str
) -> None:
    await stack.start(mill=2)
    other = topology.subtasks("other")
    async with Load(stack) as load:
        await load.until_answered(4)
        await delete(stack, other)
        async with await aio_pika.connect(stack.rabbitmq_url) as operator:
            await (await operator.channel()).declare_queue(other.name, durable=True)
        cut = ("close_all_connections", "--vhost", vhost, "test")
        await asyncio.to_thread(local_rabbitmq.rabbitmqctl, *cut)
        refused = stack.start_worker("other")
        await load.until_answered(12)
    load.assert_all_right(16)
    await queues_drain(stack, consumers=2)
    assert await asyncio.to_thread(refused.popen.wait, 60) == 1
    assert f"queue '{other.name}' exists with other arguments" in refused.text()


async def test_a_stream_whose_tokens_queue_is_deleted_has_every_word_once(
    stack: Stack, local_rabbitmq: LocalRabbit, vhost: str
) -> None:
    await stack.start(mill=2)
    async with Load(stack, clients=4) as load:
        await load.until_answered(4)
        rows = await query(stack, "SELECT DISTINCT reply_to FROM millrace.requests")
        [tokens] = [row[0] for row in rows]

        async def in_the_middle() -> bool:
            return any(len(chat.text.split()) in range(2, 8) for chat in load.open)

        for _ in range(3):
            await until(in_the_middle, 60)
            await asyncio.to_thread(local_rabbitmq.rabbitmqctl, "delete_queue", "-p", vhost, tokens)
            await load.until_answered(6)
    load.assert_all_right(22)
    await nothing_was_lost_or_applied_twice(stack, 22)
    await record_agrees(stack, load.chats)
