"""Where a Celery process ingests: one event loop for all of its tasks, and what lives on it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from master.retrieval.ingest import ingestion
from master.retrieval.stages import Ingestion
from master.settings import IngestSettings
from queue_schemas.registry import Registry

T = TypeVar("T")


class Workplace:
    """Runs coroutines to their end, one after the other, always on the same event loop.

    A loop per task (`asyncio.run`) would need a new embedder, a new parser process and new
    connections for each document: seconds for a model in process. A task of Celery's prefork pool
    has its process to itself, so the loop needs no thread of its own: it stands still between
    tasks, and all that is kept on it (idle connections, a waiting child) can bear that.
    """

    def __init__(self, settings: IngestSettings, registry: Callable[[], Registry]) -> None:
        self._runner = asyncio.Runner()
        self._kept = AsyncExitStack()
        self._work = self._runner.run(self._open(settings, registry))

    async def _open(self, settings: IngestSettings, registry: Callable[[], Registry]) -> Ingestion:
        return await self._kept.enter_async_context(ingestion(settings, registry))

    def run(self, function: Callable[[Ingestion], Coroutine[Any, Any, T]]) -> T:
        """The result of this coroutine function."""
        return self._runner.run(function(self._work))

    def close(self) -> None:
        """Give back what was kept."""
        self._runner.run(self._kept.aclose())
        self._runner.close()
