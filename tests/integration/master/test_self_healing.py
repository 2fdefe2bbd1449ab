"""What a master mends by itself, and what the ledger knows of work that was for nothing."""

import asyncio

from sqlalchemy import text

from db import usage
from db.usage import By, Fate
from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script

LATER = {"kind": "fail", "attempts": [1], "retry_after_seconds": 3600, "after_tokens": 2}


async def test_a_ready_subtask_that_lost_its_outbox_row_is_published_by_the_sweep(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(text="flour and bran", faults=[LATER]))
    async with mill.stream() as response:
        request = response.headers["x-millrace-request-id"]

        async def waits() -> bool:
            rows = await mill.rows("SELECT 1 FROM millrace.outbox WHERE attempt = 2")
            return bool(rows)

        await until(waits, 30)
        async with mill.running.engine.begin() as connection:
            await connection.execute(text("DELETE FROM millrace.outbox"))
            await connection.execute(text("UPDATE millrace.subtasks SET ready_at = now()"))
        record = await mill.until_state(request, "completed")
    assert record["answer"] == "flour and bran"
    assert record["subtasks"][0]["attempt"] == 2


async def test_queues_that_vanished_are_declared_again(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    shared = {queue.name for queue in topology.SHARED}
    for name in shared:
        del mill.broker.queues[name]

    async def there_again() -> bool:
        return shared <= mill.broker.queues.keys()

    await until(there_again, 30)


async def test_a_model_queue_that_was_deleted_is_declared_by_the_next_publish(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script())
    name = topology.subtasks("mill").name
    del mill.broker.queues[name]
    asking = asyncio.create_task(mill.ask())

    async def published_again() -> bool:
        return name in mill.broker.queues and bool(mill.broker.queues[name].ready)

    await until(published_again, 30)
    asking.cancel()  # nobody takes it: the worker consumed from the queue that is gone
    await asyncio.gather(asking, return_exceptions=True)


async def test_retried_and_cancelled_work_is_in_the_bill(make_mill: MakeMill) -> None:
    mill = await make_mill(
        a_script(tokens=4, faults=[{"kind": "fail", "attempts": [1], "after_tokens": 3}]),
        a_script("slow", tokens=1000, tokens_per_second=50),
    )
    assert (await mill.ask()).status_code == 200
    async with mill.stream(model="slow") as response:
        request = response.headers["x-millrace-request-id"]
        words = 0
        async for line in response.aiter_lines():
            words += '"content"' in line
            if words == 5:
                break
    await mill.until_state(request, "cancelled")

    async def three_lines() -> list[usage.Spent] | None:
        async with mill.running.engine.connect() as connection:
            spent = await usage.spent(connection, By.MODEL, 3600)
        return spent if len(spent) == 3 else None

    bill = {(line.key, line.fate): line for line in await until(three_lines, 30)}
    assert bill["mill", Fate.ANSWERED].completion_tokens == 4
    assert bill["mill", Fate.FAILED].completion_tokens > 0
    assert bill["slow", Fate.CANCELLED].completion_tokens >= 4
    assert bill["slow", Fate.CANCELLED].engine_seconds > 0
