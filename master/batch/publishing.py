"""Telling the Celery workers what waits."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import structlog

from master.batch.app import make_celery, publish
from master.metrics.loops import Loop, count_failure
from master.outages import said
from master.settings import IngestSettings

log = structlog.get_logger(__name__)

_MOST_WAITING = 10_000


class CeleryIngest:
    """Publishes documents that were committed; the sweep finds those that could not be."""

    def __init__(self, settings: IngestSettings) -> None:
        self._celery = make_celery(settings)
        self._waiting: asyncio.Queue[tuple[UUID, UUID]] = asyncio.Queue(_MOST_WAITING)
        # Of its own, because a broker that hangs would otherwise hold everybody's threads.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="celery-publish")

    def announce(self, documents: Iterable[tuple[UUID, UUID]]) -> None:
        """Tenant and id of documents whose rows are committed; returns at once."""
        for document in documents:
            if self._waiting.full():
                return
            self._waiting.put_nowait(document)

    async def run(self) -> None:
        """Publish until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                tenant, document = await self._waiting.get()
                try:
                    await loop.run_in_executor(
                        self._thread, publish, self._celery, tenant, document
                    )
                except Exception as error:  # whatever Celery's libraries raise: the sweep finds it
                    count_failure(Loop.INGEST)
                    log.warning("ingest.unpublished", document=str(document), error=said(error))
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._celery.close()
