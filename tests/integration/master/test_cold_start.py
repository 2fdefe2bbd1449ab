"""A model that is scaled to zero: accepted all the same, and who waits is told why."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pydantic import SecretStr

from bus.memory import MemoryBus
from master.announce import broadcast
from millrace.chaos.stack import until
from queue_schemas.messages import Drain
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import QUEUE_KEY, Mill, a_script
from worker import consumer
from worker.providers.registry import make_provider
from worker.settings import WorkerSettings

SLEEPY = a_script("sleepy", text="Good morning.", entry={"min_workers": 0, "slots": 1})
STARTING = "Starting sleepy, no worker is running yet"


async def scale_to_zero(mill: Mill) -> None:
    """Its only worker leaves, and the master has noticed."""
    drain = Drain(worker="sleepy-1")
    await broadcast(mill.running.bus, drain, mill.running.settings.key_ring)

    async def gone() -> bool:
        return "sleepy" in mill.running.view.absent

    await until(gone, 30)


@contextlib.asynccontextmanager
async def woken(mill: Mill) -> AsyncIterator[None]:
    """A new worker."""
    model = mill.registry.get("sleepy")
    assert model is not None
    bus, provider, stop = MemoryBus(mill.broker), make_provider(model), asyncio.Event()
    settings = WorkerSettings(
        name="sleepy-2", heartbeat_seconds=0.2, drain_seconds=1, queue_key=SecretStr(QUEUE_KEY)
    )
    working = asyncio.create_task(consumer.run(bus, model, settings, provider, stop))
    try:
        yield
    finally:
        stop.set()
        await working
        await bus.aclose()


async def test_open_webui_is_told_that_the_model_starts_and_then_gets_its_answer(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(), SLEEPY, max_backlog=2)
    await scale_to_zero(mill)
    body, path = mill.body(model="sleepy", stream=True), "/v1/chat/completions"
    headers = {"x-openwebui-user-id": "u1"}
    async with mill.http.stream("POST", path, json=body, headers=headers) as answer:
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        async for line in lines:
            if STARTING in line:
                break
        record = await mill.record(answer.headers["x-millrace-request-id"])
        assert record["queue"]["workers"] == 0
        async with woken(mill):
            rest = [line async for line in lines]
    assert any("morning." in line for line in rest)
    assert "data: [DONE]" in rest
    assert not any(STARTING in line for line in rest), "once is enough"


async def test_other_clients_wait_in_silence(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(), SLEEPY)
    await scale_to_zero(mill)
    asking = asyncio.create_task(mill.streamed(model="sleepy"))

    async def waits() -> bool:
        return len(mill.running.streams) == 1

    await until(waits, 30)
    async with woken(mill):
        got = await asking
    assert got.text == "Good morning."
    assert got.ends_once()
    assert all("choices" in frame for frame in got.frames[:-1])
