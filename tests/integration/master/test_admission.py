"""Newcomers are refused before anything is written, told when to come back, and shown the queue."""

import asyncio

import httpx2

from bus.protocol import BusUnavailable
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script

SLOW = a_script(tokens=1000, tokens_per_second=20, entry={"slots": 1})


async def test_a_full_backlog_is_429_with_a_time_to_come_back_and_nothing_is_stored(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(SLOW, max_backlog=3)
    waiting = [asyncio.create_task(mill.ask()) for _ in range(4)]  # one runs, three wait

    async def refused() -> bool:
        return mill.running.view.backlog("mill") >= 3

    await until(refused, 10)
    answer = await mill.ask()
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "queue_full"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-should-retry"] == "true"
    assert len(mill.running.streams) == 4
    await _leave(waiting)


async def test_a_broker_that_is_away_for_long_is_503_and_recovers(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(), max_unpublished_seconds=0.2)
    for _ in range(4):
        mill.broker.inject(BusUnavailable("no connection"), stored=False)
    first = asyncio.create_task(mill.ask())

    async def away() -> bool:
        return mill.running.view.unpublishable_seconds > 0.2

    await until(away, 10)
    answer = await mill.ask()
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert (await first).status_code == 200  # it was accepted, so it was answered in the end

    async def back() -> bool:
        return (await mill.ask()).status_code == 200

    assert await until(back, 20)


async def test_open_webui_is_told_how_many_are_ahead(make_mill: MakeMill) -> None:
    mill = await make_mill(SLOW, window=1)
    waiting = [asyncio.create_task(mill.ask()) for _ in range(4)]

    async def queued() -> bool:
        return mill.running.view.backlog("mill") == 3 and not mill.running.view.published

    await until(queued, 10)
    body, headers = mill.body(stream=True), {"x-openwebui-user-id": "u1"}
    path = "/v1/chat/completions"
    async with mill.http.stream("POST", path, json=body, headers=headers) as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if "Waiting behind" in line:
                break
    assert "Waiting behind 3 others" in line
    await _leave(waiting)


async def _leave(waiting: list[asyncio.Task[httpx2.Response]]) -> None:
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
