"""The database is away for longer than a lease, and comes back."""

import asyncio
import contextlib
from typing import Any

import asyncpg
import httpx2
import pytest

from master import running
from master.cancel import cancel
from master.sweep import Sweeper
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import a_script
from tests.integration.master.silence import LEASE_OVER, silence
from tests.servers import no_connections


class Sweeps:
    """The rounds of a sweep; to be made before its master."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failed = asyncio.Event()
        self.begun = 0
        """Those that found a database."""
        expire = Sweeper.expire_requests

        async def observed(sweeper: Sweeper) -> None:
            try:
                await expire(sweeper)
            except Exception:
                self.failed.set()
                raise
            self.begun += 1

        monkeypatch.setattr(Sweeper, "expire_requests", observed)

    async def whole_round(self) -> None:
        """Wait for one from its beginning to its end."""
        before = self.begun

        async def over() -> bool:  # the one after it has begun
            return self.begun >= before + 2

        await until(over, 30)


class FailedCancels:
    """The cancel of a client that left; after it failed, it goes on when the test says so."""

    def __init__(self) -> None:
        self.tried = 0
        self.failed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, *args: Any, **more: Any) -> bool:
        self.tried += 1
        try:
            return await cancel(*args, **more)
        except Exception:
            self.failed.set()
            await self.go_on.wait()
            raise


@pytest.mark.usefixtures("quick_to_look")
async def test_workers_that_could_not_be_heard_for_longer_than_a_lease_are_not_lost(
    make_mill: MakeMill, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = Sweeps(monkeypatch)
    gates = Gates(1)
    script = a_script(tokens=2, entry={"slots": 40})
    mill = await make_mill(script, provider=gates)
    asked = [asyncio.create_task(mill.ask(f"Why {n}?")) for n in range(40)]

    async def all_run() -> bool:
        rows = await mill.rows("SELECT 1 FROM millrace.subtasks WHERE state = 'running'")
        return len(rows) == len(asked)

    await until(all_run, 30)
    # Nobody hears a worker until the sweep has looked.
    async with silence(mill):
        own = await asyncpg.connect(mill.database_url)
        async with no_connections(postgres_url, mill.database_url, spared=own.get_server_pid()):
            await own.execute(LEASE_OVER)  # as if it had been away for that long
            await own.close()
            await asyncio.wait_for(sweeps.failed.wait(), 30)
        await sweeps.whole_round()
    gates.open("mill")
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    rows = await mill.rows("SELECT DISTINCT attempt, losses FROM millrace.subtasks")
    assert [tuple(row) for row in rows] == [(1, 0)]


async def test_a_client_that_leaves_during_the_outage_stops_its_engine_afterwards(
    make_mill: MakeMill, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancels = FailedCancels()
    cancels.go_on.set()
    monkeypatch.setattr(running, "cancel", cancels)
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

        await until(has_left, 30)
        await asyncio.wait_for(cancels.failed.wait(), 30)
    record = await mill.until_state(request, "cancelled")
    assert record["error"]["code"] == "cancelled"
    await mill.idle()


async def test_a_client_that_left_during_the_outage_and_came_back_has_its_answer(
    make_mill: MakeMill, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_OUTAGE_SECONDS", 0.01)
    cancels = FailedCancels()
    monkeypatch.setattr(running, "cancel", cancels)
    gates = Gates(5)
    mill = await make_mill(a_script(tokens=60), provider=gates)
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

        await asyncio.wait_for(cancels.failed.wait(), 30)

    async def again() -> httpx2.Response | None:
        answer = await mill.http.post("/v1/chat/completions", json=body, headers=headers)
        return answer if answer.status_code != 503 else None

    async def is_back() -> bool:
        return len(mill.running.streams) == 1

    async def gave_up() -> bool:
        return not mill.running._background

    coming_back = asyncio.create_task(until(again, 30))
    await until(is_back, 30)
    cancels.go_on.set()
    await until(gave_up, 30)
    gates.open("mill")
    answer = await coming_back
    assert cancels.tried == 1
    assert answer.headers["x-millrace-request-id"] == request
    assert answer.text.endswith("data: [DONE]\n\n")
    assert (await mill.record(request))["state"] == "completed"
