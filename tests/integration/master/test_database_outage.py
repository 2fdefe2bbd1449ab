"""The database is away for longer than a lease, and comes back."""

import asyncio
import contextlib

import httpx2
import pytest

from master import running
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script
from tests.servers import no_connections

LEASE_SECONDS = 0.7


async def test_workers_that_could_not_be_heard_for_longer_than_a_lease_are_not_lost(
    make_mill: MakeMill, postgres_url: str
) -> None:
    slow = a_script(tokens=60, tokens_per_second=12, entry={"slots": 40})
    mill = await make_mill(slow, lease_seconds=LEASE_SECONDS)
    asked = [asyncio.create_task(mill.ask(f"Why {n}?")) for n in range(40)]

    async def all_run() -> bool:
        rows = await mill.rows("SELECT 1 FROM millrace.subtasks WHERE state = 'running'")
        return len(rows) == len(asked)

    await until(all_run, 10)
    async with no_connections(postgres_url, mill.database_url):
        await asyncio.sleep(3 * LEASE_SECONDS)  # the length of the outage, not a synchronisation
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    rows = await mill.rows("SELECT DISTINCT attempt, losses FROM millrace.subtasks")
    assert [tuple(row) for row in rows] == [(1, 0)]


async def test_a_client_that_leaves_during_the_outage_stops_its_engine_afterwards(
    make_mill: MakeMill, postgres_url: str
) -> None:
    mill = await make_mill(a_script(tokens=1000, tokens_per_second=20))
    async with contextlib.AsyncExitStack() as stack:
        async with mill.stream() as response:
            request = response.headers["x-millrace-request-id"]
            async for line in response.aiter_lines():
                if '"content"' in line:
                    break
            await stack.enter_async_context(no_connections(postgres_url, mill.database_url))

        async def has_left() -> bool:
            return len(mill.running.streams) == 0

        await until(has_left, 10)
        await asyncio.sleep(0.5)  # time in which the cancel fails; not a synchronisation
    record = await mill.until_state(request, "cancelled")
    assert record["error"]["code"] == "cancelled"
    await mill.idle()


async def test_a_client_that_left_during_the_outage_and_came_back_has_its_answer(
    make_mill: MakeMill, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_OUTAGE_SECONDS", 2.0)  # it comes back before the next try
    mill = await make_mill(a_script(tokens=60, tokens_per_second=12))
    headers = {"Idempotency-Key": "once"}
    body = mill.body(stream=True)
    async with contextlib.AsyncExitStack() as outage:
        async with mill.http.stream(
            "POST", "/v1/chat/completions", json=body, headers=headers
        ) as response:
            request = response.headers["x-millrace-request-id"]
            async for line in response.aiter_lines():
                if '"content"' in line:
                    break
            await outage.enter_async_context(no_connections(postgres_url, mill.database_url))

        async def has_left() -> bool:
            return len(mill.running.streams) == 0

        await until(has_left, 10)
        await asyncio.sleep(0.3)  # time in which the cancel fails; not a synchronisation

    async def again() -> httpx2.Response | None:
        answer = await mill.http.post("/v1/chat/completions", json=body, headers=headers)
        return answer if answer.status_code != 503 else None

    answer = await until(again, 10)
    assert answer.headers["x-millrace-request-id"] == request
    assert answer.text.endswith("data: [DONE]\n\n")
    assert (await mill.record(request))["state"] == "completed"
