"""The embedder's batches: requests are run together, and each gets its own vectors."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import pytest

from master.embedder.gathering import Gathering
from master.retrieval.embedders.engine import BAD_REQUEST, failure
from master.retrieval.embedders.protocol import EmbeddingError, Vector


class Slow:
    """An embedding function that runs when it is let, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_run = asyncio.Event()
        self.may_run.set()

    async def __call__(self, texts: Sequence[str]) -> list[Vector]:
        self.batches.append(list(texts))
        await self.may_run.wait()
        if "bad" in texts:
            raise failure(BAD_REQUEST, "bad")
        if "bug" in texts:
            raise ZeroDivisionError
        return [[float(len(text))] for text in texts]


@contextlib.asynccontextmanager
async def running(slow: Slow, **settings: float) -> AsyncGenerator[Gathering, None]:
    given = {"batch_size": 4, "linger_seconds": 0.0, "max_waiting": 100} | settings
    gathering = Gathering(slow, **given)  # type: ignore[arg-type]  # ints and floats in one dict
    task = asyncio.create_task(gathering.run())
    try:
        yield gathering
    finally:
        task.cancel()


async def until(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110  a lambda of the test's
            await asyncio.sleep(0.001)


async def test_what_arrives_during_a_run_is_the_next_batch() -> None:
    slow = Slow()
    slow.may_run.clear()
    async with running(slow) as gathering:
        first = asyncio.create_task(gathering.embed(["a"]))
        await until(lambda: slow.batches)
        others = [asyncio.create_task(gathering.embed(["b" * n])) for n in range(2, 8)]
        await asyncio.sleep(0)
        slow.may_run.set()

        assert await first == [[1.0]]
        assert await asyncio.gather(*others) == [[[float(n)]] for n in range(2, 8)]

    assert [len(batch) for batch in slow.batches] == [1, 4, 2]


async def test_those_that_come_together_are_run_together() -> None:
    slow = Slow()
    async with running(slow, linger_seconds=0.05) as gathering:
        found = await asyncio.gather(*(gathering.embed([text]) for text in ("a", "bb", "ccc")))

    assert found == [[[1.0]], [[2.0]], [[3.0]]]
    assert slow.batches == [["a", "bb", "ccc"]]


async def test_a_bad_text_fails_alone() -> None:
    async with running(Slow(), linger_seconds=0.05) as gathering:
        good, bad = await asyncio.gather(
            gathering.embed(["good"]), gathering.embed(["bad"]), return_exceptions=True
        )

    assert good == [[4.0]]
    assert isinstance(bad, EmbeddingError)


async def test_a_bug_reaches_who_asked_and_the_next_is_answered() -> None:
    async with running(Slow()) as gathering:
        with pytest.raises(ZeroDivisionError):
            await gathering.embed(["bug"])

        assert await gathering.embed(["a"]) == [[1.0]]


async def test_texts_of_a_client_that_left_are_not_run() -> None:
    slow = Slow()
    slow.may_run.clear()
    async with running(slow) as gathering:
        first = asyncio.create_task(gathering.embed(["a"]))
        await until(lambda: slow.batches)
        left = asyncio.create_task(gathering.embed(["left"]))
        stays = asyncio.create_task(gathering.embed(["stays"]))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait({left})
        slow.may_run.set()
        await asyncio.gather(first, stays)

    assert slow.batches == [["a"], ["stays"]]


async def test_too_much_that_waits_is_refused_at_once() -> None:
    slow = Slow()
    slow.may_run.clear()
    async with running(slow, max_waiting=2) as gathering:
        first = asyncio.create_task(gathering.embed(["a"]))
        await until(lambda: slow.batches)
        waiting = asyncio.create_task(gathering.embed(["b", "c"]))
        await asyncio.sleep(0)

        with pytest.raises(EmbeddingError, match="engine_busy"):
            await gathering.embed(["d"])
        slow.may_run.set()
        assert await waiting == [[1.0], [1.0]]
        await first
