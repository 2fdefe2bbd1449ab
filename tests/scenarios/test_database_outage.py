"""Postgres itself crashes and is away while several clients ask (B31, B32, B33)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from db import migrate
from db.engine import create_engine
from millrace.chaos.local_postgres import LocalPostgres
from millrace.chaos.machine import Unavailable
from millrace.chaos.stack import Stack, until
from tests.forking import launch
from tests.scenarios.load import (
    MODEL,
    QUICK,
    Chat,
    Load,
    nothing_was_lost_or_applied_twice,
    queues_drain,
    record_agrees,
)

OUTAGE_SECONDS = 10
SLOW = MODEL | {"options": MODEL["options"] | {"tokens_per_second": 6}}


@pytest.fixture(scope="module")
def postgres() -> Iterator[LocalPostgres]:
    """A Postgres of this module's own: others would not like what happens to it."""
    try:
        with LocalPostgres() as server:
            yield server
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
async def stack(tmp_path: Path, postgres: LocalPostgres, rabbitmq_url: str) -> AsyncIterator[Stack]:
    engine = create_engine(postgres.url())
    await migrate.upgrade(engine)
    await engine.dispose()
    stack = Stack(
        tmp_path, postgres.url(), rabbitmq_url, {"models": [SLOW]}, dict(QUICK), launch=launch
    )
    await stack.start(mill=2)
    yield stack
    stack.close()
    print(stack.logs())


async def test_a_postgres_that_crashes_and_is_away_costs_no_accepted_question_its_answer(
    stack: Stack, postgres: LocalPostgres
) -> None:
    async with Load(stack, refusals={503}) as load:

        async def in_the_middle() -> Chat | None:
            begun = (chat for chat in load.open if len(chat.text.split()) in range(2, 5))
            return next(begun, None)

        await load.until_answered(4)
        for crash in (postgres.stop_immediately, postgres.kill):
            await asyncio.to_thread(crash)
            await asyncio.to_thread(postgres.start)
            await load.until_answered(6)
        going = await until(in_the_middle, 20)
        await asyncio.to_thread(postgres.stop_immediately)
        shown = len(going.text)
        await load.until_refused(503)
        await load.last(OUTAGE_SECONDS)
        assert len(going.text) > shown, "the stream did not go on"
        await asyncio.to_thread(postgres.start)
        await load.until_answered(8)
    load.assert_all_right(24)
    await nothing_was_lost_or_applied_twice(stack, 24)
    await record_agrees(stack, load.chats)
    await queues_drain(stack, consumers=2)
