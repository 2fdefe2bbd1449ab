"""Every execution is paid for once; a client is told what its answer took (P12)."""

from decimal import Decimal
from typing import Any

import pytest

from db import usage
from db.usage import By, Fate
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script
from tests.integration.master.moody import BUSY, REFUSED, Moody, Turn, always

ANSWER = "three little words"
COUNTS = ("prompt_tokens", "completion_tokens", "engine_seconds")


async def make(make_mill: MakeMill, *turns: Turn, **entry: Any) -> Mill:
    return await make_mill(a_script(entry=entry), provider=always(Moody(*turns)))


async def bill(mill: Mill) -> list[usage.Spent]:
    async with mill.running.engine.connect() as connection:
        return await usage.spent(connection, By.TENANT, 3600)


async def adds_up(mill: Mill, request: str, executions: int) -> dict[str, Any]:
    """The record, once so many executions are in it and all its sums agree with the tables."""

    async def complete() -> dict[str, Any] | None:
        record = await mill.record(request)
        number = sum(len(subtask["attempts"]) for subtask in record["subtasks"])
        return record if number == executions else None

    record: dict[str, Any] = await until(complete, 30)
    lines = await bill(mill)
    for name in COUNTS:
        in_ledger = (await mill.rows(f"SELECT sum({name}) FROM millrace.attempts"))[0][0]
        for subtask in record["subtasks"]:
            parts = [attempt[name] for attempt in subtask["attempts"]]
            assert subtask[name] == pytest.approx(sum(parts))
        assert record["usage"][name] == pytest.approx(sum(s[name] for s in record["subtasks"]))
        assert record["usage"][name] == pytest.approx(in_ledger)
        assert sum((Decimal(getattr(line, name)) for line in lines), Decimal(0)) == pytest.approx(
            Decimal(in_ledger)
        )
    assert sum(line.executions for line in lines) == executions
    return record


async def test_a_retried_request_costs_all_its_attempts_and_tells_its_client_those_of_the_answer(
    make_mill: MakeMill,
) -> None:
    mill = await make(make_mill, Turn("half a", 0.02, error=BUSY), Turn(ANSWER, 0.02))
    answer = await mill.ask()
    told = answer.json()["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (3, 3)
    record = await adds_up(mill, answer.headers["x-millrace-request-id"], executions=2)
    assert record["usage"]["completion_tokens"] > 3
    assert record["usage"]["prompt_tokens"] > 3
    first, second = record["subtasks"][0]["attempts"]
    assert first["engine_seconds"] > 0.01 < second["engine_seconds"]
    fates = {line.fate: line.completion_tokens for line in await bill(mill)}
    assert fates[Fate.ANSWERED] == 3
    assert fates[Fate.FAILED] == first["completion_tokens"] > 0


async def test_who_asks_again_is_told_the_same_usage(make_mill: MakeMill) -> None:
    """At first by the replica that collected the result, then from the tables."""
    mill = await make(make_mill, Turn("half a", error=BUSY), Turn(ANSWER))
    first = await mill.http.post("/v1/responses", json={"model": "mill", "input": "Why?"})
    again = await mill.http.get(f"/v1/responses/{first.json()['id']}")
    assert first.json()["usage"]["output_tokens"] == 3
    assert again.json()["usage"] == first.json()["usage"]


async def test_a_failed_request_costs_what_was_generated(make_mill: MakeMill) -> None:
    mill = await make(make_mill, Turn("half an answer", 0.02, error=REFUSED))
    answer = await mill.ask()
    assert answer.status_code >= 400
    record = await adds_up(mill, answer.headers["x-millrace-request-id"], executions=1)
    assert record["state"] == "failed"
    assert record["usage"]["completion_tokens"] > 0
    assert record["usage"]["engine_seconds"] > 0.01


async def test_a_cancelled_request_costs_what_was_generated(make_mill: MakeMill) -> None:
    mill = await make(make_mill, Turn("the wheel turns and turns", 0.02, hangs=True))
    async with mill.stream() as response:
        request = response.headers["x-millrace-request-id"]
        async for line in response.aiter_lines():
            if "turns" in line:
                break
    await mill.until_state(request, "cancelled")
    record = await adds_up(mill, request, executions=1)
    assert [line.fate for line in await bill(mill)] == [Fate.CANCELLED]
    assert record["usage"]["completion_tokens"] > 0
    assert record["usage"]["engine_seconds"] > 0.01


async def test_a_split_of_which_a_part_is_retried_tells_its_client_the_tokens_of_its_parts(
    make_mill: MakeMill,
) -> None:
    mill = await make(make_mill, Turn("half a", error=BUSY), Turn(ANSWER))
    question = "Answer each in a sentence: 1. What is flour? 2. What is bran?"
    answer = await mill.ask(question, "millrace/split")
    request = answer.headers["x-millrace-request-id"]
    parts = len((await mill.record(request))["subtasks"])
    assert parts > 1
    assert answer.json()["usage"]["completion_tokens"] == 3 * parts
    record = await adds_up(mill, request, executions=parts + 1)
    assert record["usage"]["completion_tokens"] > 3 * parts
