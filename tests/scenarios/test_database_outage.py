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
    send,
)

OUTAGE_SECONDS = 10
LONG = "Tell the whole story of the mill."
STORY = " ".join(f"story{n}" for n in range(150))
"""It takes 25 s: to stop a server takes some of them, and then it has to go on."""
SLOW = MODEL | {
    "options": MODEL["options"]
    | {"tokens_per_second": 6, "rules": [{"contains": LONG, "text": STORY}]}
}


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
        going = Chat(LONG, streams=True)

        async def in_the_middle() -> bool:
            return len(going.text.split()) >= 2

        await load.until_answered(4)
        for crash in (postgres.stop_immediately, postgres.kill):
            await asyncio.to_thread(crash)
            await asyncio.to_thread(postgres.start)
            await load.until_answered(6)
        asking = asyncio.create_task(send(stack, going))
        await until(in_the_middle, 60)
        await asyncio.to_thread(postgres.stop_immediately)
        shown = len(going.text)
        await load.until_refused(503)
        await load.last(OUTAGE_SECONDS)
        assert len(going.text) > shown, "the stream did not go on"
        await asyncio.to_thread(postgres.start)
        await load.until_answered(8)
        await asking
    load.assert_all_right(24)
    assert (going.text, going.ends, going.code) == (STORY, 1, "")
    await nothing_was_lost_or_applied_twice(stack, 24)
    await record_agrees(stack, [*load.chats, going], refused=load.refused)
    await queues_drain(stack, consumers=2)
