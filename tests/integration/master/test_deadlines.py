"""Each deadline ends what is too slow, and says which one it was."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script

HANGS = {"kind": "hang"}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "first_token_timeout": (
        a_script(faults=[HANGS], entry={"first_token_seconds": 0.3}),
        "the engine said nothing for 0.3 s",
    ),
    "inter_token_timeout": (
        a_script(
            text="one two three",
            faults=[HANGS | {"after_tokens": 2}],
            entry={"inter_token_seconds": 0.3},
        ),
        "the engine fell silent for 0.3 s",
    ),
    "timeout": (
        a_script(tokens=10_000, tokens_per_second=50, entry={"timeout_seconds": 0.3}),
        "the answer was not complete after 0.3 s",
    ),
}


@pytest.mark.parametrize("code", CASES)
async def test_a_deadline_of_the_model_is_named_to_whoever_waits(
    make_mill: MakeMill, code: str
) -> None:
    model, words = CASES[code]
    mill = await make_mill(model, max_attempts=1)
    got = await mill.streamed()
    assert got.ends_once()
    assert (got.error["code"], got.error["message"]) == (code, words)
    answer = await mill.ask()
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-should-retry"] == "false"
    record = await mill.record(answer.headers["x-millrace-request-id"])
    assert (record["state"], record["error"]["code"]) == ("failed", code)


async def test_the_deadline_of_a_request_counts_its_waiting_too(make_mill: MakeMill) -> None:
    one_slot = a_script(tokens=10_000, tokens_per_second=50, entry={"slots": 1})
    mill = await make_mill(one_slot, request_seconds=3600)

    async def both_are_there() -> bool:
        return await mill.count("requests") == 2

    async with mill.stream("first"):
        asking = asyncio.create_task(mill.streamed("second"))
        await until(both_are_there, 30)
        # As if it had waited for an hour.
        passed = """
            UPDATE millrace.requests SET deadline_at = deadline_at - interval '1 hour'
             WHERE created_at = (SELECT max(created_at) FROM millrace.requests)
        """
        async with mill.running.engine.begin() as connection:
            await connection.execute(text(passed))
        got = await asking
        # While the first has the slot: after it a worker takes the message, and says it is dropped.
        record = await mill.record(got.request)
    assert (got.text, got.error["code"]) == ("", "deadline_exceeded")
    assert (record["state"], record["subtasks"][0]["state"]) == ("expired", "cancelled")
    assert record["subtasks"][0]["attempts"] == []
