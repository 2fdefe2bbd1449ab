"""The sweep takes work away only from workers that it could have heard."""

import asyncio

import pytest

from bus.protocol import BusError, Depth
from master.sweep import Sweeper
from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script

LEASE_SECONDS = 0.7


@pytest.mark.parametrize("connected", [False, True], ids=["cut off", "connected"])
async def test_workers_are_lost_only_while_the_broker_answers(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    mill = await make_mill(a_script(tokens=1000, tokens_per_second=10), lease_seconds=LEASE_SECONDS)

    async def no_answer(queue: str) -> Depth | None:
        raise BusError("away")

    looks = 0
    look = Sweeper.rescue_lost

    async def counted(self: Sweeper) -> None:
        nonlocal looks
        looks += 1
        await look(self)

    async with mill.stream() as response:
        request = response.headers["x-millrace-request-id"]

        async def runs() -> bool:
            return (await mill.record(request))["subtasks"][0]["state"] == "running"

        await until(runs, 10)
        if not connected:
            monkeypatch.setattr(mill.running.bus, "depth", no_answer)
        # From here on nobody hears the worker.
        consumers = mill.broker.queues[topology.WORKERS.name].consumers
        kept = [consumers.popleft() for _ in range(len(consumers))]
        monkeypatch.setattr(Sweeper, "rescue_lost", counted)
        await asyncio.sleep(3 * LEASE_SECONDS)  # long enough for every lease to run out
        assert looks > 0
        consumers.extend(kept)
        [(attempt,)] = await mill.rows("SELECT attempt FROM millrace.subtasks")
    assert attempt == (2 if connected else 1)
