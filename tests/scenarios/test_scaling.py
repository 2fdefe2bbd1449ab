"""A burst on one machine: its workers become as many as it has subtasks, and then one again."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

import httpx2
from sqlalchemy.ext.asyncio import AsyncEngine

from db.depths import Depth, depths
from db.engine import create_engine
from millrace.chaos.stack import Process, Stack, until
from millrace.scaling.autoscaler import Autoscaler, running
from millrace.scaling.processes import WorkerProcesses, environment
from millrace.scaling.settings import ScalingSettings
from queue_schemas.registry import Model, Registry
from tests.scenarios.conftest import MakeStack
from tests.scenarios.load import (
    MODEL,
    NUMBERED,
    PATIENT,
    Chat,
    client,
    nothing_was_lost_or_applied_twice,
    query,
    queues_drain,
    send_over,
)

MOST = 4
SHORT = 8
ENDLESS = "endless"
ENTRY: dict[str, Any] = MODEL | {
    "slots": 1,
    "max_workers": MOST,
    "options": MODEL["options"]
    | {"rules": [{"contains": ENDLESS, "text": " ".join([NUMBERED] * 300)}]},
}
SCALING = ScalingSettings(
    seconds=0.2, down_window_seconds=1, down_workers=1, down_period_seconds=0.5
)


class Crew:
    """The workers that an autoscaler has started, all of them."""

    def __init__(self, stack: Stack) -> None:
        self.processes: dict[str, Process] = {}
        self._stack = stack
        registry = Registry.model_validate({"models": [ENTRY]})
        self._commands = WorkerProcesses(lambda: registry, stack.folder / "up")
        self.autoscaler = partial(Autoscaler, lambda: registry, launch=self._launch)

    def _launch(self, model: Model, name: str) -> Any:
        assert environment({}, model)["MILLRACE_WORKER_DRAIN_SECONDS"] == "630"
        arguments = self._commands.arguments(model, name)
        self.processes[name] = self._stack._spawn(name, arguments)
        return self.processes[name].popen

    @property
    def alive(self) -> list[str]:
        return [name for name, each in self.processes.items() if each.popen.poll() is None]


async def look(engine: AsyncEngine) -> Mapping[str, Depth]:
    async with engine.connect() as connection:
        return await depths(connection)


@contextlib.asynccontextmanager
async def scaled(stack: Stack) -> AsyncGenerator[Crew]:
    """An installation whose workers are as many as its backlog asks for."""
    (stack.folder / "up").mkdir()
    await stack.start(masters=1)
    engine = create_engine(stack.database_url, pool_size=1)
    crew = Crew(stack)
    try:
        async with running(crew.autoscaler(partial(look, engine), settings=SCALING)):
            yield crew
    finally:
        await engine.dispose()


async def live(stack: Stack) -> list[str]:
    workers = (await stack.get("/v1/workers"))["data"]
    return [worker["name"] for worker in workers if worker["state"] == "live"]


@contextlib.asynccontextmanager
async def endless(http: httpx2.AsyncClient) -> AsyncGenerator[str]:
    """A question whose answer goes on until its client leaves; yields the request's id."""
    body = {"model": "mill", "stream": True, "messages": [{"role": "user", "content": ENDLESS}]}
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        yield answer.headers["x-millrace-request-id"]


async def test_a_burst_is_followed_up_and_down_and_no_busy_worker_is_ended(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(ENTRY, **PATIENT)
    async with scaled(stack) as crew:

        async def as_many(number: int) -> bool:
            return len(crew.alive) == len(await live(stack)) == number

        await until(partial(as_many, 1), 60)
        chats = [Chat(f"flour-{n}", streams=n % 2 == 0) for n in range(SHORT)]
        async with (
            client(stack) as http,
            endless(http) as last,
            contextlib.AsyncExitStack() as rest,
        ):
            for _ in range(MOST - 1):
                await rest.enter_async_context(endless(http))
            asking = [asyncio.create_task(send_over(http, chat)) for chat in chats]
            await until(partial(as_many, MOST), 60)
            await rest.aclose()  # their clients leave
            await asyncio.gather(*asking)
            await until(partial(as_many, 1), 60)
            [subtask] = (await stack.record(last))["subtasks"]
            assert (subtask["state"], subtask["attempt"]) == ("running", 1)
            assert crew.alive == [subtask["worker"]], "a busy worker went, an idle one stayed"
        await stack.ended(last)
        for chat in chats:
            chat.assert_right()

        await each_ran_once(stack)
        ended = [each for name, each in crew.processes.items() if name not in crew.alive]
        assert [each.popen.returncode for each in ended] == [0] * (MOST - 1)
        await queues_drain(stack, consumers=1)
    assert crew.alive == []
    assert len(crew.processes) == MOST


async def each_ran_once(stack: Stack) -> None:
    """In the ledger, by whomever; those that were cancelled aside."""
    await query(stack, "DELETE FROM millrace.requests WHERE state = 'cancelled'")
    await nothing_was_lost_or_applied_twice(stack, SHORT)
    rows = await query(stack, "SELECT subtask_id, attempt, outcome FROM millrace.attempts")
    assert Counter((row["attempt"], row["outcome"]) for row in rows) == {(1, "completed"): SHORT}
    assert len({row["subtask_id"] for row in rows}) == SHORT
    [redelivered] = await query(stack, "SELECT sum(delivery) FROM millrace.subtasks")
    assert redelivered[0] == 0
