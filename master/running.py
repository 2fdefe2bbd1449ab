"""One running master: what the routes work with."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from bus.protocol import Bus
from master.cancel import cancel
from master.dispatch import Dispatcher
from master.fleet import FleetView
from master.learning.routing import Routing
from master.live import Live
from master.outages import is_outage, said
from master.recall import Recall
from master.remembering import Memory
from master.retrieval.embedders.pool import Embedders
from master.retrieval.rerankers.protocol import Reranker
from master.retrieval.search import Searcher
from master.rulebook import Rulebook
from master.settings import MasterSettings
from master.streams import Streams
from master.submit import Submission
from queue_schemas.registry import Registry

log = structlog.get_logger(__name__)

_OUTAGE_SECONDS = 1.0
"""Between two tries while the database is away."""


@dataclass
class Running:
    """The parts of one master process, wired by `master.app`."""

    settings: MasterSettings
    engine: AsyncEngine
    corpus_engine: AsyncEngine
    """For what may wait for others who write documents: chat must not wait with it."""
    bus: Bus
    view: FleetView
    dispatcher: Dispatcher
    streams: Streams
    embedders: Embedders
    reranker: Reranker
    rulebook: Rulebook
    routing: Routing
    announce: Callable[[Iterable[tuple[UUID, UUID]]], None]
    """Say that documents (tenant, id) were committed and wait to be ingested."""
    draining: bool = False
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def registry(self) -> Callable[[], Registry]:
        """The registry as it is now, also after a reload."""
        return self.view.registry

    @property
    def submission(self) -> Submission:
        """What submit needs."""
        return Submission(
            engine=self.engine,
            dispatcher=self.dispatcher,
            view=self.view,
            reply_to=self.streams.queue.name,
            request_seconds=self.settings.request_seconds,
            max_backlog=self.settings.max_backlog,
            max_unpublished_seconds=self.settings.max_unpublished_seconds,
            searcher=self.searcher,
            rulebook=self.rulebook,
            routing=self.routing,
        )

    @property
    def memory(self) -> Memory:
        """What finds what was said before."""
        settings = self.settings
        return Memory(
            self.engine,
            self.view.fleet,
            self.rulebook.in_force,
            self.recall,
            settings.memory_window,
            settings.memory_recall,
        )

    @property
    def recall(self) -> Recall:
        """What finds it by its meaning."""
        least = self.settings.memory_recall_score
        return Recall(self.engine, self.embedders, self.registry, least)

    @property
    def searcher(self) -> Searcher:
        """What finds pieces of documents."""
        return Searcher(self.engine, self.embedders, self.reranker)

    async def cancel(self, request: UUID, tenant: UUID) -> bool:
        """Cancel a request of this tenant; False if there is no open one."""
        key = self.settings.key_ring
        return await cancel(self.engine, self.bus, self.streams, key, request, tenant)

    def leave(self, live: Live, tenant: UUID) -> None:
        """A client has everything, or has left; a request that nobody waits for is cancelled."""
        last = self.streams.close(live)
        if last and live.ending is None and not (live.background or self.draining):
            self._cancel_soon(live.request, tenant)

    def _cancel_soon(self, request: UUID, tenant: UUID) -> None:
        """Cancel after the client left; the route's own task is being cancelled itself."""
        key = self.settings.key_ring

        async def work() -> None:
            end = time.monotonic() + self.settings.request_seconds  # then the sweep ends it
            while time.monotonic() < end and not self.streams.has(request):  # it came back
                try:
                    await cancel(
                        self.engine, self.bus, self.streams, key, request, tenant, left=True
                    )
                except Exception as error:
                    if not is_outage(error):
                        log.error("cancel.failed", request=str(request), exc_info=error)
                        return
                    log.warning("cancel.outage", request=str(request), error=said(error))
                    await asyncio.sleep(_OUTAGE_SECONDS)
                else:
                    return

        task = asyncio.create_task(work())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
