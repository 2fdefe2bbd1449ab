"""What was shown is never repeated or taken back, whatever a second execution says (P2, P6)."""

from typing import Any

import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from queue_schemas import topology
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, Streamed, a_script
from tests.integration.master.moody import BUSY, REFUSED, Moody, Turn, always

FIRST = "the wheel turns because of water"
OTHER = "a stone lies in the grass and nobody knows why it does"
PACE = 0.03
LEASE = 60.0


async def make(make_mill: MakeMill, engine: Moody, **entry: Any) -> Mill:
    return await make_mill(
        a_script(entry=entry), provider=always(engine), lease_seconds=LEASE, heartbeat_seconds=0.2
    )


async def streamed_with_a_lost_connection(mill: Mill, after: str) -> Streamed:
    """Stream, and cut the worker's connection as soon as the client has seen this."""
    lost: list[str] = []

    async def lose(got: Streamed) -> None:
        if after in got.text and not lost:
            lost.append(got.text)
            await mill.worker_buses["mill"].break_connection()

    got = await mill.streamed(seen=lose)
    assert lost
    return got


async def agrees(mill: Mill, got: Streamed) -> dict[str, Any]:
    assert got.ends_once(), got.frames[-3:]
    record = await mill.record(got.request)
    assert record["state"] == "completed"
    assert record["answer"] == got.text
    await mill.idle()
    return record


@pytest.mark.parametrize("seconds", [0.0, PACE], ids=["at once", "slowly"])
async def test_a_redelivered_subtask_that_says_the_same_is_not_repeated(
    make_mill: MakeMill, seconds: float
) -> None:
    engine = Moody(Turn(FIRST, PACE, hangs=True), Turn(FIRST, seconds))
    mill = await make(make_mill, engine)
    got = await streamed_with_a_lost_connection(mill, "wheel turns")
    record = await agrees(mill, got)
    assert got.text == FIRST
    assert record["measured"]["wall_seconds"] < LEASE / 2, "it waited for a lease to expire"
    assert len(engine.asked) == 2


@pytest.mark.parametrize("seconds", [0.0, PACE], ids=["at once", "slowly"])
async def test_a_redelivered_subtask_that_says_something_else_is_continued_from_what_was_shown(
    make_mill: MakeMill, seconds: float
) -> None:
    engine = Moody(Turn(FIRST, PACE, hangs=True), Turn(OTHER, seconds))
    mill = await make(make_mill, engine)
    got = await streamed_with_a_lost_connection(mill, "wheel turns")
    record = await agrees(mill, got)
    shown = engine.asked[-1].shown
    assert shown.startswith("the wheel turns")
    assert FIRST.startswith(shown)
    assert got.text == f"{shown} and so on"
    assert record["measured"]["wall_seconds"] < LEASE / 2, "it waited for a lease to expire"
    row = (await mill.rows("SELECT shown, attempt FROM millrace.subtasks"))[0]
    assert (row.shown, row.attempt) == (shown, 2)


@pytest.mark.parametrize("seconds", [0.0, PACE], ids=["at once", "slowly"])
async def test_a_retry_that_says_something_else_is_continued_from_what_was_shown(
    make_mill: MakeMill, seconds: float
) -> None:
    engine = Moody(Turn(FIRST, PACE, error=BUSY), Turn(OTHER, seconds))
    mill = await make(make_mill, engine)
    got = await mill.streamed()
    await agrees(mill, got)
    assert got.text == f"{FIRST} and so on"


async def test_a_retry_whose_text_ends_within_what_was_shown_keeps_what_was_shown(
    make_mill: MakeMill,
) -> None:
    engine = Moody(Turn(FIRST, PACE, error=BUSY), Turn("the wheel", 0))
    mill = await make(make_mill, engine)
    got = await mill.streamed()
    await agrees(mill, got)
    assert got.text.startswith(FIRST)


async def test_a_retry_that_is_refused_keeps_what_was_shown(make_mill: MakeMill) -> None:
    engine = Moody(Turn(FIRST, PACE, error=BUSY), Turn("", error=REFUSED))
    mill = await make(make_mill, engine)
    got = await mill.streamed()
    assert got.ends_once()
    assert FIRST.startswith(got.text)
    assert got.error["code"] == "bad_request"
    assert (await mill.record(got.request))["state"] == "failed"


async def test_a_result_that_is_written_together_with_its_claim_counts(make_mill: MakeMill) -> None:
    engine = Moody(Turn(FIRST, PACE, hangs=True), Turn(FIRST))
    mill = await make(make_mill, engine)

    async def writer_waits() -> bool:
        return bool((await mill.rows("SELECT count(*) FROM pg_locks WHERE NOT granted"))[0][0])

    async def reported() -> bool:
        taken = mill.broker.queues[topology.RESULTS.name].consumers[0]._in_hand
        return len(engine.asked) == 2 and len(taken) == 1

    async def lose(got: Streamed) -> None:
        if "wheel turns" in got.text and len(engine.asked) == 1:
            async with mill.running.engine.begin() as other:
                # The next heartbeat holds the one writer up, and what comes piles up behind it.
                await other.execute(text("LOCK TABLE millrace.workers IN EXCLUSIVE MODE"))
                await until(writer_waits, 30)
                await mill.worker_buses["mill"].break_connection()
                await until(reported, 30)

    got = await mill.streamed(seen=lose)
    record = await agrees(mill, got)
    assert got.text == FIRST
    assert record["measured"]["wall_seconds"] < LEASE / 2, "it waited for a lease to expire"
