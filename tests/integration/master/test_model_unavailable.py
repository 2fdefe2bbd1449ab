"""A model leaves the registry while work for it waits."""

import pytest

from master import dispatch
from master.announce import broadcast
from millrace.chaos.stack import until
from queue_schemas.messages import Drain
from queue_schemas.registry import Registry
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

FAILS_ONCE = {"kind": "fail", "attempts": [1], "retry_after_seconds": 0.5, "after_tokens": 0}


@pytest.fixture(autouse=True)
def quickly_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_HOPELESS_TRIES", 2)


def take_away(mill: Mill, name: str) -> None:
    left = [m.model_dump(mode="json") for m in mill.registry.chat_models() if m.name != name]
    smaller = Registry.model_validate({"models": left})
    mill.running.view.registry = lambda: smaller


async def test_a_retry_for_a_model_that_left_the_registry_fails_at_once_and_says_why(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(), a_script("gone", faults=[FAILS_ONCE]))
    async with mill.stream(model="gone") as response:
        request = response.headers["x-millrace-request-id"]

        async def waits() -> bool:
            return bool(await mill.rows("SELECT 1 FROM millrace.outbox WHERE attempt = 2"))

        await until(waits, 10)
        take_away(mill, "gone")
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
    drain = Drain(worker="gone-1")
    await broadcast(mill.running.bus, drain, mill.running.settings.key_ring)

    async def forgotten() -> bool:
        return all(worker["model"] != "gone" for worker in mill.running.view.workers)

    await until(forgotten, 10)
    answer = await mill.http.post(
        "/v1/responses", json={"model": "gone", "input": "Why?", "background": True}
    )
    [(request,)] = await mill.rows("SELECT id FROM millrace.requests")

    async def queued() -> bool:
        return bool(await mill.rows("SELECT 1 FROM millrace.subtasks WHERE state = 'queued'"))

    await until(queued, 10)
    take_away(mill, "gone")
    record = await mill.until_state(str(request), "failed", seconds=20)
    assert record["error"]["code"] == "model_unavailable"
    failed = (await mill.http.get(f"/v1/responses/{answer.json()['id']}")).json()
    assert failed["status"] == "failed"
