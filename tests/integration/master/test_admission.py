"""Newcomers are refused before anything is written, told when to come back, and shown the queue."""

import asyncio

import httpx2

from bus.protocol import BusUnavailable
from db.workers import ModelLoad
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script

SLOW = a_script(tokens=1000, tokens_per_second=20, entry={"slots": 1})


async def test_a_full_backlog_is_429_with_a_time_to_come_back_and_nothing_is_stored(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(SLOW, max_backlog=3)
    waiting = [asyncio.create_task(mill.ask())]

    async def one_runs() -> bool:
        return [tuple(row) for row in await mill.rows(_STATES)] == [("running", 1)]

    await until(one_runs, 30)

    async def nothing_waits() -> bool:
        return mill.running.view.backlog("mill") == 0

    await until(nothing_waits, 30)
    # Without a moment in between, in which they could be counted in the database.
    crowd = [asyncio.create_task(mill.ask()) for _ in range(8)]

    async def all_are_in_or_refused() -> bool:
        refused = sum(task.done() for task in crowd)
        # Three may wait. What was just stored may be counted twice for a moment, never not at all.
        return refused >= 5 and len(mill.running.streams) == 1 + 8 - refused

    await until(all_are_in_or_refused, 30)
    for answer in (task.result() for task in crowd if task.done()):
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-should-retry"] == "true"
    assert await mill.count("requests") == len(mill.running.streams)
    await _leave([*waiting, *crowd])


async def test_a_broker_that_is_away_for_long_is_503_and_recovers(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(), max_unpublished_seconds=0.2)
    for _ in range(4):
        mill.broker.inject(BusUnavailable("no connection"), stored=False)
    first = asyncio.create_task(mill.ask())

    async def away() -> bool:
        return mill.running.view.unpublishable_seconds > 0.2

    await until(away, 30)
    answer = await mill.ask()
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert (await first).status_code == 200  # it was accepted, so it was answered in the end

    async def back() -> bool:
        return (await mill.ask()).status_code == 200

    assert await until(back, 30)


async def test_open_webui_is_told_how_many_are_ahead(make_mill: MakeMill) -> None:
    mill = await make_mill(SLOW, window=1)
    waiting = [asyncio.create_task(mill.ask()) for _ in range(4)]

    looks: list[ModelLoad | None] = []

    async def settled() -> bool:
        """Three wait, and for half a second none was on its way onto the queue."""
        view = mill.running.view
        looks.append(None if view.published else view.loads.get("mill"))
        last = looks[-10:]
        return (
            len(mill.running.streams) == 4
            and view.backlog("mill") == 3
            and len(last) == 10
            and all(load is not None and load == last[0] and load.running == 1 for load in last)
        )

    await until(settled, 30)
    body, headers = mill.body(stream=True), {"x-openwebui-user-id": "u1"}
    path = "/v1/chat/completions"
    async with mill.http.stream("POST", path, json=body, headers=headers) as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if "Waiting behind" in line:
                break
    assert "Waiting behind 3 others" in line
    await _leave(waiting)


async def test_a_request_says_where_it_waits_and_when_it_is_expected_to_start(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(SLOW, window=1)
    waiting = [asyncio.create_task(mill.ask())]

    async def one_runs() -> bool:
        return [tuple(row) for row in await mill.rows(_STATES)] == [("running", 1)]

    await until(one_runs, 30)
    body = {"model": "mill", "input": "Why?", "background": True}
    later = []
    for _ in range(4):
        answer = await mill.http.post("/v1/responses", json=body)
        later.append(answer.headers["x-millrace-request-id"])

    async def places() -> list[int]:
        return [(await mill.record(request))["queue"]["position"] for request in later]

    assert await places() == [1, 2, 3, 4]
    place = (await mill.record(later[2]))["queue"]
    assert place["expected_start_seconds"] is None, "nothing was measured yet"
    mill.running.view.refresh = _not_now  # type: ignore[method-assign]

    async def expected() -> bool:
        # A look that had begun before may still replace it.
        mill.running.view.loads = {"mill": ModelLoad(seconds_per_subtask=6.0)}
        place = (await mill.record(later[2]))["queue"]
        expected = {"position": 3, "expected_start_seconds": 2 * 6.0, "workers": 1}
        return bool(place == expected)

    await until(expected, 30)
    await mill.http.delete(f"/v1/requests/{later[0]}")
    record = await mill.record(later[0])
    assert (record["state"], "queue" in record) == ("cancelled", False)
    assert (await mill.record(later[2]))["queue"]["position"] == 2
    await _leave(waiting)
    started = await mill.until_state(later[1], "running")
    assert "queue" not in started
    for request in later:
        await mill.http.delete(f"/v1/requests/{request}")


_STATES = "SELECT state, count(*) FROM millrace.subtasks GROUP BY state"


async def _not_now(*_: object) -> None:
    """What was put there stays."""


async def _leave(waiting: list[asyncio.Task[httpx2.Response]]) -> None:
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
