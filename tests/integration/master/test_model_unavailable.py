"""A model leaves the registry while work for it waits."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from master import dispatch
from master.announce import broadcast
from millrace.chaos.stack import until
from queue_schemas.messages import Drain
from queue_schemas.registry import Registry
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

FAILS_ONCE = {"kind": "fail", "attempts": [1], "retry_after_seconds": 3600, "after_tokens": 0}
"""The retry waits until `retry_now`: what it is to find is then in place."""


@pytest.fixture(autouse=True)
def quickly_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_HOPELESS_TRIES", 2)


def take_away(mill: Mill, name: str) -> None:
    left = [m.model_dump(mode="json") for m in mill.registry.chat_models() if m.name != name]
    smaller = Registry.model_validate({"models": left})
    mill.running.view.registry = lambda: smaller


async def let_go(mill: Mill, name: str) -> None:
    """End its worker."""
    drain = Drain(worker=f"{name}-1")
    await broadcast(mill.running.bus, drain, mill.running.settings.key_ring)

    async def forgotten() -> bool:
        return all(worker["model"] != name for worker in mill.running.view.workers)

    await until(forgotten, 30)


async def until_retry(mill: Mill, number: int = 1) -> None:
    async def waits() -> bool:
        waiting = await mill.rows("SELECT 1 FROM millrace.outbox WHERE attempt = 2")
        return len(waiting) >= number

    await until(waits, 30)


async def retry_now(mill: Mill) -> None:
    async with mill.running.engine.begin() as connection:
        await connection.execute(text("UPDATE millrace.outbox SET available_at = now()"))


async def test_a_retry_for_a_model_that_left_the_registry_fails_at_once_and_says_why(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(), a_script("gone", faults=[FAILS_ONCE]))
    async with mill.stream(model="gone") as response:
        request = response.headers["x-millrace-request-id"]
        await until_retry(mill)
        take_away(mill, "gone")
        await let_go(mill, "gone")
        await retry_now(mill)
        record = await mill.until_state(request, "failed")
        frames = [line async for line in response.aiter_lines() if line.startswith("data: ")]
    assert record["error"]["code"] == "model_unavailable"
    assert "'gone' is not registered" in record["error"]["message"]
    assert "model_unavailable" in frames[-2]
    assert frames[-1] == "data: [DONE]"
    assert await mill.count("outbox") == 0


async def test_a_message_that_waits_for_a_model_without_workers_is_given_up_too(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(), a_script("gone"), forgotten_seconds=0.2)
    await let_go(mill, "gone")
    answer = await mill.http.post(
        "/v1/responses", json={"model": "gone", "input": "Why?", "background": True}
    )
    [(request,)] = await mill.rows("SELECT id FROM millrace.requests")

    async def queued() -> bool:
        return bool(await mill.rows("SELECT 1 FROM millrace.subtasks WHERE state = 'queued'"))

    await until(queued, 30)
    take_away(mill, "gone")
    record = await mill.until_state(str(request), "failed")
    assert record["error"]["code"] == "model_unavailable"
    failed = (await mill.http.get(f"/v1/responses/{answer.json()['id']}")).json()
    assert failed["status"] == "failed"


async def test_a_part_of_a_split_whose_model_left_is_answered_by_another(
    make_mill: MakeMill,
) -> None:
    one = {"slots": 1}
    mill = await make_mill(
        a_script(text="ground flour", entry=one),
        a_script("gone", text="never said", faults=[FAILS_ONCE], entry=one),
    )
    question = "Answer each in a sentence: 1. What is flour? 2. What is bran?"
    async with mill.stream(question, "millrace/split") as response:
        request = response.headers["x-millrace-request-id"]
        await until_retry(mill)
        take_away(mill, "gone")
        await let_go(mill, "gone")
        await retry_now(mill)
        record = await mill.until_state(request, "completed", "failed")
    assert record["state"] == "completed"
    assert [part["state"] for part in record["subtasks"]] == ["succeeded", "succeeded"]
    assert [part["model"] for part in record["subtasks"]] == ["mill", "mill"]
    assert record["answer"].count("ground flour") == 2


BREAKS = {
    "a-step-is-missing": "jsonb_set(plan, '{steps,0,key}', '\"another\"')",
    "nobody-can-read-it": "jsonb_build_object('steps', 1)",
}


@pytest.mark.parametrize("broken", [pytest.param(sql, id=name) for name, sql in BREAKS.items()])
async def test_a_broken_plan_ends_its_request_and_holds_up_nobody_else(
    make_mill: MakeMill, broken: str
) -> None:
    mill = await make_mill(
        a_script("sick", faults=[FAILS_ONCE]), a_script(faults=[FAILS_ONCE], text="ground flour")
    )
    async with mill.stream(model="sick") as response:
        request = response.headers["x-millrace-request-id"]
        await until_retry(mill)
        async with mill.running.engine.begin() as connection:
            await connection.execute(text(f"UPDATE millrace.requests SET plan = {broken}"))
        asking = asyncio.create_task(mill.ask())
        await until_retry(mill, 2)
        await retry_now(mill)
        assert (await asking).status_code == 200, "its retry comes out of the outbox as well"

        async def ended() -> Any:
            query = "SELECT error FROM millrace.requests WHERE id = :id AND state = 'failed'"
            return await mill.rows(query, id=request)

        [(error,)] = await until(ended, 30)
        frames = [line async for line in response.aiter_lines() if line.startswith("data: ")]
    assert error["code"] == "plan_broken"
    assert "plan_broken" in frames[-2]
    assert frames[-1] == "data: [DONE]"
    assert await mill.count("outbox") == 0
