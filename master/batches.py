"""Group commit: what arrives while one batch is being written becomes the next batch.

A lone item is written at once, and under load a hundred share one transaction. Items that are not
urgent may linger a moment for company.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from master.metrics.loops import Loop, count_failure
from master.outages import Failures, is_outage

log = structlog.get_logger(__name__)

T = TypeVar("T")
Write = Callable[[list[T]], Awaitable[None]]
Refuse = Callable[[T], Awaitable[None]]

LONGEST_PAUSE_SECONDS = 2.0
"""Between two tries during an outage, half as much again at most."""


class Batches(Generic[T]):
    """Feeds a writer with lists of what was put, one list at a time, in order."""

    def __init__(
        self,
        name: str,
        *,
        limit: int = 200,
        linger_seconds: float = 0.0,
        is_urgent: Callable[[T], bool] = lambda _: True,
    ) -> None:
        self._name = name
        self._limit = limit
        self._linger_seconds = linger_seconds
        self._is_urgent = is_urgent
        self._queue: asyncio.Queue[T] = asyncio.Queue()
        self._failures = Failures(Loop.COLLECT, log, batch=name)
        self._writing_since: float | None = None

    @property
    def unwritten_seconds(self) -> float:
        """For how long the present batch is at it."""
        since = self._writing_since
        return 0.0 if since is None else time.monotonic() - since

    def put(self, item: T) -> None:
        """Add an item; returns at once."""
        self._queue.put_nowait(item)

    async def run(self, write: Write[T], refuse: Refuse[T]) -> None:
        """Write until cancelled.

        An outage is waited out, with everything kept. An item that makes `write` fail for another
        reason is handed to `refuse` alone, so that its neighbours are not lost with it.
        """
        while True:
            batch = await self._gather()
            self._writing_since = time.monotonic()
            await self._settle(batch, write, refuse)
            self._writing_since = None
            for _ in batch:
                self._queue.task_done()

    async def _gather(self) -> list[T]:
        """What waits now; without anything urgent among it, what comes in a moment as well."""
        batch = [await self._queue.get()]
        urgent = self._is_urgent(batch[0])
        until = asyncio.get_running_loop().time() + self._linger_seconds
        while len(batch) < self._limit:
            if self._queue.empty():
                if urgent:
                    break
                try:
                    async with asyncio.timeout_at(until):
                        item = await self._queue.get()
                except TimeoutError:
                    break
            else:
                item = self._queue.get_nowait()
            urgent = urgent or self._is_urgent(item)
            batch.append(item)
        return batch

    async def drain(self) -> None:
        """Wait until everything that was put is written."""
        await self._queue.join()

    async def _settle(self, batch: list[T], write: Write[T], refuse: Refuse[T]) -> None:
        pause = 0.05
        while True:
            try:
                await write(batch)
            except Exception as error:
                if not is_outage(error):
                    await self._one_by_one(batch, error, write, refuse)
                    return
                self._failures.met(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self._failures.over()
                return

    async def _one_by_one(
        self, batch: list[T], error: Exception, write: Write[T], refuse: Refuse[T]
    ) -> None:
        if len(batch) == 1:
            count_failure(Loop.COLLECT)
            log.error("batch.refused", batch=self._name, exc_info=error)
            await refuse(batch[0])
            return
        for item in batch:
            await self._settle([item], write, refuse)
