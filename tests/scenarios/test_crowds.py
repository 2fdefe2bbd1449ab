"""Many clients at once: at a master that stops, and at one that refuses (B44, B46)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx2
import pytest

from millrace.chaos.stack import Stack, until
from tests import servers
from tests.scenarios.conftest import MakeStack
from tests.scenarios.load import (
    MODEL,
    PATIENT,
    Chat,
    client,
    nothing_was_lost_or_applied_twice,
    query,
    queues_drain,
    record_agrees,
    send,
    send_over,
)

STREAMS = 50
CLIENTS = 200
BACKLOG = 20
SLOTS = 4
WORKERS = 2
ENDLESS = "for ever"
WAITING = "SELECT count(*) FROM millrace.subtasks WHERE state IN ('ready', 'queued')"
RUNNING = "SELECT count(*) FROM millrace.subtasks WHERE state = 'running'"
CANCELLED = "SELECT id FROM millrace.requests WHERE state = 'cancelled'"


def a_model(slots: int, tokens_per_second: float) -> dict[str, Any]:
    endless = {"kind": "slow", "contains": ENDLESS, "after_tokens": 1, "seconds": 60}
    paced = {"tokens_per_second": tokens_per_second, "faults": [endless]}
    options = MODEL["options"] | paced
    return MODEL | {"slots": slots, "options": options}


async def test_fifty_streams_of_a_master_that_stops_each_end_once_and_their_requests_go_on(
    make_stack: MakeStack,
) -> None:
    # An answer takes 26 s: the first one has not ended when the last one has begun.
    stack = make_stack(a_model(slots=STREAMS, tokens_per_second=0.5), **PATIENT)
    stack.settings["MILLRACE_DRAIN_SECONDS"] = "0.5"
    await stack.start(masters=2, mill=1)
    one, other = stack.masters
    chats = [Chat(f"flour-{number}", streams=True) for number in range(STREAMS)]
    async with client(stack) as http:
        assert stack.url == one.url
        asking = [asyncio.create_task(send_over(http, chat)) for chat in chats]

        async def all_have_begun() -> bool:
            return all(chat.text for chat in chats)

        await until(all_have_begun, 60)
        one.terminate()
        await asyncio.gather(*asking)
    assert {(chat.code, chat.ends) for chat in chats} == {("server_draining", 1)}
    assert await asyncio.to_thread(one.popen.wait, 60) == 0

    async def all_answered() -> bool:
        return not await query(stack, "SELECT 1 FROM millrace.requests WHERE finished_at IS NULL")

    await until(all_answered, 120)
    await nothing_was_lost_or_applied_twice(stack, STREAMS)
    rows = await query(stack, "SELECT id, answer FROM millrace.requests")
    answers = {str(row["id"]): row["answer"] for row in rows}
    assert all(answers[chat.request].startswith(chat.text) for chat in chats)
    assert stack.url == other.url
    assert answers == {chat.request: (await stack.record(chat.request))["answer"] for chat in chats}


class Insistent:
    """A client that comes again as often as it is refused, when it was told to."""

    def __init__(self, http: httpx2.AsyncClient, number: int) -> None:
        self.refusals: list[Chat] = []
        self.chat = Chat(f"flour-{number}", streams=number % 2 == 0)
        self._http = http

    async def run(self) -> None:
        while True:
            await send_over(self._http, self.chat)
            if self.chat.status not in {429, 503}:
                return
            assert self.chat.retry_after > 0, self.chat
            self.refusals.append(self.chat)
            await asyncio.sleep(self.chat.retry_after)
            self.chat = Chat(self.chat.question, self.chat.streams)

    @property
    def is_heard(self) -> bool:
        """Whether a master has said anything to the question, or nobody asks at the moment."""
        return self.chat.status > 0


@pytest.fixture
async def crowd(make_stack: MakeStack) -> AsyncIterator[tuple[Stack, list[Insistent]]]:
    """An installation with room for few, and many who want in."""
    stack = make_stack(a_model(slots=SLOTS, tokens_per_second=65), **PATIENT)
    stack.settings["MILLRACE_MAX_BACKLOG"] = str(BACKLOG)
    await stack.start(mill=WORKERS)
    async with client(stack) as http:
        yield stack, [Insistent(http, number) for number in range(CLIENTS)]


@contextlib.asynccontextmanager
async def all_slots_taken(stack: Stack) -> AsyncGenerator[None]:
    """Nobody is served while the block runs, however slowly the questions come in."""
    body = {"model": "mill", "stream": True, "messages": [{"role": "user", "content": ENDLESS}]}
    async with client(stack) as http, contextlib.AsyncExitStack() as streams:
        for _ in range(SLOTS * WORKERS):
            stream = http.stream("POST", "/v1/chat/completions", json=body)
            assert (await streams.enter_async_context(stream)).status_code == 200

        async def all_run() -> bool:
            [row] = await query(stack, RUNNING)
            return row[0] == SLOTS * WORKERS

        await until(all_run, 60)
        yield
        await streams.aclose()  # their clients leave

    async def none_is_left() -> bool:
        return len(await query(stack, CANCELLED)) == SLOTS * WORKERS

    await until(none_is_left, 60)
    await query(stack, f"DELETE FROM millrace.requests WHERE id IN ({CANCELLED})")


async def test_two_hundred_clients_that_insist_are_let_in_as_fast_as_they_can_be_served(
    crowd: tuple[Stack, list[Insistent]], postgres_url: str
) -> None:
    stack, clients = crowd
    # So that how long an answer takes is known, and those who wait are told the truth.
    first = [Chat(f"first-{number}", streams=False) for number in range(8)]
    await asyncio.gather(*(send(stack, chat) for chat in first))
    async with all_slots_taken(stack):
        async with servers.no_connections(postgres_url, stack.database_url):
            insisting = [asyncio.create_task(each.run()) for each in clients]

            async def all_refused() -> bool:
                return all(each.refusals for each in clients)

            await until(all_refused, 60)

        most = at_once = 0

        async def look() -> int:
            """How many wait; notes the most, and how many stood before the door at once."""
            nonlocal most, at_once
            [row] = await query(stack, WAITING)
            most = max(most, row[0])
            # Those who stream are half of all, and hear at once whether they were let in.
            unheard = sum(each.chat.streams and not each.is_heard for each in clients)
            at_once = max(at_once, 2 * unheard)
            return int(row[0])

        async def as_many_wait_as_may() -> bool:
            waiting = await look()
            told = any(chat.status == 429 for each in clients for chat in each.refusals)
            return told and waiting >= BACKLOG

        await until(as_many_wait_as_may, 60)
    while not all(task.done() for task in insisting):
        await look()
        await asyncio.sleep(0.05)  # between two looks
    await asyncio.gather(*insisting)
    # What is being stored at the moment is counted a little later. After a machine has stood
    # still, that is all who wanted in meanwhile.
    assert most <= BACKLOG + max(BACKLOG, at_once), "more wait than may"
    refusals = [chat for each in clients for chat in each.refusals]
    for status in (429, 503):
        told = [chat.retry_after for chat in refusals if chat.status == status]
        # How many are refused depends on how fast the machine is; that they are spread does not.
        assert told, f"nobody was refused with {status}"
        assert len(set(told)) > min(20, 0.8 * len(told)), "all were told to come back at once"
    for each in clients:
        each.chat.assert_right()
    await nothing_was_lost_or_applied_twice(stack, CLIENTS)
    await record_agrees(stack, [*first, *(each.chat for each in clients)])
    await queues_drain(stack, consumers=2)
