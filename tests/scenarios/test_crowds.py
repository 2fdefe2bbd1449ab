"""Many clients at once: at a master that stops, and at one that refuses (B44, B46)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from millrace.chaos.stack import Stack, until
from tests import servers
from tests.scenarios.conftest import MakeStack
from tests.scenarios.load import (
    MODEL,
    QUICK,
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
WAITING = "SELECT count(*) FROM millrace.subtasks WHERE state IN ('ready', 'queued')"


def a_model(slots: int, tokens_per_second: int) -> dict[str, Any]:
    options = MODEL["options"] | {"tokens_per_second": tokens_per_second}
    return MODEL | {"slots": slots, "options": options}


async def test_fifty_streams_of_a_master_that_stops_each_end_once_and_their_requests_go_on(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(a_model(slots=STREAMS, tokens_per_second=3), **QUICK)
    stack.settings["MILLRACE_DRAIN_SECONDS"] = "0.5"
    await stack.start(masters=2, mill=1)
    one, other = stack.masters
    chats = [Chat(f"flour-{number}", streams=True) for number in range(STREAMS)]
    async with client(stack) as http:
        assert stack.url == one.url
        asking = [asyncio.create_task(send_over(http, chat)) for chat in chats]

        async def all_have_begun() -> bool:
            return all(chat.text for chat in chats)

        await until(all_have_begun, 20)
        one.terminate()
        await asyncio.gather(*asking)
    assert {(chat.code, chat.ends) for chat in chats} == {("server_draining", 1)}
    assert await asyncio.to_thread(one.popen.wait, 15) == 0

    async def all_answered() -> bool:
        return not await query(stack, "SELECT 1 FROM millrace.requests WHERE finished_at IS NULL")

    await until(all_answered, 20)
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


@pytest.fixture
async def crowd(make_stack: MakeStack) -> AsyncIterator[tuple[Stack, list[Insistent]]]:
    """An installation with room for few, and many who want in."""
    stack = make_stack(a_model(slots=4, tokens_per_second=65), **QUICK)
    stack.settings["MILLRACE_MAX_BACKLOG"] = str(BACKLOG)
    await stack.start(mill=2)
    async with client(stack) as http:
        yield stack, [Insistent(http, number) for number in range(CLIENTS)]


async def test_two_hundred_clients_that_insist_are_let_in_as_fast_as_they_can_be_served(
    crowd: tuple[Stack, list[Insistent]], postgres_url: str
) -> None:
    stack, clients = crowd
    # So that how long an answer takes is known, and those who wait are told the truth.
    first = [Chat(f"first-{number}", streams=False) for number in range(8)]
    await asyncio.gather(*(send(stack, chat) for chat in first))
    async with servers.no_connections(postgres_url, stack.database_url):
        insisting = [asyncio.create_task(each.run()) for each in clients]

        async def all_refused() -> bool:
            return all(each.refusals for each in clients)

        await until(all_refused, 20)
    most = 0
    while not all(task.done() for task in insisting):
        [row] = await query(stack, WAITING)
        most = max(most, row[0])
        await asyncio.sleep(0.05)  # between two looks
    await asyncio.gather(*insisting)
    # What is being stored at the moment is counted a little later; a busy machine lets in slowly.
    assert BACKLOG / 4 < most <= 2 * BACKLOG, "as many wait as may"
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
