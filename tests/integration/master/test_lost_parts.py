"""A part that is given up because its workers fell silent keeps what its client has seen (P6)."""

import asyncio

import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, Streamed, a_script
from tests.integration.master.moody import Moody, Turn, always

SAID = "the wheel turns"
QUESTION = "Answer each in a sentence: 1. What is flour? 2. What is bran?"


async def lose_the_worker_of_the_first_part(mill: Mill) -> None:
    async def dead() -> bool:
        async with mill.running.engine.begin() as connection:
            # A heartbeat may come between, and renew it.
            await connection.execute(
                text("""UPDATE millrace.subtasks SET lease_until = now() - interval '1 s'
                         WHERE state = 'running' AND position = 0""")
            )
        rows = await mill.rows("SELECT state FROM millrace.subtasks WHERE position = 0")
        return bool(rows[0][0] == "dead")

    await until(dead, 30)


@pytest.mark.usefixtures("quick_to_look")
async def test_what_was_shown_of_a_part_whose_worker_was_lost_stays_in_the_answer(
    make_mill: MakeMill,
) -> None:
    engine = Moody(Turn(SAID, 0.02, hangs=True), Turn("bran is what is left"))
    mill = await make_mill(a_script(), provider=always(engine), max_losses=1)
    losing: list[asyncio.Task[None]] = []

    async def lose(got: Streamed) -> None:
        if SAID in got.text and not losing:
            losing.append(asyncio.create_task(lose_the_worker_of_the_first_part(mill)))

    got = await mill.streamed(QUESTION, "millrace/split", seen=lose)
    await losing[0]
    assert got.ends_once()
    assert SAID in got.text
    assert "bran is what is left" in got.text
    record = await mill.record(got.request)
    assert [subtask["state"] for subtask in record["subtasks"]] == ["dead", "succeeded"]
    assert record["answer"] == got.text
