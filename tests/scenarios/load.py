"""Several clients that ask without a pause, and what must be true of every answer and in the end.

Half of the questions are streamed, half are answered as a whole. Each has an answer that only it
can have, in numbered words, so that text which is lost, repeated or somebody else's is seen.
"""

import asyncio
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import asyncpg
import httpx2

from bus.rabbitmq import connect
from millrace.chaos.stack import Stack, until
from queue_schemas import topology
from tests.integration.master.mill import Streamed, payload

WORDS = 12
NUMBERED = " ".join(f"w{n}" for n in range(WORDS))
MODEL: dict[str, Any] = {
    "name": "mill",
    "provider": "scripted",
    "slots": 2,
    "max_workers": 2,
    "options": {"text": "{prompt} " + NUMBERED, "tokens_per_second": 12},
}
QUICK = {
    "MILLRACE_HEARTBEAT_SECONDS": "1",
    "MILLRACE_WORKER_HEARTBEAT_SECONDS": "1",
    "MILLRACE_LEASE_SECONDS": "4",
    "MILLRACE_SWEEP_SECONDS": "0.2",
    "MILLRACE_FORGOTTEN_SECONDS": "3",
    "MILLRACE_FLEET_SECONDS": "0.5",
    "MILLRACE_KEEP_ALIVE_SECONDS": "1",
}
PATIENT = QUICK | {"MILLRACE_LEASE_SECONDS": "60", "MILLRACE_FORGOTTEN_SECONDS": "60"}
"""Where each must run once: a worker that stands still for a while is not taken for lost."""
_LONGEST_WAIT_SECONDS = 1.0
"""However long a refused client is told to wait: the tests have no time."""


@dataclass
class Chat:
    """What one client got for one question."""

    question: str
    streams: bool
    status: int = 0
    request: str = ""
    text: str = ""
    code: str = ""
    ends: int = 0
    """Terminal events of a stream."""
    pings: int = 0
    """Keep-alives of a stream."""
    retry_after: float = 0.0
    """Seconds until a refused client is to come again."""

    def assert_right(self) -> None:
        """Its own answer, whole and once, under one terminal event."""
        assert (self.status, self.code) == (200, ""), self
        assert self.text == f"{self.question} {NUMBERED}", self
        assert self.ends == 1, self


def client(stack: Stack) -> httpx2.AsyncClient:
    """One client of many at once; its connections are younger than a server would close them."""
    limits = httpx2.Limits(max_connections=500, keepalive_expiry=1)
    headers = {"Authorization": f"Bearer {stack.key}"}
    return httpx2.AsyncClient(
        base_url=stack.url, headers=headers, limits=limits, timeout=60, trust_env=False
    )


async def send(stack: Stack, chat: Chat, url: str | None = None) -> None:
    """Ask the question, and fill in the chat while the answer comes."""
    async with stack.http(url) as http:
        await send_over(http, chat)


async def send_over(http: httpx2.AsyncClient, chat: Chat) -> None:
    """The same with a client that has been made: making one costs more than a question."""
    body = {
        "model": "mill",
        "stream": chat.streams,
        "messages": [{"role": "user", "content": chat.question}],
    }
    async with http.stream("POST", "/v1/chat/completions", json=body, timeout=90) as response:
        chat.status = response.status_code
        if not chat.streams or response.status_code != 200:
            await response.aread()
            answer = response.json()
            chat.retry_after = int(response.headers.get("retry-after-ms", 0)) / 1000
            chat.request = response.headers.get("x-millrace-request-id", "")
            chat.code = answer.get("error", {}).get("code", "")
            chat.ends = 1
            if not chat.code:
                chat.text = answer["choices"][0]["message"]["content"]
            return
        chat.request = response.headers["x-millrace-request-id"]
        seen = Streamed(response.status_code, response.headers, [])
        async for line in response.aiter_lines():
            chat.pings += line.startswith(":")
            if (frame := payload(line)) is not None:
                seen.frames.append(frame)
                chat.text = seen.text
    if seen.ends_once():
        chat.ends = 1
    if not seen.finish_reasons:
        chat.code = str(seen.error["code"])


@dataclass
class Load:
    """Clients that ask one question after the other for as long as the block runs.

    A client that is refused with one of `refusals` comes again soon; every other failure counts.
    """

    stack: Stack
    clients: int = 6
    refusals: Collection[int] = ()
    chats: list[Chat] = field(default_factory=list)
    """Those that were accepted, in the order in which they ended."""
    refused: list[Chat] = field(default_factory=list)
    _open: dict[str, Chat] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[Any]"] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._http = client(self.stack)
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self._end(failed=kind is not None)
        finally:
            await self._http.aclose()

    async def _end(self, *, failed: bool) -> None:
        self._stop.set()
        if failed:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            return
        async with asyncio.timeout(120):
            await asyncio.gather(*self._tasks)

    async def until_answered(self, more: int, seconds: float = 60) -> None:
        """Wait until so many more questions have their answers."""
        wanted = len(self.chats) + more

        async def answered() -> bool:
            self._raise_failures()
            return len(self.chats) >= wanted

        await until(answered, seconds)

    async def until_refused(self, status: int, seconds: float = 60) -> None:
        """Send newcomers, half a second apart, until one is refused; the others wait."""

        async def refused() -> bool:
            number = next(self._numbers)
            coming = asyncio.create_task(self._ask(number))
            await asyncio.wait({coming}, timeout=0.5)
            if not coming.done():
                self._tasks.append(coming)
                return False
            chat = coming.result()
            assert chat.status == status, chat
            assert chat.retry_after > 0, chat
            return True

        await until(refused, seconds)

    async def last(self, seconds: float) -> None:
        """Let the fault that has just begun last for so long; clients that fail are noticed."""
        end = asyncio.get_running_loop().time() + seconds

        async def over() -> bool:
            self._raise_failures()
            return asyncio.get_running_loop().time() >= end

        await until(over, seconds + 60)

    @property
    def open(self) -> Sequence[Chat]:
        """The questions whose answers are awaited."""
        return list(self._open.values())

    def assert_all_right(self, least: int) -> None:
        """Every accepted question has its own answer."""
        assert len(self.chats) >= least
        for chat in self.chats:
            chat.assert_right()
        for chat in self.refused:
            assert chat.status in self.refusals, chat
            assert chat.request == "", "it was refused and stored all the same"

    async def _client(self) -> None:
        while not self._stop.is_set():
            chat = await self._ask(next(self._numbers))
            if chat.status in self.refusals:
                await self._pause()

    async def _ask(self, number: int) -> Chat:
        chat = Chat(f"flour-{number}", number % 2 == 0)
        self._open[chat.question] = chat
        await send_over(self._http, chat)
        del self._open[chat.question]
        kept = self.refused if chat.status in self.refusals else self.chats
        kept.append(chat)
        return chat

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                await self._stop.wait()
        except TimeoutError:
            return

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()


async def query(stack: Stack, sql: str, *values: object) -> list[asyncpg.Record]:
    """What the database has."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        return list(await connection.fetch(sql, *values))
    finally:
        await connection.close()


async def until_states(stack: Stack, *wanted: str, seconds: float = 60) -> None:
    """Wait until there are subtasks in each of these states at once."""

    async def all_there() -> bool:
        rows = await query(stack, "SELECT DISTINCT state FROM millrace.subtasks")
        return {row[0] for row in rows} >= set(wanted)

    await until(all_there, seconds)


async def each_has_one_result(stack: Stack, least: int) -> None:
    """Every request is completed, every subtask has one result that counts.

    Also those of whose commit nobody heard, because the database went away in the middle of it:
    clients were refused, and a sweep finds their rows once they are no longer held.
    """

    async def all_ended() -> bool:
        return not await query(stack, "SELECT 1 FROM millrace.requests WHERE finished_at IS NULL")

    await until(all_ended, 60)
    rows = await query(
        stack,
        """SELECT s.state, q.state,
                  count(a.*) FILTER (WHERE a.applied AND a.outcome = 'completed')
             FROM millrace.requests q JOIN millrace.subtasks s ON s.request_id = q.id
             LEFT JOIN millrace.attempts a ON a.subtask_id = s.id
            GROUP BY s.id, s.state, q.state""",
    )
    assert len(rows) >= least
    assert {tuple(row) for row in rows} == {("succeeded", "completed", 1)}


async def nothing_was_lost_or_applied_twice(stack: Stack, least: int) -> None:
    """That, and nothing waits."""
    await each_has_one_result(stack, least)

    async def all_published() -> bool:
        return await query(stack, "SELECT 1 FROM millrace.outbox") == []

    await until(all_published, 60)


async def record_agrees(
    stack: Stack,
    chats: Sequence[Chat],
    failed: Sequence[Chat] = (),
    refused: Sequence[Chat] = (),
) -> None:
    """What clients were shown is what the database has, and it has no other request.

    Except for `refused`: a database that dies between a commit and its answer has the request of
    a client that was told to come again. Such a one was answered as all the others were.
    """
    rows = await query(stack, "SELECT id, state, answer FROM millrace.requests")
    stored = {str(row["id"]): (row["state"], row["answer"]) for row in rows}
    told = {chat.request: ("completed", chat.text) for chat in chats}
    told |= {chat.request: ("failed", None) for chat in failed}
    assert {request: stored.get(request) for request in told} == told
    unheard = {f"{chat.question} {NUMBERED}" for chat in refused}
    for request in stored.keys() - told.keys():
        state, answer = stored[request]
        assert (state, answer in unheard) == ("completed", True), (request, state, answer)
        unheard.remove(answer)


async def queues_drain(stack: Stack, *, consumers: int, dead: int = 0) -> None:
    """The broker is as it is when nobody asks: no message waits, all consumers are there."""
    bus = await connect(stack.rabbitmq_url, name="test")

    async def idle() -> bool:
        work, results, dead_ones, aside = [
            await bus.depth(name)
            for name in (
                topology.subtasks("mill").name,
                topology.RESULTS.name,
                topology.DEAD.name,
                topology.QUARANTINE.name,
            )
        ]
        assert work is not None
        assert results is not None
        assert dead_ones is not None
        assert aside is not None
        waiting = (work.ready, results.ready, dead_ones.ready, aside.ready)
        return waiting == (0, 0, dead, 0) and work.consumers == consumers

    try:
        await until(idle, 60)
    finally:
        await bus.aclose()
