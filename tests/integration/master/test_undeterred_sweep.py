"""What holds up one request, one queue or one round does not hold up the sweep of all others."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from bus.protocol import BusUnavailable, Depth
from db import leases
from db.requests import LockedRequest
from master import sweep
from master.sweep import Sweeper
from millrace.chaos.stack import until
from queue_schemas import topology
from queue_schemas.registry import slug
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, a_script
from tests.integration.master.silence import attempts, end_leases, silence

pytestmark = pytest.mark.usefixtures("quick_to_look")

OTHER = "wind"


@asynccontextmanager
async def at_work(
    make_mill: MakeMill, *more: tuple[str, int], **settings: Any
) -> AsyncGenerator[Mill, None]:
    """Two models that each have an execution, which goes on when the test is over.

    `more`: so many questions to a model besides. No lease runs out by itself.
    """
    gates = Gates()
    settings = {"lease_seconds": 600} | settings
    scripts = [a_script(name, entry={"slots": 1}) for name in ("mill", OTHER)]
    mill = await make_mill(*scripts, provider=gates, **settings)
    asked = [
        asyncio.create_task(mill.ask(f"Why {n}?", name))
        for name, number in (("mill", 1), (OTHER, 1), *more)
        for n in range(number)
    ]

    async def both_run() -> bool:
        rows = await mill.rows("SELECT model FROM millrace.subtasks WHERE state = 'running'")
        return {model for (model,) in rows} == {"mill", OTHER}

    try:
        await until(both_run, 30)
        yield mill
    finally:
        gates.open("mill")
        gates.open(OTHER)
        await asyncio.gather(*asked)


async def lost(mill: Mill, name: str) -> None:
    """Its lease is over until the sweep has seen it; a heartbeat may be on its way until then."""

    async def taken_away() -> bool:
        await end_leases(mill)
        return (await attempts(mill))[name] == 2

    await until(taken_away, 30)


async def test_a_request_that_somebody_holds_is_swept_when_it_is_free(make_mill: MakeMill) -> None:
    async with at_work(make_mill) as mill, silence(mill):
        somebody = await asyncpg.connect(mill.database_url)
        await somebody.execute("BEGIN")
        await somebody.execute(
            "SELECT FROM millrace.requests WHERE model = 'mill' FOR NO KEY UPDATE"
        )
        await lost(mill, OTHER)
        assert (await attempts(mill))["mill"] == 1
        await somebody.close()
        await lost(mill, "mill")


async def test_an_overdue_request_that_cannot_be_ended_keeps_no_other_from_it(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_early = sweep.end_early

    async def ended(connection: AsyncConnection, locked: LockedRequest, *how: Any) -> Any:
        if str(locked.id) == bad:
            raise ValueError("the database will not have it")
        return await end_early(connection, locked, *how)

    async with at_work(make_mill) as mill:
        [(bad,)] = await mill.rows("SELECT id::text FROM millrace.requests WHERE model = 'mill'")
        [(good,)] = await mill.rows("SELECT id::text FROM millrace.requests WHERE model <> 'mill'")
        monkeypatch.setattr(sweep, "end_early", ended)
        late = await asyncpg.connect(mill.database_url)
        await late.execute("UPDATE millrace.requests SET deadline_at = now() - interval '1 s'")
        await late.close()
        await mill.until_state(good, "expired")
        async with silence(mill):
            await lost(mill, "mill")
        assert (await mill.record(bad))["state"] == "running"
        monkeypatch.undo()
        await mill.until_state(bad, "expired")


async def test_a_queue_that_says_nothing_leaves_other_models_their_rescue(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    ill = topology.subtasks(slug(OTHER)).name
    async with at_work(make_mill, (OTHER, 1)) as mill:
        depth = mill.running.bus.depth

        async def answer(queue: str) -> Depth | None:
            if queue == ill:
                raise BusUnavailable("it has no leader")
            return await depth(queue)

        monkeypatch.setattr(mill.running.bus, "depth", answer)
        with capture_logs() as logs:

            async def noticed() -> bool:
                return "sweep.queue_silent" in _events(logs)

            await until(noticed, 30)
        async with silence(mill):
            await lost(mill, "mill")


async def test_a_round_that_takes_long_is_no_standing_still(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire, expired, lease, rescues = Sweeper.expire_requests, leases.expired, 3.0, 0

    async def slow(self: Sweeper) -> None:
        await expire(self)
        await asyncio.sleep(0.6 * lease)

    async def counted(connection: AsyncConnection, limit: int) -> list[leases.Lost]:
        nonlocal rescues
        rescues += 1
        return await expired(connection, limit)

    monkeypatch.setattr(Sweeper, "expire_requests", slow)
    async with at_work(make_mill, lease_seconds=lease, heartbeat_seconds=lease / 3):
        monkeypatch.setattr(leases, "expired", counted)

        async def rescued() -> bool:
            return rescues >= 2

        await until(rescued, 60)


async def test_no_worker_is_lost_because_the_database_has_another_time_now(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ahead, rounds = leases.clock, 0.0, 0
    expire = Sweeper.expire_requests

    async def leapt(connection: AsyncConnection) -> float:
        return await clock(connection) + ahead

    async def counted(self: Sweeper) -> None:
        nonlocal rounds
        rounds += 1
        await expire(self)

    async def rounds_pass(more: int) -> None:
        wanted = rounds + more

        async def passed() -> bool:
            return rounds >= wanted

        await until(passed, 30)

    monkeypatch.setattr(leases, "clock", leapt)
    monkeypatch.setattr(Sweeper, "expire_requests", counted)
    async with at_work(make_mill) as mill, silence(mill):
        await rounds_pass(2)
        ahead = 3600.0
        with capture_logs() as logs:
            await end_leases(mill)
            await rounds_pass(3)
        assert await attempts(mill) == {"mill": 1, OTHER: 1}
        assert "sweep.clock_leapt" in _events(logs)


def _events(logs: Sequence[Any]) -> list[str]:
    return [line["event"] for line in logs]
