"""Results that come together, twice, or into a busy database (B03, B34, B36)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from bus.memory import MemoryBus
from bus.protocol import Delivery, PublishUnknown
from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, a_script, installations

QUESTION = "\n".join(f"{n}. What is part {n} of a mill, in all detail?" for n in range(1, 5))
SPLITS = 12
QUEUE = topology.subtasks("mill").name


@asynccontextmanager
async def endings(mill: Mill) -> AsyncIterator[Counter[str]]:
    """Which requests were said to have ended, and how often."""
    seen: Counter[str] = Counter()
    bus = MemoryBus(mill.broker)

    async def note(delivery: Delivery) -> None:
        seen[delivery.body.decode()] += 1
        await delivery.ack()

    await bus.watch(topology.watcher("test"), "request.*", note)
    try:
        yield seen
    finally:
        await bus.aclose()


async def test_the_last_parts_of_a_split_that_end_together_make_one_ending(
    migrated_url: str,
) -> None:
    """Two replicas collect the results of four parts that take no time."""
    async with installations(migrated_url, a_script(text="{step}"), masters=2) as mills:
        async with endings(mills[0]) as ended:
            got = [await mills[n % 2].streamed(QUESTION, "millrace/split") for n in range(SPLITS)]

            async def all_told() -> bool:
                return len(ended) >= SPLITS

            await until(all_told, 30)
        for stream in got:
            assert stream.ends_once()
            assert [stream.text.count(f"part-{n}") for n in range(1, 5)] == [1] * 4
        rows = await mills[0].rows("SELECT state, count(*) FROM millrace.requests GROUP BY 1")
        assert [tuple(row) for row in rows] == [("completed", SPLITS)]
        assert set(ended.values()) == {1}


async def test_a_subtask_that_was_published_twice_has_one_result_that_counts(
    make_mill: MakeMill,
) -> None:
    gates = Gates(1)
    mill = await make_mill(a_script(text="flour", tokens=60), provider=gates)
    mill.broker.inject(PublishUnknown("the confirm got lost"), stored=True)
    asking = asyncio.create_task(mill.streamed())

    async def both_run() -> bool:
        return len(mill.broker.queues[QUEUE].consumers[0]._in_hand) == 2

    await until(both_run, 30)
    gates.open("mill")
    got = await asking
    assert got.ends_once()
    assert got.text == " ".join(["flour"] * 60)

    async def both_ended() -> bool:
        return await mill.count("attempts") == 2

    await until(both_ended, 30)
    rows = await mill.rows("SELECT applied FROM millrace.attempts")
    assert sorted(row[0] for row in rows) == [False, True]
    assert (await mill.record(got.request))["answer"] == " ".join(["flour"] * 60)
    assert await mill.count("outbox") == 0


async def test_a_transaction_that_postgres_ends_for_a_deadlock_is_tried_again(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(text="flour and bran"))
    async with mill.running.engine.begin() as connection:
        for statement in _DEADLOCKS:
            await connection.execute(text(statement))
    got = await mill.streamed()
    assert got.ends_once()
    assert got.text == "flour and bran"
    rows = await mill.rows("SELECT last_value FROM millrace.deadlocks")
    assert rows[0][0] > 3, "it was tried again"
    assert await mill.count("attempts") == 1


# A sequence is not rolled back, so the first three tries fail and the fourth does not.
_DEADLOCKS = (
    "CREATE SEQUENCE millrace.deadlocks",
    """CREATE FUNCTION millrace.deadlock() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF nextval('millrace.deadlocks') <= 3 THEN
           RAISE 'deadlock detected' USING ERRCODE = '40P01';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE TRIGGER deadlock BEFORE INSERT ON millrace.attempts
       FOR EACH ROW EXECUTE FUNCTION millrace.deadlock()""",
)
