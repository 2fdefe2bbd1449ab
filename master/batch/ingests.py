"""Who ingests what a master takes: the master itself, or Celery workers."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Protocol
from uuid import UUID

from db.engine import create_engine
from master.batch.embedded import EmbeddedIngest
from master.retrieval.embedders.pool import Embedders
from master.retrieval.ingest import pool_size
from master.retrieval.parsing.parser_process import ParserProcess
from master.retrieval.stages import Ingestion
from master.settings import MasterSettings


class Ingests(Protocol):
    """A loop of the master, and how it is told of new documents."""

    def announce(self, documents: Iterable[tuple[UUID, UUID]]) -> None:
        """Tenant and id of documents whose rows are committed; returns at once."""

    async def run(self) -> None:
        """See to them until cancelled."""


@asynccontextmanager
async def opened(settings: MasterSettings, embedders: Embedders) -> AsyncGenerator[Ingests]:
    """What the settings say."""
    if settings.celery_broker_url is not None:
        # Not every master has Celery installed.
        celery: Ingests = import_module("master.batch.publishing").CeleryIngest(settings)
        yield celery
    else:
        # A pool of its own: what waits to be published must not keep chat waiting.
        engine = create_engine(
            settings.database_url.get_secret_value(),
            pool_size=pool_size(settings.ingest_at_once),
            name=f"millrace ingest {settings.replica}",
        )
        try:
            async with ParserProcess(size=settings.ingest_at_once) as parser:
                yield EmbeddedIngest(Ingestion(engine, parser, embedders, settings))
        finally:
            await engine.dispose()
