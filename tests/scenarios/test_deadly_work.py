"""Work that ends every process that takes it, and workers whose clocks are wrong (B37, B43)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from millrace.chaos.stack import Stack
from tests.scenarios.conftest import MakeStack
from tests.scenarios.load import (
    MODEL,
    PATIENT,
    QUICK,
    Chat,
    Load,
    nothing_was_lost_or_applied_twice,
    query,
    queues_drain,
    record_agrees,
    send,
)
from worker.consumer import MOST_DELIVERIES

POISON: dict[str, Any] = MODEL | {
    "slots": 1,
    "max_workers": 2,
    "options": MODEL["options"]
    | {"faults": [{"kind": "crash", "contains": "poison", "after_tokens": 3}]},
}


@asynccontextmanager
async def keeping(stack: Stack, model: str) -> AsyncIterator[list[str]]:
    """Replace workers that end, as Kubernetes does; gives the names of those that ended."""
    ended: list[str] = []

    async def keep() -> None:
        while True:
            for process in tuple(stack.processes):
                if not process.url and process.popen.poll() is not None:
                    ended.append(process.name)
                    process.forget()
                    stack.processes.remove(process)
                    stack.start_worker(model)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(keep())
    try:
        yield ended
    finally:
        task.cancel()


async def test_work_that_kills_its_workers_is_put_aside_and_its_neighbours_are_answered(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(POISON, **QUICK)
    await stack.start(mill=2)
    poison = Chat("poison", streams=True)
    async with keeping(stack, "mill") as ended:
        async with Load(stack, clients=3) as load:
            await send(stack, poison)
            await load.until_answered(6)
        await queues_drain(stack, consumers=2)  # the last that ended has its successor
    assert (poison.code, poison.ends) == ("worker_lost", 1)
    assert ended
    assert len(ended) <= 3 * MOST_DELIVERIES  # a lease that ends in between makes another attempt
    load.assert_all_right(6)
    [dead] = await query(
        stack, "SELECT state, error FROM millrace.subtasks WHERE state <> 'succeeded'"
    )
    assert dead["state"] == "dead"
    await record_agrees(stack, load.chats, failed=[poison])


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH; its file `offset` moves the clock of the processes that have it."""
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "offset").write_text("0")
    (folder / "sitecustomize.py").write_text(
        "import pathlib, time\n"
        "offset = pathlib.Path(__file__).with_name('offset')\n"
        "right = time.time\n"
        "offset.with_name('used').touch()\n"
        "time.time = lambda: right() + float(offset.read_text() or 0)\n"
    )
    return folder


async def test_workers_whose_clocks_are_wrong_and_jump_make_no_difference(
    make_stack: MakeStack, clock: Path
) -> None:
    stack = make_stack(MODEL, **PATIENT)
    await stack.start()
    stack.settings["PYTHONPATH"] = str(clock)
    (clock / "offset").write_text("3600")
    stack.start_worker("mill")
    stack.start_worker("mill")
    await stack.until_workers(2)
    async with Load(stack) as load:
        for offset in ("3600", "-3600", "0", "7200"):
            (clock / "offset").write_text(offset)
            await load.until_answered(6)
        workers = (await stack.get("/v1/workers"))["data"]
    assert (clock / "used").exists()
    assert all(worker["last_seen_seconds"] < 60 for worker in workers)
    load.assert_all_right(24)
    await nothing_was_lost_or_applied_twice(stack, 24)
    await record_agrees(stack, load.chats)
    attempts = await query(stack, "SELECT DISTINCT attempt, losses FROM millrace.subtasks")
    assert [tuple(row) for row in attempts] == [(1, 0)], "no lease ended because of a clock"
