"""A worker that is stopped in the middle of an answer, and goes on when nobody expects it (B12)."""

import asyncio
from collections.abc import Awaitable

import asyncpg
import pytest

from millrace.chaos.stack import Stack, until
from tests.scenarios.conftest import MakeStack
from tests.scenarios.load import (
    QUICK,
    Chat,
    nothing_was_lost_or_applied_twice,
    query,
    queues_drain,
    send,
)

WORDS = " ".join(f"w{n}" for n in range(80))
LASTING = "Why so slowly?"
SLOW = {
    "name": "mill",
    "provider": "scripted",
    "slots": 1,
    "max_workers": 2,
    "options": {
        "text": WORDS,
        "tokens_per_second": 30,
        # Both who begins and who goes on take seconds, in which things can happen to them.
        "faults": [{"kind": "slow", "contains": LASTING, "after_tokens": 6, "seconds": 0.1}],
    },
}


async def until_shown(chat: Chat, word: str) -> None:
    async def shown() -> bool:
        return word in chat.text.split()

    await until(shown, 60)


async def worker_of(stack: Stack, request: str) -> str:
    """Who has claimed it, as far as the master has heard of it."""
    [subtask] = (await stack.record(request))["subtasks"]
    return subtask["worker"] or ""


@pytest.mark.parametrize(
    ("heartbeat", "lease", "comes_late"),
    # Long enough for those who work on, when the whole machine stands still for a while.
    [(4, 60, 0), (60, 10, 1)],
    ids=["the broker notices", "only the lease ends"],
)
async def test_a_worker_that_freezes_and_wakes_up_changes_nothing_in_the_answer(
    make_stack: MakeStack, heartbeat: int, lease: int, comes_late: int
) -> None:
    stack = make_stack(SLOW, **QUICK | {"MILLRACE_LEASE_SECONDS": str(lease)})
    stack.rabbitmq_url += f"?heartbeat={heartbeat}"
    await stack.start(mill=2)
    chat = Chat(LASTING, streams=True)
    asking = asyncio.create_task(send(stack, chat))
    await until_shown(chat, "w3")

    async def claimed() -> str:
        return await worker_of(stack, chat.request)

    frozen = await until(claimed, 60)
    stack.worker(frozen).freeze()

    async def another_has_it() -> bool:
        return await worker_of(stack, chat.request) not in {"", frozen}

    await until(another_has_it, 60)
    shown = len(chat.text)

    async def goes_on() -> bool:
        return len(chat.text) > shown

    await until(goes_on, 60)
    stack.worker(frozen).thaw()
    await asking
    assert (chat.text, chat.ends, chat.code) == (WORDS, 1, "")
    record = await stack.ended(chat.request)
    assert (record["state"], record["answer"]) == ("completed", WORDS)
    assert record["subtasks"][0]["worker"] != frozen
    await queues_drain(stack, consumers=2)

    def results() -> Awaitable[list[asyncpg.Record]]:
        return query(stack, "SELECT applied FROM millrace.attempts WHERE worker = $1", frozen)

    # Where the broker has cut the connection, what is unfinished is dropped without a result.
    async def all_came() -> bool:
        return len(await results()) >= comes_late

    await until(all_came, 60)
    assert not any(row["applied"] for row in await results())
    await both_work(stack)
    await nothing_was_lost_or_applied_twice(stack, 3)


async def both_work(stack: Stack) -> None:
    """The one that woke up takes a question like anybody else."""
    names = {worker.name for worker in stack.processes if not worker.url}

    async def each_takes_one() -> bool:
        """Unless one of the two questions comes so late that the other worker is free again."""
        chats = [Chat("Why?", streams=True) for _ in range(2)]
        await asyncio.gather(*(send(stack, chat) for chat in chats))
        assert [chat.text for chat in chats] == [WORDS, WORDS]
        return {await worker_of(stack, chat.request) for chat in chats} == names

    await until(each_takes_one, 60)
