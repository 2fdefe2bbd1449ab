"""The last attempts of a strategy go to another model; a model that was named is kept."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from master import attempts
from master.redrive import NotRedrivable, redrive
from millrace.chaos.stack import until
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

BUSY = {"kind": "fail", "message": "no room"}
NO_MODEL = {"kind": "fail", "error_kind": "permanent", "code": "model_not_found"}


def broken(fault: dict[str, Any], **entry: Any) -> dict[str, Any]:
    return a_script("broken", faults=[fault], entry=entry)


async def executions(mill: Mill, request: str) -> list[tuple[int, str, str]]:
    [subtask] = (await mill.record(request))["subtasks"]
    return [(line["attempt"], line["model"], line["outcome"]) for line in subtask["attempts"]]


async def test_the_last_attempts_go_to_another_model_and_the_record_names_it(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(
        broken(BUSY, price={"prompt": 1_000_000.0}),
        a_script("whole", text="ground flour", entry={"price": {"completion": 1_000_000.0}}),
        max_attempts=3,
    )
    got = await mill.streamed("Why?", "millrace/auto")
    assert got.text == "ground flour"
    assert got.ends_once()
    record = await mill.record(got.request)
    [subtask] = record["subtasks"]
    assert (subtask["model"], subtask["worker"], subtask["attempt"]) == ("whole", "whole-1", 2)
    assert await executions(mill, got.request) == [
        (1, "broken", "engine_busy"),
        (2, "whole", "completed"),
    ]
    prompts = [line["prompt_tokens"] for line in subtask["attempts"]]
    assert record["usage"]["cost"] == prompts[0] + subtask["attempts"][1]["completion_tokens"]


async def test_a_model_that_its_engine_does_not_have_is_replaced_at_once(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(broken(NO_MODEL), a_script("whole", text="ground flour"))
    answer = await mill.ask("Why?", "millrace/auto")
    assert answer.json()["choices"][0]["message"]["content"] == "ground flour"
    assert await executions(mill, answer.headers["x-millrace-request-id"]) == [
        (1, "broken", "model_not_found"),
        (2, "whole", "completed"),
    ]


async def test_another_model_does_not_wait_until_the_first_may_be_asked_again(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(
        broken(BUSY | {"retry_after_seconds": 170}),
        a_script("whole", text="ground flour"),
        max_attempts=2,
    )
    answer = await mill.ask("Why?", "millrace/auto")  # who asks gives up after 30 seconds
    assert answer.json()["choices"][0]["message"]["content"] == "ground flour"


async def test_a_client_that_named_a_model_gets_that_one_or_an_error(make_mill: MakeMill) -> None:
    mill = await make_mill(broken(BUSY), a_script("whole"), max_attempts=2)
    answer = await mill.ask("Why?", "broken")
    assert answer.status_code >= 500
    models = {
        model for _, model, _ in await executions(mill, answer.headers["x-millrace-request-id"])
    }
    assert models == {"broken"}


async def test_beyond_its_budget_a_model_is_retried_later_and_none_is_refused(
    make_mill: MakeMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is spent comes back with time: here none goes by.
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: 0.0))
    mill = await make_mill(
        broken(BUSY | {"attempts": [1]}), a_script("whole"), retries_per_minute=2
    )
    asked = [asyncio.create_task(mill.ask(f"Why {n}?", "broken")) for n in range(4)]

    async def all_failed_once() -> bool:
        rows = await mill.rows("SELECT count(*) FROM millrace.attempts WHERE attempt = 1")
        return bool(rows[0][0] == 4)

    await until(all_failed_once, 30)
    waits = [
        float(row[0])
        for row in await mill.rows(
            "SELECT extract(epoch FROM s.ready_at - a.finished_at) FROM millrace.subtasks s "
            "JOIN millrace.attempts a ON a.subtask_id = s.id WHERE a.attempt = 1 ORDER BY 1"
        )
    ]
    assert [round(wait) for wait in waits[-2:]] == [30, 60]
    async with mill.running.engine.begin() as connection:
        for change in ("outbox SET available_at = now()", "subtasks SET ready_at = now()"):
            await connection.execute(text(f"UPDATE millrace.{change}"))
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_a_dead_request_is_done_again_once_and_stays_as_it_ended(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(broken(BUSY), a_script("whole", text="ground flour"), max_attempts=1)
    failed = await mill.ask("Why?", "broken", seed=7)
    request = failed.headers["x-millrace-request-id"]
    record = await mill.record(request)
    assert [s["state"] for s in record["subtasks"]] == ["dead"]

    async def again(model: str | None) -> Any:
        return await redrive(mill.running.engine, UUID(request), model=model)

    results = await asyncio.gather(*(again("whole") for _ in range(4)))
    assert len({result.id for result in results}) == 1
    assert sorted(result.fresh for result in results) == [False, False, False, True]
    done = await mill.until_state(str(results[0].id), "completed", "failed")
    assert done["answer"] == "ground flour"
    assert done["model"] == "whole"
    assert (await mill.record(request))["state"] == "failed"
    rows = await mill.rows(
        "SELECT seed, redriven_from::text, priority, background FROM millrace.requests "
        "WHERE redriven_from IS NOT NULL"
    )
    assert [tuple(row) for row in rows] == [(7, request, 1, True)]


async def test_what_a_client_cancelled_is_not_done_again(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(tokens=1000, tokens_per_second=20))
    async with mill.stream() as response:
        request = response.headers["x-millrace-request-id"]
        async for _ in response.aiter_lines():
            break
    await mill.until_state(request, "cancelled")
    with pytest.raises(NotRedrivable, match="cancelled by its client"):
        await redrive(mill.running.engine, UUID(request))
