"""The broker is away, blocked or full while several clients ask (B05, B06, B07, B10)."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from millrace.chaos.local_rabbitmq import LocalRabbit
from millrace.chaos.stack import Stack, until
from tests.forking import launch
from tests.scenarios.load import (
    MODEL,
    QUICK,
    Chat,
    Load,
    nothing_was_lost_or_applied_twice,
    query,
    queues_drain,
    record_agrees,
)

OUTAGE_SECONDS = 30
BOOT_SECONDS = 6
SOON_REFUSED = {"MILLRACE_MAX_UNPUBLISHED_SECONDS": "3"}


@pytest.fixture
def stack(tmp_path: Path, migrated_url: str, local_rabbitmq: LocalRabbit) -> Iterator[Stack]:
    vhost = f"test-{secrets.token_hex(6)}"
    local_rabbitmq.add_vhost(vhost)
    settings = QUICK | SOON_REFUSED
    stack = Stack(
        tmp_path,
        migrated_url,
        local_rabbitmq.url(vhost),
        {"models": [MODEL]},
        settings,
        launch=launch,
    )
    yield stack
    stack.close()
    print(stack.logs())
    local_rabbitmq.delete_vhost(vhost)


async def all_is_well(stack: Stack, load: Load, least: int) -> None:
    """Clients, database and broker agree that nothing was lost and nothing came twice."""
    load.assert_all_right(least)
    await nothing_was_lost_or_applied_twice(stack, least)
    await record_agrees(stack, load.chats)
    await queues_drain(stack, consumers=2)


async def until_kept_alive(load: Load, early: Sequence[Chat], least: int) -> None:
    """Streams that were open before and wait still are not silent."""

    async def pinged() -> bool:
        pings = [chat.pings for chat in early if chat.streams and chat in load.open]
        assert pings
        return min(pings) >= least

    await until(pinged, 60)


async def test_a_broker_that_is_away_for_half_a_minute_costs_nobody_an_answer(
    stack: Stack, local_rabbitmq: LocalRabbit
) -> None:
    # To stop it takes seconds as well, and some who come after that are to be accepted.
    stack.settings["MILLRACE_MAX_UNPUBLISHED_SECONDS"] = "20"
    await stack.start(mill=2)
    async with Load(stack, refusals={503}) as load:
        await load.until_answered(4)
        await asyncio.to_thread(local_rabbitmq.stop)
        began = time.monotonic()
        early = load.open
        await load.until_refused(503)
        await load.last(OUTAGE_SECONDS - BOOT_SECONDS - (time.monotonic() - began))
        await until_kept_alive(load, early, OUTAGE_SECONDS // 2)
        assert len(load.open) > load.clients, "newcomers of the first seconds were accepted"
        await asyncio.to_thread(local_rabbitmq.start)
        await load.until_answered(8)
    assert load.refused
    await all_is_well(stack, load, 12)


async def test_a_broker_that_is_killed_and_comes_back_costs_nobody_an_answer(
    stack: Stack, local_rabbitmq: LocalRabbit
) -> None:
    await stack.start(mill=2)
    async with Load(stack, refusals={503}) as load:
        await load.until_answered(4)
        await asyncio.to_thread(local_rabbitmq.kill)
        await asyncio.to_thread(local_rabbitmq.start)
        await load.until_answered(8)
    await all_is_well(stack, load, 12)


async def test_a_broker_short_of_memory_slows_down_and_loses_nothing(
    stack: Stack, local_rabbitmq: LocalRabbit
) -> None:
    await stack.start(mill=2)
    watermark = "set_vm_memory_high_watermark"
    async with Load(stack, refusals={503}) as load:
        await load.until_answered(4)
        await asyncio.to_thread(local_rabbitmq.rabbitmqctl, watermark, "0.00001")
        try:
            early = load.open
            await until_kept_alive(load, early, 2)
            await load.until_refused(503)
        finally:
            await asyncio.to_thread(local_rabbitmq.rabbitmqctl, watermark, "0.6")
        await load.until_answered(8)
    await all_is_well(stack, load, 12)


async def test_what_a_full_queue_refuses_waits_in_the_database(
    stack: Stack, local_rabbitmq: LocalRabbit
) -> None:
    await stack.start(mill=2)
    vhost = stack.rabbitmq_url.rsplit("/", 1)[1]
    for name, pattern in (("work", "^subtasks"), ("results", "^results$")):
        policy = ["set_policy", "-p", vhost, "--apply-to", "queues"]
        limit = json.dumps({"max-length": 1})
        await asyncio.to_thread(local_rabbitmq.rabbitmqctl, *policy, name, pattern, limit)
    async with Load(stack, clients=12) as load:

        async def refused() -> bool:
            return bool(
                await query(stack, "SELECT 1 FROM millrace.outbox WHERE last_error LIKE '%full%'")
            )

        await until(refused, 60)
        await load.until_answered(8)
    await all_is_well(stack, load, 12)
