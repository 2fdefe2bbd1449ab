"""The sweep takes work away only from workers that it could have heard."""

import time

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.protocol import BusError, Depth
from db import leases
from master import hearing
from master.sweep import Sweeper
from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script
from tests.integration.master.silence import attempts, end_leases, silence


@pytest.mark.usefixtures("quick_to_look")
@pytest.mark.parametrize("connected", [False, True], ids=["cut off", "connected"])
async def test_workers_are_lost_only_while_the_broker_answers(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    # No lease runs out before this test has it over, however slow this machine is.
    mill = await make_mill(a_script(tokens=1000, tokens_per_second=10), lease_seconds=60)
    depth, expire = mill.running.bus.depth, Sweeper.expire_requests
    looks = rounds = 0

    async def answer(queue: str) -> Depth | None:
        nonlocal looks
        if queue == topology.WORKERS.name:
            looks += 1
            if not connected:
                raise BusError("away")
        return await depth(queue)

    async def counted(self: Sweeper) -> None:
        nonlocal rounds
        rounds += 1
        await expire(self)

    async with mill.stream() as response:
        request = response.headers["x-millrace-request-id"]

        async def runs() -> bool:
            return (await mill.record(request))["subtasks"][0]["state"] == "running"

        await until(runs, 30)
        monkeypatch.setattr(mill.running.bus, "depth", answer)
        monkeypatch.setattr(Sweeper, "expire_requests", counted)
        async with silence(mill):

            async def looked() -> bool:
                # Again and again, since a heartbeat may be on its way to the database.
                await end_leases(mill)
                return looks > 0

            await until(looked, 30)
            rounds_then = rounds

            async def went_on() -> bool:  # so what that look led to is written
                return rounds > rounds_then

            await until(went_on, 30)
            found = await attempts(mill)
    assert found == {"mill": 2 if connected else 1}


class Clock:
    """Time that jumps when the test says so, as it does for a process that was stopped."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.mark.usefixtures("quick_to_look")
async def test_a_master_that_stood_still_hears_its_workers_before_it_takes_work_away(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, expire, expired = Clock(), Sweeper.expire_requests, leases.expired
    monkeypatch.setattr(hearing, "time", clock)
    rounds = rescues = 0
    leap = 0.0

    async def expire_and_leap(self: Sweeper) -> None:
        nonlocal rounds
        await expire(self)
        clock.ahead += leap
        rounds += 1

    async def counted(connection: AsyncConnection, limit: int) -> list[leases.Lost]:
        nonlocal rescues
        rescues += 1
        return await expired(connection, limit)

    async def rounds_begin(more: int) -> None:
        wanted = rounds + more

        async def begun() -> bool:
            return rounds >= wanted

        await until(begun, 30)

    async def rescued() -> bool:
        return rescues > 0

    monkeypatch.setattr(Sweeper, "expire_requests", expire_and_leap)
    monkeypatch.setattr(leases, "expired", counted)
    await make_mill(a_script(), lease_seconds=600)
    await until(rescued, 30)
    leap = 500  # longer than workers are silent, and not yet a lease
    await rounds_begin(1)
    rescues = 0
    await rounds_begin(2)
    assert rescues == 0
    leap = 200  # seconds of one round, as on a slow day
    await until(rescued, 30)
