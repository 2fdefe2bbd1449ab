"""Group commit under success, outage and bugs."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from sqlalchemy.exc import TimeoutError as NoConnectionFree

from master.batches import Batches, Refuse, Write


@contextlib.asynccontextmanager
async def running(
    batches: Batches[int], write: Write[int], refuse: Refuse[int]
) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(batches.run(write, refuse))
    try:
        yield
        async with asyncio.timeout(60):
            await batches.drain()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def never(item: int) -> None:
    raise AssertionError(f"{item} was refused")


async def test_what_arrives_during_a_write_shares_the_next_one() -> None:
    written: list[list[int]] = []
    writing = asyncio.Event()

    async def write(batch: list[int]) -> None:
        written.append(batch)
        writing.set()
        await asyncio.sleep(0)

    batches = Batches[int]("numbers")
    async with running(batches, write, never):
        batches.put(1)
        await writing.wait()
        for item in (2, 3, 4):
            batches.put(item)
    assert written == [[1], [2, 3, 4]]


async def test_an_outage_is_waited_out_with_everything_kept() -> None:
    written: list[list[int]] = []
    outages = iter([ConnectionRefusedError(), TimeoutError(), NoConnectionFree()])

    async def write(batch: list[int]) -> None:
        if (outage := next(outages, None)) is not None:
            raise outage
        written.append(batch)

    batches = Batches[int]("numbers")
    async with running(batches, write, never):
        batches.put(1)
        batches.put(2)
    assert written == [[1, 2]]


async def test_how_long_a_batch_is_at_it_is_known() -> None:
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def write(batch: list[int]) -> None:
        writing.set()
        await go_on.wait()

    batches = Batches[int]("numbers")
    assert batches.unwritten_seconds == 0
    async with running(batches, write, never):
        batches.put(1)
        await writing.wait()
        before = batches.unwritten_seconds
        await asyncio.sleep(0.01)
        assert batches.unwritten_seconds > before >= 0
        go_on.set()
        await batches.drain()
        assert batches.unwritten_seconds == 0


async def test_a_bad_item_is_refused_alone() -> None:
    written: list[int] = []
    refused: list[int] = []

    async def write(batch: list[int]) -> None:
        if 13 in batch:
            raise ValueError("unlucky")
        written.extend(batch)

    async def refuse(item: int) -> None:
        refused.append(item)

    batches = Batches[int]("numbers")
    for item in (1, 13, 2):
        batches.put(item)
    async with running(batches, write, refuse):
        pass
    assert (written, refused) == ([1, 2], [13])


async def test_a_batch_has_a_bound() -> None:
    sizes: list[int] = []

    async def write(batch: list[int]) -> None:
        sizes.append(len(batch))

    batches = Batches[int]("numbers", limit=10)
    for item in range(25):
        batches.put(item)
    async with running(batches, write, never):
        pass
    assert sizes == [10, 10, 5]


async def test_what_is_not_urgent_waits_for_company_and_goes_with_the_urgent() -> None:
    written: list[list[int]] = []
    loop = asyncio.get_running_loop()

    async def write(batch: list[int]) -> None:
        written.append(batch)

    batches = Batches[int]("numbers", linger_seconds=60, is_urgent=lambda item: item == 9)
    began = loop.time()
    async with running(batches, write, never):
        batches.put(1)
        await asyncio.sleep(0)
        batches.put(2)
        await asyncio.sleep(0)
        assert written == []
        batches.put(9)
    assert written == [[1, 2, 9]]
    assert loop.time() - began < 30


async def test_what_is_not_urgent_is_written_after_its_moment() -> None:
    written: list[list[int]] = []

    async def write(batch: list[int]) -> None:
        written.append(batch)

    batches = Batches[int]("numbers", linger_seconds=0.01, is_urgent=lambda _: False)
    async with running(batches, write, never):
        batches.put(1)
    assert written == [[1]]
