"""Texts of many requests that are run through the model together.

A model takes hardly longer for a handful of texts than for one. While it runs, what arrives
waits, and is the next batch.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from master.embedder.metrics import batch_texts
from master.retrieval.embedders.engine import BUSY, failure
from master.retrieval.embedders.protocol import EmbeddingError, Vector

Embed = Callable[[Sequence[str]], Awaitable[list[Vector]]]


@dataclass(frozen=True)
class _Asked:
    text: str
    vector: asyncio.Future[Vector]


class Gathering:
    """Collects texts for a few milliseconds, or until a batch is full."""

    def __init__(
        self, embed: Embed, *, batch_size: int, linger_seconds: float, max_waiting: int
    ) -> None:
        self._embed = embed
        self._batch_size = batch_size
        self._linger_seconds = linger_seconds
        self._max_waiting = max_waiting
        self._waiting: deque[_Asked] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        """How many texts wait."""
        return len(self._waiting)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text. Raises EmbeddingError; `engine_busy` when too much waits."""
        if len(self._waiting) + len(texts) > self._max_waiting:
            raise failure(BUSY, f"{len(self._waiting)} texts wait already; try again later")
        loop = asyncio.get_running_loop()
        asked = [_Asked(text, loop.create_future()) for text in texts]
        self._waiting.extend(asked)
        self._arrived.set()
        return list(await asyncio.gather(*(one.vector for one in asked)))

    async def run(self) -> None:
        """Run batch after batch, until cancelled."""
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._batch_size:
                await asyncio.sleep(self._linger_seconds)
            if batch := self._take():
                await self._answer(batch)

    def _take(self) -> list[_Asked]:
        batch: list[_Asked] = []
        while self._waiting and len(batch) < self._batch_size:
            asked = self._waiting.popleft()
            if not asked.vector.done():  # done: its client has left
                batch.append(asked)
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _answer(self, batch: list[_Asked]) -> None:
        batch_texts.observe(len(batch))
        try:
            vectors = await self._embed([asked.text for asked in batch])
        except EmbeddingError as error:
            if len(batch) > 1:  # one bad text must not fail its neighbours
                for asked in batch:
                    await self._answer([asked])
                return
            _fail(batch, error)
        except Exception as error:  # a bug: whoever asked has to hear of it, and others go on
            _fail(batch, error)
        else:
            for asked, vector in zip(batch, vectors, strict=True):
                if not asked.vector.done():
                    asked.vector.set_result(vector)


def _fail(batch: list[_Asked], error: Exception) -> None:
    for asked in batch:
        if not asked.vector.done():
            asked.vector.set_exception(error)
