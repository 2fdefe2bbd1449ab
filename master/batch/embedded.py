"""Ingestion inside of a master: what documents wait is taken up here, a few at a time."""

import asyncio
import contextlib
from collections.abc import Iterable
from uuid import UUID

import structlog

from master.metrics.loops import Loop, count_failure
from master.outages import Failures, is_outage, said
from master.retrieval.ingest import due, ingest
from master.retrieval.stages import Ingestion

log = structlog.get_logger(__name__)


class EmbeddedIngest:
    """Any number of masters may run one: a document is its who claims it first."""

    def __init__(self, work: Ingestion) -> None:
        self._work = work
        self._nudged = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._failures = Failures(Loop.INGEST, log)

    def announce(self, documents: Iterable[tuple[UUID, UUID]]) -> None:
        """Documents were committed: look at once."""
        self._nudged.set()

    async def run(self) -> None:
        """Take what waits until cancelled."""
        try:
            while True:
                self._nudged.clear()
                await self._take()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._work.settings.ingest_seconds):
                        await self._nudged.wait()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _take(self) -> None:
        free = self._work.settings.ingest_at_once - len(self._running)
        if free <= 0:
            return
        try:
            waiting = await due(self._work, free)
        except Exception as error:
            self._failures.met(error)
            return
        self._failures.over()
        for tenant, document in waiting:
            task = asyncio.create_task(self._ingest(tenant, document), name=f"ingest {document}")
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._nudged.set()

    async def _ingest(self, tenant: UUID, document: UUID) -> None:
        try:
            await ingest(self._work, tenant, document)
        except Exception as error:
            # Its lease runs out, and then it is due again; not at once, whatever it was.
            _log(error, str(document))
            await asyncio.sleep(self._work.settings.ingest_seconds)


def _log(error: Exception, document: str) -> None:
    count_failure(Loop.INGEST)
    if is_outage(error):
        log.warning("ingest.put_off", error=said(error), document=document)
    else:
        log.error("ingest.crashed", exc_info=error, document=document)
